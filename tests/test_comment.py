"""What a reviewer is told of a change: what was changed, what moved, what is not shown; and that no text is obeyed."""

import json
import re
from pathlib import Path

import fake_commits
import fake_gate
import fake_results
import hostile
import pytest
import quick_yaml
from fake_commits import git

from tradeoffs import params
from tradeoffs.comment import changes, posting, texts
from tradeoffs.comment.__main__ import main
from tradeoffs.revisions import WORKSPACE, Revision

OPTIONS = {"base": "", "head": WORKSPACE, "policy": None, "name": "", "out": None, "body": None, "post": "", "number": None}


def a_run(message, recommended="demo-demo-lora-q4_0", items=60, **run):
    fake_commits.fill(items, **run)
    fake_gate.add_code()
    Path("metrics").mkdir(exist_ok=True)
    Path("metrics/decision.json").write_text(json.dumps({"demo-demo": {"recommended": recommended}}))
    return fake_gate.commit(message)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Commits `before`, `same` as it but for a parameter, and `worse`, where lora has learned less."""
    with pytest.MonkeyPatch.context() as patch:
        fake_commits.begin(patch, tmp_path_factory.mktemp("review"))
        a_run("before")
        git("tag", "before")
        edit(lambda raw: raw["methods"]["lora"]["config"].update(r=4))
        git("commit", "-qam", "same")
        git("tag", "same")
        patch.setitem(fake_results.SKILL, "lora", 0.55)
        a_run("worse")
        edit(lambda raw: raw["methods"]["lora"]["config"].update(r=4))
        git("commit", "-qam", "worse")
        git("tag", "worse")
        yield Path.cwd()


def edit(change):
    raw = quick_yaml.load(Path("params.yaml").read_text())
    change(raw)
    Path("params.yaml").write_text(quick_yaml.dump(raw))


def comment(capsys, **options):
    main(**(OPTIONS | options))
    return capsys.readouterr().out
