"""What else could be shipped: all that costs as little as what is recommended, and the Pareto sets."""

from collections.abc import Sequence

from tradeoffs.common.cells import Variant
from tradeoffs.report.decision import CHEAPEST
from tradeoffs.report.formatting import (
    Lines,
    bold,
    cost_of,
    escaped,
    full_label,
    heading,
    name_of,
    quality_of,
    table,
    verdict,
)
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import OF_A_CANDIDATE, cut_short, guard_changes, marked, seeds, what_was_cut
from tradeoffs.results import costs, decision
from tradeoffs.results.costs import COST
from tradeoffs.results.decision import Decision
from tradeoffs.results.results import Results


def section(results: Results, drawn: Sequence[str]) -> str:
    found = [decision.decide(results, group) for group in results.groups()]
    groups = [
        {
            "title": heading(one.pair),
            "choices": _choices(results, one),
            "cut": _cut(results, one),
            "pareto": {CHEAPEST[key][0]: _front(results, one, key) for key in one.pareto},
        }
        for one in found
    ]
    dashed = {key for one in found for key, front in one.pareto.items() if len(front) > 1}
    return render("choices.md.j2", drawn, groups=groups, dashed=dashed, seeds=seeds(results))


def _front(results: Results, found: Decision, cost: str) -> str:
    """A Pareto set, and which of those that are good enough are not told apart from its first."""
    front = found.pareto[cost]
    if not front:
        return "none, since nothing keeps the limits"
    good = (v for v in found.standing.eligible if v not in front)
    same = [name_of(v) for v in good if not costs.told_apart(results, v, front[0], cost)]
    first = name_of(front[0]) + (f" (not told apart: {', '.join(same)})" if same else "")
    return ", ".join([first, *map(name_of, front[1:])])


def _cut(results: Results, found: Decision) -> str:
    """What the mark beside F1 means; nothing where another metric decides, and F1 is not there."""
    some = list(_compared(results, found)) if found.metric == "test_f1" else []
    return what_was_cut(results, cut_short(results, some))


def _compared(results: Results, found: Decision) -> dict[Variant, str]:
    """All that cost as little as what is recommended, then the best found and the untouched base, and what each is."""
    best, base = found.standing.best, results.untouched(found.pair)
    rows = dict.fromkeys(found.same_cost, "same cost")
    rows[found.shown] = "ship" if found.recommended else "nearest miss"
    rows[best] = f"{rows[best]}, best found" if best == found.shown else "best found"
    if base:
        rows.setdefault(base, "untouched base")
    return rows


def _choices(results: Results, found: Decision) -> Lines:
    """What could be chosen, side by side."""
    name, best, dataset = found.metric, found.standing.best, found.pair.dataset
    rows = _compared(results, found)
    cut, weighed = cut_short(results, list(rows)), costs.with_host(results, list(rows), OF_A_CANDIDATE)
    also = [more for more in ("test_exact_match",) if results.has(best, more) and more != name]
    changes = guard_changes(results, found, list(rows))
    header = ["", "variant", full_label(results, dataset, name), "against the best"]
    header += [full_label(results, dataset, more) for more in also] + [*changes]
    lines = []
    for place, (v, why) in enumerate(rows.items()):
        against = found.standing.verdicts[v]
        row = [why, bold(name_of(v), v == found.shown), marked(quality_of(results, v, name), name, v in cut)]
        row += [against.word if v == best else verdict(against, name)]
        row += [quality_of(results, v, more) for more in also] + [cells[place] for cells in changes.values()]
        row.append(escaped(results.facts[v]["runtime"]))
        lines.append([*row, *(cost_of(results, v, key) for key in weighed)])
    return table([*header, "runs on", *(COST[key] for key in weighed)], lines, keys=2, together=[2])
