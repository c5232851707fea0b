"""A metric at commits and experiments: its value, and its change where the test items stayed the same."""

import csv
import io
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import ndtr, stdtrit
from tqdm import tqdm

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED, Pair, Variant
from tradeoffs.gate.costing import Costing
from tradeoffs.gate.pairing import Pairing, holder
from tradeoffs.gate.policy import Policy
from tradeoffs.gate.rows import LEFT_OUT, NOT_COMPARED, Word
from tradeoffs.params import Decide
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.results import costs, simultaneous
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Results
from tradeoffs.revisions import Revision, Store

RECOMMENDED = "recommended"
LOCKED = ("dvc.lock", "metrics")  # what a run leaves in Git
KEPT = "metrics/summary.csv"


@dataclass(frozen=True)
class Entry:
    """A commit, or an experiment by its name."""

    sha: str
    date: str  # YYYY-MM-DD
    subject: str
    experiment: str = ""

    @property
    def name(self) -> str:
        return self.experiment or self.sha[:7]


@dataclass(frozen=True)
class Point:
    """A metric at a commit. Without `results` its items are not to be had (`why`), and a value is the committed one.

    `against` is the entry that `difference` is from, paired on the same items, by intervals that hold for all shown
    differences together; `broken` is why there is none. `trained`: the two are not of the same trainings.
    """

    entry: Entry
    variant: Variant | None
    value: Interval | None
    revision: Revision
    results: Results | None = field(default=None, repr=False)
    why: str = ""
    against: Entry | None = None
    difference: Interval | None = None
    broken: str = ""
    trained: bool = False
    cost: Word | None = None  # what the gate says of a cost


@dataclass(frozen=True)
class Asked:
    """What is followed: a number, of a variant or of what is recommended for a model and data set (None: the only)."""

    metric: str
    variant: Variant | None
    pair: Pair | None
    resamples: int
    decide: Decide

    @property
    def is_cost(self) -> bool:
        return costs.bare(self.metric) in costs.COST

    def value(self, results: Results, variant: Variant) -> Interval | None:
        """With its 95 % interval; None where it was not measured."""
        if not self.is_cost:
            mine = holder(results, variant, self.metric)
            return results.interval(mine, self.metric) if results.has(mine, self.metric) else None
        found = results.cost[variant].get(self.metric)
        if found is None:
            return None
        return costs.interval(results, variant, self.metric) or Interval(found, found, found, 0.0)


def known(metric: str) -> str:
    """Raises UserError if there is no quality metric and no cost of this name."""
    names = [*metrics.names("quality"), *metrics.names("summary"), *costs.COST]
    if metric not in names and costs.bare(metric) not in costs.COST:
        raise UserError(f"{metric}: no metric of quality and no cost{near(metric, names)}")
    return metric


def commits(rev: str, since: str | None, count: int) -> list[Entry]:
    """First parents of a commit that changed what a run leaves, oldest first: the last `count`.

    `since`: from what that commit has on.

    Raises UserError if there is no such commit.
    """
    newest, oldest = Revision(rev).sha, since and Revision(since).sha
    span = [f"{oldest}..{newest}"] if oldest else [f"-n{count}", str(newest)]
    found = _log("--first-parent", *span, "--", *LOCKED)
    if oldest:
        found += _log("--first-parent", "-n1", oldest, "--", *LOCKED)
    return found[:count][::-1]


def experiments(rev: str) -> list[Entry]:
    """Those that were made on a commit, oldest first, without what failed or waits."""
    import dvc.api

    rows = [row for row in dvc.api.exp_show(revs=rev) if row["typ"] != "baseline"]
    done = [row for row in rows if (row["State"] or "Success") == "Success"]
    return [replace(_log("-n1", row["rev"])[0], experiment=row["Experiment"] or row["rev"]) for row in done[::-1]]


def _log(*words: str) -> list[Entry]:
    done = subprocess.run(["git", "log", "-z", "--format=%H%x09%cs%x09%s", *words], capture_output=True, check=False)
    if done.returncode:
        raise UserError(f"git log: {' '.join(done.stderr.decode(errors='replace').split())}")
    lines = done.stdout.decode("utf-8", errors="replace").split("\0")
    return [Entry(*line.strip("\n").split("\t", 2)) for line in lines if line.strip()]


