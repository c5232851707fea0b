"""Any two variants of the run list against each other, as Markdown for a pull request: paired on the same items.

    python -m tradeoffs.compare demo-demo-lora-q4_0 demo-demo-full-q4_0

Reads what evaluation left in data/, as the report does; nothing is evaluated again.
"""

from dataclasses import dataclass
from typing import Annotated

from tradeoffs import metrics, params
from tradeoffs.common.cells import TRAINED, Variant, variants
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.report.formatting import Lines, cost_of, difference, full_label, quality_of, short, table
from tradeoffs.report.machine import run_on
from tradeoffs.results import costs, reading, verdicts
from tradeoffs.results.results import Results


@dataclass(frozen=True)
class Reads:
    run: params.Run
    seed: int
    bootstrap: Annotated[int, "evaluate.bootstrap"]
    decide: params.Decide


ORDER = {"test": 0, "seen": 2}  # what stands once per variant in between


def named(name: str, listed: list[Variant]) -> Variant:
    """The variant of the run list with this name.

    Raises UserError with the near match if there is none, or with the reason if it could not be made.
    """
    by_name = {str(variant): variant for variant in listed}
    if name not in by_name:
        raise UserError(f"{name}: no variant of the run list in {params.PATH}{near(name, by_name)}")
    reading.must_be_made(by_name[name])
    return by_name[name]


def comparison(results: Results, ours: Variant, theirs: Variant) -> Lines:
    """Quality with paired differences and costs with ratios, `ours` against `theirs`; Markdown.

    Raises UserError if the two were not asked the same items.
    """
    if ours.dataset != theirs.dataset:
        raise UserError(
            f"{ours} and {theirs} belong to different data sets: they were not asked the same items, so nothing pairs "
            "their differences; name two variants of one data set"
        )
    if ours == theirs:
        raise UserError(f"{ours}: named twice; name two different variants")
    lines = [f"**`{ours}`** against **`{theirs}`**", ""]
    lines += ["`value [low, high]`: 95 % intervals. Differences, first less second, are paired on the same items. The"]
    lines += [
        "verdict is on the first: good enough if it is shown to be within the margin of the second (`decide.margins`)."
    ]
    lines += ["p: McNemar's exact test. KLD and same top token are each against the variant's own model as trained, so"]
    lines += [
        "`trained` itself has none. This pair alone: the report's bounds hold for all variants together, so what is"
    ]
    lines += ["decided here can be undecided there."]
    listed = (*metrics.names("quality"), *metrics.names("summary"))
    names = [n for n in listed if results.has(ours, n) or results.has(theirs, n)]
    names.sort(key=lambda n: ORDER.get(n.partition("_")[0], 1))
    if ours.model != theirs.model:
        names = [n for n in names if not n.startswith("general_")]  # each model has a text of its own
    if not results.same_tokens(ours, theirs):
        lines += ["Their tokenizers differ: means per token are left out, bits per byte compares."]
        names = [n for n in names if "tokens" not in metrics.metric(n)[1].columns]
    rows = [[full_label(results, ours.dataset, n), *_quality(results, ours, theirs, n)] for n in names]
    lines += ["", *table(["", "first", "second", "difference", "verdict", "p"], rows), ""]
    rows = [
        [label, cost_of(results, ours, key, bounds=True), cost_of(results, theirs, key, bounds=True), found]
        for key, label in results.cost_labels.items()
        if (found := _ratio(results, ours, theirs, key)) is not None
    ]
    lines += [*table(["", "first", "second", "first / second"], rows), ""]
    return [*lines, *_machines(results, ours, theirs)]


def _quality(results: Results, ours: Variant, theirs: Variant, name: str) -> Lines:
    values = [quality_of(results, ours, name), quality_of(results, theirs, name)]
    if not (results.has(ours, name) and results.has(theirs, name)):
        return [*values, "", "", ""]
    p = f"{results.mcnemar(ours, theirs, name):.2g}" if metrics.metric(name)[1].right_or_wrong else ""
    if not results.judged(name):
        return [*values, difference(results.compare(ours, theirs, name), name), "", p]
    found = verdicts.against(results, ours, theirs, name)
    return [*values, difference(found.difference, name), found.word, p]


def _ratio(results: Results, ours: Variant, theirs: Variant, key: str) -> str | None:
    """None where neither has this cost, empty where only one has."""
    first, second = results.cost[ours].get(key), results.cost[theirs].get(key)
    if first is None and second is None:
        return None
    if first is None or not second:
        return ""
    ratio = short(first / second)
    # How long answers are is no cost.
    if key != "answer_tokens_p50" and not costs.told_apart(results, ours, theirs, key):
        return f"{ratio}, not told apart"
    return ratio


def _machines(results: Results, ours: Variant, theirs: Variant) -> Lines:
    """What each was measured with, on the one machine that measured all costs."""
    first, second = (run_on(results, v) for v in (ours, theirs))
    return [f"Measured with {first}." if first == second else f"Measured with {first}, and with {second}."]


def main(first: str, second: str) -> None:
    cfg = params.load(Reads)
    ours, theirs = (named(name, variants(cfg.run)) for name in (first, second))
    # Two methods with several seeds are compared by all their trainings.
    trained = [v.cell.variant(TRAINED) for v in (ours, theirs)] if len(cfg.run.seeds) > 1 else []
    only = list(dict.fromkeys([ours, theirs, *trained]))
    results = Results(cfg.run, cfg.seed, cfg.bootstrap, cfg.decide, only=only)
    print("\n".join(comparison(results, ours, theirs)))


if __name__ == "__main__":
    parser = cli.parser()
    for place in ("first", "second"):
        parser.add_argument(place, metavar="VARIANT", help="MODEL-DATASET-METHOD-FORMAT, from the run list")
    cli.command(main, parser)
