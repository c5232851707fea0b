"""A variant's multiple-choice answers, one by one: options, their probabilities, the chosen and the right letter.

    python -m tradeoffs.questions demo-demo-lora-q4_0 --subject financial_terms --wrong
    python -m tradeoffs.questions demo-demo-lora-q4_0 --csv answers.csv

Reads what evaluation left in data/; nothing is evaluated again (while one runs, `python -m tradeoffs.repro
--print-questions` shows the same). Per option: its probability after `Answer:` and the
tokens that all letters begin with, among all tokens of the vocabulary, and its share of what the four have together. On
a terminal what does not fit goes through $PAGER, or less; through a pipe all of it goes. Answers to test questions have
a command of their own, tradeoffs.answers.
"""

from pathlib import Path

import pyarrow.parquet as pq

from tradeoffs.common import files
from tradeoffs.common.texts import harmless, on_a_line
from tradeoffs.plumbing import cli, terminal
from tradeoffs.plumbing.asked import Answered, shown
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.results import evaluated, tables
from tradeoffs.sources.multiple_choice import LETTERS

COLUMNS = ("item", "subject", "chosen", "correct_option", "option_logprobs")
HEAD: tuple[str, ...] = ("subject", "id", "question", *LETTERS)
HEAD += (*(f"p_{x}" for x in LETTERS), *(f"share_{x}" for x in LETTERS), "chosen", "right", "is_right")


def answered(name: str, subject: str | None = None) -> list[Answered]:
    """The questions of a variant in the order they were asked, of one subject or of all.

    Raises UserError for a variant that was not evaluated or could not be made, a subject that it was not asked, and
    questions that changed since.
    """
    variant = evaluated.named(name)
    rows = pq.read_table(variant.items, columns=list(COLUMNS), filters=[("split", "=", "mmlu")]).to_pylist()
    if not rows:
        raise UserError(f"{variant}: was asked no multiple-choice questions (its data set has no mmlu in params.yaml)")
    subjects = list(dict.fromkeys(row["subject"] for row in rows))
    if subject is not None and subject not in subjects:
        known = harmless(near(subject, subjects))
        raise UserError(f"--subject {subject}: {variant} was not asked it{known}")
    asked = variant.cell.tokens / "mmlu.parquet"
    if not asked.is_file():
        raise UserError(f"{asked}: missing, it holds the questions; run `dvc repro tokenize@{variant.cell.pair}`")
    texts = {(row["subject"], row["id"]): row for row in files.read_table(asked)}
    found = []
    for row in rows:
        text = texts.get((row["subject"], row["item"]))
        if text is None:
            raise UserError(
                f"{variant.items}: its questions are not those of {asked}; run `dvc repro`, which asks them again"
            )
        if subject is None or row["subject"] == subject:
            found.append(Answered.of(text, row))
    return found


def summary(some: list[Answered]) -> list[str]:
    """Right answers per subject, and in all where there are several subjects."""
    subjects = dict.fromkeys(asked.subject for asked in some)
    groups = {subject: [asked for asked in some if asked.subject == subject] for subject in subjects}
    groups |= {"all": some} if len(groups) > 1 else {}
    return [
        f"{on_a_line(name)}: {right} of {len(group)} right ({right / len(group):.1%})"
        for name, group in groups.items()
        for right in [sum(asked.is_right for asked in group)]
    ]


def write_csv(path: Path, some: list[Answered]) -> None:
    """One row per question; probabilities as `p_A`, shares among the four as `share_A`."""
    rows = []
    for asked in some:
        letters = (LETTERS[asked.chosen], LETTERS[asked.right], int(asked.is_right))
        numbers = (*asked.probabilities, *asked.shares)
        values = (asked.subject, asked.id, asked.question, *asked.choices, *numbers, *letters)
        rows.append(dict(zip(HEAD, values, strict=True)))
    tables.write_csv(path, rows, HEAD)


def main(variant: str, subject: str | None, wrong: bool, table: Path | None) -> None:
    every = answered(variant, subject)
    some = [asked for asked in every if not (wrong and asked.is_right)]
    if table:
        write_csv(table, some)
        print(f"{table}: {len(some)} questions")
    else:
        terminal.page(line for asked in some for line in shown(asked))
    print("\n".join(summary(every)))


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument("variant", metavar="VARIANT", help="MODEL-DATASET-METHOD-FORMAT, one that was evaluated")
    parser.add_argument("--subject", help="only the questions of this subject")
    parser.add_argument("--wrong", action="store_true", help="only the questions that were answered wrong")
    parser.add_argument(
        "--csv",
        dest="table",
        type=Path,
        metavar="FILE",
        help="write them to a file, one row per question; a text that a spreadsheet would run has a ' before it",
    )
    cli.command(main, parser)
