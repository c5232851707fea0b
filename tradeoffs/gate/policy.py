"""What a gate judges, and by which margins: gate.yaml, read as strictly as params.yaml. Every key may be left out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tradeoffs import metrics
from tradeoffs.params import reading
from tradeoffs.params.fields import NonNegative, PositiveFloat
from tradeoffs.params.parsing import parsed, plain, problems_of, shown
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.results import costs
from tradeoffs.revisions import Revision

PATH = Path("gate.yaml")
Which = Literal["recommended", "all"] | tuple[str, ...]
WORDS = ("recommended", "all")
# Judged wherever they were measured, and no others unless they are named.
COSTS = ("size_mb", "model_memory_mb", "peak_gpu_memory_mb", "prefill_tokens_per_second", "decode_tokens_per_second")


@dataclass(frozen=True)
class Policy:
    """`variants`: whose rows are judged. `metrics`: margins in the place of those in `decide.margins`, by the same
    names; `costs`: how much dearer is no loss, as a part of the cost; `ignore`: what is not judged, of both."""

    variants: Which = "recommended"
    metrics: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    name: str = ""  # of the file; "": none
    notes: tuple[str, ...] = ()  # whose file it is, where a reader has to know
    unseen: str = ""  # what only a file of the head leaves out, which nobody has agreed to yet

    def tolerance(self, cost: str) -> float:
        """The part of a cost that is no loss: as set here, or what the report takes for nothing to decide by."""
        return self.costs.get(cost, self.costs.get(costs.bare(cost), costs.tolerance(cost)))

    @property
    def judged_costs(self) -> list[str]:
        return [name for name in dict.fromkeys([*COSTS, *self.costs]) if name not in self.ignore]


@dataclass(frozen=True)
class _File:
    variants: Any | None = None  # not `on`, which YAML 1.1 takes for true
    metrics: dict[str, PositiveFloat] | None = None
    costs: dict[str, NonNegative] | None = None
    ignore: list[str] | None = None


def of(base: Revision, head: Revision, path: Path | None) -> Policy:
    """The policy that judges: of the file named, else gate.yaml of the base, so that no change sets what judges it; of
    the head where the base has none.

    Raises UserError as `read`.
    """
    if path is not None:
        return read(path)
    old, new = (side.text(PATH.name) for side in (base, head))
    if old is not None:
        notes = (f"{PATH} of {head.name} is another: judged by that of {base.name}",) if new != old else ()
        return replace(_read(plain(old.encode(), f"{PATH} of {base}"), str(PATH)), notes=notes)
    if new is None:
        return Policy()
    found = _read(plain(new.encode(), f"{PATH} of {head}"), str(PATH))
    unseen = f"a {PATH} that {base.name} does not have, which ignores {len(found.ignore)} metrics and costs"
    return replace(found, notes=(f"judged by {unseen}",), unseen=unseen)


def read(path: Path) -> Policy:
    """The policy in a file. Raises UserError with all that is wrong with it, or if there is none of that name."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; --policy names one like docs/gate.md shows, without it {PATH} is taken")
    return _read(parsed(path), str(path))


def _read(raw: Any, path: str) -> Policy:
    problems = list(problems_of(raw))
    found: _File | None = None if problems else reading.read(_File, {} if raw is None else raw, "", problems)
    if found is not None and not problems:
        problems = list(_problems(found))
    if found is None or problems:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        raise UserError("\n  ".join([f"{path}: {count}", *map(shown, problems)]))
    which: Which = "all" if found.variants == "all" else "recommended"
    if isinstance(found.variants, list):
        which = tuple(found.variants)
    return Policy(
        which,
        found.metrics or {},
        found.costs or {},
        tuple(found.ignore or ()),
        path,
    )


def directed() -> tuple[list[str], list[str]]:
    """Metrics of which one end is better: by their own names, and by those in the metrics files."""
    full = [n for stands in ("quality", "summary") for n in metrics.names(stands) if metrics.metric(n)[1].better]
    return [metric.name for metric in metrics.every() if metric.better], full


def _problems(found: _File) -> Iterator[str]:
    bare, full = directed()
    known = list(dict.fromkeys([*bare, *full]))
    without = {name for stands in ("quality", "summary") for name in metrics.names(stands)} - set(full)
    without |= {metric.name for metric in metrics.every() if not metric.better}
    if not (found.variants is None or found.variants in WORDS or _names(found.variants)):
        hint = near(found.variants, WORDS) if isinstance(found.variants, str) else ""
        yield f"variants: must be {' or '.join(WORDS)}, or a list of variants{hint}"
    for name in found.metrics or ():
        if name in without:
            yield f"metrics.{name}: neither end of it is better, so nothing is worse by it; leave it out"
        elif name not in known:
            yield f"metrics.{name}: unknown metric{near(name, known)}"
    for name in found.costs or ():
        if not costs.known(name):
            yield f"costs.{name}: unknown cost{near(name, costs.CHEAPER)}"
    for index, name in enumerate(found.ignore or ()):
        if name not in known and costs.bare(name) not in costs.CHEAPER:
            yield f"ignore[{index}]: neither a metric nor a cost: {name!r}{near(name, [*known, *costs.CHEAPER])}"
        elif name in (found.metrics or {}) or name in (found.costs or {}):
            yield f"ignore[{index}]: {name} has a margin above; leave out one of them"


def _names(which: Any) -> bool:
    return isinstance(which, list) and bool(which) and all(isinstance(name, str) and name for name in which)


def gated_metrics(policy: Policy, margins: dict[str, float]) -> dict[str, float]:
    """The margin of every metric that is judged, by its name in the metrics files: all that have one.

    Of training items (`seen_`) only what the policy names itself.
    """
    both = margins | policy.metrics
    found = {}
    for name in directed()[1]:
        split, metric = metrics.metric(name)
        bare = metric.name
        ignored = name in policy.ignore or bare in policy.ignore
        if ignored or (split == "seen" and name not in policy.metrics):
            continue
        # What the policy says of a metric goes before what params.yaml says of one split of it.
        for source in (policy.metrics, margins):
            if name in source or bare in source:
                found[name] = source.get(name, source.get(bare, 0.0))
                break
    return {name: found[name] for name in sorted(found, key=lambda n: _order(n, both))}


def _order(name: str, margins: dict[str, float]) -> int:
    """As params.yaml lists them, a split by its own name where it has one."""
    listed: Sequence[str] = list(margins)
    bare = metrics.metric(name)[1].name
    return listed.index(name) if name in listed else listed.index(bare)
