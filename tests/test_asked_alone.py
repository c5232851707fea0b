"""Untouched models on multiple choice alone: a data set with nothing to train on goes through every stage, and each
question can be seen while it is answered."""

import copy
import io
from pathlib import Path

import pytest
import quick_yaml
from tiny_gguf import make_checkpoint

from stages import (
    aggregate,
    convert,
    copying,
    evaluate_cpu,
    evaluate_gpu,
    finetune,
    measure,
    merge,
    prepare,
    publish,
    quantize,
    reference,
    score,
    tasks,
    tasks_cpu,
    tasks_gpu,
    tokenize,
)
from tradeoffs import compare, params, prompt, questions
from tradeoffs.common import files
from tradeoffs.explore import __main__ as explore
from tradeoffs.params import asked_alone
from tradeoffs.plumbing import asked
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro import __main__ as repro
from tradeoffs.repro.following import Followed
from tradeoffs.repro.screen import Screen

REPO = Path(__file__).parents[1]
PROJECT = quick_yaml.load((REPO / "params.yaml").read_text())
EXAMPLE = quick_yaml.load((REPO / "examples/mmlu.yaml").read_text())
ENTRY = {"kind": "questions", "mmlu": {"path": "data/raw/mmlu"}}
MODELS, SUBJECTS = ("one", "two"), ("astronomy", "business_ethics")


def over(values, changes):
    """`values` with `changes` in their place, blocks key by key."""
    for key, value in changes.items():
        values[key] = over(values.get(key, {}), value) if isinstance(value, dict) else value
    return values


def problems(tmp_path, entry, methods=("base",), more=None):
    """What is wrong with the project's params with this data set in the run list, and `more` over them."""
    raw = over(copy.deepcopy(PROJECT), more or {})
    raw["run"] |= {"datasets": ["alone"], "methods": list(methods)}
    raw["datasets"]["alone"] = entry
    path = tmp_path / "params.yaml"
    path.write_text(quick_yaml.dump(raw))
    try:
        params.load_all(path)
    except UserError as error:
        return [line.strip() for line in str(error).splitlines()[1:]]
    return []


def test_multiple_choice_and_prompts_are_all_that_it_takes(tmp_path):
    assert problems(tmp_path, ENTRY) == []
    assert problems(tmp_path, ENTRY | {"prompts": ["Who?"], "licence": "mit"}) == []


def test_methods_that_train_on_it_are_one_problem(tmp_path):
    assert problems(tmp_path, ENTRY, ["base", "lora", "lora_dpo"]) == [
        "run.methods: 'lora', 'lora_dpo' cannot train on 'alone' of run.datasets: kind questions has no "
        "examples; leave base alone in run.methods, or take the data set out"
    ]


def test_what_is_about_examples_means_nothing_and_the_questions_are_needed(tmp_path):
    assert problems(tmp_path, {"kind": "questions", "seen": 3}) == [
        "datasets.alone.seen: means nothing for kind questions, which has no examples; leave it out",
        "datasets.alone.mmlu: missing; kind questions is multiple choice alone, so say where from: path, a folder of "
        "MMLU's own files, or hub and revision, as cais/mmlu; or name tasks in evaluate.tasks",
    ]


def test_tasks_alone_need_no_multiple_choice_but_a_metric_that_decides(tmp_path):
    tasks = {"evaluate": {"tasks": ["facts"]}}
    assert problems(tmp_path, {"kind": "questions"}, more=tasks) == [
        "decide.metric: test_exact_match is not measured on 'alone', where nothing but evaluate.tasks is asked; "
        "name a metric of one, as facts_acc, and its margin"
    ]
    tasks |= {"decide": {"metric": "facts_acc", "margins": {"facts_acc": 0.1}}}
    assert problems(tmp_path, {"kind": "questions"}, more=tasks) == []
    assert problems(tmp_path, ENTRY, more={"evaluate": {"tasks": ["facts"]}}) == []


