"""Any two variants of the run list against each other, as Markdown for a pull request: paired on the same items.

    python -m tradeoffs.compare demo-demo-lora-q4_0 demo-demo-full-q4_0
    python -m tradeoffs.compare demo-demo-lora-q4_0 demo-demo-full-q4_0 --rev v1.0                 both of a commit
    python -m tradeoffs.compare demo-demo-lora-q4_0 demo-demo-lora-q4_0 --rev HEAD --rev main      the first of HEAD

Reads what evaluation left in data/, as the report does, or what a commit's dvc.lock names, from DVC's cache or remote;
nothing is evaluated again. WORKSPACE is the folder as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

from tradeoffs import metrics, params
from tradeoffs.common import machine
from tradeoffs.common.cells import COST, TRAINED, Variant, variants
from tradeoffs.gate.pairing import Pairing
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.report.formatting import Lines, cost_of, difference, escaped, full_label, quality_of, short, table
from tradeoffs.report.machine import run_on, written
from tradeoffs.results import costs, reading, verdicts
from tradeoffs.results.results import Results
from tradeoffs.revisions import Both, Revision, Store


@dataclass(frozen=True)
class Reads:
    run: params.Run
    seed: int
    bootstrap: Annotated[int, "evaluate.bootstrap"]
    decide: params.Decide


ORDER = {"test": 0, "seen": 2}  # what stands once per variant in between


def named(name: str, listed: list[Variant], where: object = params.PATH) -> Variant:
    """The variant of the run list with this name.

    Raises UserError with the near match if there is none, or with the reason if it could not be made.
    """
    by_name = {str(variant): variant for variant in listed}
    if name not in by_name:
        raise UserError(f"{name}: no variant of the run list in {where}{near(name, by_name)}")
    if where == params.PATH:  # of a commit, its results say so
        reading.must_be_made(by_name[name])
    return by_name[name]


@dataclass(frozen=True)
class Sides:
    """Two variants of other commits: what each is called, why a metric is not compared, and what to know of the costs.

    Metrics that are not compared are so for a reason in which `head` is the first and `base` the second.
    """

    called: Sequence[str]
    unlike: Callable[[str], str] = lambda name: ""
    costs: str = ""


def comparison(results: Results, ours: Variant, theirs: Variant, sides: Sides | None = None) -> Lines:
    """Quality with paired differences and costs with ratios, `ours` against `theirs`; Markdown.

    Raises UserError if the two were not asked the same items.
    """
    sides = sides or Sides([f"**`{ours}`**", f"**`{theirs}`**"])
    if ours.dataset != theirs.dataset:
        raise UserError(
            f"{ours} and {theirs} belong to different data sets: they were not asked the same items, so nothing pairs "
            "their differences; name two variants of one data set"
        )
    if ours == theirs:
        raise UserError(f"{ours}: named twice; name two different variants")
    lines = [" against ".join(sides.called), ""]
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
    unlike = {n: why for n in names if (why := sides.unlike(n)) and results.has(ours, n) and results.has(theirs, n)}
    lines += ["Not compared: `head` is the first, `base` the second."] if unlike else []
    rows = [
        [full_label(results, ours.dataset, n), *_quality(results, ours, theirs, n, unlike.get(n, ""))] for n in names
    ]
    lines += ["", *table(["", "first", "second", "difference", "verdict", "p"], rows), ""]
    rows = [
        [label, cost_of(results, ours, key, bounds=True), cost_of(results, theirs, key, bounds=True), found]
        for key, label in results.cost_labels.items()
        if (found := _ratio(results, ours, theirs, key)) is not None
    ]
    lines += [*table(["", "first", "second", "first / second"], rows), ""]
    return [*lines, *_machines(results, ours, theirs), *([sides.costs] if sides.costs else [])]


def _quality(results: Results, ours: Variant, theirs: Variant, name: str, unlike: str) -> Lines:
    values = [quality_of(results, ours, name), quality_of(results, theirs, name)]
    if unlike:
        return [*values, f"not compared: {escaped(unlike)}", "", ""]
    if not (results.has(ours, name) and results.has(theirs, name)):
        return [*values, "", "", ""]
    p = f"{results.mcnemar(ours, theirs, name):.2g}" if metrics.metric(name)[1].right_or_wrong else ""
    if not results.judged(name):
        return [*values, difference(verdicts.paired(results, ours, theirs, name), name), "", p]
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


def main(first: str, second: str, revs: Sequence[str] = ()) -> None:
    cfg = params.load(Reads)
    if len(revs) > 2:
        raise UserError(f"--rev {' --rev '.join(revs)}: one for both variants, or one for each")
    if len(revs) == 2:
        print("\n".join(_of_two(first, second, revs, cfg)))
        return
    revision = Revision(revs[0]) if revs else None
    listed, where = (variants(revision.run), f"params.yaml of {revision}") if revision else (variants(cfg.run), None)
    ours, theirs = (named(name, listed, where or params.PATH) for name in (first, second))
    run = revision.run if revision else cfg.run
    only = list(dict.fromkeys([ours, theirs, *_trained(run, ours), *_trained(run, theirs)]))
    if revision is None:
        results, sides = Results(cfg.run, cfg.seed, cfg.bootstrap, cfg.decide, only=only), None
    else:
        results = _measured(revision, only, cfg)
        sides = Sides([f"**`{ours}`**", f"**`{theirs}`**, both of {escaped(str(revision))}"])
    print("\n".join(comparison(results, ours, theirs, sides)))


def _of_two(first: str, second: str, revs: Sequence[str], cfg: Reads) -> Lines:
    """A variant of one commit against one of another. Raises UserError if nothing of them can be compared."""
    store = Store()
    sides = [Revision(rev, store) for rev in revs]
    both = [
        named(name, variants(side.run), f"params.yaml of {side}")
        for name, side in zip((first, second), sides, strict=True)
    ]
    if sides[0].params.get("seed") != sides[1].params.get("seed"):
        seeds = " and ".join(str(side.params.get("seed")) for side in sides)
        raise UserError(f"{sides[0]} and {sides[1]}: made with other seeds ({seeds}), so their test items are others")
    mine, other = (
        _measured(side, [variant, *_trained(side.run, variant)], cfg) for side, variant in zip(sides, both, strict=True)
    )
    ours, theirs = both
    pairing = Pairing(sides[1], sides[0], other, mine)
    names = [n for n in metrics.names("quality") if n.startswith("test_")]
    if not any(results.has(one, n) for results, one in ((mine, ours), (other, theirs)) for n in names):
        names = ["mmlu_accuracy", *(metric.name for metric in metrics.every() if metric.task)]  # all that was asked
    found = {n: pairing.against(theirs, ours, n) for n in names}
    shared = {n: why for n, why in found.items() if mine.has(ours, n) and other.has(theirs, n)}
    if all(shared.values()):
        why = next(iter(shared.values()), "no test metric that both have")
        raise UserError(
            f"{ours} of {sides[0]} and {theirs} of {sides[1]} cannot be compared: {why} (head is the first, base the "
            "second); name commits whose data set is the same"
        )
    # A name of the same cell says that the two are of the same trainings, whose luck is then in no difference.
    same = pairing.same_trainings(theirs.cell, ours.cell)
    called = replace(theirs, format=f"{theirs.format}@second") if same else replace(theirs, method="@second")
    runs = "" if sides[0].outputs.get(str(COST)) == sides[1].outputs.get(str(COST)) else _runs(mine, other)
    titles = [f"**`{variant}`** of {escaped(str(side))}" for variant, side in zip(both, sides, strict=True)]
    unlike = partial(pairing.against, theirs, ours)
    return comparison(Both(mine, other, theirs, called), ours, called, Sides(titles, unlike, runs))


def _measured(revision: Revision, only: Sequence[Variant], cfg: Reads) -> Results:
    """Raises UserError if one of the variants was never made, or its items are not to be had."""
    results = revision.results(cfg.bootstrap, cfg.decide, only)
    if lacking := [variant for variant in only if variant not in results.variants]:
        raise UserError(f"{lacking[0]} of {revision}: there is none, its method exists as trained only")
    return results


def _trained(run: params.Run, variant: Variant) -> list[Variant]:
    """Two methods with several seeds are compared by all their trainings."""
    return [variant.cell.variant(TRAINED)] if len(run.seeds) > 1 else []


def _runs(mine: Results, other: Results) -> str:
    of_both = [results.costs.machine["hardware"] for results in (mine, other)]
    if not machine.same(*of_both):
        first, second = map(written, of_both)
        return f"Costs are of two machines, {first} and {second}: what differs in time and speed is theirs, too."
    return "Costs are of one machine; of two runs, times and speeds also differ by the hour."


if __name__ == "__main__":
    parser = cli.parser()
    for place in ("first", "second"):
        parser.add_argument(place, metavar="VARIANT", help="MODEL-DATASET-METHOD-FORMAT, from the run list")
    parser.add_argument(
        "--rev",
        dest="revs",
        metavar="REV",
        action="append",
        default=[],
        help="the commit that both are of; twice: that of the first, then that of the second",
    )
    cli.command(main, parser)
