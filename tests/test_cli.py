"""Bad input ends a stage with one message and exit code 1, before any work, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).parents[1]


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "params.yaml").write_text((REPO / "params.yaml").read_text())
    return tmp_path


def edit(workspace, change):
    raw = yaml.safe_load((workspace / "params.yaml").read_text())
    change(raw)
    (workspace / "params.yaml").write_text(yaml.safe_dump(raw))


def run(workspace, stage, *options):
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", *options],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )


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
    done = run(workspace, stage, "--help")
    assert done.returncode == 0
    assert "IN " in done.stdout and "OUT " in done.stdout
