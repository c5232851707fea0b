"""Which variants there are to talk with, and what is known of each: what it is, how good, how dear."""

import csv
import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tradeoffs import params
from tradeoffs.common import cells, files
from tradeoffs.common.cells import Variant
from tradeoffs.formats.names import QUANTS
from tradeoffs.plumbing.errors import UserError

SUMMARY, DECISION = Path("metrics/summary.csv"), Path("metrics/decision.json")
NEAR = 5  # names that are said of those that may have been meant
NAMES = ("variant", "model", "dataset", "method", "format")  # columns of the summary that are no numbers


@dataclass(frozen=True)
class Talker:
    """`label`: a base that was not tuned to a template that is not its own only goes on with a text: a completion.
    `numbers`: its row of metrics/summary.csv; empty where it was not measured. `metric` and `cost`: the columns there
    by which the recommended one was chosen; "" where nothing was yet. `text`: its evaluation was of plain text, and
    asked no questions, as it does of an untuned base. `single`: it was of questions that stand alone.
    """

    variant: Variant
    runtime: Literal["transformers", "llama.cpp"]
    label: Literal["chat", "completion"]
    recommended: bool
    numbers: dict[str, float]
    metric: str = ""
    cost: str = ""
    text: bool = False
    single: bool = False

    def __str__(self) -> str:
        return str(self.variant)

    @property
    def context(self) -> int | None:
        """Tokens of a conversation and its answer at most, as its tokenizer's folder says; None where there is none."""
        info = self.variant.pair.tokens / "info.json"
        return files.read_facts(info).get("context") if info.is_file() else None


def known() -> dict[str, Talker]:
    """All of the run list by name, in its order."""
    cfg = params.load_all()
    decided = files.read_facts(DECISION) if DECISION.is_file() else {}
    numbers = _numbers()
    found = {}
    for variant in cells.variants(cfg.run):
        decision = decided.get(str(variant.pair), {})
        kind = cfg.datasets[variant.dataset].kind
        text = kind == "text"
        untuned = not cfg.methods[variant.method].trains and cfg.models[variant.model].prompt != "own"
        found[str(variant)] = Talker(
            variant,
            "llama.cpp" if variant.format in QUANTS else "transformers",
            "completion" if text or untuned else "chat",
            str(variant) == decision.get("recommended"),
            numbers.get(str(variant), {}),
            decision.get("metric", ""),
            decision.get("cost", ""),
            text,
            kind in ("instruction", "questions"),
        )
    return found


def chosen(names: Sequence[str]) -> list[Talker]:
    """Those of these names; without any, the recommended one. Raises UserError for a name that is none, and where
    nothing is recommended, or more than one for several data sets."""
    there = known()
    if unknown := [name for name in names if name not in there]:
        raise UserError(
            f"{unknown[0]}: no variant of the run list{_near(unknown[0], there)}; /variant in a chat lists all"
        )
    if names:
        return [there[name] for name in names]
    found = [one for one in there.values() if one.recommended]
    if len(found) != 1:
        named = ", ".join(str(one.variant) for one in found) or f"none: {DECISION} says so after `make run`"
        raise UserError(f"name the variant to talk with; recommended is {named}")
    return found


def _near(word: str, known: Collection[str]) -> str:
    found = [name for name in known if word in name] or difflib.get_close_matches(word, known, NEAR)
    return f" (did you mean {', '.join(found[:NEAR])}?)" if found else ""


def _numbers() -> dict[str, dict[str, float]]:
    if not SUMMARY.is_file():
        return {}
    with SUMMARY.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["variant"]: {key: float(row[key]) for key in row if row[key] and key not in NAMES} for row in rows}
