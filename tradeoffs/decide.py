"""What to ship where it has to fit: the best variant that keeps some limits, and the cheapest within the margin of it.

    python -m tradeoffs.decide --max-size-mb 4 --max-loss-of mmlu_accuracy=0.05

Limits are those of `decide.limits` in params.yaml; an option takes the place of one of them, and `none` lifts it. A
limit is kept by what is shown to keep it: held against it is the end of the 95 % interval that speaks against a
variant. Reads what evaluation left in data/, as the report does; with the committed limits it decides as the report.
Exit code 1 if nothing fits, with what comes nearest.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.common.texts import harmless
from tradeoffs.formats.names import AUTO
from tradeoffs.params.fields import Runtime
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.report.formatting import (
    Lines,
    cost_of,
    escaped,
    full_label,
    guard_label,
    heading,
    name_of,
    quality_of,
    short,
    table,
    verdict,
)
from tradeoffs.results import choice, costs, decision, limits
from tradeoffs.results.costs import COST
from tradeoffs.results.decision import LOST, WEIGHED, Decision
from tradeoffs.results.results import Results
from tradeoffs.results.verdicts import BEST

LIFTED = "none"
Number = float | str  # a limit, or LIFTED


@dataclass(frozen=True)
class Reads:
    run: params.Run
    seed: int
    bootstrap: Annotated[int, "evaluate.bootstrap"]
    decide: params.Decide


def number(text: str) -> Number:
    """A limit above 0, or LIFTED. Raises ArgumentTypeError for anything else."""
    if text.lower() == LIFTED:
        return LIFTED
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, nor `{LIFTED}`")
    return found


def loss(text: str) -> tuple[str, Number]:
    """METRIC=Y. Raises ArgumentTypeError for anything else."""
    name, sign, most = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not METRIC=Y, as in mmlu_accuracy=0.05")
    return name, number(most)


def replaced(
    old: params.Limits, single: dict[str, Number | None], losses: Sequence[tuple[str, Number]]
) -> params.Limits:
    """The limits with those of options in their place; None is no option.

    Raises UserError for a metric or a runtime that there is none of.
    """
    given = {name: None if one == LIFTED else one for name, one in single.items() if one is not None}
    if (runtime := given.get(choice.RUNTIME)) and runtime not in get_args(Runtime):
        raise UserError(f"--runtime: no runtime {runtime!r}{near(runtime, [*get_args(Runtime), LIFTED])}")
    for name, _ in losses:
        if name not in (known := limits.limitable()):
            raise UserError(f"--max-loss-of: no metric {name!r} that can have a limit{near(name, known)}")
    most = {**(old.max_loss_of or {}), **dict(losses)}
    kept = {name: float(one) for name, one in most.items() if one != LIFTED}
    return replace(old, **given, max_loss_of=kept or None)  # type: ignore[arg-type]


def asked(pair: str | None, results: Results) -> list[Pair]:
    """The pair of this name, or all. Raises UserError with the near match if there is none."""
    by_name = {str(one): one for one in results.groups()}
    if pair is not None and pair not in by_name:
        raise UserError(f"{pair}: no model and data set of the run list in {params.PATH}{near(pair, by_name)}")
    return list(by_name.values()) if pair is None else [by_name[pair]]


def measured_on(device: str, devices: Sequence[str]) -> str:
    """The device, if costs were measured on it. Raises UserError with the near match if they were not."""
    if device not in devices:
        raise UserError(f"--device: {device!r} is none of run.devices in {params.PATH}{near(device, devices)}")
    return device


def shown(results: Results, found: Decision) -> Lines:
    """A decision as Markdown: what to take, what it was chosen from, what is cheaper and worse, and why all else was
    left."""
    best, name, cost = found.standing.best, found.metric, results.decide.cost
    limited, order = limits.flat(results.decide.limits), found.candidates.order
    head = f"**{heading(found.pair)}: "
    if found.recommended is None:
        misses = limits.misses(found.candidates.table, order.index(found.shown), found.missed[found.shown])
        lines = [
            f"{head}nothing keeps the limits; nearest is {name_of(found.shown)}**: {escaped('; '.join(misses))}",
            "",
        ]
        lines += ["Each limit alone:", ""]
        lines += [*(f"- {escaped(one)}" for one in limits.each(found.candidates.table, limited)), ""]
    else:
        label, ours = full_label(results, best.dataset, name), found.recommended
        lines = [f"{head}ship {name_of(ours)}**", ""]
        kept = f"{len(found.fit)} of {len(order)} variants keep them"
        lines += [f"- Limits: {escaped('; '.join(limits.said(limited)))}. {kept}." if limited else "- No limits."]
        lines += _where(results, order)
        lines += [f"- Best that fits: {name_of(best)}, {label} {quality_of(results, best, name)}."]
        lines += [f"- {_why(found, ours, best, cost)}"]
        lines += [*_narrowly(results, found), ""]
        lines += ["From what is shipped down to what is cheaper and worse:", ""]
        beside = {v: _lost(results, found, v, _against(found, v)) for v in found.pareto[cost]}
        lines += [*_table(results, found, beside, "against the best that fits"), ""]
    left = [v for v in order if v != found.recommended]
    why = {v: why_left(results, found, v) for v in left}
    return [*lines, *(["Left, and why:", "", *_table(results, found, why, "why")] if left else [])]


def _where(results: Results, order: Sequence[Variant]) -> Lines:
    """The device that is decided for, where that was asked."""
    device, measured = results.run.devices[0], results.costs.machine["devices"]
    if device == AUTO:
        return []
    elsewhere = sum(v not in measured for v in order)
    return [f"- Costs are those on {device}{f'; {elsewhere} variants cannot run there' if elsewhere else ''}."]


def _why(found: Decision, ours: Variant, best: Variant, cost: str) -> str:
    margin = short(found.standing.margin)
    if found.standing.verdicts[ours].word == BEST:
        return f"It is shipped, though not shown to be within the margin of {margin} of whichever is truly the best."
    which = "It" if ours == best else name_of(ours)
    return f"{which} is the cheapest by {COST[cost]} of what is shown to be within the margin of {margin} of the best."


def _narrowly(results: Results, found: Decision) -> Lines:
    """Of what ranks above all that fit the one that misses least: whoever set the limits may not have meant that."""
    order, name = found.candidates.order, found.metric
    above = order[: order.index(found.standing.best)]
    if not above:
        return []
    least = above[choice.nearest([found.missed[v] for v in above])]
    missed = limits.misses(found.candidates.table, order.index(least), found.missed[least])
    return [
        f"- Of the better ones {name_of(least)}, {quality_of(results, least, name)}, misses least: {'; '.join(missed)}."
    ]


def _against(found: Decision, variant: Variant) -> str:
    one = found.standing.verdicts[variant]
    return one.word if variant == found.standing.best else verdict(one, found.metric)


def why_left(results: Results, found: Decision, variant: Variant) -> str:
    """The limits that a variant is beyond; else its verdict, if by that it cannot be chosen; else what it was passed
    over for.
    """
    candidates, word = found.candidates, found.standing.verdicts[variant].word
    place = candidates.order.index(variant)
    if missed := found.missed[variant]:
        return escaped("; ".join(limits.misses(candidates.table, place, missed)))
    why = found.passed_over.get(variant)
    if why is None:
        return _against(found, variant)
    if why == choice.GUARDS:
        return _lost(results, found, variant, word)
    if why == choice.RANK:
        return f"{word}; costs the same, and ranks below {name_of(found.shown)}"
    dearer = candidates.table.cheaper[why][:, place]
    other = next(v for v in found.standing.eligible if dearer[candidates.order.index(v)])
    return f"{word}; {COST[why]} {cost_of(results, variant, why)}, of {name_of(other)} {cost_of(results, other, why)}"


def _lost(results: Results, found: Decision, variant: Variant, said: str) -> str:
    """What is said of a variant, and the guards that it falls through."""
    lost = [guard_label(results, g.metric, variant.dataset) for g in found.guards[variant] if g.word == LOST]
    return f"{said}; loses {', '.join(lost)}" if lost else said


def _table(results: Results, found: Decision, last: dict[Variant, str], title: str) -> Lines:
    """Quality and costs of the variants, and what is said of each."""
    name, weighed = found.metric, costs.with_host(results, list(last), WEIGHED)
    header = ["variant", full_label(results, found.pair.dataset, name), *(COST[key] for key in weighed), title]
    rows = [
        [name_of(v), quality_of(results, v, name), *(cost_of(results, v, key) for key in weighed), text]
        for v, text in last.items()
    ]
    return table(header, rows, texts=[title])


def main(
    pair: str | None,
    max_size_mb: Number | None,
    max_memory_mb: Number | None,
    min_tokens_per_second: Number | None,
    max_loss_of: list[tuple[str, Number]],
    runtime: str | None,
    json: Path | None,
    device: str | None = None,
) -> None:
    cfg = params.load(Reads)
    run = cfg.run if device is None else replace(cfg.run, devices=[measured_on(device, cfg.run.devices)])
    single = {"max_size_mb": max_size_mb, "max_memory_mb": max_memory_mb, "runtime": runtime}
    single["min_tokens_per_second"] = min_tokens_per_second
    rules = replace(cfg.decide, limits=replaced(cfg.decide.limits, single, max_loss_of))
    results = Results(run, cfg.seed, cfg.bootstrap, rules)
    decisions = [decision.decide(results, one) for one in asked(pair, results)]
    if json:
        files.write_json(json, decision.table(results, decisions))
    print(harmless("\n".join(line for found in decisions for line in [*shown(results, found), ""])))
    if nothing := [f"{one.pair} (nearest: {one.nearest})" for one in decisions if one.nearest]:
        raise UserError(f"nothing keeps the limits: {', '.join(nothing)}")


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument(
        "--pair", metavar="MODEL-DATASET", help="decide for this one alone; else for each of the run list"
    )
    parser.add_argument("--max-size-mb", type=number, metavar="X", help="size of the weights, in MB (10**6 bytes)")
    parser.add_argument(
        "--max-memory-mb",
        type=number,
        metavar="M",
        help="memory of the model, above that of its process, in MB: model_memory_mb; of what ran on a GPU, what was "
        "set aside there",
    )
    parser.add_argument("--min-tokens-per-second", type=number, metavar="T", help="decoded, one sequence at a time")
    parser.add_argument(
        "--max-loss-of",
        type=loss,
        action="append",
        default=[],
        metavar="METRIC=Y",
        help="how much worse it may be by a metric, with 95 %%: than the untouched base, of a metric that "
        "decide.guards holds to it; else than the best of all variants by that metric, whichever fit. Y is as it is "
        "where higher is better (0.05: five of a hundred), and a part of the value it is held to where lower is better "
        "(0.05: 5 %%). Can be given several times",
    )
    parser.add_argument("--runtime", metavar="NAME", help="llama.cpp or transformers: what must run it")
    parser.add_argument("--device", metavar="NAME", help="one of run.devices, whose costs decide; by default the first")
    parser.add_argument("--json", type=Path, metavar="F", help="write what metrics/decision.json would hold to a file")
    cli.command(main, parser)
