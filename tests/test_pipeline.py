"""dvc.yaml and the code say the same: params, modules, commands; and a change reruns what it must and nothing else."""

import inspect
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import fake_pipeline
import pytest
import quick_yaml
from dvc.fs import LocalFileSystem
from dvc.parsing import DataResolver
from fake_pipeline import REPO, outs

from benchmarks.measured import closure
from tradeoffs import artifacts, params
from tradeoffs.repro import pipeline

SPEC = quick_yaml.load((REPO / "dvc.yaml").read_text())
STAGES = SPEC["stages"]
SLOW_FIXTURES = {"finished"}  # read by conftest.py
RUN = ("models", "datasets", "methods", "precisions", "quants", "seeds")
ENDING = {"measure", "score", "aggregate", "publish"}  # what is one step for all cells
LAUNCH = {"train": "python -m", "gpus": 1}
CODE_DEPS = 83  # in dvc.yaml; each stands in dvc.lock once per cell


def code_deps(stage: str) -> set[str]:
    return {dep for dep in STAGES[stage]["deps"] if dep.startswith(("stages/", "tradeoffs/"))}


@pytest.mark.parametrize("stage", STAGES)
def test_params_match_reads(stage):
    reads = getattr(import_module(f"stages.{stage}"), "Reads", None)
    paths = params.paths(reads).values() if reads else ()
    assert {path.replace("{", "${item.") for path in paths} == set(STAGES[stage].get("params", []))


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_read_is_of_the_type_that_the_schema_gives_it(stage):
    reads = getattr(import_module(f"stages.{stage}"), "Reads", None)
    for name, path in params.paths(reads).items() if reads else ():
        kind: Any = params.Params
        for part in path.split("."):
            kind = get_args(kind)[1] if part.startswith("{") else get_type_hints(kind)[part]
        assert get_type_hints(reads)[name] == kind, f"{name}: {path}"


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_are_the_import_closure(stage):
    """Every file that a stage lives off is a dep or lies in one, and every dep is lived off."""
    deps, needed = code_deps(stage), closure(f"stages/{stage}.py")
    covered = {dep: {name for name in needed if name == dep or name.startswith(f"{dep}/")} for dep in deps}
    assert needed == set().union(*covered.values())
    assert {dep for dep, names in covered.items() if not names} == set()


@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_is_a_dep_where_more_than_one_of_its_files_is_needed(stage):
    needed = closure(f"stages/{stage}.py")
    for dep in code_deps(stage):
        if not dep.endswith(".py"):
            assert len([name for name in needed if name.startswith(f"{dep}/")]) > 1, dep


def test_a_folder_of_outputs_that_a_stage_depends_on_is_there_whatever_the_run_list():
    """`run.precisions` and `run.quants` may be empty: then nothing makes what only they ask for."""
    always = [
        out
        for spec in STAGES.values()
        if not {"precision", "quant", "task"} & set(spec.get("matrix", {}))
        for out in outs(spec)
    ]
    for stage, spec in STAGES.items():
        for dep in spec["deps"]:
            if dep.startswith(("models/", "data/")) and "${" not in dep and not dep.endswith("/raw"):
                committed = (REPO / dep / ".gitkeep").is_file()
                assert committed or any(out.startswith(dep) for out in always), f"{stage}: {dep}"


def test_there_are_few_code_deps():
    """Those of tasks, of which there are no cells by default, aside."""
    always = [stage for stage, spec in STAGES.items() if "task" not in spec.get("matrix", {})]
    assert sum(len(code_deps(stage)) for stage in always) <= CODE_DEPS


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_gives_main_its_arguments(stage):
    """`${item}` is written out by DVC as `--model demo --dataset demo`, each name quoted for the shell."""
    axes = STAGES[stage].get("matrix", {})
    start = "${launch.train}" if stage == "finetune" else "python -m"
    assert STAGES[stage]["cmd"] == f"{start} stages.{stage}" + " ${item}" * bool(axes)
    assert list(axes) == list(inspect.signature(import_module(f"stages.{stage}").main).parameters)


HOSTILE = ("a; touch x", "$(touch x)", "`touch x`", "a'; touch x; '", "a b", "-h", "../../../outside")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_one_word_to_the_shell_whatever_it_holds(name, tmp_path):
    tasks = {"tasks": [name], "harness": {"folder": "examples/tasks"}}
    raw = {"run": {axis: [name] for axis in RUN}, "launch": LAUNCH, "evaluate": tasks}
    (tmp_path / "params.yaml").write_text(quick_yaml.dump(raw))
    repo = SimpleNamespace(fs=LocalFileSystem(), config={})
    steps = DataResolver(repo, str(tmp_path), {"stages": STAGES}).resolve()["stages"]
    for step, spec in steps.items():
        stage = step.partition("@")[0]
        words = [word for axis in STAGES[stage].get("matrix", {}) for word in (f"--{axis}", name)]
        assert shlex.split(spec["cmd"]) == ["python", "-m", f"stages.{stage}", *words]


