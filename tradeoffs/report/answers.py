"""Answers to look at: what was asked and expected, and what the recommended variant and the runner-up said."""

from collections.abc import Sequence

import numpy as np

from tradeoffs.common.cells import Variant
from tradeoffs.report.formatting import Lines, escaped, full_label, heading, name_of, quality_of, shortened, table
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import CUT, runner_up
from tradeoffs.results import answers, decision
from tradeoffs.results.answers import Asked
from tradeoffs.results.decision import Decision
from tradeoffs.results.results import Results

SHOWN = 5  # answers of each choice
SEED = 0  # of those that are drawn


def section(results: Results, drawn: Sequence[str]) -> str:
    """Nothing where nothing is answered."""
    asked = [group for group in results.groups() if results.has(results.of(group)[0], "test_f1")]
    groups = [_group(results, decision.decide(results, group)) for group in asked]
    return render("answers.md.j2", drawn, shown=SHOWN, mark=CUT, groups=groups) if groups else ""


def _group(results: Results, found: Decision) -> dict[str, object]:
    ours, other = found.shown, runner_up(results, found)
    variants = [ours, *([other] if other else [])]
    said = {v: answers.asked(results, v) for v in variants}
    mine = said[ours]
    chosen = {
        "drawn at random": answers.drawn(mine, SHOWN, SEED),
        f"the worst of {name_of(ours)}": answers.worst(mine, SHOWN),
        f"the median of {name_of(ours)}": answers.median(mine, SHOWN),
    }
    if other:
        chosen |= {f"the worst of {name_of(other)}": answers.worst(said[other], SHOWN)}
    cut = {v: _cut(results, v) for v in variants}
    shown = {row.id for rows in chosen.values() for row in rows}
    return {
        "title": heading(found.pair),
        "quality": [f"{name_of(v)}: {_quality(results, v)}" for v in variants],
        "tables": {title: _table(rows, said, cut) for title, rows in chosen.items()},
        "limit": results.longest_answer(found.pair) if any(shown & some for some in cut.values()) else None,
        "ours": str(ours),
        "other": str(other) if other else None,
    }


def _quality(results: Results, variant: Variant) -> str:
    names = [name for name in ("test_exact_match", "test_f1") if results.has(variant, name)]
    return ", ".join(f"{full_label(results, variant.dataset, n)} {quality_of(results, variant, n)}" for n in names)


def _cut(results: Results, variant: Variant) -> set[str]:
    """The test questions whose answer did not end by itself."""
    mine = results.columns[variant]
    ended = (mine["split"] == "test") & (mine["generated_tokens"] >= results.longest_answer(variant.pair))
    return set(mine["item"][np.flatnonzero(ended)].tolist())


def _table(rows: Sequence[Asked], said: dict[Variant, list[Asked]], cut: dict[Variant, set[str]]) -> Lines:
    """The answers of all variants to some questions; every text is data, and long ones are cut."""
    by_id = {v: {one.id: one for one in mine} for v, mine in said.items()}
    header = ["question", "expected"]
    for variant in said:
        header += [name_of(variant), "F1"]
    lines = []
    for row in rows:
        line = [_text(row.question), _text(row.expected)]
        for variant, mine in by_id.items():
            one = mine[row.id]
            line.append((_text(one.generated) or "*(empty)*") + (f" {CUT}" if row.id in cut[variant] else ""))
            line.append("exact" if one.exact else f"{one.f1:.2f}")
        lines.append(line)
    return table(header, lines, texts=["question", "expected", *map(name_of, said)], together=[1, *[2] * len(said)])


def _text(text: str) -> str:
    return escaped(shortened(text))
