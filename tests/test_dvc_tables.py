"""What DVC's own tables show by default is little enough to be read: of the real dvc.yaml and params.yaml."""

import csv
import io
import json
import shlex
import shutil

import fake_commits
import fake_results
import pytest
import quick_yaml
from fake_pipeline import REPO, change, dvc

from stages import aggregate, score
from tradeoffs import params
from tradeoffs.common.cells import Variant
from tradeoffs.results import decision, tables

SLOW_FIXTURES = {"project"}  # read by conftest.py
MOST_COLUMNS, MOST_ROWS = 40, 60
SPEC = quick_yaml.load((REPO / "dvc.yaml").read_text())


def documented(beginning: str) -> list[str]:
    """The words of the first command of docs/experiments.md that begins so."""
    lines = (REPO / "docs/experiments.md").read_text(encoding="utf-8").splitlines()
    return shlex.split(next(line for line in lines if line.startswith(beginning)), comments=True)[1:]


def write_metrics() -> None:
    """Those of metrics/ that hold numbers by name, as `aggregate` writes them."""
    results = fake_results.read()
    decisions = [decision.decide(results, pair) for pair in results.groups()]
    made = {name: make(results) for name, make in aggregate.METRICS.items()}
    for name, numbers in (made | {"headline": tables.headline(results, decisions)}).items():
        aggregate.files.write_json(f"metrics/{name}.json", numbers)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A run of one model, committed; then other items gave other numbers, and nine parameters are others."""
    folder = tmp_path_factory.mktemp("default")
    with pytest.MonkeyPatch.context() as patch:
        fake_commits.begin(patch, folder)
        shutil.copy(REPO / "dvc.yaml", folder)
        for items in (20, 21):
            fake_results.params_file(folder, REPO / "params.yaml", **fake_commits.RUN)
            cfg = params.load_all()
            fake_results.write(folder, cfg.run, items=items, questions=4)
            score.main()
            write_metrics()
            if items == 20:
                fake_commits.committed("A run")

        def changed(raw: dict) -> None:
            raw["seed"] = 43
            raw["train"] |= {"steps": 7, "batch_size": 3, "lr": 0.5, "schedule": "cosine", "warmup_steps": 1}
            raw["run"] |= {"seeds": [43], "quants": ["q4_0"]}
            raw["methods"]["lora"]["config"]["r"] = 3

        change(folder, changed)
    return folder


def test_the_one_metrics_file_of_dvc_is_the_headline():
    declared = [next(iter(one)) for stage in SPEC["stages"].values() for one in stage.get("metrics", ())]
    assert declared == ["metrics/headline.json"]
    assert "metrics" not in SPEC, "what stands at the top is shown as well"


def test_the_headline_is_the_decision_in_numbers(tmp_path, monkeypatch):
    results = fake_results.finished(
        tmp_path, stages=(score,), **(fake_commits.RUN | {"methods": ["base", "full", "lora"]})
    )
    monkeypatch.chdir(tmp_path)
    (pair,) = results.groups()
    found = decision.decide(results, pair)
    row = tables.headline(results, [found])[str(pair)]
    ours = Variant("demo", "demo", *row["recommended"].split("-"))
    assert ours == found.recommended
    spread = results.interval(ours, found.metric)
    assert [row[f"{found.metric}{end}"] for end in ("", "_low", "_high")] == [spread.value, spread.low, spread.high]
    for name in ("size_mb", "decode_tokens_per_second", "model_memory_mb"):
        assert row[name] == results.cost[ours][name]
    assert row["train_seconds"] == results.trained(ours)["train_seconds"]
    for name in ("mmlu_accuracy", "general_loss"):
        assert name in results.decide.guards
        assert (
            row[name] == results.interval(ours if results.has(ours, name) else ours.cell.variant("trained"), name).value
        )
    assert row["best"] == f"{found.standing.best.method}-{found.standing.best.format}"
    assert row[f"best_{found.metric}"] == results.interval(found.standing.best, found.metric).value
    assert row[f"copying_{found.floor.metric}"] == found.floor.value


def test_where_nothing_was_trained_nothing_took_time(tmp_path, monkeypatch):
    results = fake_results.finished(tmp_path, stages=(score,), **(fake_commits.RUN | {"methods": ["base"]}))
    monkeypatch.chdir(tmp_path)
    (row,) = tables.headline(results, [decision.decide(results, results.groups()[0])]).values()
    assert row["recommended"].startswith("base-") and "train_seconds" not in row


def test_the_experiments_of_the_default_are_a_table_of_few_columns(project):
    words = documented("dvc exp show ")
    rows = list(csv.reader(io.StringIO(dvc(*words, "--csv", cwd=project))))
    assert len(rows) == 3, "the head, HEAD and the workspace"
    head = rows[0]
    assert len(head) <= MOST_COLUMNS, head
    assert {"seed", "train.lr", "run.quants", "methods.lora.config.r", "demo-demo.test_f1"} <= set(head)


def test_a_diff_of_the_default_has_few_rows_whatever_changed(project):
    numbers = json.loads((project / "metrics/headline.json").read_text())
    assert list(numbers) == ["demo-demo"]
    assert 10 < len(numbers["demo-demo"]) <= MOST_ROWS, "all of them can change"
    rows = rows_of(dvc("metrics", "diff", "--md", cwd=project))
    assert {row["Path"] for row in rows} == {"metrics/headline.json"}
    assert len(rows) <= MOST_ROWS


def test_every_other_number_is_shown_by_its_file(project):
    words = documented("dvc metrics diff --md --targets ")
    assert words[-1] == "metrics/quality.json"
    rows = rows_of(dvc(*words, cwd=project))
    assert {row["Path"] for row in rows} == {"metrics/quality.json"}
    assert "demo-demo-lora-q4_0.test_f1" in {row["Metric"] for row in rows}
    others = [f"metrics/{name}.json" for name in ("quality", "cost", "training", "mmlu")]
    shown = json.loads(dvc("metrics", "show", "--json", *others, cwd=project))[""]["data"]
    assert {name: found["data"] for name, found in shown.items()} == {
        name: json.loads((project / name).read_text()) for name in others
    }


def rows_of(table: str) -> list[dict[str, str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return [dict(zip(lines[0], row, strict=True)) for row in lines[2:]]
