"""Models x data sets, as trained: what a run list with more than one of either says beyond each pair alone.

Models are compared by bits per byte, the one likelihood that does not depend on how a tokenizer cuts the text, and by
the F1 of answers where there are some (by multiple choice, or else a task, where that is all that is asked); paired on
the same documents or questions, whatever the tokenizers.
"""

from collections.abc import Sequence

from tradeoffs.common.cells import TRAINED, Pair, Variant
from tradeoffs.report.formatting import (
    MANY,
    Lines,
    accuracy_of,
    cost_of,
    full_label,
    quality_of,
    short,
    subject_of,
    table,
    verdict,
    with_notes,
)
from tradeoffs.report.machine import run_on
from tradeoffs.report.rendering import render
from tradeoffs.results import ranking, reading, tuning, verdicts
from tradeoffs.results.costs import COST
from tradeoffs.results.results import Results
from tradeoffs.results.verdicts import Standing

BITS, F1, CHOICE = "test_bits_per_byte", "test_f1", "mmlu_accuracy"
WORST = 8  # bits per byte of a model that knows nothing
ITEMS = {"text": "documents"}  # what the test items of a kind of data set are; others: questions


def is_one(results: Results) -> bool:
    return len(results.groups()) > 1


def measures(results: Results, dataset: str) -> list[str]:
    """What models are compared by on a data set, the one that orders them first."""
    first = _on(results, dataset)[0]
    found = [name for name in (BITS, F1) if results.has(first, name)]
    return found or [ranking.without_test(results, first.pair)]


def with_bits(results: Results) -> list[str]:
    """The data sets that have test items, and so bits per byte."""
    return [dataset for dataset in results.run.datasets if BITS in measures(results, dataset)]


def best_of_models(results: Results, dataset: str, name: str) -> list[Variant]:
    """Each model with the method that is best for it, as trained, the best model first."""
    best: dict[str, Variant] = {}
    for variant in ranking.best_first(results, _on(results, dataset), name):
        best.setdefault(variant.model, variant)
    return list(best.values())


def standing(results: Results, dataset: str, name: str) -> Standing:
    """Every model with every method on a data set against the best of them all, as trained."""
    return verdicts.standing(results, _on(results, dataset), name)


def good_models(results: Results, dataset: str, name: str) -> list[Variant]:
    """Of `best_of_models` the best, and those that are good enough."""
    good = standing(results, dataset, name).eligible
    return [variant for variant in best_of_models(results, dataset, name) if variant in good]


def decision(results: Results) -> Lines:
    """One row per data set and measure: the best model, and how far the others are behind it. Nothing for one model."""
    if len(results.run.models) == 1:
        return []
    rows, noted, notes = [], [], reading.notes(results.root, "datasets")
    for dataset in results.run.datasets:
        for name in measures(results, dataset):
            first, *others = best_of_models(results, dataset, name)
            found = standing(results, dataset, name).verdicts
            behind = [f"{_name(results, v)}: {verdict(found[v], name)}" for v in others]
            value = f"{_name(results, first)}: {quality_of(results, first, name)}"
            rows.append([f"`{dataset}`", full_label(results, dataset, name), value, "<br>".join(behind)])
            noted.append(notes.get(dataset))
    header = ["data set", "by", "best model, as trained", "the others, against it"]
    return with_notes(header, rows, noted, texts=header[1:])


def section(results: Results, drawn: Sequence[str]) -> str:
    """Every cell with its likelihoods, answers, training time and throughput. Nothing where there is one pair alone."""
    if not is_one(results):
        return ""
    return render(
        "grid.md.j2",
        drawn,
        datasets=[_dataset(results, dataset) for dataset in results.run.datasets],
        worst=WORST,
        bits=bool(with_bits(results)),
        framed=len(results.run.models) > 1,
        subjects=_subjects(results),
    )


def _dataset(results: Results, dataset: str) -> dict[str, object]:
    every, by = _on(results, dataset), measures(results, dataset)[0]
    best = _cells(results, best_of_models(results, dataset, by), among=every) if len(every) > MANY else None
    return {
        "name": dataset,
        "kind": results.prepared[dataset]["kind"],
        "by": "has the fewest bits per byte" if by == BITS else "is best for it",
        "best_methods": best,
        "every_method": _cells(results, every),
        "formats": _formats(results, dataset) if by == CHOICE and results.formats[1:] else None,
        "coverage": _coverage(results, dataset) if len(results.run.models) > 1 and by == BITS else None,
    }