@pytest.mark.parametrize("command", [("dvc", "repro"), (sys.executable, "-m", "tradeoffs.repro")])
def test_nothing_outside_the_project_is_removed_for_a_name_that_leads_there(command, tmp_path):
    """By DVC since outputs of several stages would be the same folder; with `-s` it does not look."""
    folder, outside = tmp_path / "project", tmp_path / "outside"
    folder.mkdir()
    fake_pipeline.make(folder, datasets=["../../../outside"])
    fake_pipeline.dvc("init", "--no-scm", "-q", cwd=folder)
    outside.mkdir()
    (outside / "kept").write_text("kept")
    assert fake_pipeline.call(*command, cwd=folder).returncode
    assert (outside / "kept").read_text() == "kept"


def test_every_script_is_a_stage_and_every_stage_a_script():
    scripts = {path.stem for path in (REPO / "stages").glob("*.py")} - {"__init__"}
    assert scripts == set(STAGES)


def test_only_the_aggregates_are_metrics():
    declared = {stage: spec.get("metrics", []) for stage, spec in STAGES.items() if "metrics" in spec}
    assert set(declared) <= {"aggregate"}
    assert all(path.startswith("metrics/") for path in SPEC.get("metrics", []))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The project after a whole run in which each stage was a stand-in that writes new content to its outputs."""
    folder = tmp_path_factory.mktemp("finished")
    fake_pipeline.make(folder, methods=["base", "lora", "lora_8bit"], precisions=["bf16"], quants=["q8_0"])
    fake_pipeline.dvc("init", "--no-scm", "-q", cwd=folder)
    fake_pipeline.dvc("config", "core.analytics", "false", cwd=folder)
    fake_pipeline.run(folder)
    return folder


def changed(finished: Path, tmp_path: Path, edit) -> set[str]:
    """Stages that DVC runs after `edit` has changed params.yaml (as a dict, in place)."""
    folder = copied(finished, tmp_path)
    fake_pipeline.change(folder, edit)
    return ran(folder)


def ran(folder: Path) -> set[str]:
    """Stages that DVC runs, but for `settings`: it runs for every change of params.yaml, in a moment."""
    return fake_pipeline.run(folder) - {"settings"}


def commented(finished: Path, tmp_path: Path, room: str, kept: Sequence[str] = ()) -> set[str]:
    """Kinds of stages that DVC runs after every module of a room was given a comment, if what lies in the folders
    `kept` is written as it was."""
    folder = copied(finished, tmp_path)
    for name in kept:
        shutil.copytree(folder / name, folder / "kept" / name)
    for path in (folder / "tradeoffs" / room).rglob("*.py"):
        with path.open("a") as file:
            file.write("# a comment\n")
    return {name.split("@")[0] for name in ran(folder)}


def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "copy", symlinks=True)


def test_nothing_runs_when_nothing_changed(finished, tmp_path):
    assert changed(finished, tmp_path, lambda raw: None) == set()


def test_changing_a_method_reruns_only_its_own_cells(finished, tmp_path):
    def edit(raw):
        raw["methods"]["lora"]["config"]["r"] = 3

    found = changed(finished, tmp_path, edit)
    assert {name.split("@")[0] for name in found} >= {"finetune", "merge", "reference", "score", "aggregate"}
    assert all("-lora" in name for name in found - ENDING), found
    assert not any("-lora_8bit" in name for name in found), found


def test_another_template_makes_only_those_models_anew_that_name_it(finished, tmp_path):
    folder = copied(finished, tmp_path)
    fake_pipeline.change(folder, lambda raw: raw["templates"].update(house="{{ messages }}"))
    assert fake_pipeline.run(folder) == {"settings"}
    fake_pipeline.change(folder, lambda raw: raw["models"]["demo"].update(prompt="house"))
    assert ran(folder) >= {"base@demo", "tokenize@demo-demo"}


def trained(found: set[str]) -> set[str]:
    return {name.partition("@")[2] for name in found if name.startswith("finetune@")}


SETTINGS: dict[str, set[str]] = {  # what is said, and the models that are then trained anew
    "train.lr=0.004": {"demo", "other"},
    "models.demo.train.lr=0.004": {"demo"},
    "datasets.demo.train.epochs=2": {"demo", "other"},
    "models.demo.methods.lora.config.r=4": {"demo"},
    "models.demo.methods.lora.train.lr=0.004": {"demo"},
    "models.demo.notes=A small one.": set(),
    "datasets.demo.notes=Made here.": set(),
    "datasets.demo.licence=mit": set(),
    "models.other.train.lr=0.002": set(),  # as it is already
}


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """The project with two models, of which one has a rate of its own, after a whole run of stand-ins."""
    folder = tmp_path_factory.mktemp("two_models")
    fake_pipeline.make(folder, methods=["base", "lora"], precisions=["bf16"], quants=[], models=["demo", "other"])
    fake_pipeline.change(folder, lambda raw: raw["models"].update(other=raw["models"]["demo"] | OTHER))
    fake_pipeline.dvc("init", "--no-scm", "-q", cwd=folder)
    fake_pipeline.run(folder)
    return folder


OTHER = {"train": {"lr_factor": 0.4}, "methods": {"lora": {"config": {"r": 8}}}}


@pytest.mark.parametrize("said", SETTINGS)
def test_a_setting_trains_only_those_cells_anew_that_it_moves(two_models, tmp_path, said):
    """And makes no base, no data set and no tokens anew."""
    place, value = said.split("=")
    *blocks, key = place.split(".")

    def edit(raw):
        block = raw
        for name in blocks:
            block = block.setdefault(name, {})
        block[key] = quick_yaml.load(value)

    folder = copied(two_models, tmp_path)
    fake_pipeline.change(folder, edit)
    with chdir(folder), pipeline.opened() as steps:
        planned = set(steps.planned)
    found = ran(folder)
    assert trained(found) == {f"{model}-demo-lora-42" for model in SETTINGS[said]} == trained(planned)
    assert found <= planned
    assert not {name for name in found if name.startswith(("base@", "prepare@", "tokenize@"))}


def test_a_models_window_makes_only_its_own_tokens_anew(two_models, tmp_path):
    found = changed(two_models, tmp_path, lambda raw: raw["models"]["demo"].update(tokenize={"window": 128}))
    assert {name for name in found if name.startswith(("base@", "prepare@", "tokenize@"))} == {"tokenize@demo-demo"}


def test_adding_a_quant_runs_only_that_quants_cells(finished, tmp_path):
    found = changed(finished, tmp_path, lambda raw: raw["run"]["quants"].append("q5_0"))
    methods = ("base", "lora", "lora_8bit")
    cells = {f"{stage}@demo-demo-{method}-q5_0" for stage in ("quantize", "evaluate_cpu") for method in methods}
    assert found == {*cells, *ENDING}


def with_seeds(finished: Path, tmp_path: Path, *seeds: int) -> set[str]:
    """Stages that DVC runs with these seeds, where the trainings that there were give what they gave before."""
    folder = copied(finished, tmp_path)
    for name in ("data", "models"):
        shutil.copytree(folder / name, folder / "kept" / name)
    fake_pipeline.change(folder, lambda raw: raw["run"].update(seeds=list(seeds)))
    return ran(folder)


def test_one_more_seed_trains_its_own_cells_and_makes_no_format_anew(finished, tmp_path):
    found = with_seeds(finished, tmp_path, 42, 43)
    cells = [f"demo-demo-{method}" for method in ("base", "lora", "lora_8bit")]
    mine = {f"finetune@{cell}-43" for cell in cells} | {f"reference@{cell}" for cell in cells}
    assert found == mine | (ENDING - {"measure"})


def test_another_first_seed_makes_every_format_anew(finished, tmp_path):
    found = changed(finished, tmp_path, lambda raw: raw["run"].update(seeds=[43]))
    # What comes before, and what nothing asks for.
    before = {"settings", "prepare", "base", "tokenize", "copying", "tasks", "tasks_gpu", "tasks_cpu"}
    assert {name.split("@")[0] for name in found} == set(STAGES) - before


def test_what_is_only_evaluated_trains_nothing_again(finished, tmp_path):
    def edit(raw):
        raw["evaluate"]["bootstrap"] += 1
        raw["evaluate"]["max_new_tokens"] += 1
        raw["evaluate"]["embedding"] = "another"

    found = {name.split("@")[0] for name in changed(finished, tmp_path, edit)}
    assert found == {"reference", "evaluate_gpu", "evaluate_cpu", "copying", *ENDING}


def test_another_answer_pattern_trains_and_evaluates_nothing_again():
    """It is part of a data set's block, so prepare runs; what follows reads files of its that it is not in, or scores
    by it."""
    assert not any(path.startswith("datasets") for spec in STAGES.values() for path in spec.get("params", []))
    block = "metrics/settings/datasets/${item.dataset}.json"
    assert [stage for stage, spec in STAGES.items() if block in spec["deps"]] == ["prepare"]
    assert "data/prepared" in STAGES["score"]["deps"]
    info = {dep for dep in STAGES["copying"]["deps"] if dep.startswith("data/prepared/")}
    assert all(dep.endswith(".jsonl") for dep in info)


def test_prompts_train_nothing_again(finished, tmp_path):
    """Of the tokens only prompts.parquet is another, of which `content` is the stand-in."""
    folder = copied(finished, tmp_path)
    for name in ("data/prepared", "data/tokens/demo-demo", "data/lengths"):
        shutil.copytree(folder / name, folder / "kept" / name)
    (folder / "kept/data/tokens/demo-demo/content").unlink()
    fake_pipeline.change(folder, lambda raw: raw["datasets"]["demo"].update(prompts=["Why?"]))
    found = {name.split("@")[0] for name in ran(folder)}
    assert found == {
        *("tokenize", "reference", "evaluate_gpu", "evaluate_cpu"),
        *ENDING,
    }


def test_prompts_of_another_data_set_run_nothing(finished, tmp_path):
    assert changed(finished, tmp_path, lambda raw: raw["datasets"]["alpaca"].update(prompts=["Why?"])) == set()


def test_measuring_once_more_makes_and_scores_nothing_anew(finished, tmp_path):
    folder = copied(finished, tmp_path)
    assert fake_pipeline.repro(folder, "-f", "-s", "measure") == {"measure"}
    assert ran(folder) == {"aggregate", "publish"}


def test_a_comment_in_the_report_reruns_aggregate_alone(finished, tmp_path):
    assert commented(finished, tmp_path, "report") == {"aggregate", "publish"}


@pytest.mark.parametrize("room", ["llama_cpp", "convert"])
def test_a_comment_in_the_rooms_of_llama_cpp_reruns_no_training(finished, tmp_path, room):
    """base, which tries llama.cpp's converter, writes what it wrote before."""
    found = commented(finished, tmp_path, room, kept=("models/base", "data/general"))
    assert found - {"evaluate_cpu", "measure", "quantize"} == {"base", "convert", "score", "aggregate", "publish"}


