"""How the report writes things: tables, numbers with their intervals, names."""

from collections.abc import Sequence

from tradeoffs import metrics
from tradeoffs.intervals import Interval
from tradeoffs.results import Results
from tradeoffs.variants import Variant

Lines = list[str]
DECIMALS = {"bleu": 1, "perplexity": 2, "kld": 4}  # others 3


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Lines:
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(['---'] + ['---:'] * (len(header) - 1))}|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def folded(title: str, lines: Lines) -> Lines:
    """Lines that open on a click."""
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "", "</details>", ""]


def bold(text: str, wanted: bool) -> str:
    return f"**{text}**" if wanted else text


def counted(things: Sequence, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def short(value: float | None) -> str:
    """Three significant digits below 1000, whole numbers above."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 or isinstance(value, int) else f"{value:.3g}"


def name_of(variant: Variant) -> str:
    return f"`{variant.method} {variant.format}`"


def metric_label(name: str) -> str:
    return metrics.metric(name)[1].label


def _decimals(name: str) -> int:
    return DECIMALS.get(name.removeprefix("test_").removeprefix("seen_"), 3)


def quality_of(results: Results, variant: Variant, name: str) -> str:
    if not results.has(variant, name):
        return ""
    found = results.interval(variant, name)
    places = _decimals(name)
    return f"{found.value:.{places}f} [{found.low:.{places}f}, {found.high:.{places}f}]"


def signed(found: Interval, name: str) -> str:
    places = _decimals(name)
    return f"{found.value:+z.{places}f} [{found.low:+z.{places}f}, {found.high:+z.{places}f}]"  # z: no -0.000


def verdict(found: Interval, name: str) -> str:
    higher = metrics.metric(name)[1].better == "higher"
    word = "tie" if found.tie else "better" if (found.value > 0) == higher else "worse"
    return f"{signed(found, name)}, {word}"


def cost_of(results: Results, variant: Variant, key: str, spread: bool = False) -> str:
    cost = results.cost[variant]
    repeated = cost.get("spread", {}).get(key) if spread else None
    return short(cost.get(key)) + (f" [{short(min(repeated))}, {short(max(repeated))}]" if repeated else "")


def with_cost(results: Results, variant: Variant, key: str, unit: str) -> str:
    return f"{name_of(variant)}: {cost_of(results, variant, key)} {unit}"
