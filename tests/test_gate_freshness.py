"""A dvc.lock that is not of its settings, its code, its files or itself says nothing of a head: exit code 2."""

# ruff: noqa: F811 (fixtures of fake_gate_team)

import json
from pathlib import Path

import fake_commits
import fake_gate
import pytest
import quick_yaml
from fake_gate_team import LORA, finished, gate, project, scaled  # noqa: F401

from tradeoffs.gate import hashes
from tradeoffs.revisions import WORKSPACE, Revision

SLOW_FIXTURES = {"finished"}  # read by conftest.py
ITEMS, TRAINED, TOKENS = "data/items", "models/trained/demo-demo-lora", "data/tokens"
NOTHING = "0" * 32


@pytest.fixture
def shaped(project):
    """dvc.lock as dvc.yaml's stages write it: a stage for each variant, and deps that are folders of what they made."""
    lock = quick_yaml.load(Path("dvc.lock").read_text())
    stages = lock["stages"]
    for out in [out for out in stages["score"]["outs"] if out["path"].startswith(f"{ITEMS}/")]:
        stages["score"]["outs"].remove(out)
        name = Path(out["path"]).stem
        stage = f"reference@{name.removesuffix('-trained')}" if name.endswith("trained") else f"evaluate_cpu@{name}"
        stages[stage] = {"cmd": "x", "outs": [out], "deps": [dep_of(TRAINED)]}
    weights = Path(TRAINED, "42", "adapter.bin")
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    Path("data/raw").mkdir()
    Path("data/raw/own.txt").write_text("mine")
    stages["finetune@demo-demo-lora-42"] = {"cmd": "x", "outs": [], "params": {"params.yaml": {"seed": 42}}}
    add(stages["finetune@demo-demo-lora-42"], weights.parent)
    stages["prepare@demo"] = {
        "cmd": "x",
        "deps": [dep_of("data/raw")],
        "outs": taken(stages["score"], "data/prepared/demo"),
    }
    stages["score"]["deps"] += [dep_of(ITEMS), dep_of("data/prepared")]
    for entry in stages.values():
        for dep in entry.get("deps", ()):
            dep["md5"] = dep["md5"] or hashes.digest(Revision(WORKSPACE), dep["path"])
    write(lock)
    fake_commits.committed("As dvc.yaml has it")
    fake_commits.git("tag", "shaped")


def dep_of(path: str) -> dict:
    return {"path": path, "hash": "md5", "md5": None}


def taken(entry: dict, path: str) -> list[dict]:
    [out] = [out for out in entry["outs"] if out["path"] == path]
    entry["outs"].remove(out)
    return [out]


def add(entry: dict, path: Path) -> None:
    """As an output of a stage, in DVC's cache."""
    side = Revision(WORKSPACE)
    files = {p.relative_to(path).as_posix(): side.store.hash_of(p) for p in sorted(path.rglob("*")) if p.is_file()}
    for name, md5 in files.items():
        kept(md5, (path / name).read_bytes())
    md5 = side.store.hash_of(path)
    kept(md5, json.dumps([{"md5": one, "relpath": name} for name, one in files.items()]).encode())
    entry["outs"].append({"path": path.as_posix(), "md5": md5})


def kept(md5: str, content: bytes) -> None:
    place = Path(".dvc/cache/files/md5", md5[:2], md5[2:])
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        place.write_bytes(content)


def write(lock: dict) -> None:
    Path("dvc.lock").write_text(quick_yaml.dump(lock))


def entry_of(lock: dict, path: Path) -> dict:
    [out] = [out for entry in lock["stages"].values() for out in entry.get("outs", ()) if out["path"] == str(path)]
    return out


@pytest.mark.parametrize("head", [WORKSPACE, "HEAD"])
def test_what_fits_passes_and_answers_that_were_not_scored_again_do_not(shaped, capsys, head):
    code, said, _ = gate(capsys, base="shaped", head=head)
    assert code == 0, said
    scaled(LORA, "log_likelihood", 1.0001)
    lock = quick_yaml.load(Path("dvc.lock").read_text())
    out = entry_of(lock, LORA.items)
    out["md5"] = Revision(WORKSPACE).store.hash_of(LORA.items)
    kept(out["md5"], LORA.items.read_bytes())
    write(lock)
    fake_commits.committed("Evaluated, and not scored")
    code, said, _ = gate(capsys, base="shaped", head=head)
    assert code == 2 and f"score: was run with another {ITEMS}" in said


def test_a_training_below_the_folder_that_an_evaluation_reads_is_looked_at(shaped, capsys):
    lock = quick_yaml.load(Path("dvc.lock").read_text())
    lock["stages"]["finetune@demo-demo-lora-42"]["params"]["params.yaml"]["seed"] = 7
    lock["stages"]["finetune@demo-demo-lora-41"] = {  # of an earlier run list
        "cmd": "x",
        "params": {"params.yaml": {"seed": 8}},
        "outs": [{"path": f"{TRAINED}/41", "md5": f"{NOTHING}.dir"}],
    }
    write(lock)
    code, said, _ = gate(capsys, base="shaped")
    assert code == 2 and "finetune@demo-demo-lora-42: was run with another seed" in said and "lora-41" not in said


def test_a_list_of_files_that_is_not_to_be_had_is_said(shaped, capsys):
    lock = quick_yaml.load(Path("dvc.lock").read_text())
    lock["stages"]["tokenize@demo-demo"] = {
        "cmd": "x",
        "outs": [{"path": f"{TOKENS}/demo-demo", "md5": f"{NOTHING}.dir"}],
    }
    lock["stages"]["score"]["deps"].append(dep_of(TOKENS) | {"md5": f"{NOTHING}.dir"})
    write(lock)
    code, said, _ = gate(capsys, base="shaped")
    assert code == 2
    assert f"score: whether it was run with this {TOKENS} is not known" in said.replace("\\", "")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("data/cost.json", "data/cost.json: not as dvc.lock has it"),
        (LORA.facts, f"{LORA.facts}: not as dvc.lock has it"),
        ("data/prepared/demo/info.json", "data/prepared/demo: not as dvc.lock has it"),
        ("data/raw/own.txt", "prepare@demo: was run with another data/raw"),
    ],
)
def test_a_file_that_is_judged_or_that_no_stage_makes_is_as_dvc_lock_has_it(shaped, capsys, path, said):
    text = Path(path).read_text()
    Path(path).unlink()
    Path(path).write_text(text + " ")
    code, found, _ = gate(capsys, base="shaped")
    assert code == 2 and said in found.replace("\\", "")


def test_the_code_of_a_commit_is_hashed_as_dvc_hashes_the_folder(project):
    for path in fake_gate.CODE:
        assert hashes.digest(Revision("HEAD"), path) == hashes.digest(Revision(WORKSPACE), path)
    assert hashes.digest(Revision("HEAD"), "tradeoffs/nothing") is None
