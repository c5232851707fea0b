"""Tasks as lm-evaluation-harness asks and judges them: the same answers as its own `hf` model, and what is refused."""

import importlib.util
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from tiny_gguf import make_checkpoint
from transformers import AutoTokenizer

from stages import tasks as stage
from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.convert.gguf_converter import convert
from tradeoffs.harness import evaluation, finding, torch_side
from tradeoffs.harness.llama_side import LlamaTasks
from tradeoffs.harness.torch_side import TorchTasks
from tradeoffs.models.loading import load_model
from tradeoffs.params import Harness
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import lacking

REPO = Path(__file__).parents[1]
OWN = REPO / "examples/tasks"
ASKED = Harness(folder="examples/tasks", limit=0, shots="task", chat_template=False, unsafe_code=False)
NAMES = ("facts", "endings", "last_words", "stories", "sums", "wishes")
installed = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason=f"lm-evaluation-harness is not installed: {finding.INSTALL}"
)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harness") / "checkpoint"
    make_checkpoint(folder, words=[" the", " and", " she", "Question", "Answer"])
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty project with the example's tasks, and an index of nothing that is installed."""
    shutil.copytree(OWN, tmp_path / "examples/tasks", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    if importlib.util.find_spec("lm_eval"):
        index = {name: ["TASK", f"{name}/{name}.yaml", []] for name in ("arc_easy", "hellaswag")}
        files.write_json(finding.INDEX / f"index-{finding.require()}.json", index)
    return tmp_path


def runtime_of(checkpoint):
    return TorchTasks(load_model(checkpoint, None, torch.float32, torch.device("cpu")), "auto", pad_id=0)


def ask(runtime, checkpoint, name, asked=ASKED):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    return evaluation.ask(runtime, tokenizer, [tokenizer.eos_token_id], finding.load(name, asked), asked)


def said(found):
    """Every response to every item, by task."""
    return {
        name: [
            one[0] for sample in sorted(samples, key=lambda s: (s["doc_id"], s["filter"])) for one in sample["resps"]
        ]
        for name, samples in found["samples"].items()
    }


def assert_same(ours, theirs, room):
    assert ours.keys() == theirs.keys()
    for name, mine in ours.items():
        for one, other in zip(mine, theirs[name], strict=True):
            if isinstance(one, str):
                assert one == other, name
            elif isinstance(one, tuple):
                assert one[0] == pytest.approx(other[0], abs=room), name
                assert one[1] == other[1] or room > 0.001, name
            else:
                assert one == pytest.approx(other, rel=1e-5 if room < 0.001 else 0.01), name


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "choices"])
def test_answers_are_those_of_the_hf_model(here, checkpoint, name):
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    ours = ask(runtime_of(checkpoint), checkpoint, name)
    loaded = finding.load(name, ASKED)
    peer = HFLM(pretrained=str(checkpoint), dtype="float32", device="cpu", batch_size=2)
    groups = {"groups": loaded.groups, "group_map": {key: group.child_names for key, group in loaded.groups.items()}}
    with finding.quiet():
        theirs = evaluate(peer, {"tasks": loaded.tasks, **groups}, bootstrap_iters=0)
    assert_same(said(ours), said(theirs), room=0.0005)
    for task, numbers in theirs["results"].items():
        for key, value in numbers.items():
            if "," in key and isinstance(value, float):
                assert ours["results"][task][key] == pytest.approx(value, rel=1e-5), (task, key)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", ["facts", "last_words", "stories"])
def test_a_gguf_is_asked_the_same_token_ids(here, checkpoint, name):
    gguf = here / "tiny.gguf"
    convert(checkpoint, gguf)
    expected = said(ask(runtime_of(checkpoint), checkpoint, name))
    with LlamaTasks(gguf, 2048) as runtime:
        assert_same(said(ask(runtime, checkpoint, name)), expected, room=0.25)


@installed
def test_every_name_that_is_not_known_is_said_before_anything_runs(here, monkeypatch):
    raw = yaml.safe_load((REPO / "params.yaml").read_text())
    raw["evaluate"] |= {"tasks": ["fact", "facts", "hellaswagg"]}
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    asked = params.load_all()
    with pytest.raises(UserError, match=r"'fact' \(did you mean facts\?\); .*hellaswagg' \(did you mean hella") as said:
        lacking.require(asked)
    assert "'facts'" not in str(said.value)
    lacking.require(asked, ["prepare@demo", "score"])


def test_that_it_is_not_installed_is_said_before_anything_runs(here, monkeypatch):
    raw = yaml.safe_load((REPO / "params.yaml").read_text())
    raw["evaluate"] |= {"tasks": ["facts"]}
    Path("params.yaml").write_text(yaml.safe_dump(raw))

    def version(name):
        raise finding.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(finding.metadata, "version", version)
    with pytest.raises(UserError, match="which is not installed; install it:"):
        lacking.require(params.load_all(), ["tasks@demo-demo-base-42-facts"])


