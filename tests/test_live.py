"""The curves of a training while it goes on: whole, in nobody's Git, and no reason to train or to fail."""

import csv
import importlib.util
import subprocess
from pathlib import Path

import pytest
import quick_yaml
from dvc.repo import Repo

from tradeoffs import params
from tradeoffs.plumbing import live, loggers
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]
NAMES = ("step", "loss", "token_accuracy", "lr", "tokens_per_second", "utilisation", "grad_norm")
POINTS = [dict(zip(NAMES, (step, 1 / step, 0.5, 0.1, 1000.0, 0.2, 1.0), strict=True)) for step in (10, 20, 30, 40)]


@pytest.fixture(autouse=True)
def no_experiment(elsewhere, monkeypatch):
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)


def curve(name: str, cell: str = "demo-demo-lora") -> dict[int, float]:
    """Steps and values that DVCLive has written. Fails on a step that is there twice."""
    with Path("live", cell, "plots/metrics", f"{name}.tsv").open(newline="") as file:
        rows = [(int(row["step"]), float(row[name.rsplit("/", 1)[-1]])) for row in csv.DictReader(file, delimiter="\t")]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


class Recorder:
    """Stands in for a tool."""

    run = "1"

    def __init__(self, cell, settings):
        self.cell, self.settings, self.points, self.ended = cell, settings, [], None
        made.append(self)

    def log(self, point, part):
        self.points.append((part, point["step"]))

    def close(self, succeeded):
        self.ended = succeeded


made: list[Recorder] = []


@pytest.fixture
def recorder(monkeypatch):
    made.clear()
    monkeypatch.setitem(live.LOGGERS, "dvclive", Recorder)
    return made


# --- DVCLive


def test_every_number_of_a_point_can_be_read_while_the_run_goes_on():
    with live.Watch(["dvclive"], "demo-demo-lora") as watch:
        for n in range(len(POINTS)):
            watch.update(POINTS[: n + 1])
            for name in NAMES[1:]:
                assert curve(name) == {int(p["step"]): pytest.approx(p[name]) for p in POINTS[: n + 1]}


def test_a_resumed_run_has_the_whole_curve_and_no_step_twice():
    """Points after the last saved state are made again."""
    with pytest.raises(KeyboardInterrupt), live.Watch(["dvclive"], "demo-demo-lora") as watch:
        watch.update(POINTS[:3])
        raise KeyboardInterrupt
    with live.Watch(["dvclive"], "demo-demo-lora") as watch:
        watch.update(POINTS[:2])
        watch.update(POINTS)
    assert list(curve("loss")) == [10, 20, 30, 40]


def test_a_new_run_replaces_its_own_cells_curves_and_no_others():
    for cell, points in (("demo-demo-lora", POINTS), ("demo-demo-full", POINTS), ("demo-demo-lora", POINTS[:1])):
        with live.Watch(["dvclive"], cell) as watch:
            watch.update(points)
            watch.update(points, "preference") if points is POINTS else None
    assert list(curve("loss")) == [10]
    assert not Path("live/demo-demo-lora/plots/metrics/preference").exists()
    assert list(curve("loss", "demo-demo-full")) == list(curve("preference/loss", "demo-demo-full")) == [10, 20, 30, 40]


def test_a_summary_that_a_killed_run_left_half_written_stops_nothing():
    Path("live/demo-demo-lora").mkdir(parents=True)
    Path("live/demo-demo-lora/metrics.json").write_text('{"loss": 0.')
    with live.Watch(["dvclive"], "demo-demo-lora") as watch:
        watch.update(POINTS)
    assert list(curve("loss")) == [10, 20, 30, 40]


