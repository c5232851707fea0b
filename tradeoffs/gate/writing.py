"""A gate as people and other programs read it: Markdown, JSON, JUnit. Texts from outside are texts in all of them."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from tradeoffs import metrics
from tradeoffs.common.texts import harmless, on_a_line
from tradeoffs.gate.rows import (
    EXIT,
    LEFT_OUT,
    NOT_COMPARED,
    NOT_SHOWN,
    PASS,
    SAME,
    WORSE,
    Decided,
    Gate,
    Gated,
    Row,
    Word,
)
from tradeoffs.report.formatting import code, escaped, short, shortened, signed, table

FEW = 30  # rows; of more only those that say something are in the table
DIGITS = 6  # significant ones, in JSON
READING = (
    "head - base [low, high]: above low with 95 %, and below high with 95 %; of a cost the widest that both intervals "
    "over rounds allow. PASS means that the worse end is within the margin."
)
MOST = 100  # rows of a table, the worst first
COLUMNS = ("", "", "base", "head", "head - base", "margin", "")
# What XML 1.0 cannot hold, however it is written, beside what `harmless` writes out.
_NO_XML = re.compile("[\ufffe\uffff]")


def sentence(gate: Gate) -> str:
    """The verdict in a line of Markdown."""
    found = list(gate.rows())
    count = Counter(row.word for _, row in found)
    against = f"{code(gate.head.name)} against {code(str(gate.base))}"
    if gate.verdict == WORSE:
        named = [f"{escaped(row.label)} of {code(_name(of))}" for of, row in found if row.word == WORSE]
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        return f"**{WORSE}**: {', '.join(named[:3])}{more} ({against})"
    if gate.verdict == PASS:
        what = f"{count.total() - count[LEFT_OUT]} numbers"
        gone = sum(not one.rows and one.note.startswith("removed") for one in gate.gated)
        more = f"; {gone} variant{'s' if gone > 1 else ''} removed" if gone else ""
        more += f"; by {gate.policy.unseen}" if gate.policy.unseen else ""
        return f"**{PASS}**: none of {what} is worse by more than its margin{escaped(more)} ({against})"
    opened = [f"{count[word]} {text}" for word, text in _OPEN.items() if count[word]]
    opened += [f"{one.note} ({_name(one)})" for one in gate.compared if one.missing]
    return f"**{NOT_SHOWN}**: {escaped('; '.join(opened) or 'nothing was compared')} ({against})"


_OPEN: dict[Word, str] = {NOT_SHOWN: "not shown to be within the margin", NOT_COMPARED: "not compared"}


_ORDER: dict[Word, int] = {WORSE: 0, NOT_COMPARED: 1, NOT_SHOWN: 2}


def markdown(gate: Gate) -> str:
    """The verdict, what to know of the comparison, and the rows that say something; all of few."""
    lines = [sentence(gate), ""]
    lines += [f"- {escaped(shortened(on_a_line(note)))}" for note in gate.notes]
    lines += [f"- {code(_name(one))}: {escaped(one.note)}" for one in gate.compared if _is_told(one)]
    lines += [""] if lines[-1] else []
    every = list(gate.rows())
    shown = every if len(every) <= FEW else [(of, row) for of, row in every if _says(row)]
    if len(shown) > MOST:
        shown = sorted(shown, key=lambda one: _ORDER.get(one[1].word, len(_ORDER)))[:MOST]
    if shown:
        lines += [*table(COLUMNS, [_cells(of, row) for of, row in shown], texts=(COLUMNS[1],), keys=2), ""]
    if len(shown) < len(every):
        rest = Counter(row.word for _, row in every) - Counter(row.word for _, row in shown)
        lines += [f"Not in the table: {', '.join(f'{number} {word}' for word, number in rest.items())}.", ""]
    if any(row.difference for _, row in every):
        needed = max((row.needed for _, row in every if row.needed), default=None)
        fails = f" WORSE takes {needed:.2f} standard errors beyond the margin." if needed else ""
        lines += [READING + fails, ""]
    return "\n".join(lines)


def document(gate: Gate) -> dict[str, Any]:
    """The same with all rows, for other programs: finite numbers, what is absent is absent."""
    return _present(
        {
            "verdict": gate.verdict,
            "exit_code": gate.exit_code,
            "base": {"name": gate.base.name, "commit": gate.base.sha},
            "head": {"name": gate.head.name, "commit": gate.head.sha},
            "notes": gate.notes,
            "variants": [{"variant": str(one.variant)} | _of(one) for one in gate.gated],
            "decisions": [
                {"pair": str(one.pair), "before": one.before, "after": one.after} | _of(one) for one in gate.decisions
            ],
        }
    )


def failed(message: str) -> dict[str, Any]:
    """What `document` gives where there was nothing to judge."""
    return {"verdict": NOT_SHOWN, "exit_code": EXIT[NOT_SHOWN], "error": message, "variants": [], "decisions": []}


def dumped(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=2, allow_nan=False) + "\n"


def junit(gate: Gate) -> str:
    """A test case for each row, and for what could not be compared: `failure` is worse, `error` not shown."""
    cases = []
    for one in gate.compared:
        if one.missing:
            cases.append(_case(_name(one), "compared", "error", NOT_COMPARED, one.note))
        for row in one.rows:
            kind = {WORSE: "failure", NOT_SHOWN: "error", NOT_COMPARED: "error", LEFT_OUT: "skipped"}.get(row.word, "")
            cases.append(_case(_name(one), row.label, kind, f"{row.word}: {_change(row)}", _said(row)))
    return _suite(cases)


def junit_failed(message: str) -> str:
    return _suite([_case("gate", "compared", "error", message.splitlines()[0], message)])


def _suite(cases: Sequence[ElementTree.Element]) -> str:
    counts = {"tests": str(len(cases))}
    for kind, key in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        counts[key] = str(sum(case.find(kind) is not None for case in cases))
    suites = ElementTree.Element("testsuites", {"name": "gate"} | counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "gate"} | counts)
    suite.extend(cases)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _case(of: str, name: str, kind: str, message: str, text: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=_xml(of), name=_xml(name), time="0")
    if kind:
        ElementTree.SubElement(case, kind, message=_xml(on_a_line(message))).text = _xml(text)
    return case


def _xml(text: str) -> str:
    return _NO_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), harmless(text))


def _name(one: Gated | Decided) -> str:
    if isinstance(one, Gated):
        return str(one.variant)
    changed = one.before != one.after
    return f"{one.pair}: {one.before or 'nothing'} to {one.after or 'nothing'}" if changed else str(one.pair)


def _is_told(one: Gated | Decided) -> bool:
    """Whether its note stands above the table: nobody has to be told that what is recommended has stayed the same."""
    if isinstance(one, Decided) and one.before == one.after and one.before is not None:
        return False
    return bool(one.note)


def _says(row: Row) -> bool:
    return bool(row.moved) or row.word not in (PASS, SAME, LEFT_OUT)


def _cells(of: Gated | Decided, row: Row) -> list[str]:
    said = _said(row)
    word = f"**{row.word}**" if row.word == WORSE else row.word
    return [
        code(_name(of)),
        escaped(row.label),
        _value(row, row.base),
        _value(row, row.head),
        _change(row),
        _value(row, row.margin),
        f"{word}: {escaped(said)}" if said else word,
    ]


def _value(row: Row, value: float | None) -> str:
    if value is None or row.kind == "cost":
        return short(value)
    return f"{value:,.{metrics.metric(row.name)[1].decimals}f}"


def _change(row: Row) -> str:
    found = row.difference
    if found is None:
        return ""
    if row.kind == "cost":
        value, low, high = (
            f"{n:+,.0f}" if abs(n) >= 1000 else f"{n:+.3g}" for n in (found.value, found.low, found.high)
        )
        return value if low == high else f"{value} [{low}, {high}]"
    if not all(map(math.isfinite, (found.low, found.high))):
        return f"{found.value:+.3g}"
    return "0" if row.word == SAME else signed(found, row.name)


def _said(row: Row) -> str:
    """What is said beside a word: why, and what would decide."""
    said = [row.note] if row.note else []
    if row.word == NOT_SHOWN and row.kind == "quality":
        said.append(f"{row.items:,} test items would decide" if row.items else "no number of test items would decide")
    if row.word == PASS and row.moved == "worse":
        said.append("lower in quality, within the margin" if row.kind == "quality" else "dearer, within the margin")
    return "; ".join(said)


def _of(one: Gated | Decided) -> dict[str, Any]:
    found = {"note": one.note or None, "missing": one.missing or None}
    return found | {"rows": [_row(row) for row in one.rows]}


def _row(row: Row) -> dict[str, Any]:
    spread = row.difference
    return {
        "name": row.name,
        "label": row.label,
        "kind": row.kind,
        "word": row.word,
        "base": row.base,
        "head": row.head,
        "difference": spread and spread.value,
        "low": spread and spread.low if row.kind == "quality" or row.word != SAME else None,
        "high": spread and spread.high if row.kind == "quality" or row.word != SAME else None,
        "margin": row.margin,
        "items_to_decide": row.items,
        "errors_to_fail": row.needed,
        "moved": row.moved or None,
        "note": row.note or None,
    }


def _present(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _present(one) for key, one in value.items() if one is not None and not _odd(one)}
    if isinstance(value, list):
        return [_present(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
