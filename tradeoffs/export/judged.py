"""What the decision says of a variant, and what that loses, in the words of its card."""

from typing import Any

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED
from tradeoffs.export.chosen import Chosen
from tradeoffs.report.formatting import escaped, guard_label, interval_of, short, signed
from tradeoffs.results import limits
from tradeoffs.results.choice import BEST, LOSS, RUNTIME, UNFIT
from tradeoffs.results.intervals import Interval

# What the words of a verdict mean (docs/numbers.md), for who has not read them.
VERDICTS = {
    "good enough": "shown to be within",
    "undecided": "not shown to be within or outside of",
    "too much worse": "shown to be outside of",
    "one training": "not decided, as it is another method and each was trained once, at",
}
GUARDS = {
    "kept": "shown to be within",
    "lost": "shown to be outside of",
    "unclear": "not shown to be within or outside of",
}


def decided(chosen: Chosen) -> str:
    """What the decision says of this variant."""
    found, me = chosen.decision, str(chosen.variant)
    mine = found.get("verdicts", {}).get(me)
    if mine is None:
        return ""
    name, best, asked = found["metric"], found["best"], _limits(found)
    scope = f"what keeps the limits ({asked})" if asked and found["fit"] else "all that were compared"
    called = label(chosen, name)
    recommended = " It is what was recommended." if found.get("recommended") == me else ""
    unfit = mine["verdict"] == UNFIT
    said = []
    if unfit:
        missed = ", ".join(_beyond(limit, by) for limit, by in mine["beyond"].items())
        said.append(f"It does not keep the limits that were set ({asked}): {missed}.")
    if unfit and not found["fit"]:
        nearest = ", and this comes nearest" if found.get("nearest_miss") == me else ""
        said.append(f"Nothing that was compared keeps them{nearest}.")
    if best == me:
        behind = max(abs(mine["low"]), abs(mine["high"]))
        unsure = (
            f" It is not shown to be good enough (margin {short(found['margin'])}): it may be behind another by up to "
        )
        unsure = f"{unsure}{behind:.2g}." if mine["verdict"] == BEST else ""
        said.append(f"Of {scope} it is the best found, by {called}.{unsure}{recommended}{_trained(chosen)}")
        return " ".join(said)
    difference = signed(Interval(mine["difference"], mine["low"], mine["high"], 0.0), name)
    verdict = VERDICTS.get(mine["verdict"], f"{escaped(mine['verdict'])}, at")
    end = "" if unfit else f", {verdict} a margin of {short(found['margin'])}"
    trained = _seeds(chosen) if "trained once" in end else _trained(chosen)
    said.append(f"Beside the best found of {scope}, `{best}`: {called} {difference}{end}.{recommended}{trained}")
    return " ".join(said)


def _limits(found: dict[str, Any]) -> str:
    """The limits of an entry of metrics/decision.json in words; nothing where there are none."""
    single = {name: limit for name, limit in found.get("limits", {}).items() if name != "max_loss_of"}
    losses = {f"{LOSS}{name}": most for name, most in found.get("limits", {}).get("max_loss_of", {}).items()}
    return ", ".join(map(escaped, limits.said(single | losses)))


def _beyond(limit: str, by: float | str) -> str:
    if isinstance(by, str):
        return f"it runs on {escaped(by)}" if limit == RUNTIME else f"{limits.label(limit)} {escaped(by)}"
    return f"{limits.label(limit)} by {100 * by:{'.0f' if by >= 0.095 else '.1g'}} %"


def _trained(chosen: Chosen) -> str:
    """How far training again may change what is said."""
    if len(chosen.cfg.run.seeds) > 1 or not chosen.method.trains:
        return _seeds(chosen)
    return " Each method was trained once (`run.seeds`), so what another seed would change is not known."


def _seeds(chosen: Chosen) -> str:
    """Which trainings a difference is of, where there are several."""
    first, *others = chosen.cfg.run.seeds
    if not others:
        return ""
    own = f", while the weights here and the numbers of the table are of seed {first}" if chosen.method.trains else ""
    return f" This is of the mean over the trainings with the seeds {', '.join(map(str, (first, *others)))}{own}."


def loses(chosen: Chosen, own: dict[str, float]) -> list[str]:
    lines = [
        f"{escaped(guard_label(chosen.results, guard.metric, chosen.variant.dataset))}: "
        f"{signed(guard.difference, guard.metric)} beside `{guard.against}`, "
        f"{GUARDS[guard.word]} a margin of {short(guard.margin)}.{_seeds(chosen)}"
        for guard in chosen.guards
    ]
    change = interval(own, "general_loss_change")
    if change is not None and not any(guard.metric == "general_loss" for guard in chosen.guards):
        difference = signed(change, "general_loss")
        lines.append(f"{label(chosen, 'general_loss')}: {difference} beside the untouched base, as it left training.")
    if same := interval(own, "same_top_token"):
        lines.append(f"the same most likely token as the model as it left training: {plain(same, 'same_top_token')}.")
    return lines or [_not_compared(chosen, own)]


def _not_compared(chosen: Chosen, own: dict[str, float]) -> str:
    known = own | chosen.numbers(chosen.cell.variant(TRAINED))
    measured = [label(chosen, name) for name in ("mmlu_accuracy", "general_loss") if name in known]
    deciding = metrics.metric(chosen.decision["metric"])[1].task
    measured += [f"the task {escaped(task)}" for task in chosen.tasks if task != deciding]
    if not measured:
        return "Nothing was measured besides the task itself: neither other knowledge nor other text."
    why = "`decide.guards` has nothing else to hold it to"
    if chosen.variant == chosen.variant.pair.cell("base").variant(TRAINED):
        why = "this is the untouched base, which others are held to"
    elif "base" not in chosen.cfg.run.methods:
        why = "the run list has no untouched base"
    return f"{' and '.join(measured)}: measured, and compared with nothing, as {why}."


def label(chosen: Chosen, name: str) -> str:
    """As the report calls a metric: questions that were made here are not those of MMLU."""
    general = "general " if metrics.metric(name)[0] == "general" else ""
    return escaped(general + chosen.results.label(chosen.variant.dataset, name))


def plain(found: Interval, name: str) -> str:
    """As the report writes it, but by decimals in place of an exponent, as far as those of a difference go."""
    written = interval_of(found, name)
    return signed(found, name).replace("+", "") if "e-" in written else written


def interval(row: dict[str, float], name: str) -> Interval | None:
    if not {name, f"{name}_low", f"{name}_high"} <= set(row):
        return None
    return Interval(row[name], row[f"{name}_low"], row[f"{name}_high"], 0.0)