def _cells(results: Results, shown: Sequence[Variant], among: Sequence[Variant] = ()) -> Lines:
    """One row per variant, the best by what orders them first; the letters are those of all `among`."""
    dataset = shown[0].dataset
    among, items = among or shown, ITEMS.get(results.prepared[dataset]["kind"], "questions")
    header, bits = ["model", "method"], BITS in measures(results, dataset)
    columns: list[dict[Variant, str]] = []
    together: list[int] = []  # a measure with its letters, and bits per byte with what compares within one tokenizer
    for name in measures(results, dataset):
        header += [results.label(dataset, name), "letters"]
        columns += [{v: quality_of(results, v, name) for v in shown}, ranking.letters(results, among, name)]
        if name == BITS:
            header.append("perplexity")
            columns.append({v: quality_of(results, v, "test_perplexity") for v in shown})
        together.append(len(columns) - sum(together))
    trained = {v: tuning.numbers(results, v) for v in shown}
    costs = {"train_seconds": "training s", "median_tokens_per_second": "training tok/s"}
    if not any(key in found for found in trained.values() for key in costs):  # nothing was trained
        costs = {}
    header += [*costs.values(), "decode tok/s", *(["decode bytes/s"] if bits else []), f"scored {items}/s"]
    rows = []
    for v in ranking.best_first(results, shown, measures(results, dataset)[0]):
        speed = results.cost[v].get("decode_tokens_per_second")  # none where it is not run on the first device
        per_token = results.scored(v).bytes_per_token if bits else 0.0
        decoded = [short(None if speed is None else speed * per_token)] if bits else []
        row = [f"`{v.model}`", f"`{v.method}`", *(column[v] for column in columns)]
        row += [*(short(trained[v].get(key)) for key in costs), cost_of(results, v, "decode_tokens_per_second")]
        rows.append([*row, *decoded, cost_of(results, v, "eval_samples_per_second")])
    return table(header, rows, texts=["method"], keys=2, together=together)


def _formats(results: Results, dataset: str) -> Lines:
    """Of multiple choice alone: every model in every format, right answers beside what they took."""
    weighed = ("latency_p50_seconds", "size_mb", "model_memory_mb")
    rows = []
    for group in (group for group in results.groups() if group.dataset == dataset):
        for v in results.of(group):
            asked, took = sum(count for _, count in results.subjects(v).values()), reading.mmlu_seconds(v)["wall"]
            method = [f"`{v.method}`"] if len(results.run.methods) > 1 else []
            row = [f"`{v.model}`", *method, f"`{v.format}`", run_on(results, v), quality_of(results, v, CHOICE)]
            rows.append([*row, short(took), short(took / asked), *(cost_of(results, v, key) for key in weighed)])
    keys = ["model", *(["method"] if len(results.run.methods) > 1 else []), "format"]
    header = [
        *keys,
        "runs on",
        results.label(dataset, CHOICE),
        "seconds, all questions",
        "per question",
        "one alone, s",
    ]
    return table([*header, *(COST[key] for key in weighed[1:])], rows, texts=["runs on"], keys=len(keys))


def _coverage(results: Results, dataset: str) -> dict[str, object]:
    """On what each model was measured: the same items, but not to the last byte; and what that could hide."""
    best = {v.model: v for v in best_of_models(results, dataset, BITS)}
    scored = {model: results.scored(best[model]) for model in results.run.models}
    most = max(found.bytes for found in scored.values())
    differ = any(found.bytes < most for found in scored.values())
    items = ITEMS.get(results.prepared[dataset]["kind"], "questions")
    header = ["model", items, "tokens", "bytes per token", "bytes", "of the most"]
    header += ["bits per byte, its best", f"with {WORST} bits for each byte left out"] if differ else []
    rows = []
    for model, found in scored.items():
        row = [f"`{model}`", f"{found.items:,}", f"{found.tokens:,}", f"{found.bytes_per_token:.2f}"]
        row += [f"{found.bytes:,}", f"{100 * found.bytes / most:.1f} %"]
        bits = results.interval(best[model], BITS).value
        worst = (bits * found.bytes + WORST * (most - found.bytes)) / most
        rows.append([*row, *([f"{bits:.3f}", f"{worst:.3f}"] if differ else [])])
    same_tokens = all(results.same_tokens(best[results.run.models[0]], other) for other in best.values())
    notes = reading.notes(results.root, "models")
    listed = with_notes(header, rows, [notes.get(model) for model in scored])
    return {"table": listed, "bytes_differ": differ, "same_tokens": same_tokens}


def _subjects(results: Results) -> Lines:
    """Multiple choice by subject, the models side by side, each with its best method as trained."""
    found: dict[str, dict[str, str]] = {}
    several = len(results.run.methods) > 1
    for group in results.groups():
        best = next(v for v in ranking.ranked(results, group) if v.format == TRAINED)
        for subject, (accuracy, _) in results.subjects(best).items():
            row = found.setdefault(f"`{group.dataset}`: {subject_of(subject)}", {})
            row[group.model] = accuracy_of(accuracy) + (f" (`{best.method}`)" if several else "")
    if not found or len(results.run.models) == 1:
        return []
    rows = [[name, *(row.get(model, "") for model in results.run.models)] for name, row in found.items()]
    return table(["subject", *(f"`{model}`" for model in results.run.models)], rows)


def _on(results: Results, dataset: str) -> list[Variant]:
    """Every model with every method on a data set, as trained."""
    return [v for model in results.run.models for v in results.as_trained(Pair(model, dataset))]


def _name(results: Results, variant: Variant) -> str:
    """A model, and which method it is with, where there are several."""
    return f"`{variant.model}`" + (f" with `{variant.method}`" if len(results.run.methods) > 1 else "")
