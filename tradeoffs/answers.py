"""A variant's answers to the test questions, one by one: what was asked, expected and generated, and how good it is.

    python -m tradeoffs.answers demo-demo-lora-q4_0                     how many are exact, and a few of them
    python -m tradeoffs.answers demo-demo-lora-q4_0 --worst 20
    python -m tradeoffs.answers demo-demo-lora-q4_0 demo-demo-full-q4_0 --differ
    python -m tradeoffs.answers demo-demo-lora-q4_0 --find warranty --csv answers.csv

Reads what the run left in data/; nothing is evaluated again. F1 and exact match are those of the report, per answer. On
a terminal what does not fit goes through $PAGER, or less; through a pipe all of it goes. Multiple choice has a command
of its own, tradeoffs.questions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tradeoffs import params
from tradeoffs.common.cells import Variant
from tradeoffs.common.texts import harmless
from tradeoffs.plumbing import cli, terminal
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results import answers, evaluated, tables
from tradeoffs.results.answers import Asked

FEW = 3  # of each kind, where none is asked for
PLACES = ("first", "second")
HEAD = ("id", "question", "expected", "generated", "f1", "exact")
OTHERS = tuple(f"other_{name}" for name in HEAD[3:])

Row = tuple[Asked, ...]  # one question: the first variant's answer, then the other's if there is one


@dataclass(frozen=True)
class Reads:
    seed: int


def rows_of(variants: Sequence[Variant]) -> list[Row]:
    """The test questions of one variant or of two, in the order they were asked.

    Raises UserError for what has no answers, and for two that were not asked the same.
    """
    if len({variant.dataset for variant in variants}) > 1:
        first, second = variants
        raise UserError(f"{first} and {second} belong to different data sets: they were not asked the same questions")
    found = [answers.read(variant) for variant in variants]
    for variant, mine in zip(variants, found, strict=True):
        if not mine:
            raise UserError(
                f"{variant}: has no answers: its data set is plain text (kind: text), which asks nothing, or multiple "
                "choice alone, which `python -m tradeoffs.questions` shows"
            )
    if len(found) == 1:
        return [(row,) for row in found[0]]
    return list(answers.beside(*found))


def picked(rows: list[Row], worst: int | None, sample: int | None, differ: bool, find: str | None) -> list[Row] | None:
    """Those that an option asks for, None without one; the worst are those of the first variant."""
    if find is not None:
        return [row for row in rows if any(find.casefold() in text.casefold() for text in texts(row))]
    if differ:
        return beside_others(differing(rows), rows)
    if worst:
        return beside_others(answers.worst(firsts(rows), worst), rows)
    if sample:
        return beside_others(answers.drawn(firsts(rows), sample, params.load(Reads).seed), rows)
    return None


def few(rows: list[Row]) -> dict[str, list[Row]]:
    """Some of each kind, by what they are called."""
    mine, seed = firsts(rows), params.load(Reads).seed
    kinds = {
        "Lowest F1": answers.worst(mine, FEW),
        "Around the median F1": answers.median(mine, FEW),
        f"Drawn, by seed {seed}": answers.drawn(mine, FEW, seed),
    }
    if len(rows[0]) > 1:
        kinds["Greatest difference in F1"] = differing(rows)[:FEW]
    return {kind: beside_others(some, rows) for kind, some in kinds.items()}


def differing(rows: Sequence[Row]) -> list[Asked]:
    """Answers of the first of two where the second has another, the greatest difference in F1 first."""
    ours, theirs = zip(*rows, strict=True)
    return [one for one, _ in answers.differing(ours, theirs)]


def firsts(rows: Sequence[Row]) -> list[Asked]:
    return [row[0] for row in rows]


def beside_others(some: Sequence[Asked], rows: Sequence[Row]) -> list[Row]:
    """Answers of the first variant as the whole rows that they stand in."""
    whole = {row[0].id: row for row in rows}
    return [whole[one.id] for one in some]


def texts(row: Row) -> Iterator[str]:
    yield row[0].question
    yield row[0].expected
    for one in row:
        yield one.generated


def shown(row: Row) -> Iterator[str]:
    """Lines for one question."""
    labels = ("generated",) if len(row) == 1 else PLACES
    scores = [f"F1 {one.f1:.3f}{', exact' if one.exact else ''}" for one in row]
    if len(row) > 1:
        scores = [f"{label}: {score}" for label, score in zip(labels, scores, strict=True)]
    yield f"{harmless(row[0].id)}  {'; '.join(scores)}"
    yield from block("question", row[0].question)
    yield from block("expected", row[0].expected)
    for label, one in zip(labels, row, strict=True):
        yield from block(label, one.generated)
    yield ""


def lines_of(rows: Sequence[Row]) -> list[str]:
    return [line for row in rows for line in shown(row)]


def block(label: str, text: str) -> Iterator[str]:
    """A text beside its label; its further lines stand below its first, so that none passes for another label."""
    first, *others = harmless(text.strip() or "(empty)").split("\n")
    yield f"  {label:<9}  {first}"
    for line in others:
        yield f"{'':13}{line}"


def summary(variants: Sequence[Variant], rows: list[Row]) -> list[str]:
    """How good all the answers of each are, and of two in how many they differ."""
    lines = []
    for place, variant in enumerate(variants):
        mine = [row[place] for row in rows]
        exact, f1 = sum(one.exact for one in mine), fmean(one.f1 for one in mine)
        name = str(variant) if len(variants) == 1 else f"{PLACES[place]}, {variant}"
        lines.append(f"{name}: {len(mine)} test answers, {exact} exact ({exact / len(mine):.1%}), mean F1 {f1:.3f}")
    if len(variants) > 1:
        differ = sum(one.generated != other.generated for one, other in rows)
        better, worse = (sum(sign * (one.f1 - other.f1) > 0 for one, other in rows) for sign in (1, -1))
        lines.append(f"{differ} answers differ; F1 is higher in {better} of the first, in {worse} of the second")
    return lines


def write_csv(path: Path, rows: list[Row]) -> None:
    """One row per question; of a second variant `other_generated`, `other_f1` and `other_exact`."""
    found = []
    for first, *others in rows:
        values = (first.id, first.question, first.expected, first.generated, first.f1, int(first.exact))
        written = dict(zip(HEAD, values, strict=True))
        for other in others:
            written |= dict(zip(OTHERS, (other.generated, other.f1, int(other.exact)), strict=True))
        found.append(written)
    tables.write_csv(path, found, HEAD)


def main(
    variant: str,
    other: str | None,
    worst: int | None,
    sample: int | None,
    differ: bool,
    find: str | None,
    table: Path | None,
) -> None:
    if differ and other is None:
        raise UserError("--differ: name a second variant too, from whose answers they are to differ")
    if variant == other:
        raise UserError(f"{variant}: named twice; name two different variants")
    variants = [evaluated.named(name) for name in (variant, other) if name is not None]
    rows = rows_of(variants)
    some = picked(rows, worst, sample, differ, find)
    if table:
        wanted = rows if some is None else some
        write_csv(table, wanted)
        print(f"{table}: {len(wanted)} questions")
    elif some is not None:
        terminal.page(lines_of(some))
        print(f"{len(some)} of {len(rows)} questions shown")
    else:
        kinds = few(rows)
        terminal.page(line for kind, mine in kinds.items() for line in (f"{kind}:", "", *lines_of(mine)))
    print("\n".join(summary(variants, rows)))
    if some is None and not table:
        print("more of them: --worst N, --sample N, --find TEXT; all: --csv FILE")


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument("variant", metavar="VARIANT", help="MODEL-DATASET-METHOD-FORMAT, one that was evaluated")
    parser.add_argument("other", metavar="OTHER", nargs="?", help="a second one, whose answers stand beside")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--worst", type=cli.count, metavar="N", help="the N of lowest F1; of two, the first one's")
    which.add_argument("--sample", type=cli.count, metavar="N", help="N drawn by `seed` of params.yaml: always these")
    which.add_argument(
        "--differ", action="store_true", help="only where the two answer differently, greatest difference in F1 first"
    )
    which.add_argument("--find", metavar="TEXT", help="only with TEXT in question, expected or generated, in any case")
    parser.add_argument(
        "--csv",
        dest="table",
        type=Path,
        metavar="FILE",
        help="write them (all, if none of these is named) to a file, one row per question; a text that a spreadsheet "
        "would run has a ' before it",
    )
    cli.command(main, parser)