def test_a_comment_in_the_finetune_room_reruns_nothing_before_it(finished, tmp_path):
    found = commented(finished, tmp_path, "finetune")
    assert "finetune" in found and not found & {"prepare", "base", "tokenize"}


def test_what_an_editor_leaves_beside_a_module_reruns_nothing(finished, tmp_path):
    folder = copied(finished, tmp_path)
    room = folder / "tradeoffs/finetune"
    for name in ("trainer.py~", ".trainer.py.swp", ".trainer.py.swx", "#trainer.py#", "__pycache__/trainer.pyc"):
        (room / name).parent.mkdir(exist_ok=True)
        (room / name).write_text("half a thought")
    (room / ".#trainer.py").symlink_to("anna@laptop.4711:1700000000")  # how Emacs locks a file: it leads nowhere
    assert ran(folder) == set()


def test_the_artifacts_are_those_of_the_run_list():
    cfg = params.load_all(REPO / "params.yaml")
    assert (REPO / artifacts.LIST).read_text() == artifacts.text(cfg.run, cfg.methods)


def test_every_artifact_is_an_output_that_the_pipeline_writes(finished):
    cfg = params.load_all(finished / "params.yaml")
    listed = artifacts.listed(cfg.run, cfg.methods)
    tracked = {line for folder in ("merged", "gguf") for line in written(finished, folder)}
    tracked |= {str(Path(line).parent) for line in written(finished, "trained", "-R")}
    assert {entry["path"] for entry in listed.values()} <= tracked
    # All that is left is what there cannot be (trained weights of the untouched base) and the notes beside a GGUF.
    left = tracked - {entry["path"] for entry in listed.values()}
    assert {path for path in left if not path.endswith(".json")} == {"trained/demo-demo-base/42"}


def written(folder: Path, kind: str, *options: str) -> set[str]:
    """What DVC tracks in models/<kind>, relative to models/."""
    return {f"{kind}/{line}" for line in fake_pipeline.dvc("list", *options, ".", f"models/{kind}", cwd=folder).split()}


def test_what_cannot_be_merged_is_no_model_to_ship():
    cfg = params.load_all(REPO / "params.yaml")
    run = replace(cfg.run, methods=["prompt_tuning"], quants=["q8_0"])
    assert [name.rsplit("-", 1)[1] for name in artifacts.listed(run, cfg.methods)] == ["trained"]
