"""What came of a run, read back from W&B (offline), MLflow and TensorBoard by their own means; and whatever goes wrong.

The tools are the extra `trackers`: without them the tests that ask them are skipped.
"""

import csv
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import ClassVar

import fake_results
import pytest
import quick_yaml

from stages import publish
from tradeoffs import params, trackers
from tradeoffs.common import files
from tradeoffs.common.cells import Cell, Variant
from tradeoffs.plumbing import live, loggers
from tradeoffs.plumbing.errors import UserError

LISTS = {"methods": ["base", "lora", "full"], "precisions": ["bf16"], "quants": ["q8_0"], "seeds": [42, 7]}
LORA = Cell("demo", "demo", "lora")
SECRET = "5ecret" * 7
FORMATS = ("trained", "bf16", "q8_0")
FIRST, SECOND = LORA.training(42), LORA.training(7)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose trainings and formats are made up, aggregated; tests read it only."""
    folder = tmp_path_factory.mktemp("finished")
    fake_results.finished(folder, **LISTS)
    return folder


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy to work in, with nothing of the machine's own settings."""
    folder = shutil.copytree(finished, tmp_path / "run")
    monkeypatch.chdir(folder)
    for name in ("DVC_EXP_NAME", "WANDB_PROJECT", "WANDB_DIR", "MLFLOW_TRACKING_URI", "TENSORBOARD_LOGGING_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "DO_NOT_TRACK": "true"}.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    for words in (["init", "-q"], ["remote", "add", "origin", f"https://ann:{SECRET}@example.org/team/project.git"]):
        subprocess.run(["git", *words], check=True)
    report_to([])
    yield folder
    left = [path for path in Path().rglob("*") if path.is_file() and path != Path(".git/config")]
    assert not [path for path in left if SECRET.encode() in path.read_bytes()], "a secret was written down"


def report_to(names):
    raw = quick_yaml.load(Path("params.yaml").read_text())
    raw["launch"]["report_to"] = list(names)
    files.write_text("params.yaml", quick_yaml.dump(raw))


def train(names, training=FIRST):
    """Shows the training's curve while it goes on, as the stage does."""
    with live.Watch(names, str(training), {"lr": 0.005, "method": training.cell.method}) as watch:
        curve = files.read_json(training.facts)["curve"]
        for n in range(len(curve)):
            watch.update(curve[: n + 1])


def expected(training=FIRST):
    """What the run of the first training must hold, from the files that the pipeline writes."""
    quality, cost = files.read_json("metrics/quality.json"), files.read_json("metrics/cost.json")
    found = {}
    for format in FORMATS:
        name = str(training.cell.variant(format))
        found |= {f"{format}/{key}": value for key, value in {**quality[name], **cost[name]}.items()}
    return found | {"training/train_seconds": files.read_json(training.facts)["train_seconds"]}


class Notebook:
    """Stands in for a tool: keeps what it is told."""

    runs: ClassVar[dict] = {}

    def __init__(self, name, settings, run=""):
        self.run = run or str(len(self.runs) + 1)
        self.kept = self.runs.setdefault(self.run, {"name": name, "settings": settings, "points": []})

    def log(self, point, part):
        self.kept["points"].append((part, point["step"]))

    def outcome(self, numbers, texts, tables):
        self.kept |= {"numbers": numbers, "texts": texts, "tables": tables}

    def close(self, succeeded):
        self.kept["ended"] = succeeded


@pytest.fixture
def notebook(run, monkeypatch):
    monkeypatch.setattr(Notebook, "runs", {})
    monkeypatch.setitem(loggers.LOGGERS, "mlflow", Notebook)
    monkeypatch.setattr(live, "_is_installed", lambda name: True)
    return Notebook.runs


def by_name(runs):
    return {kept["name"]: kept for kept in runs.values()}


# --- what is told, and to which run


def test_the_run_of_a_training_gets_the_numbers_of_all_its_formats(notebook):
    train(["mlflow"])
    report_to(["mlflow"])
    trackers.publish()
    kept = notebook["1"]
    assert kept["name"] == "demo-demo-lora-42" and kept["ended"] is True
    assert {name: kept["numbers"][name] for name in expected()} == expected()
    decided = files.read_json("metrics/decision.json")["demo-demo"]
    for format in FORMATS:
        assert kept["texts"][f"{format}/verdict"] == decided["verdicts"][str(LORA.variant(format))]["verdict"]
    told = by_name(notebook)
    assert set(told) == {f"demo-demo-{m}-{s}" for m in ("lora", "full") for s in (42, 7)} | {"summary"}
    chosen = Variant.parse(decided["recommended"])
    says = {name: kept["texts"].get("recommended") for name, kept in told.items() if name != "summary"}
    assert says.pop(str(chosen.cell.training(42))) == chosen.format
    assert sorted(map(str, says.values())) == ["None", "None", "no"], "formats are made of the first seed"


def test_another_seed_has_its_own_numbers_as_trained_and_no_format(notebook):
    report_to(["mlflow"])
    trackers.publish()
    told = by_name(notebook)
    first, second = (told[str(training)]["numbers"] for training in (FIRST, SECOND))
    results = fake_results.read()
    of_seed = results.trainings(LORA)[1]
    assert second["trained/test_f1"] == pytest.approx(results.interval(of_seed, "test_f1").value, rel=1e-5)
    assert second["trained/test_loss"] != first["trained/test_loss"]
    assert not any(name.startswith(("q8_0/", "bf16/")) for name in second)


def test_the_decision_is_a_row_for_each_variant(notebook):
    report_to(["mlflow"])
    trackers.publish()
    summary = by_name(notebook)["summary"]
    rows = summary["tables"]["decision"]
    decided = files.read_json("metrics/decision.json")["demo-demo"]
    assert len(rows) == len(decided["verdicts"]) == 9
    for row in rows:
        name = f"{row['pair']}-{row['method']}-{row['format']}"
        assert row["verdict"] == decided["verdicts"][name]["verdict"]
        assert row["value"] == files.read_json("metrics/quality.json")[name][decided["metric"]]
        assert row["size_mb"] == files.read_json("metrics/cost.json")[name]["size_mb"]
        assert (row["recommended"] == "yes") == (name == decided["recommended"])
    headline = files.read_json("metrics/headline.json")["demo-demo"]
    assert summary["texts"]["demo-demo/recommended"] == headline["recommended"]
    assert summary["numbers"]["demo-demo/size_mb"] == headline["size_mb"]


def test_a_training_that_nobody_was_told_of_gets_its_curve(notebook):
    train(["mlflow"])
    trackers.main(["mlflow"])
    curve = files.read_json(FIRST.facts)["curve"]
    steps = [("", point["step"]) for point in curve]
    assert [kept["points"] for kept in by_name(notebook).values() if kept["points"]] == [steps] * 4
    assert notebook["1"]["points"] == steps, "and who was told of it is not told again"


def test_the_same_results_update_their_runs_and_others_make_new_ones(notebook):
    train(["mlflow"])
    trackers.main(["mlflow"])
    before = set(notebook)
    trackers.main(["mlflow"])
    assert set(notebook) == before
    row = files.read_json(FIRST.facts)
    files.write_json(FIRST.facts, row | {"curve": row["curve"][:-1]})  # trained anew
    headline = files.read_json("metrics/headline.json")
    headline["demo-demo"]["size_mb"] = 1.0
    files.write_json("metrics/headline.json", headline)
    trackers.main(["mlflow"])
    assert sorted(notebook[name]["name"] for name in set(notebook) - before) == ["demo-demo-lora-42", "summary"]


def test_a_stage_on_pairs_has_a_curve_of_its_own(notebook):
    row = files.read_json(FIRST.facts)
    files.write_json(FIRST.facts, row | {"preference_curve": [{"step": 5, "loss": 0.5}]})
    with live.Watch(["mlflow"], str(FIRST)) as watch:
        watch.update(row["curve"])
        watch.update([{"step": 5, "loss": 0.5}], "preference")
    trackers.main(["mlflow"])
    assert len([kept for kept in notebook.values() if kept["name"] == str(FIRST)]) == 1
    shutil.rmtree(".scratch/runs")
    trackers.main(["mlflow"])
    (again,) = [kept for name, kept in notebook.items() if kept["name"] == str(FIRST) and name != "1"]
    assert again["points"][-1] == ("preference", 5)


@pytest.mark.parametrize("text", ["", "[]", '{"content": 1}', '{"runs": 3, "content": "x"}'])
def test_a_damaged_note_of_a_run_makes_a_new_one(notebook, text):
    train(["mlflow"])
    Path(f".scratch/runs/{FIRST}.json").write_text(text)
    trackers.main(["mlflow"])
    assert [kept["name"] for kept in notebook.values()].count(str(FIRST)) == 2


# --- what goes wrong


def test_a_tool_that_cannot_be_told_fails_no_stage_and_tells_no_secret(notebook, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter22")
    said = "401 of https://ann:hunter22@tracking.example.org/api: password hunter22 is wrong\nand more"
    monkeypatch.setattr(Notebook, "outcome", lambda *_: (_ for _ in ()).throw(ConnectionError(said)))
    report_to(["mlflow"])
    files.write_text("README.md", "no markers")
    publish.main()
    out = capsys.readouterr().out
    assert "mlflow was not told what came of the run: 401 of https://***@tracking.example.org/api: password ***" in out
    assert "python -m tradeoffs.trackers --to mlflow tries again" in out and "hunter22" not in out
    with pytest.raises(UserError, match=r"mlflow: 401 of https://\*\*\*@tracking") as error:
        trackers.main(["mlflow"])
    assert "hunter22" not in str(error.value)
    assert {kept["ended"] for kept in notebook.values()} == {False}


def test_what_broke_first_is_said_and_not_that_its_run_could_not_be_ended_then(notebook, monkeypatch, capsys):
    def gone(what):
        return lambda *_, **__: (_ for _ in ()).throw(ConnectionError(what))

    monkeypatch.setattr(Notebook, "outcome", gone("first"))
    monkeypatch.setattr(Notebook, "close", gone("then"))
    report_to(["mlflow"])
    trackers.publish()
    said = "mlflow was not told what came of the run: first; python -m tradeoffs.trackers --to mlflow tries again"
    assert capsys.readouterr().out == f"warning: {said}\n"


def test_what_did_not_end_well_is_told_anew_and_whole(notebook, monkeypatch):
    ended = Notebook.close
    monkeypatch.setattr(Notebook, "close", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("gone")))
    with pytest.raises(UserError, match="mlflow: gone"):
        trackers.main(["mlflow"])
    monkeypatch.setattr(Notebook, "close", ended)
    trackers.main(["mlflow"])
    first, again = (kept for kept in notebook.values() if kept["name"] == str(FIRST))
    assert first["points"] == again["points"] != []


def test_one_that_cannot_be_told_keeps_nothing_from_the_others(notebook, monkeypatch):
    class Away(Notebook):
        def outcome(self, *_):
            raise ConnectionError("away")

    monkeypatch.setitem(loggers.LOGGERS, "wandb", Away)
    with pytest.raises(UserError, match=r"^wandb: away; set it up"):
        trackers.main(["wandb", "mlflow"])
    assert [kept["name"] for kept in notebook.values() if kept.get("ended")][-1] == "summary"


def test_of_a_reward_in_a_file_a_digest_is_told_and_not_its_text(notebook):
    code = "def reward(answer, expected):\n    return float(answer == expected)  # ours alone\n"
    files.write_text("rewards/own.py", code)
    raw = quick_yaml.load(Path("params.yaml").read_text())
    block = raw["methods"]["lora_grpo"]
    raw["methods"]["lora"] |= {"stage": "grpo", "reward": block["reward"] | {"functions": {"rewards/own.py": 1.0}}}
    files.write_text("params.yaml", quick_yaml.dump(raw))
    trackers.main(["mlflow"])
    told = by_name(notebook)[str(FIRST)]["settings"]
    assert told["reward"]["functions"] == {"rewards/own.py": 1.0}
    assert told["reward"]["code"] == {"rewards/own.py": live.digest(code)}
    assert "ours alone" not in repr(notebook)


def test_mlflow_leaves_no_run_open_that_could_not_be_given_its_settings(run, monkeypatch):
    """As long as one is open, the process can begin no other."""
    ended = []
    tool = types.SimpleNamespace(
        set_tracking_uri=lambda _: None,
        get_experiment_by_name=lambda _: True,
        set_experiment=lambda _: None,
        start_run=lambda run_name: types.SimpleNamespace(info=types.SimpleNamespace(run_id="1")),
        log_params=lambda _: (_ for _ in ()).throw(ConnectionError("gone")),
        end_run=ended.append,
    )
    monkeypatch.setitem(sys.modules, "mlflow", tool)
    with pytest.raises(ConnectionError, match="gone"):
        loggers.Mlflow("cell", {"lr": 0.1})
    assert ended == ["FAILED"]


def test_mlflow_is_given_no_more_at_once_than_it_takes(run, monkeypatch):
    told = []

    def takes(most):
        return lambda values: told.append(dict(values)) if len(values) <= most else pytest.fail("more than it takes")

    tool = types.SimpleNamespace(log_metrics=takes(1000), set_tags=takes(100))
    made = object.__new__(loggers.Mlflow)
    made._mlflow = tool
    numbers, texts = {f"n{i}": float(i) for i in range(2001)}, {f"t{i}": str(i) for i in range(150)}
    made.outcome(numbers, texts, {})
    assert {k: v for some in told for k, v in some.items()} == numbers | texts


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="needs mlflow")
@pytest.mark.slow
def test_a_server_that_is_not_there_holds_nothing_up_for_minutes(run, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for name in loggers.MLFLOW_PATIENCE:
        monkeypatch.delenv(name, raising=False)
    report_to(["mlflow"])
    begun = time.monotonic()
    trackers.publish()
    assert "mlflow was not told what came of the run" in capsys.readouterr().out
    assert time.monotonic() - begun < 90


def test_who_keeps_no_runs_is_told_nothing(notebook, capsys):
    report_to(["dvclive"])
    trackers.publish()
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match=r"launch\.report_to: names none of wandb, tensorboard, mlflow; add one"):
        trackers.main(None)