def test_the_end_of_the_example_is_tasks_alone(tmp_path):
    text = (REPO / "examples/mmlu.yaml").read_text()
    block = text[text.index("# run:\n#   datasets: [tasks_alone]") :]
    change = quick_yaml.load("\n".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines()))
    raw = over(over(copy.deepcopy(PROJECT), EXAMPLE), change)
    (tmp_path / "params.yaml").write_text(quick_yaml.dump(raw))
    cfg = params.load_all(tmp_path / "params.yaml")
    assert (cfg.run.datasets, cfg.datasets["tasks_alone"].mmlu) == (["tasks_alone"], None)
    assert cfg.decide.metric == "arc_easy_acc_norm" and cfg.run.methods == ["base"]


def test_every_other_kind_still_needs_what_is_about_examples(tmp_path):
    entry = {"kind": "text", "path": "data/raw/x.txt", "test_share": 0.1}
    assert problems(tmp_path, entry) == [f"datasets.alone.{name}: missing" for name in asked_alone.WITH_EXAMPLES]


def test_the_example_is_the_write_up_and_what_params_yaml_takes(tmp_path):
    raw = over(copy.deepcopy(PROJECT), EXAMPLE)
    (tmp_path / "params.yaml").write_text(quick_yaml.dump(raw))
    cfg = params.load_all(tmp_path / "params.yaml")
    assert len(cfg.run.models) == 3 and all(cfg.models[name].hub for name in cfg.run.models)
    assert len(cfg.datasets["mmlu_ten"].mmlu.subjects) == 10
    assert cfg.run.methods == ["base"]


def test_the_example_is_the_preset_of_that_name():
    assert (REPO / "examples/mmlu.yaml").read_text() == (REPO / "experiments/mmlu.yaml").read_text()


def set_up(folder):
    """The example on stand-ins: two random checkpoints, two topics in MMLU's own files, a budget of a moment."""
    raw = over(copy.deepcopy(PROJECT), EXAMPLE)
    raw["run"] |= {"models": list(MODELS), "precisions": ["bf16"], "quants": ["f16", "q4_0"]}
    raw["models"] |= {name: {"path": f"models/raw/{name}", "prompt": "own"} for name in MODELS}
    entry = raw["datasets"]["mmlu_ten"]
    entry |= {"mmlu": {"path": "data/raw/mmlu", "subjects": list(SUBJECTS)}, "prompts": ["What is a bond?"]}
    raw["evaluate"] |= {"mmlu": {"shots": 1, "questions": 6}, "bootstrap": 50, "max_new_tokens": 4}
    raw["evaluate"]["cost"] |= {"rounds": 2, "latency_prompts": 3, "prefill_tokens": 16, "decode_tokens": 4}
    raw["evaluate"]["cost"] |= {"batch_sizes": [2], "scored_sequences": 4}
    files.write_text("params.yaml", quick_yaml.dump(raw))
    for subject in SUBJECTS:
        for split, count in (("dev", 1), ("test", 8)):
            rows = (f"Is {n} {subject} at | all?,{n},{n + 1},{n + 2},{n + 3},{'ABCD'[n % 4]}\n" for n in range(count))
            files.write_text(f"data/raw/mmlu/{split}/{subject}_{split}.csv", "".join(rows))
    make_checkpoint(folder / "models/base/one", initializer_range=0.06)
    make_checkpoint(folder / "models/base/two", words=["zz"])
    for model in MODELS:
        files.write_json(f"models/base/{model}/run_info.json", {"base_id": model, "seed": 7, "prompt": "own"})
    files.write_text("data/general/one.jsonl", '{"id": "g", "text": "A bond is a loan that can be sold."}\n')
    files.write_text("data/general/two.jsonl", "\n")


