"""What is seen of a run: which step of how many begins, how long is left, what runs beside each other, what failed."""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tradeoffs.common.texts import harmless
from tradeoffs.plumbing import asked
from tradeoffs.repro.following import Followed
from tradeoffs.repro.pipeline import Begun
from tradeoffs.repro.times import spoken

STEADY = 60.0  # seconds: the pace of so much work is taken from the times that are known, not from this run
END = 4096  # bytes of a log in which its last line is looked for
FEW = 4  # steps that are named one by one
LAST_LINES = 20  # of its log, of a step that failed
NOTES = ("note:", "warning:")


class Screen:
    """Lines of the `planned` steps, of which `expected` says what some add to the run's time, in seconds.

    `share` is the part of its own time that a step adds to it, less than 1 where others run beside it.

    A step that runs alone writes to the terminal itself. What runs beside others writes to its log: on a terminal a
    table shows the last line of each, elsewhere nothing more is said than that it begins. Where questions are wanted
    (plumbing/asked.py), those in the logs are said too, as they come.
    """

    def __init__(self, planned: Sequence[str], expected: Mapping[str, float], share: Mapping[str, float]) -> None:
        self._planned, self._expected, self._share = list(planned), expected, share
        self._number = 0
        self._took: dict[str, float] = {}
        self._open = list(planned)
        self._running: dict[str, tuple[Path, float]] = {}
        self._console = Console(highlight=False, markup=False, soft_wrap=True)
        self._live: Live | None = None
        self._follows = asked.wanted()
        self._followed: dict[str, Followed] = {}

    def starts(self, name: str, commands: Sequence[str], log: Path | None, place: str = "") -> None:
        left = self._left()
        if log is None:
            self._say(f"\n{self._numbered()} {name}{left}", *(f"> {command}" for command in commands))
            return
        self._say(f"{self._numbered()} {name}{f', on {place}' if place else ''}{left}")
        self._running[name] = (log, time.monotonic())
        if self._follows:
            self._followed[name] = Followed(log)
        self._show()

    def not_run(self, name: str, found: Begun) -> None:
        self._open.remove(name)
        self._say(f"{self._numbered()} Stage '{name}' {found.value}")

    def ends(self, name: str, took: float) -> None:
        self._took[name] = took * self._share[name]
        self._open.remove(name)
        if log := self._stopped(name):
            self._say(*(f"{name}: {line}" for line in _lines(log) if line.startswith(NOTES)))

    def again(self, name: str, place: str, why: str) -> None:
        """It could not run there, and will begin again elsewhere."""
        self._number -= 1
        self._stopped(name)
        self._say(f"warning: {place} {why}: {name} begins again elsewhere")

    def fails(self, name: str, why: str, dependents: Set[str], rest: Sequence[str]) -> None:
        self._open = [one for one in self._open if one != name and one not in dependents]
        said = [f"left out, since it depends on that: {_named(dependents)}"] if dependents else []
        said += [f"waiting for {', '.join(rest)}, which began before"] if rest else []
        if log := self._stopped(name):
            last = _lines(log)[-LAST_LINES:]
            said = [*(f"  {line}" for line in last), f"all that it wrote: {log}", *said]
        self._hide()  # it would take what others write for its own lines
        print("\n".join([f"ERROR: {why}", *said]), file=sys.stderr, flush=True)
        self._show()

    def says(self, line: str) -> None:
        """What is of no single step."""
        self._say(line)

    def refresh(self) -> None:
        for followed in self._followed.values():
            self._say(*followed.lines())
        if self._live:
            self._live.refresh()

    def close(self) -> None:
        self._running.clear()
        self._hide()

    def _show(self) -> None:
        """The table, as long as there is something in it, on a terminal. Nobody but `refresh` draws it."""
        if self._running and self._console.is_terminal and not self._live:
            self._live = Live(
                get_renderable=self._table,
                console=self._console,
                transient=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def _hide(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def _stopped(self, name: str) -> Path | None:
        """The log of a step that has ended, if it has one."""
        if name not in self._running:
            return None
        log, _ = self._running.pop(name)
        if followed := self._followed.pop(name, None):
            self._say(*followed.lines())
        if not self._running:
            self._hide()
        return log

    def _say(self, *lines: str) -> None:
        if lines:
            self._console.print("\n".join(lines))
            sys.stdout.flush()

    def _numbered(self) -> str:
        self._number += 1
        return f"[{self._number}/{len(self._planned)}]"

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for _ in range(2):
            table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for name, (log, begun) in self._running.items():
            last = next(reversed(_lines(log, END)), "")
            table.add_row(f"  {name}", f"{time.monotonic() - begun:.0f} s", Text(last, style="dim"))
        return table

    def _left(self) -> str:
        """How long the steps that have not ended will take, as far as that is known: of those that were never timed by
        what others of their stage have taken in this run."""
        timed = [name for name in self._took if name in self._expected]
        spent, due = sum(self._took[name] for name in timed), sum(self._expected[name] for name in timed)
        pace = (spent + STEADY) / (due + STEADY)
        stages: dict[str, list[float]] = {}
        for name, took in self._took.items():
            stages.setdefault(name.partition("@")[0], []).append(took)
        known = [self._expected[name] * pace for name in self._open if name in self._expected]
        new = [stages.get(name.partition("@")[0]) for name in self._open if name not in self._expected]
        known += [mean(took) for took in new if took]
        if not known:
            return ""
        sort = "about" if len(known) == len(self._open) else "at least"
        return f", {sort} {spoken(sum(known))} left"


def _named(steps: Set[str]) -> str:
    """A few of them by name, of more how many of each stage."""
    if len(steps) <= FEW:
        return ", ".join(sorted(steps))
    return ", ".join(f"{count} {stage}" for stage, count in sorted(Counter(s.partition("@")[0] for s in steps).items()))


def _lines(log: Path, end: int | None = None) -> list[str]:
    """What a step wrote, or so many bytes at its end: of a progress bar its last state."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - end) if end else 0)
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [harmless(line.rsplit("\r", 1)[-1].rstrip()) for line in text.split("\n") if line.strip()]