def test_before_there_are_results_it_says_what_is_missing(notebook):
    Path("metrics/decision.json").unlink()
    with pytest.raises(UserError, match=r"metrics/decision\.json: not found .* run after `dvc repro`"):
        trackers.main(["mlflow"])


def test_what_is_not_installed_is_one_message(run, monkeypatch):
    monkeypatch.setattr(live, "_is_installed", lambda name: name != "wandb")
    with pytest.raises(UserError, match="wandb not installed; pip install"):
        trackers.main(["wandb"])


# --- the tools themselves


def lacks(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"{package}: pip install -r requirements-trackers.lock"
    )


@lacks("tensorboard")
def test_tensorboard_has_curve_outcome_and_decision(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    def read(folder):
        return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()

    train(["tensorboard"])
    for _ in range(2):  # told again, it is what it was
        trackers.main(["tensorboard"])
    place = Path(".scratch/tensorboard") / str(FIRST)
    curve = files.read_json(FIRST.facts)["curve"]
    shown = {event.step: event.value for event in read(place).Scalars("loss")}
    assert shown == {point["step"]: pytest.approx(point["loss"], rel=1e-6) for point in curve}
    outcome = read(place / "outcome")
    for name, value in expected().items():
        (event,) = outcome.Scalars(name)
        assert event.value == pytest.approx(value, rel=1e-6), name
    began = outcome.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    columns = plugin_data_pb2.HParamsPluginData.FromString(began).session_start_info.hparams
    assert columns["lr"].number_value == params.load_all().train.lr
    assert columns["recommended"].string_value in ("no", *FORMATS)
    summary = read(".scratch/tensorboard/summary/outcome")
    (table,) = summary.Tensors("decision/text_summary")
    lines = table.tensor_proto.string_val[0].decode().splitlines()
    decided = files.read_json("metrics/decision.json")["demo-demo"]
    assert len(lines) == 2 + len(decided["verdicts"])
    best = Variant.parse(decided["recommended"])
    assert any(f"| {best.method} | {best.format} | yes |" in line for line in lines)


@lacks("mlflow")
@pytest.mark.slow
def test_mlflow_has_curve_outcome_and_decision(run):
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    train(["mlflow"])
    for _ in range(2):
        trackers.main(["mlflow"])
    client = MlflowClient(tracking_uri="sqlite:///.scratch/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'llm-tradeoffs'")
    runs = client.search_runs([experiment.experiment_id])
    named = {run.info.run_name: run for run in runs}
    assert len(runs) == len(named) == 5
    mine = named[str(FIRST)]
    curve = files.read_json(FIRST.facts)["curve"]
    history = client.get_metric_history(mine.info.run_id, "loss")
    assert {m.step: m.value for m in history} == {point["step"]: point["loss"] for point in curve}
    assert {name: mine.data.metrics[name] for name in expected()} == expected()
    assert mine.info.status == "FINISHED" and mine.data.params["lr"] == "0.005"
    decided = files.read_json("metrics/decision.json")["demo-demo"]
    for format in FORMATS:
        assert mine.data.tags[f"{format}/verdict"] == decided["verdicts"][str(LORA.variant(format))]["verdict"]
    path = download_artifacts(run_id=named["summary"].info.run_id, artifact_path="decision.csv", dst_path="got")
    rows = list(csv.DictReader(io.StringIO(Path(path).read_text())))
    assert [f"{r['pair']}-{r['method']}-{r['format']}" for r in rows] == list(decided["verdicts"])
    assert not Path("mlruns").exists(), "nothing that Git would see"


@lacks("wandb")
@pytest.mark.slow
def test_wandb_offline_has_curve_outcome_and_decision(run):
    train(["wandb"])
    trackers.main(["wandb"])
    written = [read_wandb(path) for path in sorted(Path(".scratch/wandb").glob("offline-run-*/run-*.wandb"))]
    mine = [one for one in written if one["name"] == str(FIRST)]
    assert len(mine) == 2 and mine[0]["id"] == mine[1]["id"], "the curve, and then what came of it: of one run"
    curve = files.read_json(FIRST.facts)["curve"]
    assert [row["loss"] for row in mine[0]["history"]] == [point["loss"] for point in curve]
    assert [row["step"] for row in mine[0]["history"]] == [point["step"] for point in curve]
    assert {name: mine[1]["summary"][name] for name in expected()} == expected()
    assert mine[1]["summary"]["recommended"] in ("no", *FORMATS)
    (summary,) = [one for one in written if one["name"] == "summary"]
    (path,) = [row["decision/path"] for row in summary["history"] if "decision/path" in row]
    table = json.loads((summary["folder"] / "files" / path).read_text())
    decided = files.read_json("metrics/decision.json")["demo-demo"]
    found = [dict(zip(table["columns"], line, strict=True)) for line in table["data"]]
    assert [f"{r['pair']}-{r['method']}-{r['format']}" for r in found] == list(decided["verdicts"])
    headline = files.read_json("metrics/headline.json")["demo-demo"]
    assert summary["summary"]["demo-demo/size_mb"] == headline["size_mb"]


def read_wandb(path):
    """What an offline run's file holds, by the messages that W&B's library has for it, as `wandb sync` sends them."""
    from wandb.proto import wandb_internal_pb2

    found = {"folder": path.parent, "history": [], "summary": {}}
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"id": record.run.run_id, "name": record.run.display_name}
        elif kind == "history":
            found["history"].append(items(record.history.item))
        elif kind == "summary":
            found["summary"] |= items(record.summary.update)
    return found


def records(content, block=2**15):
    """The records of a log in LevelDB's format, whose first block begins with seven bytes of W&B's: in blocks, within
    which each part of a record has four bytes of CRC, two of length and one of kind (whole, first, middle, last)."""
    assert content[:4] == b":W&B"
    at, whole = 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:  # no room for a head
            at += block - at % block
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def items(of):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in of}
