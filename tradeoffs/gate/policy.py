"""What a gate judges, and by which margins: gate.yaml, read as strictly as params.yaml. Every key may be left out.

Which metrics a task of `evaluate.tasks` has, and which of their ends is better, stands in its results alone: such names
are looked at when these were read (`require_known`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tradeoffs import metrics
from tradeoffs.params import reading
from tradeoffs.params.fields import NonNegative, PositiveFloat
from tradeoffs.params.parsing import parsed, plain, problems_of, shown
from tradeoffs.params.tasks import of_a_task
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
    tasks = [*_tasks(base), *_tasks(head)]
    if path is not None:
        return read(path, tasks)
    old, new = (side.text(PATH.name) for side in (base, head))
    if old is not None:
        notes = (f"{PATH} of {head.name} is another: judged by that of {base.name}",) if new != old else ()
        return replace(_read(plain(old.encode(), f"{PATH} of {base}"), str(PATH), tasks), notes=notes)
    if new is None:
        return Policy()
    found = _read(plain(new.encode(), f"{PATH} of {head}"), str(PATH), tasks)
    unseen = f"a {PATH} that {base.name} does not have, which ignores {len(found.ignore)} metrics and costs"
    return replace(found, notes=(f"judged by {unseen}",), unseen=unseen)


def read(path: Path, tasks: Sequence[str] = ()) -> Policy:
    """The policy in a file, which may name metrics of these `tasks`. Raises UserError with all that is wrong with it,
    or if there is none of that name."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; --policy names one like docs/gate.md shows, without it {PATH} is taken")
    return _read(parsed(path), str(path), tasks)


def require_known(policy: Policy) -> None:
    """Raises UserError for metrics that nothing has; to be called when the results of both sides were read."""
    _require_none(_unknown(policy.metrics, policy.costs, policy.ignore, ()), policy.name)


def _tasks(side: Revision) -> list[str]:
    """Those that a revision asks; none where its params.yaml is of before there were any."""
    evaluate = side.params.get("evaluate")
    tasks = evaluate.get("tasks") if isinstance(evaluate, dict) else None
    return [name for name in tasks if isinstance(name, str)] if isinstance(tasks, list) else []


def _read(raw: Any, path: str, tasks: Sequence[str]) -> Policy:
    problems = list(problems_of(raw))
    found: _File | None = None if problems else reading.read(_File, {} if raw is None else raw, "", problems)
    if found is not None and not problems:
        problems = list(_problems(found, tasks))
    _require_none(problems, path)
    assert found is not None, "or there was a problem"
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


def _require_none(problems: Iterable[str], path: str) -> None:
    """Raises UserError with all problems of a file, if there are any."""
    listed = list(problems)
    if listed:
        count = f"{len(listed)} problem" + ("s" if len(listed) > 1 else "")
        raise UserError("\n  ".join([f"{path}: {count}", *map(shown, listed)]))


def directed() -> tuple[list[str], list[str]]:
    """Metrics of which one end is better: by their own names, and by those in the metrics files."""
    full = [n for stands in ("quality", "summary") for n in metrics.names(stands) if metrics.metric(n)[1].better]
    return [metric.name for metric in metrics.every() if metric.better], full


def _problems(found: _File, tasks: Sequence[str]) -> Iterator[str]:
    if not (found.variants is None or found.variants in WORDS or _names(found.variants)):
        hint = near(found.variants, WORDS) if isinstance(found.variants, str) else ""
        yield f"variants: must be {' or '.join(WORDS)}, or a list of variants{hint}"
    yield from _unknown(found.metrics or {}, found.costs or {}, found.ignore or (), tasks)


def _unknown(
    margins: Mapping[str, float], dearer: Mapping[str, float], ignore: Sequence[str], tasks: Sequence[str]
) -> Iterator[str]:
    """Names that are none; what may be a metric of one of the `tasks` is taken for one."""
    bare, full = directed()
    known = list(dict.fromkeys([*bare, *full]))
    without = {name for stands in ("quality", "summary") for name in metrics.names(stands)} - set(full)
    without |= {metric.name for metric in metrics.every() if not metric.better}
    for name in margins:
        if name in without:
            yield f"metrics.{name}: neither end of it is better, so nothing is worse by it; leave it out"
        elif name not in known and not of_a_task(name, tasks):
            yield f"metrics.{name}: unknown metric{near(name, known)}"
    for name in dearer:
        if not costs.known(name):
            yield f"costs.{name}: unknown cost{near(name, costs.CHEAPER)}"
    for index, name in enumerate(ignore):
        if name not in known and costs.bare(name) not in costs.CHEAPER and not of_a_task(name, tasks):
            yield f"ignore[{index}]: neither a metric nor a cost: {name!r}{near(name, [*known, *costs.CHEAPER])}"
        elif name in margins or name in dearer:
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
