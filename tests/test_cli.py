"""Bad input ends a stage or a command with one message, before any work, and leaves nothing behind; help does too."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import quick_yaml

REPO = Path(__file__).parents[1]
MAIN = 'if __name__ == "__main__":'


def started_by_python_m():
    """The modules, by the names that stand behind `python -m`; of every folder of code, so that none is forgotten."""
    paths = [path for folder in ("benchmarks", "stages", "tradeoffs") for path in (REPO / folder).rglob("*.py")]
    names = [".".join(path.relative_to(REPO).with_suffix("").parts) for path in paths if MAIN in path.read_text()]
    return sorted(name.removesuffix(".__main__") for name in names)


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "params.yaml").write_text((REPO / "params.yaml").read_text())
    return tmp_path


def edit(workspace, change):
    raw = quick_yaml.load((workspace / "params.yaml").read_text())
    change(raw)
    (workspace / "params.yaml").write_text(quick_yaml.dump(raw))


def run(workspace, stage, *options):
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    return forked.python("-m", f"stages.{stage}", *options, cwd=workspace, env=environment)


def files_in(workspace):
    return sorted(path for path in workspace.rglob("*") if path.is_file())


def fails_with(workspace, message, stage, *options):
    before = files_in(workspace)
    done = run(workspace, stage, *options)
    assert (done.returncode, done.stderr, done.stdout) == (1, message, "")
    assert files_in(workspace) == before


def test_a_typo_in_params_stops_the_first_stage(workspace):
    edit(workspace, lambda raw: raw["train"].update(stepz=raw["train"].pop("steps")))
    fails_with(
        workspace,
        "error: params.yaml: 1 problem\n  train.stepz: unknown key (did you mean steps?)\n",
        "prepare",
        "--dataset",
        "demo",
    )


def test_a_broken_line_in_a_dataset_names_file_and_line(workspace):
    (workspace / "mine.jsonl").write_text('{"q": "1?", "a": "1"}\n{"q": "2?", "a"\n')
    block = {"path": "mine.jsonl", "kind": "instruction", "columns": {"instruction": "q", "answer": "a"}}
    block |= {"test_share": 0.5, "near_duplicate": 0.9, "seen": 1, "valid": 1}
    edit(workspace, lambda raw: raw["datasets"].update(mine=block))
    fails_with(
        workspace,
        "error: mine.jsonl:2: not valid JSON: Expecting ':' delimiter (column 16)\n",
        "prepare",
        "--dataset",
        "mine",
    )


def test_a_checkpoint_folder_without_config_lists_what_is_there(workspace):
    (workspace / "mine").mkdir()
    (workspace / "mine/model.safetensors").write_text("")
    edit(workspace, lambda raw: raw["models"].update(mine={"path": "mine", "prompt": "plain"}))
    fails_with(
        workspace,
        "error: models.mine.path: mine has no config.json (there: model.safetensors); "
        "save the model with save_pretrained\n",
        "base",
        "--model",
        "mine",
    )


def test_an_unknown_name_lists_the_catalogue(workspace):
    fails_with(
        workspace,
        "error: params.yaml: 'demmo' has no block under datasets (did you mean demo?)\n",
        "prepare",
        "--dataset",
        "demmo",
    )


@pytest.mark.parametrize("stage", ["prepare", "quantize", "evaluate_cpu"])
def test_help_says_what_goes_in_and_out(workspace, stage):
    # As a user starts it: a new interpreter, which imports all that the stage does.
    command = [sys.executable, "-m", f"stages.{stage}", "--help"]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert "IN " in done.stdout and "OUT " in done.stdout


# --- every stage and every command

COMMANDS = started_by_python_m()


@pytest.fixture
def results(workspace, monkeypatch):
    """What the commands that write into the checkout would write to, if they ran."""
    for name in ("README.md", "report/summary.md", "models/dvc.yaml"):
        (workspace / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPO / name, workspace / name)
    monkeypatch.chdir(workspace)
    return workspace


def start(name, *options, monkeypatch):
    """The exit code of `python -m name`, run in this process: to import torch for each would take minutes."""
    monkeypatch.setattr(sys, "argv", [name, *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    return ended.value.code


def states(workspace):
    """Of all files; one that is written again, even with what it holds, is another."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files_in(workspace)}


def test_the_commands_are_found():
    assert {"benchmarks.decode", "stages.prepare", "tradeoffs.experiments", "tradeoffs.plumbing.clock"} <= set(COMMANDS)


def test_every_command_that_a_page_names_is_there():
    pages = [REPO / "README.md", REPO / "benchmarks/README.md", *REPO.glob("docs/*.md"), *REPO.glob("examples/**/*.md")]
    for page in (*pages, REPO / "Makefile"):
        named = re.findall(r"-m ((?:benchmarks|stages|tradeoffs)\.[a-z_]+(?:\.[a-z_]+)*)", page.read_text())
        assert set(named) <= set(COMMANDS), page.name


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_the_docstring_and_changes_no_file(results, name, monkeypatch, capsys):
    path = REPO / Path(*name.split("."))
    path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    before = states(results)
    assert start(name, "--help", monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: python -m {name} ")
    assert ast.get_docstring(ast.parse(path.read_text()), clean=False).strip() in out
    assert states(results) == before


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_it_does_not_have_is_refused_before_anything_is_done(results, name, monkeypatch, capsys):
    before = states(results)
    assert start(name, "--no-such-option", monkeypatch=monkeypatch) == 2
    assert f"python -m {name}: error:" in capsys.readouterr().err
    assert states(results) == before


# --- what a command may rely on

TOOL = '''"""Prints words."""

from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError


def main(word: str, times: int) -> None:
    if word == "bad":
        raise UserError("bad is no word")
    if word == "broken":
        raise ValueError(word)
    for _ in range(times):
        print(word)


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument("word")
    parser.add_argument("--times", type=int, default=1)
    cli.command(main, parser)
'''


@pytest.fixture
def tool(tmp_path):
    (tmp_path / "tool.py").write_text(TOOL)

    def call(*words, stdout=subprocess.PIPE):
        command, env = [sys.executable, "-m", "tool", *words], {**os.environ, "PYTHONPATH": str(REPO)}
        return subprocess.run(command, cwd=tmp_path, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True)

    return call


def test_a_command_gets_its_options_by_name(tool):
    assert tool("yes", "--times", "2").stdout == "yes\nyes\n"


def test_a_users_error_is_one_line_and_a_bug_keeps_its_traceback(tool):
    assert (tool("bad").returncode, tool("bad").stderr) == (1, "error: bad is no word\n")
    assert "Traceback" in tool("broken").stderr


@pytest.mark.parametrize("times", ["1", "100000"])
def test_a_reader_that_has_seen_enough_is_no_error(tool, times):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = tool("yes", "--times", times, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