def git(*words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def project():
    """An empty DVC project with this one's ignored paths and its plot of live curves, committed."""
    git("init", "-q")
    Repo.init().close()
    Path(".dvcignore").write_text((REPO / ".dvcignore").read_text())
    Path(".gitignore").write_text((REPO / ".gitignore").read_text())
    Path("live").mkdir()
    Path("live/.gitignore").write_text((REPO / "live/.gitignore").read_text())
    plots = quick_yaml.load((REPO / "dvc.yaml").read_text())["plots"]
    (own,) = [plot for plot in plots if isinstance(plot, dict) and "live" in plot]
    Path("dvc.yaml").write_text(quick_yaml.dump({"plots": [own]}))
    git("add", "-A")
    git("commit", "-q", "-m", "empty")


@pytest.mark.parametrize("commands", [[], [["init", "-q"]]])
def test_without_dvc_and_without_a_commit_curves_are_written_and_nothing_is_set_up(commands):
    for words in commands:
        git(*words)
    with live.Watch(["dvclive"], "demo-demo-lora") as watch:
        watch.update(POINTS)
    assert len(curve("loss")) == len(POINTS)
    assert not Path(".dvc").exists()


def shown(*revisions: str) -> dict:
    with Repo() as repo:
        return repo.plots.show(revs=list(revisions))


def errors(found: object) -> list:
    parts = found.values() if isinstance(found, dict) else []
    own = [found["error"]] if isinstance(found, dict) and "error" in found else []
    return own + [error for part in parts for error in errors(part)]


def test_git_sees_no_curves_and_no_commit_or_experiment_is_made(project, monkeypatch):
    before = git("for-each-ref")
    for number, inside in enumerate(
        ({}, {"DVC_ROOT": str(Path.cwd()), "DVC_EXP_BASELINE_REV": git("rev-parse", "HEAD")})
    ):
        for name, value in inside.items():
            monkeypatch.setenv(name, value.strip())
        with live.Watch(
            [
                "dvclive",
            ],
            f"demo-demo-lora{number}",
        ) as watch:
            watch.update(POINTS)
    assert git("status", "--porcelain") == ""
    assert git("for-each-ref") == before
    assert list(Path().rglob("dvc.yaml")) == [Path("dvc.yaml")]


def test_dvc_plots_shows_the_curves_of_a_run_that_goes_on(project):
    with live.Watch(["dvclive"], "demo-demo-lora") as watch:
        watch.update(POINTS[:2])
        found = shown("workspace")
    assert not errors(found)
    sources = found["workspace"]["sources"]["data"]
    assert {Path(name).stem for name in sources} == set(NAMES[1:])
    assert [row["step"] for row in sources["live/demo-demo-lora/plots/metrics/loss.tsv"]["data"]] == ["10", "20"]


def test_dvc_plots_has_no_error_where_there_are_no_curves(project):
    with live.Watch(["dvclive"], "demo-demo-lora") as watch:
        watch.update(POINTS)
    found = shown("workspace", "HEAD")
    assert set(found) == {"workspace", "HEAD"}
    assert not errors(found)


# --- any logger


def test_no_stage_depends_on_who_is_told():
    for stage in quick_yaml.load((REPO / "dvc.yaml").read_text())["stages"].values():
        assert not any(key.split(".")[0] == "launch" for key in stage.get("params", []))
        assert "report_to" not in stage["cmd"]
        assert not any(dep.startswith("tradeoffs/plumbing") for dep in stage["deps"])


def test_each_point_is_passed_on_once_and_parts_count_for_themselves(recorder):
    with live.Watch(["dvclive"], "cell", {"lr": 0.1}) as watch:
        watch.update(POINTS[:1])
        watch.update(POINTS[:1])
        watch.update(POINTS[:2])
        watch.update(POINTS[:1], "preference")
    (run,) = recorder
    assert run.points == [("", 10), ("", 20), ("preference", 10)]
    assert (run.cell, run.settings, run.ended) == ("cell", {"lr": 0.1}, True)


def test_a_run_that_fails_is_closed_as_failed(recorder):
    with pytest.raises(ValueError, match="diverged"), live.Watch(["dvclive"], "cell"):
        raise ValueError("diverged")
    assert recorder[0].ended is False


class Broken(Recorder):
    """Its server is away from the second point on, at the end too."""

    def log(self, point, part):
        super().log(point, part)
        if len(self.points) > 1:
            raise ConnectionError("server \x1b[2J is gone\nand more")

    def close(self, succeeded):
        super().close(succeeded)
        raise ConnectionError("still gone")


def test_a_tool_that_breaks_is_left_out_and_the_training_and_the_others_go_on(recorder, monkeypatch, capsys):
    monkeypatch.setitem(live.LOGGERS, "mlflow", Broken)
    monkeypatch.setattr(live, "_is_installed", lambda package: True)
    with live.Watch(["mlflow", "dvclive"], "cell") as watch:
        for n in range(len(POINTS)):
            watch.update(POINTS[: n + 1])
    broken, whole = recorder
    assert capsys.readouterr().out == (
        "warning: cell: mlflow shows no more of this run, which goes on: server \\x1b[2J is gone; at its end the stage "
        "publish tells it all, and so does python -m tradeoffs.trackers --to mlflow\n"
    ), "once, and nothing of how its end went"
    assert [step for _, step in broken.points] == [10, 20] and broken.ended is False
    assert [step for _, step in whole.points] == [10, 20, 30, 40] and whole.ended is True
    assert live.known("cell", {"": POINTS}) == {"dvclive": "1"}, "the other has a part of the curve, in a failed run"


def test_a_tool_that_does_not_end_well_has_no_run_to_go_on_with(recorder, monkeypatch, capsys):
    monkeypatch.setitem(live.LOGGERS, "mlflow", Broken)
    monkeypatch.setattr(live, "_is_installed", lambda package: True)
    with live.Watch(["mlflow", "dvclive"], "cell") as watch:
        watch.update(POINTS[:1])
    assert capsys.readouterr().out == "warning: cell: mlflow did not end well: still gone\n"
    assert [one.ended for one in recorder] == [True, True]
    assert live.known("cell", {"": POINTS[:1]}) == {"dvclive": "1"}


def test_a_disk_that_takes_no_note_of_a_run_does_not_end_the_training(recorder, monkeypatch, capsys):
    live.RUNS.parent.mkdir(parents=True, exist_ok=True)
    live.RUNS.write_text("")  # a file, where the folder should be
    with live.Watch(["dvclive"], "cell") as watch:
        watch.update(POINTS[:1])
    assert capsys.readouterr().out.startswith(
        "warning: cell: .scratch/runs: which runs dvclive has of this is not kept"
    )


def test_whoever_interrupts_the_end_of_one_tool_leaves_no_other_open(recorder, monkeypatch):
    class Slow(Recorder):
        def close(self, succeeded):
            raise KeyboardInterrupt

    monkeypatch.setitem(live.LOGGERS, "mlflow", Slow)
    monkeypatch.setattr(live, "_is_installed", lambda package: True)
    for names in (["mlflow", "dvclive"], ["dvclive", "mlflow"]):
        made.clear()
        with pytest.raises(KeyboardInterrupt), live.Watch(names, "cell"):
            pass
        assert [one.ended for one in made if not isinstance(one, Slow)] == [True]


def test_whoever_interrupts_the_start_of_one_tool_leaves_no_other_open(recorder, monkeypatch):
    monkeypatch.setitem(live.LOGGERS, "wandb", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(live, "_is_installed", lambda package: True)
    with pytest.raises(KeyboardInterrupt), live.Watch(["dvclive", "wandb"], "cell"):
        pytest.fail("nothing may be trained")
    assert recorder[0].ended is False


def test_of_code_among_the_settings_a_digest_is_told(recorder):
    """As `sha256sum` has it of the file."""
    code = "def reward(answer, expected): return 1.0\n"
    settings = {"lr": 0.1, "reward": {"functions": {"rewards/own.py": 1.0}, "code": {"rewards/own.py": code}}}
    with live.Watch(["dvclive"], "cell", settings):
        pass
    told = recorder[0].settings
    assert told == settings | {"reward": settings["reward"] | {"code": {"rewards/own.py": live.digest(code)}}}
    Path("own.py").write_text(code)
    summed = subprocess.run(["sha256sum", "own.py"], check=True, capture_output=True, text=True).stdout
    assert told["reward"]["code"]["rewards/own.py"] == f"sha256:{summed[:16]}"
    assert settings["reward"]["code"]["rewards/own.py"] == code, "what is trained by is what it was"


def test_a_tool_that_cannot_start_is_one_message_and_what_was_started_is_closed(recorder, monkeypatch):
    def refused(cell, settings):
        raise RuntimeError("No API key configured. Use `wandb login`.")

    monkeypatch.setitem(live.LOGGERS, "wandb", refused)
    monkeypatch.setattr(live, "_is_installed", lambda package: True)
    message = r"launch\.report_to: wandb cannot start: No API key configured.*take it out of the list"
    with pytest.raises(UserError, match=message), live.Watch(["dvclive", "wandb"], "cell"):
        pytest.fail("nothing may be trained")
    assert recorder[0].ended is False


def test_all_packages_that_are_missing_are_named_with_the_command(monkeypatch):
    found = importlib.util.find_spec
    gone = {"wandb", "tensorboard", "mlflow"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else found(name))
    with pytest.raises(
        UserError, match=r"launch\.report_to: wandb, mlflow not installed; pip install -c .*trackers\.lock,"
    ):
        live.Watch(["dvclive", "wandb", "mlflow"], "cell")
    for name in gone:
        with pytest.raises(UserError, match=f"{name} not installed; pip install -c requirements"):
            live.Watch([name], "cell")


def test_a_mere_folder_of_a_packages_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "wandb_like").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not live._is_installed("wandb_like")
    assert live._is_installed("dvclive")


def test_an_experiments_runs_are_named_after_it(monkeypatch):
    assert loggers._run_name("demo-demo-lora") == "demo-demo-lora"
    monkeypatch.setenv("DVC_EXP_NAME", "tidy-fox")
    assert loggers._run_name("demo-demo-lora") == "demo-demo-lora.tidy-fox"


def test_params_know_the_loggers_and_nothing_else():
    raw = quick_yaml.load((REPO / "params.yaml").read_text())
    for wanted, problem in ((["tensorbord"], "did you mean tensorboard"), (["mlflow", "mlflow"], "launch.report_to: ")):
        Path("params.yaml").write_text(quick_yaml.dump(raw | {"launch": raw["launch"] | {"report_to": wanted}}))
        with pytest.raises(UserError, match=problem):
            params.load_all()
    Path("params.yaml").write_text(quick_yaml.dump(raw | {"launch": raw["launch"] | {"report_to": []}}))
    assert params.load_all().launch.report_to == []