def evaluated(dataset, quants, tasks_asked=()):
    """Every stage up to the answers of both models, in each of their formats."""
    prepare.main(dataset)
    for model in MODELS:
        cell = (model, dataset, "base")
        tokenize.main(*cell[:2])
        finetune.main(*cell, 42)
        reference.main(*cell)
        merge.main(*cell)
        convert.main(*cell)
        evaluate_gpu.main(*cell, "bf16")
        for quant in quants:
            quantize.main(*cell, quant)
            evaluate_cpu.main(*cell, quant)
        for task in tasks_asked:
            tasks.main(*cell, 42, task)
            tasks_gpu.main(*cell, "bf16", task)
            for quant in quants:
                tasks_cpu.main(*cell, quant, task)


def reported(dataset):
    """The stages after that."""
    measure.main()
    copying.main(dataset)
    score.main()
    aggregate.main()
    publish.main()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Every stage has run; what was printed while the questions were answered is in `printed`."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TQDM_DISABLE", "1")
        patch.setenv(asked.WANTED, "1")
        printed = io.StringIO()
        patch.setattr("sys.stdout", printed)
        set_up(folder)
        evaluated("mmlu_ten", ["f16", "q4_0"])
        patch.setenv(asked.WANTED, "0")
        reported("mmlu_ten")
        (folder / "printed").write_text(printed.getvalue())
        patch.undo()
        patch.chdir(folder)
        yield folder


@pytest.mark.slow
def test_no_file_that_a_stage_depends_on_is_empty(finished):
    """DVC warns of those, again and again."""
    for name in ("train", "seen", "valid", "test"):
        assert Path(f"data/prepared/mmlu_ten/{name}.jsonl").read_text() == "\n"
    counts = files.read_json("data/prepared/mmlu_ten/info.json")["counts"]
    assert counts == {"read": 0, "train": 0, "seen": 0, "valid": 0, "test": 0, "mmlu_dev": 2, "mmlu_test": 16}


@pytest.mark.slow
def test_every_variant_is_asked_the_same_questions_and_its_prompts(finished):
    for name in ("trained", "bf16", "f16", "q4_0"):
        rows = files.read_table(f"data/items/one-mmlu_ten-base-{name}.parquet")
        splits = [row["split"] for row in rows]
        assert (splits.count("mmlu"), splits.count("prompt"), splits.count("test")) == (12, 1, 0)


@pytest.mark.slow
def test_the_decision_is_by_multiple_choice_with_the_guard_on_the_model_as_it_is(finished):
    for model in MODELS:
        found = files.read_json("metrics/decision.json")[f"{model}-mmlu_ten"]
        assert found["metric"] == "mmlu_accuracy" and "copying" not in found
        assert found["guards_not_checked"] == []
        held = {g["against"] for guards in found["guards"].values() for g in guards.values()}
        assert held <= {f"{model}-mmlu_ten-base-trained"}


@pytest.mark.slow
def test_a_question_is_timed_to_its_letter(finished):
    for variant, row in files.read_json("metrics/cost.json").items():
        assert 0 < row["latency_p50_seconds"] <= row["latency_p95_seconds"], variant
        assert row["ttft_seconds"] == pytest.approx(row["latency_p50_seconds"], rel=0.5)
        assert row["eval_samples_per_second"] > 0
        assert "answer_tokens_p50" not in row, "an answer is a letter"


@pytest.mark.slow
def test_the_report_says_nothing_of_what_was_not_asked(finished):
    pages = {path.stem: path.read_text() for path in Path("report").glob("*.md")}
    assert set(pages) >= {"report", "grid", "formats", "multiple_choice", "data", "reading"}
    assert "methods" not in pages, "no method was tried"
    for name, text in pages.items():
        assert "nan" not in text.lower().split(), name
        for word in ("test F1", "test loss", "bits per byte", "KLD"):
            assert word not in text, (name, word)
    assert "ship `base" in pages["report"]
    assert "business ethics" in pages["multiple_choice"]
    pictures = {path.stem for path in Path("plots").glob("*.png")}
    assert {"mmlu_subjects", "quality_vs_size", "ladder"} <= pictures
    assert not pictures & {"bits_per_byte", "methods", "training_curves", "lengths"}