def follow(asked: Asked, main: Sequence[Entry], tried: Sequence[Entry] = ()) -> list[Point]:
    """The metric at commits, oldest first, each against the last one before it whose items are to be had, and at
    experiments, each against the last of the commits."""
    store = Store()
    read = tqdm([*main, *tried], desc="reading", unit="commit", delay=2, leave=False)
    found = [_point(asked, entry, store) for entry in read]
    pairs: list[tuple[Point | None, Point]] = []
    before: Point | None = None
    for point in found:
        pairs.append((before, point))
        before = before if point.entry.experiment or point.results is None else point
    steps = [_step(asked, old, new) for old, new in pairs]
    # Bounds that hold for all steps together, each a difference from nothing.
    drawn = [step for _, step in steps if step is not None]
    together = simultaneous.against(np.stack([np.zeros_like(drawn[0]), *drawn]), 0)[1:] if drawn else []
    counts = [_items(asked, point) for point, step in steps if step is not None]
    bounds = iter(_widened(one, items) for one, items in zip(together, counts, strict=True))
    return [point if step is None else replace(point, difference=next(bounds)) for point, step in steps]


def _items(asked: Asked, point: Point) -> int:
    assert point.results and point.variant
    return len(point.results.sums(holder(point.results, point.variant, asked.metric), asked.metric))


def _widened(found: Interval, items: int) -> Interval:
    """By Student's t at the same tail, and the error that n - 1 gives: of few items the bootstrap's is too narrow."""
    if not found.error:
        return found
    if items < 2:
        return replace(found, low=-np.inf, high=np.inf)
    error = found.error * (items / (items - 1)) ** 0.5
    reach = float(-stdtrit(items - 1, ndtr(-(found.high - found.value) / found.error))) * error
    return Interval(found.value, found.value - reach, found.value + reach, error)


def _point(asked: Asked, entry: Entry, store: Store) -> Point:
    revision = Revision(entry.sha, store)
    variant, why = None, ""
    try:
        variant = asked.variant or _recommended(revision, asked.pair)
        results = revision.results(asked.resamples, asked.decide, _needed(asked, variant))
        value = asked.value(results, variant)
        if value is None:
            return Point(entry, variant, None, revision, why=f"{variant} has no {asked.metric}")
        return Point(entry, variant, value, revision, results)
    except UserError as error:
        why = str(error)
    return Point(entry, variant, _committed(revision, variant, asked.metric) if variant else None, revision, why=why)


def _needed(asked: Asked, variant: Variant) -> list[Variant]:
    """What has to be read: of general text the model as trained is asked alone."""
    general = asked.metric.startswith("general_")
    return list(dict.fromkeys([variant, *([variant.cell.variant(TRAINED)] if general else [])]))


def _recommended(revision: Revision, pair: Pair | None) -> Variant:
    """By the committed decision. Raises UserError if it has none."""
    text = revision.text("metrics/decision.json")
    if text is None:
        raise UserError("no metrics/decision.json, so nothing was recommended")
    try:
        rows = json.loads(text)
        listed = [str(pair)] if pair else list(rows)
        if len(listed) > 1:
            raise UserError(f"several models and data sets: name one, {listed[0]}-{RECOMMENDED}")
        return Variant.parse(str(rows[listed[0]][RECOMMENDED]))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError("metrics/decision.json recommends nothing of it") from error


def _committed(revision: Revision, variant: Variant, metric: str) -> Interval | None:
    """The value and interval that the commit wrote down; None where it did not."""
    try:
        rows = csv.DictReader(io.StringIO(revision.text(KEPT) or ""))
        row = next((row for row in rows if row.get("variant") == str(variant)), {})
        value = float(row[metric])
        low, high = (float(row.get(f"{metric}_{end}") or value) for end in ("low", "high"))
    except (UserError, KeyError, ValueError, csv.Error):
        return None
    return Interval(value, low, high, 0.0) if np.isfinite([value, low, high]).all() else None


def _step(asked: Asked, old: Point | None, new: Point) -> tuple[Point, np.ndarray | None]:
    """A point with the entry that it is held against, and the difference per resample, where the two can be paired."""
    if old is None or new.results is None or old.results is None:
        return new, None
    assert old.variant and new.variant
    mine, other, held, shown = new.results, old.results, old.variant, new.variant
    new = replace(new, against=old.entry)
    pairing = Pairing(old.revision, new.revision, other, mine)
    if asked.is_cost:
        policy = Policy(costs={asked.metric: costs.tolerance(asked.metric)})
        every = Costing(other, mine, policy, pairing.of_costs()).rows(held, shown)
        row = next(row for row in every if row.name == asked.metric)
        left_out = row.word in (LEFT_OUT, NOT_COMPARED)
        return replace(new, cost=row.word, broken=row.note if left_out else ""), None
    theirs, ours = holder(other, held, asked.metric), holder(mine, shown, asked.metric)
    if old.revision.params.get("seed") != new.revision.params.get("seed"):
        return replace(new, broken="other seed"), None
    if broken := pairing.against(theirs, ours, asked.metric):
        return replace(new, broken=broken), None
    drawn = mine.values(ours, asked.metric) - other.values(theirs, asked.metric)
    if not np.isfinite(drawn).all():
        return replace(new, broken="undefined in some resamples"), None
    return replace(new, trained=not pairing.same_trainings(theirs.cell, ours.cell)), drawn
