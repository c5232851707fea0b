"""dvc.yaml and the code say the same: params, modules, commands; and a change reruns what it must and nothing else."""

import ast
import inspect
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).parents[1]
SPEC = yaml.safe_load((REPO / "dvc.yaml").read_text())
STAGES = SPEC["stages"]
# Modules that no output depends on: argument parsing, the clock, the error type, and the reader of params.yaml, whose
# values DVC tracks one by one. As deps, a comment in one of them would train every model again.
PLUMBING = {"cli", "clock", "errors", "live", "params"}


def imports(path: Path) -> set[str]:
    """Project modules that a file imports, at the top or within a function, as paths relative to the repository."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {f"{name.replace('.', '/')}.py" for name in names if name.split(".")[0] in ("stages", "tradeoffs")}
    return {name for name in found if (REPO / name).is_file() and Path(name).stem not in PLUMBING}


def closure(path: str) -> set[str]:
    seen, todo = set(), [path]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += imports(REPO / name)
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_params_match_reads(stage):
    reads = {read.replace("{", "${item.") for read in import_module(f"stages.{stage}").READS}
    assert reads == set(STAGES[stage].get("params", []))


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_are_the_import_closure(stage):
    deps = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    assert deps == closure(f"stages/{stage}.py")


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_gives_main_its_arguments(stage):
    options = {word[2:] for word in STAGES[stage]["cmd"].split() if word.startswith("--")}
    assert options == set(inspect.signature(import_module(f"stages.{stage}").main).parameters)
    assert options == set(STAGES[stage].get("matrix", {}))


def test_every_script_is_a_stage_and_every_stage_a_script():
    scripts = {path.stem for path in (REPO / "stages").glob("*.py")} - {"__init__"}
    assert scripts == set(STAGES)


def test_only_the_aggregates_are_metrics():
    declared = {stage: spec.get("metrics", []) for stage, spec in STAGES.items() if "metrics" in spec}
    assert set(declared) <= {"aggregate"}
    assert all(path.startswith("metrics/") for path in SPEC.get("metrics", []))


def dvc(*words: str, cwd: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


STAND_IN = """
import os, sys
from pathlib import Path
for out in map(Path, sys.argv[1:]):
    folder = out if not out.suffix else out.parent
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train.parquet", "valid.parquet", "pairs.parquet", "content") if not out.suffix else (out.name,):
        (folder / name).write_text(os.urandom(8).hex())
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The repository after a whole run in which each stage was a stand-in that writes new content to its outputs."""
    folder = tmp_path_factory.mktemp("finished")
    for name in ("stages", "tradeoffs", "data/raw", "models/raw"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / ".dvcignore", folder)
    raw = yaml.safe_load((REPO / "params.yaml").read_text())
    raw["run"] |= {"methods": ["base", "lora", "lora_8bit"], "precisions": ["bf16"], "quants": ["q8_0"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    (folder / "stand_in.py").write_text(STAND_IN)
    spec = yaml.safe_load((REPO / "dvc.yaml").read_text())
    for stage in spec["stages"].values():
        stage["cmd"] = " ".join(["python stand_in.py", *outs(stage)])
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": spec["stages"]}, sort_keys=False))
    dvc("init", "--no-scm", "-q", cwd=folder)
    dvc("config", "core.analytics", "false", cwd=folder)
    dvc("repro", cwd=folder)
    return folder


def outs(stage):
    for kind in ("outs", "metrics", "plots"):
        for out in stage.get(kind, []):
            yield out if isinstance(out, str) else next(iter(out))


def changed(finished: Path, tmp_path: Path, edit) -> set[str]:
    """Stages that DVC runs after `edit` has changed params.yaml (as a dict, in place)."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, symlinks=True)
    raw = yaml.safe_load((folder / "params.yaml").read_text())
    edit(raw)
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    out = dvc("repro", cwd=folder)
    return {line.split("'")[1] for line in out.splitlines() if line.startswith("Running stage")}


def test_nothing_runs_when_nothing_changed(finished, tmp_path):
    assert changed(finished, tmp_path, lambda raw: None) == set()


def test_changing_a_method_reruns_only_its_own_cells(finished, tmp_path):
    def edit(raw):
        raw["methods"]["lora"]["config"]["r"] = 3

    found = changed(finished, tmp_path, edit)
    assert {name.split("@")[0] for name in found} >= {"finetune", "merge", "reference", "score", "aggregate"}
    assert all("-lora" in name for name in found - {"score", "aggregate"}), found
    assert not any("-lora_8bit" in name for name in found), found


def test_adding_a_quant_runs_only_that_quants_cells(finished, tmp_path):
    found = changed(finished, tmp_path, lambda raw: raw["run"]["quants"].append("q5_0"))
    methods = ("base", "lora", "lora_8bit")
    cells = {f"{stage}@demo-demo-{method}-q5_0" for stage in ("quantize", "evaluate_cpu") for method in methods}
    assert found == {*cells, "score", "aggregate"}


def test_what_is_only_evaluated_trains_nothing_again(finished, tmp_path):
    def edit(raw):
        raw["evaluate"]["bootstrap"] += 1
        raw["evaluate"]["max_new_tokens"] += 1
        raw["evaluate"]["embedding"] = "another"

    found = {name.split("@")[0] for name in changed(finished, tmp_path, edit)}
    assert found == {"reference", "evaluate_gpu", "evaluate_cpu", "score", "aggregate"}
