"""The comment: the verdict, what was changed, what moved, what is not shown, decision, answers that flipped, costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from tradeoffs.comment import changes, costs, flips, pictures
from tradeoffs.comment.posting import LONGEST, cut
from tradeoffs.comment.rows import alike, both_values, difference, margin, name_of, pair_name, short_name, values
from tradeoffs.comment.texts import folded, said, shown
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.gate.rows import BETTER, LEFT_OUT, NOT_COMPARED, NOT_SHOWN, PASS, SAME, WORSE, Decided, Gate, Gated, Row
from tradeoffs.report.formatting import Lines, counted, full_label, table
from tradeoffs.results import ranking
from tradeoffs.revisions import Revision

MOST_NAMED = 4  # variants in a sentence
FIRST = 12  # rows of a table on the first screen
MOST_FOLDED = 150  # rows of all, in what is folded
HEADINGS = {PASS: "Not worse", WORSE: "Worse", NOT_SHOWN: "Not shown either way"}
READ = [
    "Differences are after less before, paired on the same test items; in brackets one-sided 95 % bounds. **Moved "
    "beyond noise**: not 0 by an interval that holds for all numbers here together. The verdict is that of `python -m "
    "tradeoffs.gate` for what its policy names; the tables are of every variant that both commits have.",
]


@dataclass(frozen=True)
class Compared:
    """The gate by its policy, and the same of every variant, which is told but does not decide."""

    gate: Gate
    every: Gate


def comment(marker: str, base: Revision, head: Revision, found: Compared | str) -> str:
    """The whole of it, at most LONGEST characters. `found` is a text where the two were not compared: why."""
    sides = f"{_side(head)} against {_side(base)}"
    lines = [marker]
    if isinstance(found, str):
        lines += ["### Not compared", "", f"{sides}: {said(found, 2000)}", ""]
        lines += _changed(base, head, None)
    else:
        lines += [f"### {headline(found.gate)}", "", f"{sides}. {_judged(found)}", ""]
        lines += _changed(base, head, found.gate)
        lines += [
            *_moved(found.every),
            *_not_shown(found.gate),
            *_decided(found.gate),
            *_flipped(found.gate, found.every),
        ]
        lines += [*costs.section(found.gate), *pictures.lines(head), *_rest(found)]
    return cut("\n".join(lines).rstrip() + "\n", LONGEST)


def headline(gate: Gate) -> str:
    """The verdict in one line."""
    rows = [(one, row) for one, row in gate.rows() if row.word != LEFT_OUT]
    word = HEADINGS[gate.verdict]
    worse = [(one, row) for one, row in rows if row.word == WORSE]
    open_ = [row for _, row in rows if row.word in (NOT_SHOWN, NOT_COMPARED)]
    if worse:
        names = {ranking.headline(gate.after, pair) for pair in gate.after.groups()}
        one, row = next((pair for pair in worse if pair[1].name in names), worse[0])
        more = f", and {len(worse) - 1} more" if len(worse) > 1 else ""
        return f"{word}: {row.label} of {name_of(one, gate.after)} {values(row)}{more}"
    if gate.verdict == NOT_SHOWN:
        lacking = _lacking(gate)
        some = [f"{len(open_)} of {len(rows)} judged numbers"] if open_ else []
        some += [f"{len(lacking)} not there to compare"] if lacking else []
        needed = max((row.items for row in open_ if row.items), default=None)
        hint = f"; {needed:,} test items would decide" if needed else ""
        return f"{word}: {', and '.join(some) or 'nothing was judged'}{hint}"
    better = sum(row.word == BETTER for _, row in rows)
    if all(_same(row) for _, row in rows):
        return f"{word}: the {len(rows)} judged numbers are the same"
    return f"{word}: all {len(rows)} judged numbers are within their margins{f', {better} better' if better else ''}"


def _judged(found: Compared) -> str:
    """Whom the verdict is of, and who else has lost: a verdict of few must not be read as one of all."""
    on = found.gate.policy.variants
    if on == "all":
        return "Every variant is judged."
    names = [name_of(one, found.gate.after) for one in found.gate.gated]
    who = "what is recommended" if on == "recommended" else "what the policy names"
    said = f"Judged: {who} ({', '.join(names[:MOST_NAMED])}{' and others' * (len(names) > MOST_NAMED)})."
    judged = {one.variant for one in found.gate.gated}
    lost = {one.variant for one, row in found.every.rows() if isinstance(one, Gated) and row.word == WORSE} - judged
    if not lost:
        return said
    return f"{said} **Not judged, and worse by more than a margin: {counted(list(lost), 'other variant')}, below.**"


def _lacking(gate: Gate) -> list[Gated | Decided]:
    every: list[Gated | Decided] = [*gate.gated, *gate.decisions]
    return [one for one in every if one.missing]


def _side(one: Revision) -> str:
    """A commit by what it was called and its hash; the folder, in a job, with the commit that the job is about."""
    if one.sha is None:
        sha = pictures.commit()
        return f"The folder as it is{f', at `{sha[:7]}`' if sha else ''},"
    return f"`{one.sha[:7]}`" if one.sha.startswith(one.name) else f"{shown(one.name)} (`{one.sha[:7]}`)"


def _changed(base: Revision, head: Revision, gate: Gate | None) -> Lines:
    lines = changes.params(base, head)
    lines += changes.data(gate.before, gate.after) if gate else []
    lines += [*changes.code(base, head), *changes.made_anew(base, head)]
    if lacks := changes.behind(base, head):
        many = f"{lacks} commit{'s' * (lacks != 1)}"
        lines.append(f"- {many} of {shown(base.name)} are not merged here: what they changed is above, undone")
    return ["**Changed**", "", *(lines or ["- nothing that Git or dvc.lock holds"]), ""]


def _moved(gate: Gate) -> Lines:
    """What is not what it was: a line for each variant, those first that have lost most numbers."""
    rows = [(one, row) for one, row in gate.rows() if isinstance(one, Gated) and (row.moved or row.word == WORSE)]
    if not rows:
        compared = sum(row.difference is not None for _, row in gate.rows())
        return [f"**Moved beyond noise**: nothing of {compared} numbers that were compared.", ""]
    of: dict[Variant, list[Row]] = {}
    for one, row in rows:
        of.setdefault(one.variant, []).append(row)
    lost = {variant: sum(_worse(row) for row in mine) for variant, mine in of.items()}
    order = sorted(of, key=lambda variant: -lost[variant])
    # Those that gained are seen as well, however many have lost.
    gained = [variant for variant in order if lost[variant] < len(of[variant]) - lost[variant]]
    first = [v for v in order if v not in gained][: max(FIRST // 2, FIRST - len(gained))]
    first += gained[: FIRST - len(first)]
    many = sum(lost.values())
    lines = [f"**Moved beyond noise**: {many} numbers worse, {len(rows) - many} better", ""]
    lines += [*_by_variant(gate, {v: of[v] for v in order if v in first}), ""]
    if rest := {v: of[v] for v in order if v not in first}:
        lines += folded(f"{counted(list(rest), 'further variant')}", _by_variant(gate, rest))
    return lines


def _by_variant(gate: Gate, of: dict[Variant, list[Row]]) -> Lines:
    """The headline metric of each with its difference, and what else is worse and better."""
    written = []
    for variant, rows in of.items():
        name = ranking.headline(gate.after, variant.pair)
        mine = [
            row for one, row in gate.rows() if isinstance(one, Gated) and one.variant == variant and row.name == name
        ]
        head = f"{values(mine[0])}, {_word(mine[0])}" if mine else ""
        label = f"{mine[0].label}: " if mine and len({ranking.headline(gate.after, v.pair) for v in of}) > 1 else ""
        others = [row for row in rows if row.name != name]
        both = [[row for row in others if _worse(row) == worse] for worse in (True, False)]
        written.append(
            [
                shown(str(variant)) if len(gate.after.groups()) > 1 else short_name(variant),
                label + head,
                *(", ".join(map(_brief, some)) for some in both),
            ]
        )
    names = {
        ranking.headline(gate.after, v.pair): full_label(gate.after, v.dataset, ranking.headline(gate.after, v.pair))
        for v in of
    }
    header = [
        "variant",
        next(iter(names.values())) if len(names) == 1 else "headline metric",
        "worse besides",
        "better besides",
    ]
    return table(header, written, texts=header)


def _same(row: Row) -> bool:
    return row.word == SAME or (row.base == row.head and row.difference is not None)


def _worse(row: Row) -> bool:
    return row.moved == "worse" or row.word == WORSE


def _brief(row: Row) -> str:
    """A number by what it moved, bold where it is beyond the margin."""
    moved = f"{row.label.removeprefix('test ')} {difference(row).partition(' [')[0]}"
    return f"**{moved}**" if row.word == WORSE else moved


def _table(gate: Gate, rows: Sequence[tuple[Gated | Decided, Row]]) -> Lines:
    written = [
        [name_of(one, gate.after), row.label, *both_values(row), difference(row), margin(row), _word(row)]
        for one, row in rows
    ]
    return table(["variant", "", "before", "after", "difference", "margin", ""], written, texts=["", "variant"])


def _word(row: Row) -> str:
    words = {WORSE: "**worse**", BETTER: "better", PASS: "within the margin", SAME: "the same", LEFT_OUT: "left out"}
    word = words.get(row.word, row.word.lower())
    if row.word == PASS and row.moved:
        word = f"{row.moved}, within the margin"
    if row.word == NOT_SHOWN:
        word = f"{row.moved}, perhaps within the margin" if row.moved else "not shown"
        word += f" ({row.items:,} items would decide)" if row.items else ""
    return f"{word}: {said(row.note)}" if row.note and row.word in (NOT_COMPARED, LEFT_OUT) else word


def _not_shown(gate: Gate) -> Lines:
    """Of what the policy judges: what may be worse than its margin, and what could not be compared."""
    rows = [(one, row) for one, row in gate.rows() if row.word in (NOT_SHOWN, NOT_COMPARED)]
    lacking = _lacking(gate)
    if not rows and not lacking:
        return []
    lines = ["**Not shown**, of what is judged", ""]
    lines += [f"- {name_of(one, gate.after)}: {said(one.note)}" for one in lacking[:FIRST]]
    lines += [""] if lacking else []
    lines += [*_table(gate, rows[:FIRST]), ""] if rows else []
    if rest := rows[FIRST:]:
        lines += folded(f"{counted(rest, 'further number')} not shown", _table(gate, rest[:MOST_FOLDED]))
    return lines


def _decided(gate: Gate) -> Lines:
    lines = ["**Decision**", ""]
    for one in gate.decisions:
        head = "" if len(gate.decisions) == 1 else f"{pair_name(one.pair)}: "
        before, after = (_recommended(name) for name in (one.before, one.after))
        if one.before == one.after:
            lines.append(f"- {head}{after}, as before")
        else:
            lines.append(f"- {head}{before} → {after}{f'; {said(one.note)}' if one.note and one.missing else ''}")
            judged = [row for row in one.rows if row.word in (WORSE, NOT_SHOWN, BETTER)]
            lines += [f"  - {row.label}: {values(row)}, {_word(row)}" for row in judged[:FIRST]]
    return [*lines, ""]


def _recommended(name: str | None) -> str:
    return "none" if name is None else short_name(Variant.parse(name))


def _flipped(gate: Gate, every: Gate) -> Lines:
    lines: Lines = []
    for one in gate.decisions:
        if not (one.before and one.after):
            continue
        old, new = Variant.parse(one.before), Variant.parse(one.after)
        head = "" if len(gate.decisions) == 1 else f" on {pair_name(one.pair)}"
        what = short_name(new) if old == new else f"{short_name(old)} before and {short_name(new)} now"
        lines += [f"**Answers that flipped**{head}, of {what}", ""]
        found = flips.flips(gate.before, old, gate.after, new)
        lines += [*flips.section(found), ""]
        if isinstance(found, flips.Flips) and not found.count:
            lines += _flipped_most(every, one.pair)
    return lines


def _flipped_most(gate: Gate, pair: Pair) -> Lines:
    """Of the variants that both sides have the one with most flips, if any has."""
    both = [v for v in gate.after.of(pair) if v in gate.before.facts]
    found = [(v, flips.flips(gate.before, v, gate.after, v)) for v in both]
    some = [(v, one) for v, one in found if isinstance(one, flips.Flips) and one.count]
    if not some:
        return []
    variant, most = max(some, key=lambda one: one[1].count)
    return [f"Of {len(some)} other variants some did, most of {short_name(variant)}.", "", *flips.section(most), ""]


def _rest(found: Compared) -> Lines:
    gate, lines = found.every, Lines()
    notes = list(dict.fromkeys([*found.gate.notes, *gate.notes]))
    lines += ["**Notes**", "", *(f"- {said(note)}" for note in notes), ""] if notes else []
    news = [one for one in gate.gated if not one.rows]
    lines += [f"- {name_of(one, gate.after)}: {said(one.note)}" for one in news[:MOST_FOLDED]] + ([""] if news else [])
    lines += [*READ, ""]
    own = [(one, row) for one, row in gate.rows() if isinstance(one, Gated)]
    compared = [(one, row) for one, row in own if not (_same(row) or alike(row)) and row.word != LEFT_OUT]
    same = sum(_same(row) or alike(row) for _, row in own)
    lines += [*_table(gate, compared[:MOST_FOLDED]), ""] if compared else []
    if len(compared) > MOST_FOLDED:
        lines += [f"And {len(compared) - MOST_FOLDED} more rows, in the gate's own output.", ""]
    lines += [f"{same} numbers are the same on both sides, in the digits that are shown.", ""] if same else []
    return folded(f"All {sum(1 for _ in gate.rows())} numbers, notes, and how to read this", lines)
