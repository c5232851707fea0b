"""A revision against another one, as a reviewer has to know it: what is worse, what is not shown, what is all right."""

import json
import math
from dataclasses import replace
from typing import Any

from tradeoffs import params
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.gate import freshness, hashes
from tradeoffs.gate.costing import Costing
from tradeoffs.gate.freshness import DECISION
from tradeoffs.gate.pairing import Pairing, section
from tradeoffs.gate.policy import Policy, directed, gated_metrics, require_known
from tradeoffs.gate.quality import Quality, finished
from tradeoffs.gate.rows import (
    Decided,
    Gate,
    Gated,
)
from tradeoffs.params import reading
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.results.results import Results
from tradeoffs.revisions import Revision


def judge(base: Revision, head: Revision, policy: Policy) -> Gate:
    """What `head` made worse of what `base` was.

    Raises UserError with what to do where one of them has no numbers to compare: not run, not pushed, no such commit, a
    dvc.lock that is not of its params.yaml and code; or where the policy names a variant or a metric that neither has.
    """
    freshness.require(head)
    seed, resamples, decide = _settings(head)
    margins, notes = _margins(base, decide)
    before, after = (side.results(resamples, decide, seed=seed) for side in (base, head))
    require_known(policy)
    pairing = Pairing(base, head, before, after)
    quality = Quality(pairing, gated_metrics(policy, margins), set(policy.metrics))
    costing = Costing(before, after, policy, pairing.of_costs())
    old, new = _recommended(base, before), _recommended(head, after)
    wanted = _wanted(policy, before, after, {*old.values(), *new.values()})
    gated = [_gated(before, after, variant, named) for variant, named in wanted]
    decisions = [_decided(before, after, pair, old.get(pair), new.get(pair)) for pair in _pairs(before, after)]
    compared = [(one.variant, one.variant) if not one.note else None for one in gated]
    compared += [_parsed(one) if one.before != one.after else None for one in decisions]
    of_quality = finished([quality.rows(*both) if both else [] for both in compared])
    rows = [[*some, *(costing.rows(*both) if both else ())] for some, both in zip(of_quality, compared, strict=True)]
    gated = [replace(one, rows=mine) for one, mine in zip(gated, rows, strict=False)]
    decisions = [replace(one, rows=mine) for one, mine in zip(decisions, rows[len(gated) :], strict=True)]
    settings_ = [f"evaluate.{key} was {old_}, is {new_}" for key, (old_, new_) in pairing.settings.items()]
    notes = [*_of_sides(base, head, policy), *notes, *settings_, *quality.notes, *costing.notes]
    return Gate(base, head, policy, gated, decisions, notes, before, after)


def _settings(head: Revision) -> tuple[int, int, params.Decide]:
    """The seed, the number of resamples and `decide` of the head: what both sides are judged by."""
    problems: list[str] = []
    block = head.params.get("decide")
    if isinstance(block, dict):  # a commit from before there were limits has none
        block = {"limits": {}} | block
    decide: params.Decide = reading.read(params.Decide, block, "decide", problems)
    if problems:
        raise UserError(f"params.yaml of {head}: {'; '.join(problems)}; name a commit of today's form")
    seed, resamples = head.params.get("seed"), section(head, "evaluate").get("bootstrap")
    if type(seed) is not int or type(resamples) is not int or resamples < 1:
        raise UserError(f"params.yaml of {head}: no whole numbers for seed and evaluate.bootstrap")
    return seed, resamples, decide


def _margins(base: Revision, decide: params.Decide) -> tuple[dict[str, float], list[str]]:
    """Those of the base, so that no change widens what it is itself judged by; of the head what the base lacks."""
    found = section(base, "decide").get("margins")
    old = {
        name: float(value)
        for name, value in (found.items() if isinstance(found, dict) else ())
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    }
    other = [name for name in decide.margins if name in old and old[name] != decide.margins[name]]
    gone = [name for name in old if name not in decide.margins]
    said = (
        [f"decide.margins of {', '.join([*other, *gone])} have changed: judged by those of base"]
        if other or gone
        else []
    )
    bare, full = directed()
    known = {name: value for name, value in old.items() if name in bare or name in full}
    return decide.margins | known, said


def _recommended(side: Revision, results: Results) -> dict[Pair, str]:
    """The recommended variant of each model and data set, from metrics/decision.json; of what has none nothing."""
    try:
        found: Any = json.loads(side.text(DECISION) or "{}")
    except ValueError:
        found = {}
    rows = {pair: found.get(str(pair)) if isinstance(found, dict) else None for pair in results.groups()}
    named = {pair: row.get("recommended") for pair, row in rows.items() if isinstance(row, dict)}
    known = set(map(str, results.variants))
    return {pair: name for pair, name in named.items() if isinstance(name, str) and name in known}


def _pairs(before: Results, after: Results) -> list[Pair]:
    return list(dict.fromkeys([*after.groups(), *before.groups()]))


def _wanted(policy: Policy, before: Results, after: Results, recommended: set[str]) -> list[tuple[Variant, bool]]:
    """The variants that are gated, and whether the policy names them; in the order of the run lists."""
    every = list(dict.fromkeys([*after.variants, *before.variants]))
    if policy.variants == "all":
        return [(variant, False) for variant in every]
    if policy.variants == "recommended":
        return [(variant, False) for variant in every if str(variant) in recommended]
    known = {str(variant): variant for variant in every}
    if unknown := [name for name in policy.variants if name not in known]:
        listed = "\n  ".join(f"variants: {name}: a variant of neither side{near(name, known)}" for name in unknown)
        raise UserError(f"{policy.name}: {len(unknown)} problem{'s' if len(unknown) > 1 else ''}\n  {listed}")
    return [(known[name], True) for name in dict.fromkeys(policy.variants)]


def _of_sides(base: Revision, head: Revision, policy: Policy) -> list[str]:
    """What a reader has to know of the two sides, whatever was measured."""
    notes = []
    if hashes.is_within(base, head) is False:
        notes.append(
            f"{head.name} lacks commits of {base.name}: what those made better looks worse here; merge them, or name "
            "as --base what git merge-base prints"
        )
    if base.params.get("seed") != head.params.get("seed"):
        notes.append(f"another seed: {base.params.get('seed')} in base, {head.params.get('seed')} in head")
    if stale := next(freshness.problems(base), ""):
        notes.append(f"dvc.lock of {base} is not of its commit ({stale}): what it holds is compared")
    return [*notes, *policy.notes]


def _gated(before: Results, after: Results, variant: Variant, named: bool) -> Gated:
    if variant not in after.facts:
        return Gated(variant, [], "removed: head does not have it", missing=named)
    if variant not in before.facts:
        return Gated(variant, [], "new: base does not have it, so there is nothing to compare it with")
    return Gated(variant, [])


def _decided(before: Results, after: Results, pair: Pair, old: str | None, new: str | None) -> Decided:
    if old is None or new is None:
        side, results = ("head", after) if new is None else ("base", before)
        gone = pair not in results.groups()
        note = (
            f"{side} does not have this model and data set" if gone else f"{side}: {DECISION} recommends nothing here"
        )
        return Decided(pair, old, new, [], note, missing=new is None and not gone)
    same = old == new
    note = "the same variant" if same else "another variant is recommended; it is held against the one that was"
    return Decided(pair, old, new, [], note)


def _parsed(decided: Decided) -> tuple[Variant, Variant] | None:
    if decided.before is None or decided.after is None:
        return None
    return Variant.parse(decided.before), Variant.parse(decided.after)
