"""A team's project with one commit, `base`, and the gate's command on it."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import fake_commits
import fake_gate
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_commits import git

from tradeoffs.common.cells import Variant
from tradeoffs.gate import __main__ as command

LORA = Variant("demo", "demo", "lora", "q4_0")
F16 = Variant("demo", "demo", "lora", "f16")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project with one commit, `base`; tests get copies."""
    folder = tmp_path_factory.mktemp("team")
    with pytest.MonkeyPatch.context() as patch:
        fake_commits.begin(patch, folder)
        fake_gate.add_code()
        fake_commits.fill(items=32)
        recommend(LORA)
        fake_gate.commit()
        git("tag", "base")
    return folder


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    for name, value in fake_commits.ALONE.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(finished, tmp_path / "team", symlinks=True)
    monkeypatch.chdir(tmp_path / "team")


def recommend(variant: Variant) -> None:
    Path("metrics").mkdir(exist_ok=True)
    Path("metrics/decision.json").write_text(json.dumps({"demo-demo": {"recommended": str(variant)}}))


def scaled(variant: Variant, column: str, factor: float) -> None:
    table = pq.read_table(variant.items)
    values = [None if value is None else value * factor for value in table[column].to_pylist()]
    place = table.schema.get_field_index(column)
    field = table.schema.field(place)
    variant.items.unlink()  # it may be a link into DVC's cache
    pq.write_table(table.set_column(place, field, pa.array(values, field.type)), variant.items)


def fact(variant: Variant, **values: object) -> None:
    found = json.loads(variant.facts.read_text()) | values
    variant.facts.unlink()
    variant.facts.write_text(json.dumps(found))


def gate(capsys, *, base: str = "base", head: str = "WORKSPACE", policy: str | None = None) -> tuple[int, str, dict]:
    """Exit code, what is printed, and the JSON."""
    path = None
    if policy is not None:
        path = Path("other.yaml")
        path.write_text(policy)
    with pytest.raises(SystemExit) as end:
        command.main(base, head, path, Path("out/gate.md"), Path("out/gate.json"), Path("out/gate.xml"))
    said = capsys.readouterr()
    found = json.loads(Path("out/gate.json").read_text())
    assert found["exit_code"] == end.value.code
    suite = ElementTree.parse("out/gate.xml").getroot().find("testsuite")
    assert int(suite.get("tests")) == len(suite.findall("testcase")) > 0
    assert (end.value.code == 1) == (int(suite.get("failures")) > 0)
    return end.value.code, said.out + said.err, found
