"""How a comment writes a variant, a pair, and the numbers of a row of the gate."""

from collections.abc import Iterator

from tradeoffs import metrics
from tradeoffs.comment.texts import shown
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.gate.rows import PASS, Decided, Gated, Row
from tradeoffs.report.formatting import short, signed
from tradeoffs.results.results import Results


def name_of(one: Gated | Decided, results: Results) -> str:
    if isinstance(one, Decided):
        if one.before == one.after or not (one.before and one.after):
            return f"decision of {pair_name(one.pair)}"
        after, before = (short_name(Variant.parse(name)) for name in (one.after, one.before))
        on = f" on {pair_name(one.pair)}" if len(results.groups()) > 1 else ""
        return f"{after} in place of {before}{on}"
    return shown(str(one.variant)) if len(results.groups()) > 1 else short_name(one.variant)


def short_name(variant: Variant) -> str:
    return shown(f"{variant.method} {variant.format}")


def pair_name(pair: Pair) -> str:
    return shown(f"{pair.model} on {pair.dataset}")


def both_values(row: Row) -> Iterator[str]:
    for value in (row.base, row.head):
        yield "" if value is None else _number(row, value)


def _number(row: Row, value: float) -> str:
    return short(value) if row.kind == "cost" else f"{value:z.{metrics.metric(row.name)[1].decimals}f}"


def values(row: Row) -> str:
    """Before and after, and the difference where there is one."""
    before, after = both_values(row)
    moved = difference(row)
    return f"{before} → {after}{f', {moved}' if moved else ''}"


def difference(row: Row) -> str:
    if row.difference is None:
        return ""
    if row.kind == "quality":
        return signed(row.difference, row.name)
    return f"{row.difference.value / row.base:+.1%}" if row.base else short(row.difference.value)


def alike(row: Row) -> bool:
    """Whether a number of quality moved in no digit that is shown: arithmetic differs in the last ones by itself."""
    if row.difference is None or row.kind != "quality" or row.word != PASS or row.moved:
        return False
    before, after = both_values(row)
    found, places = row.difference, metrics.metric(row.name)[1].decimals
    return before == after and not any(round(end, places) for end in (found.low, found.value, found.high))


def margin(row: Row) -> str:
    return "" if row.margin is None else short(row.margin)
