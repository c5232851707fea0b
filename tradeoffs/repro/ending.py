"""The decision in ten lines: what to ship, what that costs and loses, where to look next, what to change first.

    python -m tradeoffs.repro.ending        of metrics/ and params.yaml; `make run` ends with it

Before that it writes what the stage `publish` writes: README.md's part (`tradeoffs.readme`) and models/dvc.yaml
(`tradeoffs.artifacts`), in case somebody has edited them since, which DVC does not see; and, where it is not of these
results, the page to look for yourself (`tradeoffs.explore`).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradeoffs import artifacts, metrics, params, readme
from tradeoffs.common import files, settings
from tradeoffs.common.cells import Cell, Variant
from tradeoffs.common.texts import harmless
from tradeoffs.explore import stamp
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError
from tradeoffs.report.formatting import counted, heading, name_of, short
from tradeoffs.results.decision import LOST
from tradeoffs.results.verdicts import BEST, GOOD, ONE, UNDECIDED, UNFIT, WORSE

FOLDER = Path("metrics")
MOST = 5  # pairs of model and data set that have a line of their own
COSTS = {"size_mb": "MB", "decode_tokens_per_second": "tokens/s decoded", "model_memory_mb": "MB of memory"}
COSTS |= {"host_memory_mb": "MB of the host's beside the GPU's"}  # where there is one


@dataclass(frozen=True)
class Measured:
    """What metrics/ holds: a row of decision.json per pair, numbers per variant (quality, cost) and cell (training)."""

    decision: Mapping[str, Any]
    quality: Mapping[str, Mapping[str, float]]
    cost: Mapping[str, Mapping[str, float]]
    training: Mapping[str, Mapping[str, float]]


def read() -> Measured:
    """Raises UserError where one of the files is missing."""
    found = {}
    for name in Measured.__dataclass_fields__:
        path = FOLDER / f"{name}.json"
        if not path.is_file():
            raise UserError(f"{path}: not found in {Path.cwd()}; run after `dvc repro`, from the folder of dvc.yaml")
        found[name] = files.read_json(path)
    return Measured(**found)


def lines(found: Measured, cfg: params.Params) -> list[str]:
    """Ten at most."""
    rows = list(found.decision.values())
    if len(rows) == 1:
        said = _at_length(found, rows[0], cfg)
    else:
        said = [_in_short(found, row, cfg) for row in rows[:MOST]]
        said += [f"and {counted(rows[MOST:], 'other pair')}, in the report"] if len(rows) > MOST else []
    where = f" ({heading(_ours(rows[0]).pair)})" if len(rows) > 1 else ""
    return [
        *said,
        f"Next: {stamp.PAGE} to look for yourself, report/report.html or .md to read; {_compare(rows[0])}",
        f"Change first, in params.yaml, then `make run`{where}: {change(rows[0], cfg)}",
        "Then: your own data (docs/data.md) and models (docs/models.md), each a block that `run` names.",
    ]


def change(row: Mapping[str, Any], cfg: params.Params) -> str:
    """What would most likely change the decision, or make it surer: the first of these that there is reason for."""
    ours, words = _ours(row), _words(row)
    lost = [_label(name, ours, cfg) for name, guard in _guards(row).items() if guard["guard"] == LOST]
    needed = [one["items_to_decide"] for one in row["verdicts"].values() if one.get("items_to_decide")]
    if "recommended" not in row:
        return "`decide.limits`, which nothing keeps (docs/decide.md), or what `run` names to what is smaller"
    if "copying" in row and not row["copying"]["beaten"]:
        key, steps = _budget(ours.cell, "steps", cfg)
        return f"`{key}` from {steps:g} to {2 * steps:g}, since copying training answers is not beaten"
    if not cfg.methods[ours.method].trains:
        key, lr = _budget(ours.cell, "lr", cfg)
        return f"`{key}` (now {lr:g}), since no tuning is worth it here: docs/sweeps.md"
    if lost:
        key, lr = _budget(ours.cell, "lr", cfg)
        return f"`{key}` (now {lr:g}) to less, since {' and '.join(lost)} got worse: docs/sweeps.md"
    if words[ONE]:
        first = cfg.run.seeds[0]
        return f"`run.seeds` to {[first, first + 1, first + 2]}, since {words[ONE]} variants hang on a single training"
    if needed and max(needed) > cfg.evaluate.splits.test:
        more = f"`evaluate.splits.test` (now {cfg.evaluate.splits.test}) up to {max(needed):,}, if there are so many"
        return f"{more}: it would decide {len(needed)} of {words[UNDECIDED]} that are undecided"
    return f"`decide.cost` (now {cfg.decide.cost}) and `decide.margins`, if other things count for you: docs/numbers.md"


def _at_length(found: Measured, row: Mapping[str, Any], cfg: params.Params) -> list[str]:
    ours, best, words = _ours(row), Variant.parse(row["best"]), _words(row)
    beside = "the best found" if ours == best else f"the best found, {name_of(best)}, has {_quality(found, row, best)}"
    known = {key: unit for key, unit in COSTS.items() if key in found.cost[str(ours)]}
    costs = ", ".join(f"{short(found.cost[str(ours)][key])} {unit}" for key, unit in known.items())
    if ours != best:
        costs += f" (the best: {', '.join(short(found.cost[str(best)].get(key)) for key in known)})"
    took = found.training.get(str(ours.cell), {}).get("train_seconds")
    said = [
        f"{_shipped(row)}, {_label(row['metric'], ours, cfg)} {_quality(found, row, ours)}; "
        f"{beside} (margin {short(row['margin'])}).",
        f"Costs: {costs}" + (f"; {took:.0f} s of training." if took else "."),
        _floors(found, row, cfg),
        f"Of {counted(list(row['verdicts']), 'variant')}: {words[GOOD]} good enough, {words[WORSE]} too much worse, "
        f"{words[UNDECIDED]} undecided"
        + (f", {words[ONE]} undecided since their methods were trained once" if words[ONE] else "")
        + (f", {words[UNFIT]} beyond a limit" if words[UNFIT] else "")
        + (", and the best found, which is not shown to be good enough." if words[BEST] else "."),
    ]
    if lost := [_moved(name, guard, ours, cfg) for name, guard in _guards(row).items() if guard["guard"] == LOST]:
        said.append(f"Tuning lost, beyond the margin: {', '.join(lost)}.")
    if row["warnings"]:
        said.append(f"Careful: {'; '.join(row['warnings'])}.")
    return said


def _in_short(found: Measured, row: Mapping[str, Any], cfg: params.Params) -> str:
    ours = _ours(row)
    lost = [_label(name, ours, cfg) for name, guard in _guards(row).items() if guard["guard"] == LOST]
    return (
        f"{_shipped(row)}, {_label(row['metric'], ours, cfg)} {_quality(found, row, ours)}, "
        f"{short(found.cost[str(ours)].get('size_mb'))} MB. {_floors(found, row, cfg)}"
        + (f" Lost: {', '.join(lost)}." if lost else "")
        + (" Warnings: see the report." if row["warnings"] else "")
    )


def _shipped(row: Mapping[str, Any]) -> str:
    """What to ship; of what is beyond a limit, too, that which comes nearest."""
    ours = _ours(row)
    said = "ship" if "recommended" in row else "nothing keeps the limits (`decide.limits`); nearest is"
    return f"{heading(ours.pair)}: {said} {name_of(ours)}"


def _floors(found: Measured, row: Mapping[str, Any], cfg: params.Params) -> str:
    """The untouched base, and copying."""
    ours = _ours(row)
    base = next((name for name in found.quality if _is_untouched(name, ours)), None)
    said = f"Untouched base: {_quality(found, row, Variant.parse(base))}. " if base else ""
    if "copying" in row:
        copied = row["copying"]
        label = "" if copied["metric"] == row["metric"] else f"{_label(copied['metric'], ours, cfg)} "
        word = "" if copied["beaten"] else ", which is not beaten"
        said += f"Copying the most similar training answer: {label}{copied['value']:.3f}{word}."
    return said.strip()


def _is_untouched(name: str, ours: Variant) -> bool:
    found = Variant.parse(name)
    return (found.pair, found.method, found.format) == (ours.pair, "base", "trained")


def _compare(row: Mapping[str, Any]) -> str:
    """The command that sets what is recommended beside the best, or beside what costs the same."""
    ours = _ours(row)
    other = next((name for name in (row["best"], *row["same_cost"], *row["verdicts"]) if name != str(ours)), None)
    return f"python -m tradeoffs.compare {ours} {other}" if other else f"python -m tradeoffs.questions {ours}"


def _quality(found: Measured, row: Mapping[str, Any], variant: Variant) -> str:
    name = row["metric"]
    value = found.quality[str(variant)].get(name)
    return "" if value is None else f"{value:.{metrics.metric(name)[1].decimals}f}"


def _label(name: str, ours: Variant, cfg: params.Params) -> str:
    split, metric = metrics.metric(name)
    if name == "mmlu_accuracy" and cfg.datasets[ours.dataset].mmlu is None:
        return "multiple choice"  # questions that were generated are not those of MMLU
    return metric.label if metric.split else f"{split} {metric.label}"


def _moved(name: str, guard: Mapping[str, Any], ours: Variant, cfg: params.Params) -> str:
    return f"{_label(name, ours, cfg)} {guard['difference']:+.{metrics.metric(name)[1].decimals}f}"


def _budget(cell: Cell, key: str, cfg: params.Params) -> tuple[str, float]:
    """Where a value of a cell's budget stands, and what it comes to."""
    keys = {"steps": {"steps", "epochs"}, "lr": {"lr", "lr_factor"}}[key]
    said = [(where, values) for where, values in settings.layers(cfg, cell) if keys & set(values)]
    where, values = said[-1] if said else ("train", {})
    budget = settings.budget(cfg, cell)
    if key == "lr" and said and "lr" not in values:
        return f"{where}.lr_factor", values["lr_factor"]
    if key == "steps" and budget.epochs:
        return f"{where}.epochs", budget.epochs
    return f"{where}.{key}", getattr(budget, key)


def _ours(row: Mapping[str, Any]) -> Variant:
    return Variant.parse(row.get("recommended") or row["nearest_miss"])


def _words(row: Mapping[str, Any]) -> Counter[str]:
    return Counter(one["verdict"] for one in row["verdicts"].values())


def _guards(row: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = row["guards"].get(str(_ours(row)), {})
    return found


def page() -> None:
    """Made again only where it is not of these results: what it imports alone takes longer than all else here.

    What stops it is said, and no page of other results stays.
    """
    if stamp.of() == stamp.present():
        return
    from tradeoffs.explore import making

    try:
        making.make()
    except UserError as error:
        stamp.PAGE.unlink(missing_ok=True)
        print(harmless(f"{stamp.PAGE} was not made: {error}"))


def main() -> None:
    said = lines(read(), params.load_all())
    if readme.is_wanted():
        readme.write()
    artifacts.main()
    page()
    print(harmless("\n".join(["", *said])))


if __name__ == "__main__":
    cli.command(main)