@installed
def test_the_stage_writes_items_and_what_they_amount_to(here, checkpoint, monkeypatch):
    variant = Variant("demo", "demo", "base", "trained", 42)
    shutil.copytree(checkpoint, variant.cell.base)
    files.write_json(variant.cell.tokens / "info.json", {"stop_ids": [2], "pad_id": 0})
    shutil.copy(REPO / "params.yaml", here)
    text = files.Path("params.yaml").read_text().replace("    limit: 0 ", "    limit: 5 ")
    files.write_text("params.yaml", text)
    stage.main("demo", "demo", "base", 42, "sums")
    path = here / "data/tasks/demo-demo-base-trained-42/sums.parquet"
    rows = files.read_table(path)
    assert [row["item"].split("-")[1] for row in rows] == ["0", "1", "2", "3", "4"]
    assert all(row["prompt"].startswith("Question: ") and row["prompt"].count("Question:") == 3 for row in rows)
    metadata = json.loads(pq.read_schema(path).metadata[b"tasks"])
    names = [metric["name"] for metric in metadata["metrics"]]
    assert names == ["sums_exact_match_strict_match", "sums_exact_match_flexible_extract"]
    assert metadata["seconds"]["wall"] > 0
    # Further seeds of what trains nothing are the same model.
    raw = yaml.safe_load(text)
    raw["run"]["seeds"] = [42, 43]
    files.write_text("params.yaml", yaml.safe_dump(raw))
    assert params.load_all().run.seeds == [42, 43]
    stage.main("demo", "demo", "base", 43, "sums")
    assert files.read_table(here / "data/tasks/demo-demo-base-trained-43/sums.parquet") == []


@installed
def test_what_is_asked_is_put_into_the_chat_template(here, checkpoint):
    chat = Harness(**{**vars(ASKED), "chat_template": True, "limit": 3})
    asked: list[str] = []
    plain = ask(_recording(checkpoint, asked), checkpoint, "wishes", Harness(**{**vars(ASKED), "limit": 3}))
    found = ask(_recording(checkpoint, asked), checkpoint, "wishes", chat)
    prompts = [[sample["arguments"][0][0] for sample in one["samples"]["wishes"]] for one in (plain, found)]
    assert [text.removeprefix("<s>") for text in prompts[1]] == prompts[0]  # its template writes the text alone
    assert prompts[1][0].startswith("<s>")
    assert asked[0] == asked[3]  # and no second token that begins a text


def _recording(checkpoint, into):
    class Recording(TorchTasks):
        def answers(self, prompts, most, stop_ids, ended):
            into.extend(prompts)
            return [[5]] * len(prompts)

    return Recording(load_model(checkpoint, None, torch.float32, torch.device("cpu")), "auto", pad_id=0)


SPY = "open('was_run', 'w').close()\ndef f(doc, results):\n    return {}\n"


def own(folder, name, **task):
    """A task of one's own beside those of the example: `facts`, changed."""
    raw = yaml.safe_load((OWN / "facts.yaml").read_text()) | {"task": name} | task
    files.write_text(folder / f"examples/tasks/{name}.yaml", yaml.safe_dump(raw))


def refused(name, asked=ASKED):
    with pytest.raises(UserError) as error:
        finding.load(name, asked)
    return str(error.value)


@installed
def test_what_the_runtime_has_to_say_is_shown_and_what_tasks_print_is_not(here, checkpoint, monkeypatch, capsys):
    wishes = Path("examples/tasks/wishes.py")
    wishes.write_text("print('from a task')\n" + wishes.read_text())
    monkeypatch.setattr(torch_side, "ROUNDING", -1.0)  # as of a model that takes no packed rows
    runtime = runtime_of(checkpoint)
    ask(runtime, checkpoint, "facts")
    ask(runtime, checkpoint, "wishes")
    out = capsys.readouterr().out
    assert out.count("note: this model does not take packed rows") == 1 and "from a task" not in out


@installed
def test_an_unknown_task_is_named_with_the_near_match(here):
    assert "no task 'arc_esy'" in refused("arc_esy")
    assert "did you mean arc_easy?" in refused("arc_esy")
    assert "did you mean last_words?" in refused("last_word")


@installed
def test_a_task_that_runs_what_models_write_is_refused_before_its_code_is(here):
    files.write_text(
        here / "examples/tasks/spy.py", "open('was_run', 'w').close()\ndef f(doc, results):\n    return {}\n"
    )
    own(here, "unsafe", unsafe_code=True)
    path = here / "examples/tasks/unsafe.yaml"
    files.write_text(path, path.read_text() + "process_results: !function spy.f\n")
    files.write_text(here / "examples/tasks/group.yaml", "group: both\ntask:\n- facts\n- unsafe\n")
    assert "unsafe runs programs that the model writes" in refused("unsafe")
    assert "both (unsafe) runs programs" in refused("both")
    assert not (here / "was_run").exists()
    allowed = Harness(**{**vars(ASKED), "unsafe_code": True})
    assert finding.load("unsafe", allowed).tasks
    assert (here / "was_run").exists()


@installed
def test_code_of_a_task_that_is_not_asked_for_is_not_run(here):
    files.write_text(
        here / "examples/tasks/spy.py", "open('was_run', 'w').close()\ndef f(doc, results):\n    return {}\n"
    )
    own(here, "other")
    path = here / "examples/tasks/other.yaml"
    files.write_text(path, path.read_text() + "process_results: !function spy.f\n")
    finding.load("facts", ASKED)
    assert not (here / "was_run").exists()


