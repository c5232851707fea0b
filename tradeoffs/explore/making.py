"""Makes the page of what is in data/, or says that the one that is there is of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import Pair
from tradeoffs.explore import data, items, stamp, writing
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.results.results import Results


@dataclass(frozen=True)
class Reads:
    run: params.Run
    seed: int
    bootstrap: Annotated[int, "evaluate.bootstrap"]
    decide: params.Decide


def make(out: Path = stamp.PAGE, names: Sequence[str] = ()) -> str:
    """Writes the page of all pairs of the run list, or of those named, and says what it holds.

    Raises UserError if there is no pair of a name, if something was not evaluated, for what does not fit into a page.
    """
    cfg, made_of = params.load(Reads), stamp.present(names)
    results = Results(cfg.run, cfg.seed, cfg.bootstrap, cfg.decide)
    some = _named(results, names)
    shown = contents(results, some, cfg.seed)
    text = writing.page(shown, made_of)
    if out.exists() and not out.is_file():
        raise UserError(f"{out}: is there and is no file; name one that may be written")
    folder = "" if out.parent.is_dir() else f" (in {out.parent}, which is new)"
    try:
        files.write_text(out, text)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); name a file that can") from None
    return f"{out}{folder}: {len(results.variants)} variants, {len(text.encode()) / 1e6:.1f} MB; {_kept(shown)}"


def contents(results: Results, some: Sequence[Pair], seed: int, largest: int = writing.LARGEST) -> dict[str, Any]:
    """What the scripts of the page read, so that it has at most `largest` bytes: where need be with fewer answers."""
    pairs = [data.of_pair(results, pair) for pair in some]
    shown = {"colours": data.colours(results), "pairs": pairs}
    for one in pairs:
        one["items"] = None
    room = largest - writing.frame() - writing.size(shown)
    if room < 0:
        raise UserError(
            f"{len(pairs)} models with data sets, {len(results.variants)} variants: {-room / 1e6:.1f} MB more than a "
            "page of 4 MB has room for; name some with --pair MODEL-DATASET"
        )
    every = [items.of_pair(results, pair, seed) for pair in some]
    for one, fitted in zip(pairs, items.fitting(every, room), strict=True):
        one["items"] = fitted
    return shown


def _named(results: Results, names: Sequence[str]) -> list[Pair]:
    every = {str(pair): pair for pair in results.groups()}
    for name in names:
        if name not in every:
            raise UserError(f"--pair {name}: not in the run list{near(name, list(every))}")
    return [pair for name, pair in every.items() if name in names or not names]


def _kept(shown: dict[str, Any]) -> str:
    """How many questions with their answers the page has, of how many."""
    there = [pair["items"] for pair in shown["pairs"] if pair["items"]]
    kept, asked = sum(len(one["questions"]) for one in there), sum(one["asked"] for one in there)
    if not there:
        return "no answers, as none of its data sets asks anything"
    return f"all {asked} test questions with their answers" if kept == asked else f"{kept} of {asked} test questions"
