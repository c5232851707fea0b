"""The curves of a training while it goes on: what `launch.report_to` names gets each point when it is made.

Nothing here changes a result, so no stage depends on it: a logger that is switched on trains nothing again. Which run a
tool has of a training is kept in .scratch/runs/, by what the training was: what came of it is told to the same run.
"""

import hashlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from tradeoffs.common.texts import on_a_line
from tradeoffs.plumbing.errors import UserError
from tradeoffs.plumbing.loggers import LOGGERS, SCRATCH, TRACKERS, Logger, Point

RUNS = SCRATCH / "runs"
# What may be the value of a secret: variables that hold one end like this.
SECRET = re.compile(r"(KEY|TOKEN|PASSWORD|SECRET)$", re.IGNORECASE)


class Watch:
    """Passes a run's points on to loggers; a context, whose end is the run's.

    `update` is given all points so far, also those of a process that was killed, and passes on the new ones: the curve
    of a resumed run is whole and has no step twice. `settings` are shown beside the curves where a logger can.
    Raises UserError if a logger is not installed or cannot start, before anything is trained.
    """

    def __init__(self, report_to: Sequence[str] = (), cell: str = "", settings: dict[str, Any] | None = None):
        require(report_to)
        self._report_to, self._cell, self._settings = report_to, cell, settings or {}
        self._loggers: dict[str, Logger] = {}
        self._broken: set[str] = set()  # of these, those that are told no more
        self._points: dict[str, list[Point]] = {}

    def __enter__(self) -> "Watch":
        name = ""
        try:
            for name in self._report_to:
                self._loggers[name] = start(name, self._cell, self._settings)
        except BaseException as error:
            self._close(succeeded=False)
            if not isinstance(error, Exception):
                raise
            raise UserError(
                f"params.yaml: launch.report_to: {name} cannot start: {first_line(error)}; "
                "set it up (docs/experiments.md), or take it out of the list"
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        runs = self._close(succeeded=kind is None)
        if kind is None and runs:
            try:
                remember(self._cell, self._points, runs)
            except OSError as error:  # a full or read-only disk: what is lost is which runs these were
                self._warn(
                    f"{RUNS}: which runs {', '.join(runs)} has of this is not kept ({error.strerror or error}), "
                    "so what comes of it gets a run of its own"
                )

    def update(self, points: Sequence[Point], part: str = "") -> None:
        """`points`: all so far of the run, or of a `part` of it that counts its steps for itself."""
        begin = len(self._points.get(part, ()))
        self._points[part] = list(points)
        for name, logger in self._loggers.items():
            if name in self._broken:
                continue
            try:
                for point in points[begin:]:
                    logger.log(point, part)
            except Exception as error:  # a curve that cannot be shown is no reason to lose a training
                self._broken.add(name)
                later = f"; at its end the stage publish tells it all, and so does {again(name)}"
                self._warn(
                    f"{name} shows no more of this run, which goes on: {first_line(error)}"
                    f"{later if name in TRACKERS else ''}"
                )

    def _close(self, succeeded: bool) -> dict[str, str]:
        """Ends the run in every tool, whatever one of them does; those that have it whole, by the tools' names.

        One that broke is ended here and not at once: by now it may be there again, and knows that it has not all.
        """
        whole: dict[str, str] = {}
        loggers, self._loggers = self._loggers, {}
        with ExitStack() as ends:  # the others too, where whoever sits there interrupts one
            for name, logger in loggers.items():
                ends.callback(self._end, name, logger, succeeded, whole)
        return whole

    def _end(self, name: str, logger: Logger, succeeded: bool, whole: dict[str, str]) -> None:
        broken = name in self._broken
        try:
            logger.close(succeeded and not broken)
        except Exception as error:
            if not broken:  # of one that is, it was said
                self._warn(f"{name} did not end well: {first_line(error)}")
        else:
            whole |= {} if broken else {name: logger.run}

    def _warn(self, said: str) -> None:
        """Above the progress bar, and at once: what begins like this is shown of a step that writes to a log, too."""
        from tqdm import tqdm

        tqdm.write(f"warning: {self._cell}: {said}", file=sys.stdout)
        sys.stdout.flush()


def start(name: str, run: str, settings: Mapping[str, Any], known: str = "") -> Any:
    """The run in a tool: a new one, or that which it knows by `known`, to go on with. Raises what the tool raises.

    It is shown with its settings, of which texts of code are told by their digests: they may be nobody else's business.
    """
    return LOGGERS[name](run, _told(settings), *([known] if known else []))


def _told(settings: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(settings)
    reward = found.get("reward")
    if isinstance(reward, Mapping) and reward.get("code"):
        found["reward"] = {**reward, "code": {name: digest(text) for name, text in reward["code"].items()}}
    return found


def digest(text: str) -> str:
    """What a text is told apart by where it is not shown: the first digits that `sha256sum` has of its file."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def again(name: str) -> str:
    """The command that tells a tool of what is there."""
    return f"python -m tradeoffs.trackers --to {name}"


def require(names: Sequence[str]) -> None:
    """Raises UserError unless what `launch.report_to` names is installed."""
    missing = [name for name in names if not _is_installed(name)]
    if missing:
        raise UserError(
            f"params.yaml: launch.report_to: {', '.join(missing)} not installed; "
            "pip install -c requirements.lock -r requirements-trackers.lock, or take it out of the list"
        )


def remember(name: str, content: Any, runs: Mapping[str, str]) -> None:
    """That the tools have these runs of `name`, which are of this content (curves by their parts, or any JSON)."""
    RUNS.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"content": _mark(content), "runs": {**known(name, content), **runs}}, indent=2)
    unfinished = RUNS / f".{name}.{os.getpid()}"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(RUNS / f"{name}.json")


def known(name: str, content: Any) -> dict[str, str]:
    """The runs that the tools have of `name` with this content, by the tools' names."""
    found = _read(name)
    runs: dict[str, str] = found["runs"] if found.get("content") == _mark(content) else {}
    return runs


def _read(name: str) -> dict[str, Any]:
    try:
        found = json.loads((RUNS / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("runs"), dict) else {}


def _mark(content: Any) -> str:
    """Equal for what is equal in six digits, as the pipeline's files have it."""

    def rounded(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: rounded(part) for key, part in value.items()}
        if isinstance(value, (list, tuple)):
            return [rounded(part) for part in value]
        return f"{value:.6g}" if isinstance(value, float) else value

    return hashlib.sha256(json.dumps(rounded(content), sort_keys=True).encode()).hexdigest()[:16]


def _is_installed(package: str) -> bool:
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None  # None: a mere folder of that name, such as wandb's own


def first_line(error: Exception) -> str:
    """What an error of a tool says, on one line and without what opens it: passwords of addresses, and secrets of the
    environment."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) > 3:
            said = said.replace(value, "***")
    return on_a_line(re.sub(r"://[^/\s@]+@", "://***@", said))


NOBODY = Watch()