@installed
def test_data_that_is_not_there_is_told_with_the_way_out(here):
    own(here, "gone", dataset_kwargs={"data_files": {"test": "nowhere.jsonl"}})
    found = refused("gone")
    assert "the data of gone cannot be had" in found
    assert "dataset_path: json" in found


@installed
def test_drawn_answers_and_answers_longer_than_the_context_are_refused(here, checkpoint):
    drawn = {"until": [], "do_sample": True, "temperature": 0.7}
    kind = {"output_type": "generate_until", "doc_to_choice": None, "doc_to_target": "answerKey"}
    metric = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
    own(here, "drawn", generation_kwargs=drawn, metric_list=metric, **kind)
    own(here, "long", generation_kwargs={"until": [], "max_gen_toks": 5000}, metric_list=metric, **kind)
    with pytest.raises(UserError, match=r"drawn \(temperature 0.7\)"):
        ask(runtime_of(checkpoint), checkpoint, "drawn")
    with pytest.raises(UserError, match="answers of up to 5000 tokens, and the model's context is 600"):
        ask(runtime_of(checkpoint), checkpoint, "long")


@installed
def test_a_metric_that_only_the_hub_has_is_no_program_of_it(here):
    """lm-evaluation-harness would fetch and run one; it finds none, and says nothing."""
    own(here, "fetched", metric_list=[{"metric": "seqeval", "aggregation": "mean", "higher_is_better": True}])
    loaded = finding.load("fetched", ASKED)
    assert loaded.tasks["fetched"]._metric_fn_list["seqeval"] is None


def test_without_lm_evaluation_harness_the_command_is_named(monkeypatch):
    def none(name):
        raise finding.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(finding.metadata, "version", none)
    assert refused("arc_easy").endswith(f"install it: {finding.INSTALL}")
    assert (REPO / "requirements-harness.lock").is_file()


def test_a_folder_that_is_none_is_refused(tmp_path, monkeypatch):
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm-evaluation-harness is not installed")
    monkeypatch.chdir(tmp_path)
    assert "evaluate.harness.folder: examples/tasks is no folder" in refused("facts")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"tasks": ["a b"]}, "evaluate.tasks: 'a b' is no name of a task"),
        ({"tasks": ["../x"]}, "evaluate.tasks: '../x' is no name of a task"),
        ({"tasks": ["-x"]}, "evaluate.tasks: '-x' is no name of a task"),
        ({"tasks": [".x"]}, "evaluate.tasks: '.x' is no name of a task"),
        ({"tasks": ["a/b"]}, "evaluate.tasks: 'a/b' is no name of a task"),
        ({"tasks": ["a-b", "c", "a_b"]}, "evaluate.tasks: 'a-b' and 'a_b' would be one file or one column"),
        ({"tasks": ["Facts", "facts"]}, "evaluate.tasks: 'Facts' and 'facts' would be one file or one column"),
        ({"tasks": ["a.-b", "A_B"]}, "evaluate.tasks: 'a.-b' and 'A_B' would be one file or one column"),
        ({"tasks": ["test"]}, "evaluate.tasks: 'test' is what names of other columns begin with (test_loss)"),
        ({"tasks": ["facts", "facts"]}, "evaluate.tasks: 'facts' stands twice"),
        ({"harness": {"shots": "five"}}, "evaluate.harness.shots: must be a whole number or task, is 'five'"),
    ],
)
def test_params_are_checked(change, problem):
    raw = yaml.safe_load((REPO / "params.yaml").read_text())
    for key, value in change.items():
        raw["evaluate"][key] = raw["evaluate"][key] | value if isinstance(value, dict) else value
    assert any(problem in found for found in params.checked(raw)[1])


def test_names_that_are_files_and_columns_of_their_own_are_no_problem():
    raw = yaml.safe_load((REPO / "params.yaml").read_text())
    raw["evaluate"]["tasks"] = ["arc_easy", "arc_challenge", "wmt14-en-fr", "truthfulqa.x", "Test2", "mmlu"]
    assert params.checked(raw)[1] == []


def test_a_metric_of_a_task_needs_a_margin_of_its_own():
    raw = yaml.safe_load((REPO / "params.yaml").read_text())
    raw["evaluate"]["tasks"] = ["facts"]
    raw["decide"]["metric"] = "facts_acc"
    assert any("give decide.margins.facts_acc" in found for found in params.checked(raw)[1])
    raw["decide"]["margins"]["facts_acc"] = 0.02
    assert params.checked(raw)[1] == []
    raw["evaluate"]["tasks"] = []
    assert any("unknown metric 'facts_acc'" in found for found in params.checked(raw)[1])


def test_the_tasks_of_the_example_are_what_the_page_lists():
    page = (REPO / "docs/tasks.md").read_text()
    assert all(f"`{name}`" in page for name in (*NAMES, "choices"))
    assert {path.stem for path in OWN.glob("*.yaml")} == {*NAMES, "choices"}