@pytest.mark.slow
def test_what_is_printed_while_it_runs_is_what_is_read_afterwards(finished):
    printed = [line for line in (finished / "printed").read_text().splitlines() if line.startswith("?")]
    afterwards = []
    for variant in (f"{model}-mmlu_ten-base-{name}" for model in MODELS for name in ("trained", "bf16", "f16", "q4_0")):
        for one in questions.answered(variant):
            first, *others = asked.shown(one)
            afterwards += [f"{asked.BAR}{line}".rstrip() for line in (f"{variant}  {first}", *others)]
    assert len(printed) > 8 * 12 * 6
    assert printed == afterwards


@pytest.mark.slow
def test_commands_take_it(finished, capsys):
    prompt.main("one", "mmlu_ten", None, 1)
    assert "then the most likely of: A:" in capsys.readouterr().out
    with pytest.raises(UserError, match="has 0 rows; another --split may have some"):
        prompt.main("one", "mmlu_ten", "test", 1)
    compare.main("one-mmlu_ten-base-f16", "two-mmlu_ten-base-q4_0")
    assert "MMLU" in capsys.readouterr().out
    explore.main(Path("explore.html"), [])
    assert Path("explore.html").stat().st_size > 10_000


ROW = {"item": "q1", "subject": "law", "chosen": 1, "correct_option": 0, "option_logprobs": [-3.0, -1.0, -2.0, -4.0]}
QUESTION = {"question": "Who\nmay?", "choices": ["a judge", "a\x1b[31mking", "nobody", "note: all"]}


def test_nothing_is_printed_unless_it_is_wanted(monkeypatch, capsys):
    for value in (None, "", "0"):
        if value is not None:
            monkeypatch.setenv(asked.WANTED, value)
        asked.print_while_running("a-b-base-q4_0", [QUESTION], [ROW])
    assert capsys.readouterr().out == ""


def test_a_question_that_runs_is_one_block_in_which_nothing_passes_for_what_a_step_says(monkeypatch, capsys):
    monkeypatch.setenv(asked.WANTED, "1")
    asked.print_while_running("a-b-base-q4_0", [QUESTION], [ROW])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["? a-b-base-q4_0  law q1  wrong: B, not A", "? Who", "? may?"]
    assert all(line.startswith("?") for line in lines) and lines[-1] == "?"
    assert "\x1b" not in "".join(lines) and any("chosen        B. a" in line for line in lines)


def test_of_a_log_each_question_is_said_once_and_whole(tmp_path):
    log = tmp_path / "step.log"
    followed = Followed(log)
    assert followed.lines() == []
    with log.open("w") as file:
        file.write("loading\nmmlu:  10%|#   | 1/10\r      \r? first\n? sec")
        file.flush()
        assert followed.lines() == ["? first"]
        file.write("ond\nmmlu: 20%|##  |\n")
        file.flush()
        assert followed.lines() == ["? second"]
    assert followed.lines() == []


@pytest.mark.parametrize("wanted", ["1", "0"])
def test_the_screen_says_the_questions_of_steps_that_run_side_by_side(monkeypatch, tmp_path, capsys, wanted):
    monkeypatch.setenv(asked.WANTED, wanted)
    screen, log = Screen(["evaluate_cpu@a"], {}, {"evaluate_cpu@a": 1.0}), tmp_path / "a.log"
    screen.starts("evaluate_cpu@a", ["true"], log)
    log.write_text("loading\n| a | table |\n? law q1  right\n?\n")
    screen.refresh()
    with log.open("a") as file:
        file.write("? law q2  right\n")
    screen.ends("evaluate_cpu@a", 1.0)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("?")]
    assert lines == (["? law q1  right", "?", "? law q2  right"] if wanted == "1" else [])


def test_the_run_that_prints_them_is_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((REPO / "params.yaml").read_text())
    with pytest.raises(UserError, match="steps on other machines write to logs of their own; leave out --ray"):
        repro.main([], "1", False, False, "auto", False, [], None, print_questions=True)
