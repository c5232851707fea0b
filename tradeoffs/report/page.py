"""The report for the person who decides: the answer first, then what it rests on. Markdown, and HTML made from it."""

import math
import re
from collections.abc import Callable, Sequence
from statistics import median

from markdown_it import MarkdownIt

from tradeoffs.common.cells import TRAINED, Variant
from tradeoffs.formats import trained_only
from tradeoffs.report import grid
from tradeoffs.report.formatting import (
    Lines,
    accuracy_of,
    bold,
    cost_of,
    counted,
    escaped,
    folded,
    full_label,
    name_of,
    quality_of,
    short,
    signed,
    table,
    verdict,
    with_cost,
)
from tradeoffs.results import intervals, metrics
from tradeoffs.results.results import BATCH, COST, Results

Group = tuple[str, str]

CAPTIONS = {
    "bits_per_byte": "Bits per byte of each model on the test split of each data set, as trained; fewer are better. "
    "Framed: the best model of a data set; dashed: tied with it.",
    "quality_vs_speed": "Quality against decode speed. Dashed: the Pareto set; no faster one is as good, ties counted.",
    "quality_vs_size": "Quality against size. Dashed: the Pareto set; no smaller one is as good, ties counted.",
    "methods": "Methods as trained: quality on questions never seen and seen in training, and what training took.",
    "ladder": "What each format costs against the model as trained, on the same items.",
    "throughput": "Tokens per second of all sequences together, by how many are decoded at the same time.",
    "mmlu_subjects": "Multiple choice by subject, percent right, every variant; intervals: metrics/summary.csv.",
    "memory": "Peak memory of the process: in training, and while answering one prompt at a time.",
    "training_curves": "Training loss; curves that meet lie in each other, the first method's outside.",
    "preference_curves": "Learning from pairs: TRL's loss, and what the pairs of each step say.",
    "lengths": "Tokens per example (per document of a text) of the training split, by tokenizer.",
    "forgetting": "Each method as trained: quality on the task against what tuning cost on general text.",
}
# What preparation dropped, by its names in data/prepared/<dataset>/info.json; and those that come with examples.
LOST = {
    "empty": "empty",
    "equal_answers": "equal answers",
    "duplicates": "duplicates",
    "near_duplicates": "train rows like a test row",
    "near_duplicates_of_valid": "train rows like a validation row",
    "near_duplicates_within": "train rows like another one",
}
LEAKS = {
    "near_duplicate_examples": "train, like test",
    "near_duplicates_within_examples": "train, like train",
}
SHOWN = 200  # characters of a dropped example
# Where merging put an adapter: values of `merge` in params.yaml.
MERGED_ONTO = {"trained_base": "the de-quantised base it was trained on", "original_base": "the original base"}
MANY = 12  # more variants than these are folded away, except as trained
CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; padding-bottom: .2rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
td { font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { border-bottom: 2px solid #999; vertical-align: bottom; }
td[style*="left"] { text-align: left; white-space: normal; min-width: 16rem; }
img { max-width: 100%; } code { background: #f3f3f3; padding: 0 .2rem; border-radius: 3px; }
details { margin: .5rem 0; } summary { cursor: pointer; }
"""


def markdown(results: Results, pictures: Sequence[str]) -> str:
    """The whole report; `pictures` are the names of those that were drawn."""
    sections = [
        _decision(results, pictures),
        grid.section(results, _pictures(pictures, "bits_per_byte")),
        _methods(results, pictures),
        _forgetting(results, pictures),
        _formats(results, pictures),
        _ladder(results, pictures),
        _subjects(results, pictures),
        _prompts(results),
        _comparisons(results),
        _data(results, pictures),
        _reading(results),
        _machine(results),
    ]
    text = "\n".join(line for section in sections for line in section) + "\n"
    return re.sub("\n{3,}", "\n\n", text)


def summary(results: Results) -> str:
    """The decision alone, for a pull request or a README."""
    return "\n".join(_decision(results, ())) + "\n"


def html(text: str, title: str) -> str:
    """The same report as one page; pictures stay files beside it."""
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def decision_table(results: Results) -> Lines:
    """One row per model and data set: the best variant, and the cheapest ones that are tied with it."""
    rows = []
    for group in results.groups():
        best, name = results.ranked(*group)[0], results.headline(*group)
        base = results.untouched(*group)
        rows.append(
            [
                " / ".join(group),
                f"{name_of(best)}: {quality_of(results, best, name)}",
                f"{len(results.tied_with_best(*group)) - 1} of {len(results.of(*group)) - 1}",
                with_cost(results, results.cheapest_tied(*group, "size_mb", "lower"), "size_mb", "MB"),
                with_cost(
                    results,
                    results.cheapest_tied(*group, "decode_tokens_per_second", "higher"),
                    "decode_tokens_per_second",
                    "tok/s",
                ),
                quality_of(results, base, name) if base else "",
            ]
        )
    header = ["model / data set", "best", "tied with it", "smallest tied", "fastest tied", "untouched base"]
    return table(header, rows)


def _decision(results: Results, pictures: Sequence[str]) -> Lines:
    lines = ["# Which method, which format", ""]
    variants, methods = counted(results.variants, "variant"), counted(results.run.methods, "method")
    formats, groups = counted(results.formats, "format"), counted(results.groups(), "pair")
    lines += [f"{variants}: {methods} of tuning in {formats}, on {groups} of model and data set."]
    lines += [
        "Values are `value [low, high]`, a 95 % interval; a **tie** is a difference whose interval contains 0.",
        "Against the best, intervals are wider: it was picked out of many, so its lead is in part luck (Bonferroni).",
        "Speeds whose repetitions overlap, and memory within 2 %, are not told apart: the better variant is named.",
        "",
    ]
    lines += [*decision_table(results), "", *grid.decision(results)]
    for group in results.groups():
        lines += ["", f"**{' on '.join(group)}.** {_advice(results, group)}", ""]
        lines += [*_choices(results, group), "", *_only_as_trained(results, group)]
    return lines + _pictures(pictures, "quality_vs_speed", "quality_vs_size")


def _advice(results: Results, group: Group) -> str:
    """The decision in words, from the numbers."""
    name = results.headline(*group)
    best, tied = results.ranked(*group)[0], results.tied_with_best(*group)
    small = results.cheapest_tied(*group, "size_mb", "lower")
    fast = results.cheapest_tied(*group, "decode_tokens_per_second", "higher")
    size, speed = (
        f"{cost_of(results, small, 'size_mb')} MB",
        f"{cost_of(results, fast, 'decode_tokens_per_second')} tokens/s",
    )
    if small != best:
        size += f" against {cost_of(results, best, 'size_mb')}"
    if fast != best:
        speed += f" against {cost_of(results, best, 'decode_tokens_per_second')}"
    label, ties = full_label(results, group[1], name), len(tied) - 1
    words = [f"Best {label}: {name_of(best)}, {quality_of(results, best, name)}; ties: {ties}."]
    if small == fast:
        words.append(f"Smallest ({size}) and fastest ({speed}) among them all: {name_of(small)}.")
    else:
        words.append(f"Smallest among them all: {name_of(small)} ({size}); fastest: {name_of(fast)} ({speed}).")
    base = results.untouched(*group)
    if base in tied and len(results.run.methods) > 1:
        words.append("The untouched base is among them: tuning shows no effect here.")
    elif base and base not in tied:
        lead = results.compare_picked(best, base, name, len(results.of(*group)))
        words.append(f"Against the untouched base: {signed(lead, name)}.")
    if forgotten := results.forgotten(_trained(results, best)):
        words.append(
            f"Change of its loss on general text, as trained: {signed(forgotten, 'general_loss')} nats per token."
        )
    fronts = (("size", "size_mb", "lower"), ("decode speed", "decode_tokens_per_second", "higher"))
    for what, key, cheaper in fronts:
        front = ", ".join(name_of(v) for v in results.pareto(*group, key, cheaper))
        words.append(f"Pareto set of quality and {what}: {front}.")
    return " ".join(words)


def _choices(results: Results, group: Group) -> Lines:
    """The variants that a decision is between, side by side."""
    name = results.headline(*group)
    best = results.ranked(*group)[0]
    among = len(results.of(*group))
    also = [more for more in ("test_exact_match", "mmlu_accuracy") if results.has(best, more)]
    chosen: dict[Variant, list[str]] = {best: ["best"]}
    costs = (
        ("size_mb", "lower", "smallest tied"),
        ("decode_tokens_per_second", "higher", "fastest tied"),
        ("peak_memory_mb", "lower", "least memory tied"),
    )
    for key, cheaper, why in costs:
        chosen.setdefault(results.cheapest_tied(*group, key, cheaper), []).append(why)
    base = results.untouched(*group)
    if base:
        chosen.setdefault(base, []).append("untouched base")
    shown = ("size_mb", "decode_tokens_per_second", "latency_p50_seconds", "peak_memory_mb")
    header = [
        "",
        "variant",
        full_label(results, group[1], name),
        "against the best",
        *(results.label(group[1], more) for more in also),
        *(COST[key] for key in shown),
    ]
    rows = [
        [
            ", ".join(why),
            name_of(v),
            quality_of(results, v, name),
            "" if v == best else verdict(results.compare_picked(v, best, name, among), name),
            *(quality_of(results, v, more) for more in also),
            *(cost_of(results, v, key) for key in shown),
        ]
        for v, why in chosen.items()
    ]
    return table(header, rows)


def _methods(results: Results, pictures: Sequence[str]) -> Lines:
    lines = ["", "## Methods, as trained", "", "Test: examples never trained on. In the column **ties**, variants that"]
    lines += ["share a letter are not told apart by the metric before it: all pairs of the table are compared, paired"]
    lines += ["on the same items, by intervals wide enough to hold together (Bonferroni).", ""]
    answers = ("f1", "exact_match", "rouge_l", "bleu", "bertscore", "cosine")
    likelihood = ("loss", "perplexity", "bits_per_byte", "token_accuracy")
    for group in results.groups():
        trained, headline = results.as_trained(*group), results.headline(*group)
        lines += [f"### {' on '.join(group)}", ""]
        names = [f"test_{n}" for n in answers] + ["cosine_to_base", "mmlu_accuracy"]
        for some in (names, [f"test_{n}" for n in likelihood]):
            lines += _quality_table(results, trained, some, lambda v: v.method, ties_by=headline)
        lines += ["Seen in training against never seen: how much was learnt by heart. The two are different questions,"]
        lines += ["so small differences between them mean nothing.", ""]
        pairs = [f"{split}_{n}" for n in ("f1", "cosine", "bertscore", "loss") for split in ("test", "seen")]
        lines += _quality_table(results, trained, pairs, lambda v: v.method, split_names=True)
        lines += ["What training took. Memory is the peak of the whole process. Tokens/s, and their share of what this"]
        lines += ["machine's matrix products can do, are medians over the points of the curve."]
        if any(results.rewards(v) for v in trained):
            lines += ["Held-out pairs: reward accuracy is the share of them whose chosen answer has the higher reward;"]
            lines += ["reward margin, by how much: what its log-probability gained, less what the rejected one's did."]
        lines += ["", *_training_table(results, trained)]
        notes = _training_notes(results, trained)
        lines += ["", *notes, ""] if notes else [""]
    return lines + _pictures(pictures, "methods", "training_curves", "preference_curves", "memory")


def _training_table(results: Results, trained: list[Variant]) -> Lines:
    columns = {
        "trainable_params": "trainable parameters",
        "total_params": "of",
        "adapter_mb": "adapter MB",
        "train_seconds": "time s",
        "median_tokens_per_second": "tokens/s",
        "median_utilisation": "of peak",
        "peak_memory_mb": "memory MB",
        "peak_gpu_memory_mb": "GPU memory MB",
        "train_loss": "train loss",
        "valid_loss": "validation loss",
        "general_loss": "general loss",
        "preference_pairs": "held-out pairs",
        "reward_accuracy": "reward accuracy",
        "reward_margin": "reward margin",
    }
    facts: list[dict[str, str]] = []
    for variant in trained:
        found = {key: short(value) for key, value in results.training_numbers(variant).items()}
        found |= {name: accuracy_of(interval) for name, interval in results.rewards(variant).items()}
        if results.has(variant, "general_loss"):
            found["general_loss"] = short(results.interval(variant, "general_loss").value)
        facts.append(found)
    columns = {key: name for key, name in columns.items() if any(key in found for found in facts)}
    rows = [
        [f"`{v.method}`", *(found.get(key, "") for key in columns)] for v, found in zip(trained, facts, strict=True)
    ]
    return table(["method", *columns.values()], rows)


def _training_notes(results: Results, trained: list[Variant]) -> Lines:
    """What one method alone has: the ranks that AdaLoRA ended with, a reason for being as trained only."""
    found = [(v.method, results.training[v.cell]) for v in trained]
    notes = _only_as_trained(results, (trained[0].model, trained[0].dataset))
    return notes + [
        f"`{method}` began with more ranks than it may keep and gave up the least important ones: of all its matrices "
        f"together {short(facts['adalora_rank_final'])} are left, {short(facts['adalora_rank_budget'])} were allowed "
        "(`target_r` times the number of matrices)."
        for method, facts in found
        if "adalora_rank_final" in facts
    ]


def _only_as_trained(results: Results, group: Group) -> Lines:
    """Which methods of a group have no other format, and why; stands under every table that has a place for one."""
    methods: dict[str, list[str]] = {}
    for method, why in results.only_as_trained(*group).items():
        methods.setdefault(why, []).append(f"`{method}`")
    return [line for why, some in methods.items() for line in (f"{', '.join(some)}: {trained_only.sentence(why)}.", "")]


def _forgetting(results: Results, pictures: Sequence[str]) -> Lines:
    """What the task was paid with: the loss on text of the base's own kind, before and after."""
    lines = ["", "## What it forgot", "", "Loss on held-out text of the kind that the base learned from, in nats per"]
    lines += ["token, as trained. Changes are paired with the untouched base, on the same documents; above 0,"]
    lines += ["something was forgotten. These intervals are plain: one in twenty excludes 0 by chance alone.", ""]
    for group in results.groups():
        name = results.headline(*group)
        measured = [v for v in results.as_trained(*group) if results.has(v, "general_loss")]
        lines += [f"### {' on '.join(group)}", ""]
        if not measured:
            lines += [f"Not known: `models.{group[0]}` gives no general text.", ""]
            continue
        base = results.untouched(*group)
        header = ["method", "general loss", full_label(results, group[1], name)]
        header += ["change of general loss", f"change of {full_label(results, group[1], name)}"] if base else []
        rows = []
        for variant in measured:
            row = [f"`{variant.method}`", *(quality_of(results, variant, n) for n in ("general_loss", name))]
            if base:
                changes = [verdict(results.compare(variant, base, n), n) for n in ("general_loss", name)]
                row += ["", ""] if variant == base else changes
            rows.append(row)
        lines += [*table(header, rows), "", f"{results.count(measured[0], 'general_loss')} documents."]
        lines += [] if base else ["The run list lacks `base`, so there is no loss before tuning to compare with."]
        lines += [""]
    return lines + _pictures(pictures, "forgetting")


def _formats(results: Results, pictures: Sequence[str]) -> Lines:
    lines = ["", "## Formats", ""]
    for group in results.groups():
        name = results.headline(*group)
        lines += [f"### {' on '.join(group)}", ""]
        label = full_label(results, group[1], name)
        lines += [f"{label[0].upper()}{label[1:]} of each method in each format; bold: tied with the best.", ""]
        tied = {v: bold(quality_of(results, v, name), True) for v in results.tied_with_best(*group)}
        cells = {v: quality_of(results, v, name) for v in results.of(*group)} | tied
        lines += _matrix(results, group, results.formats, cells)
        best = results.of(*group, results.best_shipped(*group))
        lines += [f"What each format of `{best[0].method}` costs. Speeds: median [slowest, fastest run], batch 1."]
        lines += ["The runs follow each other within seconds: files of one size that differ by more were measured"]
        lines += ["while the machine was busier at one time than at another.", ""]
        lines += _cost_table(results, best)
        lines += _throughput(results, best)
        for method in results.run.methods:
            mine = results.of(*group, method)
            lines += folded(f"formats of {method}: quality on test, and cost", _format_quality(results, mine))
    return lines + _pictures(pictures, "throughput")


def _throughput(results: Results, variants: list[Variant]) -> Lines:
    """Decode speed by how many sequences are decoded at the same time."""
    if not results.batch_sizes:
        return []
    keys = ["decode_tokens_per_second", *(f"{BATCH}{size}" for size in results.batch_sizes)]
    lines = [f"Tokens per second of `{variants[0].method}`, of all sequences decoded at the same time together:"]
    lines += ["median [slowest, fastest run]. Alone: after `prefill_tokens`; in a batch: after `decode_tokens`."]
    if any(key not in results.cost[v] for v in variants for key in keys):
        lines += ["Empty: so many did not fit the memory."]
    rows = [[f"`{v.format}`", *(cost_of(results, v, key, spread=True) for key in keys)] for v in variants]
    return [*lines, "", *table(["format", "alone", *(f"{size} at a time" for size in results.batch_sizes)], rows), ""]


def _format_quality(results: Results, cell: list[Variant]) -> Lines:
    names = ("loss", "perplexity", "bits_per_byte", "token_accuracy", "f1", "rouge_l", "bleu", "bertscore", "cosine")
    every = [f"test_{name}" for name in names] + ["cosine_to_base", "mmlu_accuracy"]
    headline = results.headline(cell[0].model, cell[0].dataset)
    return _quality_table(results, cell, every, lambda v: v.format, ties_by=headline) + _cost_table(results, cell)


def _cost_table(results: Results, variants: list[Variant]) -> Lines:
    present = {k: label for k, label in COST.items() if any(k in results.cost[v] for v in variants)}
    rows = []
    for variant in variants:
        runs_on = f"{results.cost[variant]['runtime']}, {results.cost[variant]['device']}"
        rows.append([f"`{variant.format}`", runs_on, *(cost_of(results, variant, k, spread=True) for k in present)])
    return [*table(["format", "runs on", *present.values()], rows), ""]


def _ladder(results: Results, pictures: Sequence[str]) -> Lines:
    lines = ["", "## The ladder: where a fine-tune is lost", ""]
    lines += ["Change of test loss against the same model as it left training, on the same items, in nats per token;"]
    lines += ["bold: the interval excludes 0. These intervals are plain: one in twenty is bold by chance alone.", ""]
    for group in results.groups():
        rungs = results.formats[1:]
        lines += [f"### {' on '.join(group)}", ""]
        cells = {v: _change(results, v, "test_loss") for v in results.of(*group)}
        lines += _matrix(results, group, rungs, cells)
        only = results.only_as_trained(*group)
        merged = [method for method in results.run.methods if method not in only]
        lines += [*(f"- `{m}`: {_costliest_step(results, results.of(*group, m))}" for m in merged), ""]
        if not merged:
            continue
        lines += _merges(results, group)
        best = results.best_shipped(*group)
        lines += [f"Every step of `{best}`; changes are paired on the same items, bold: the interval excludes 0.", ""]
        lines += [*_steps(results, results.of(*group, best)), ""]
        for method in merged:
            if method != best:
                lines += folded(f"every step of {method}", _steps(results, results.of(*group, method)))
    return lines + _pictures(pictures, "ladder")


def _merges(results: Results, group: Group) -> Lines:
    """Adapters of a quantised base, by what they were merged onto; those that left training alike under each other.

    Nothing where bf16 is not listed: what is made from `trained` then is changed by its own format too.
    """
    merged = [v for v in results.of(*group) if v.format == "bf16" and "merged_onto" in results.cost[v]]
    if not merged:
        return []
    # Two blocks that differ in `merge` alone train the same model.
    losses = {v: results.interval(_trained(results, v), "test_loss").value for v in merged}
    merged.sort(key=lambda v: list(losses.values()).index(losses[v]))
    lines = ["Adapters trained on a quantised base: what merging alone changed, from the model as trained.", ""]
    changes = _changes(results, merged[0])
    header = ["variant", "merged onto", "change of loss", "KLD", "same top token"]
    header += [f"change of {results.label(group[1], name)}" for name in changes]
    rows = []
    for variant in merged:
        onto = MERGED_ONTO[results.cost[variant]["merged_onto"]]
        row = [name_of(variant), onto, _change(results, variant, "test_loss")]
        row += [quality_of(results, variant, name) for name in ("kld", "same_top_token")]
        rows.append([*row, *(_change(results, variant, name) for name in changes)])
    return [*lines, *table(header, rows, texts=["merged onto"]), ""]


def _changes(results: Results, variant: Variant) -> list[str]:
    """What a rung is compared by besides the likelihoods, where it was measured."""
    return [name for name in ("test_f1", "mmlu_accuracy") if results.has(variant, name)]


def _change(results: Results, variant: Variant, name: str, against: Variant | None = None) -> str:
    """Paired change against the model as trained (or another rung); bold: no tie."""
    found = results.compare(variant, against or _trained(results, variant), name)
    return bold(signed(found, name), not found.tie)


def _steps(results: Results, cell: list[Variant]) -> Lines:
    trained, *rungs = cell
    header = ["format", "made from", "loss, this step", "loss, in all", "KLD", "same top token"]
    others = _changes(results, trained)
    rows = []
    for variant in rungs:
        below = results.made_from(variant)
        row = [f"`{variant.format}`", f"`{below.format}`"]
        row += [_change(results, variant, "test_loss", other) for other in (below, trained)]
        row += [quality_of(results, variant, "kld"), quality_of(results, variant, "same_top_token")]
        rows.append([*row, *(_change(results, variant, name) for name in others)])
    return table([*header, *(f"{results.label(trained.dataset, name)}, in all" for name in others)], rows)


def _costliest_step(results: Results, cell: list[Variant]) -> str:
    steps = [(v, results.made_from(v)) for v in cell[1:]]
    losses = [(results.compare(v, below, "test_loss"), v, below) for v, below in steps]
    real = [step for step in losses if step[0].low > 0]
    if not real:
        return "no step costs more than this test set can show."
    found, variant, below = max(real, key=lambda step: step[0].value)
    return f"loses most from `{below.format}` to `{variant.format}`, {signed(found, 'test_loss')} nats."


def _subjects(results: Results, pictures: Sequence[str]) -> Lines:
    asked = [group for group in results.groups() if results.subjects(results.of(*group)[0])]
    if not asked:
        return []
    lines = ["", "## Multiple choice, by subject", "", "Four options each: guessing gets 0.25.", ""]
    for group in asked:
        best = results.best_shipped(*group)
        lines += [f"### {' on '.join(group)}", "", "Accuracy of the models as trained:", ""]
        lines += _subject_table(results, results.as_trained(*group), lambda v: v.method)
        lines += [f"Accuracy of the formats of `{best}`, and the time for all questions:", ""]
        lines += _subject_table(results, results.of(*group, best), lambda v: v.format)
    return lines + _pictures(pictures, "mmlu_subjects")


def _subject_table(results: Results, variants: list[Variant], name: Callable[[Variant], str]) -> Lines:
    first = results.subjects(variants[0])
    rows = [
        [subject.replace("_", " "), str(count), *(accuracy_of(results.subjects(v)[subject][0]) for v in variants)]
        for subject, (_, count) in first.items()
    ]
    total = str(sum(count for _, count in first.values()))
    rows.append(["**all**", total, *(quality_of(results, v, "mmlu_accuracy") for v in variants)])
    for clock in ("wall", "cpu", "gpu"):
        seconds = [results.cost[v]["mmlu_seconds"].get(clock) for v in variants]
        if any(value is not None for value in seconds):
            rows.append([f"{clock.upper() if clock != 'wall' else clock} seconds", "", *map(short, seconds)])
    return [*table(["subject", "questions", *(f"`{name(v)}`" for v in variants)], rows), ""]


def _prompts(results: Results) -> Lines:
    """The answers to the user's own prompts, side by side; nothing is expected of them, so nothing is scored."""
    asked = [group for group in results.groups() if results.prompts(*group)]
    if not asked:
        return []
    lines = ["", "## Prompts: the answers side by side", ""]
    lines += ["Greedy answers, one at a time (batch 1); as a table: [prompts.csv](prompts.csv)."]
    lines += ["Cosine to base: of the embeddings of the answer and of the untouched base model's own.", ""]
    for group in asked:
        lines += [f"### {' on '.join(group)}", ""]
        for number, (item, prompt) in enumerate(results.prompts(*group).items(), 1):
            lines += [f"**Prompt {number}:** {escaped(prompt)}", ""]
            everything = results.of(*group)
            if len(everything) <= MANY:
                lines += [*_answer_table(results, everything, item), ""]
                continue
            lines += [*_answer_table(results, results.as_trained(*group), item), ""]
            for method in results.run.methods:
                rungs = results.of(*group, method)[1:]
                if rungs:
                    lines += folded(f"the formats of {method}", _answer_table(results, rungs, item))
    return lines


def _answer_table(results: Results, variants: list[Variant], item: str) -> Lines:
    rows = []
    for variant in variants:
        answer = results.answers(variant)[item]
        rows.append(
            [
                name_of(variant),
                escaped(answer.text) or "*(empty)*",
                str(answer.tokens),
                short(answer.latency_seconds),
                short(answer.tokens_per_second),
                "" if answer.cosine_to_base is None else f"{answer.cosine_to_base:.3f}",
            ]
        )
    header = ["variant", "answer", "tokens", "latency s", "tokens/s", "cosine to base"]
    return table(header, rows, texts=["answer"])


def _comparisons(results: Results) -> Lines:
    """Methods as trained against the base and against the best of them, paired; McNemar for accuracies."""
    lines = ["", "## Who beats whom", ""]
    lines += ["Paired on the same items. p: McNemar's exact test on the items that only one of the two gets right."]
    lines += ["The best method was picked, so in every pair with it the interval is wider and p is multiplied by the"]
    lines += ["number of pairs (Bonferroni)."]
    lines += ["How much a method moves with another training seed is not in them.", ""]
    for group in results.groups():
        name = results.headline(*group)
        trained = [v for v in results.ranked(*group) if v.format == TRAINED]
        lines += [f"### {' on '.join(group)}", ""]
        for measure in dict.fromkeys((name, "test_exact_match", "mmlu_accuracy")):
            if results.has(trained[0], measure):
                lines += [*_against(results, trained, measure), ""]
        tied = ", ".join(name_of(v) for v in results.tied_with_best(*group)[1:])
        best = name_of(results.ranked(*group)[0])
        lines += [f"Tied with {best}, the best of all formats: {tied or 'none'}.", ""]
    return lines


def _against(results: Results, trained: list[Variant], name: str) -> Lines:
    """Methods, best first, by one metric: each against the first of them and against the base."""
    best, tested = trained[0], name in metrics.ACCURACIES
    others = list(dict.fromkeys([best, *(v for v in trained if v.method == "base")]))
    header = ["method", full_label(results, best.dataset, name)]
    header += [column for v in others for column in (f"against `{v.method}`", "p")[: 1 + tested]]
    rows = []
    for variant in trained:
        row = [f"`{variant.method}`", quality_of(results, variant, name)]
        for other in others:
            if variant == other:
                row += [""] * (1 + tested)
                continue
            p = results.mcnemar(variant, other, name) if tested else 1.0
            found = results.compare(variant, other, name)
            if best in (variant, other):
                found = results.compare_picked(variant, other, name, len(trained))
                p = min(1.0, math.comb(len(trained), 2) * p)
            row += [verdict(found, name), f"{p:.2g}"][: 1 + tested]
        rows.append(row)
    return table(header, rows)


def _data(results: Results, pictures: Sequence[str]) -> Lines:
    lines = ["", "## Data, and what it can show", ""]
    kept = {"read": "rows read", "train": "train", "test": "test", "seen": "seen, of train"}
    named = {key for info in results.prepared.values() for key in info["dropped"]}
    lost = {key: label for key, label in LOST.items() if key in named}
    rows = []
    for name, info in results.prepared.items():
        counts, dropped = [info["counts"][key] for key in kept], [info["dropped"].get(key) for key in lost]
        rows.append([f"`{name}`", *map(short, counts + dropped)])
    lines += table(["data set", *kept.values(), *(f"dropped: {label}" for label in lost.values())], rows)
    lines += [*_leaks(results), *_lengths(results), *_pictures(pictures, "lengths")]
    lines += ["", "Smallest true difference that this run finds with 80 % power (2.8 standard errors of the paired"]
    lines += ["difference), median over the pairs compared:", ""]
    header = ["model / data set", "metric", "items", "between methods", "between formats of one method"]
    rows = []
    for group in results.groups():
        trained = results.as_trained(*group)
        methods = [(a, b) for index, a in enumerate(trained) for b in trained[:index]]
        formats = [(v, _trained(results, v)) for v in results.of(*group) if v.format != TRAINED]
        for name in ("test_loss", "test_f1", "mmlu_accuracy"):
            if results.has(trained[0], name):
                found = [_detectable(results, pairs, name) for pairs in (methods, formats)]
                label, count = results.label(group[1], name), str(results.count(trained[0], name))
                rows.append([" / ".join(group), label, count, *found])
    return lines + table(header, rows)


def _leaks(results: Results) -> Lines:
    """Examples of what was dropped, beside what each is like; nothing where nothing was."""
    lines: Lines = []
    for name, info in results.prepared.items():
        rows = [
            [label, *(escaped(_shortened(pair[side])) for side in ("dropped", "like"))]
            for key, label in LEAKS.items()
            for pair in info["dropped"].get(key, ())
        ]
        rows += [["duplicate", escaped(_shortened(text)), ""] for text in info["dropped"].get("duplicate_examples", ())]
        if rows:
            header = ["", "dropped", "is like"]
            lines += folded(f"what was dropped of {name}: examples", table(header, rows, texts=header[1:]))
    return ["", *lines] if lines else []


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN].rstrip()} ..."


def _lengths(results: Results) -> Lines:
    lines = ["", "Tokens per example, per document of a text, as each model's tokenizer cuts them:", ""]
    splits = ("train", "test")
    header = ["model / data set", *(f"{split}: {what}" for split in splits for what in ("median", "longest"))]
    rows = [
        [" / ".join(pair), *(short(found[split][what]) for split in splits for what in ("median", "longest"))]
        for pair, found in results.lengths.items()
    ]
    return [*lines, *table(header, rows)]


def _detectable(results: Results, pairs: list[tuple[Variant, Variant]], name: str) -> str:
    errors = [results.compare(a, b, name).error for a, b in pairs]
    return f"{intervals.detectable(median(errors)):.2g}" if errors else ""


def _reading(results: Results) -> Lines:
    lines = ["", "## How to read the numbers", ""]
    for name in (*(f"test_{name}" for name in metrics.METRICS), *metrics.SINGLE):
        metric = metrics.metric(name)[1]
        label = " / ".join(dict.fromkeys(results.label(dataset, name) for dataset in results.run.datasets))
        better = f" ({metric.better} is better)" if metric.better else ""
        error = _sampling_error(results) if name == "kld" else ""
        lines.append(f"- **{label}**{better}: {metric.definition}.{error}")
    if results.embedding:
        lines += [f"- Embeddings, for cosine and BERTScore: `{results.embedding}`."]
    lines += [
        "- **Intervals**: 95 % percentile bootstrap over items, which are questions or whole documents; differences",
        "  resample the same items for both sides.",
        "- **Pareto set**: no cheaper variant is as good; one that is tied with a cheaper one is left out.",
        "- **Perplexity or bits per byte**: more tokens for the same text make a lower perplexity, and the",
        "  model is no better for it. Within one model either will do; across models use bits per byte.",
        "- An empty answer scores 0 in F1, exact match, ROUGE, BLEU and BERTScore.",
        "- MB is 10^6 bytes. Memory of a format is what answering one prompt at a time takes, before any batch.",
        "- Cost numbers belong to the machine that they were measured on.",
    ]
    return lines


def _sampling_error(results: Results) -> str:
    """The largest sampling error of a divergence, relative to the divergence; nothing where none was sampled."""
    measured = [v for v in results.variants if results.has(v, "kld_error")]
    found = {v: [results.interval(v, name).value for name in ("kld_error", "kld")] for v in measured}
    relative = {v: error / divergence for v, (error, divergence) in found.items() if divergence > 0}
    if not any(relative.values()):
        return ""
    worst = max(relative, key=lambda v: relative[v])
    error, divergence = found[worst]
    share = f"{relative[worst]:.2g} of it: {error:.1e} of {divergence:.1e}, `{worst}`"
    return f" Its standard error from that is at most {share}."


def _machine(results: Results) -> Lines:
    runs = dict.fromkeys(f"{cost['runtime']} on {cost['device']}" for cost in results.cost.values())
    lines = ["", "## Machine", "", f"Measured with {', '.join(runs)}."]
    machines = dict.fromkeys(
        f"{hardware['processor']}, {hardware['machine']}, {hardware['cores']} cores"
        for hardware in (cost["hardware"] for cost in results.cost.values() if "hardware" in cost)
    )
    lines[-1] += "".join(f" {machine}." for machine in machines)
    return [*lines, "Versions and seeds stand in the `run_info.json` beside each artefact."]


def _trained(results: Results, variant: Variant) -> Variant:
    return results.of(variant.model, variant.dataset, variant.method)[0]


def _quality_table(
    results: Results,
    variants: list[Variant],
    names: list[str],
    row_name: Callable[[Variant], str],
    split_names: bool = False,
    ties_by: str = "",
) -> Lines:
    """One row per variant; metrics that none of them has are left out. After `ties_by` come the letters of its ties."""
    names = [n for n in names if any(results.has(v, n) for v in variants)]
    dataset = variants[0].dataset
    columns = {
        full_label(results, dataset, n) if split_names else results.label(dataset, n): [
            quality_of(results, v, n) for v in variants
        ]
        for n in names
    }
    if ties_by in names:
        letters, position = results.letters(variants, ties_by), names.index(ties_by) + 1
        listed = list(columns.items())
        columns = dict([*listed[:position], ("ties", [letters[v] for v in variants]), *listed[position:]])
    rows = [[f"`{row_name(v)}`", *cells] for v, *cells in zip(variants, *columns.values(), strict=True)]
    return [*table(["", *columns], rows), ""] if names else []


def _matrix(results: Results, group: Group, formats: list[str], cells: dict[Variant, str]) -> Lines:
    """Methods down, formats across, and why some methods have but one of them."""
    rows = []
    for method in results.run.methods:
        mine = {v.format: v for v in results.of(*group, method)}
        row = [cells[mine[f]] if f in mine else "as trained only" for f in formats]
        rows.append([f"`{method}`", *row])
    return [*table(["method", *(f"`{f}`" for f in formats)], rows), "", *_only_as_trained(results, group)]


def _pictures(drawn: Sequence[str], *names: str) -> Lines:
    """Links relative to report/."""
    return [
        line
        for n in names
        if n in drawn
        for line in ("", f"![{n.replace('_', ' ')}](../plots/{n}.png)", "", f"*{CAPTIONS[n]}*")
    ]
