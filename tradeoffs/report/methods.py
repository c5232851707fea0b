"""Methods, as trained: quality, how much was learnt by heart, and what training took."""

from collections.abc import Sequence

from tradeoffs import metrics
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.report.formatting import (
    Lines,
    accuracy_of,
    cost_of,
    escaped,
    full_label,
    heading,
    interval_of,
    short,
    table,
)
from tradeoffs.report.machine import written
from tradeoffs.report.rendering import render
from tradeoffs.report.tables import (
    cut_short,
    letters,
    quality_table,
    seeds,
    tuned_or_tested,
    what_was_cut,
    why_only_as_trained,
    with_headline,
)
from tradeoffs.results import costs, ranking, reading, tuning, verdicts
from tradeoffs.results.results import Results

# What training took, by names of tuning.numbers, rewards and quality, and what the table calls it.
TRAINING = {
    "trainable_params": "trainable parameters",
    "total_params": "of",
    "adapter_mb": "adapter MB",
    "train_steps": "steps",
    "train_seconds": "time s",
    "valid_seconds": "validation s",
    "median_tokens_per_second": "tokens/s",
    "median_utilisation": "of peak",
    "peak_memory_mb": "memory MB",
    "peak_gpu_memory_mb": "GPU memory MB",
    "peak_gpu_memory_reserved_mb": "GPU memory reserved MB",
    "train_loss": "train loss",
    "valid_loss": "validation loss",
    "general_loss": "general loss",
    "preference_pairs": "held-out pairs",
    "reward_accuracy": "reward accuracy",
    "reward_margin": "reward margin",
}
# What answering takes, of COST.
ANSWERING = (
    *("latency_mean_seconds", "latency_p50_seconds", "latency_p95_seconds", "answer_tokens_p50"),
    *("decode_tokens_per_second", "model_memory_mb", "peak_memory_mb", *costs.GPU_PEAKS[::-1]),
)

# What each was trained with, of the same numbers.
BUDGET = {"steps": "steps", "epochs": "epochs", "batch_size": "examples a step", "lr": "learning rate"}

# What stands for each seed; values without intervals, which say nothing about seeds.
OF_A_SEED = ("test_f1", "test_exact_match", "test_loss", "mmlu_accuracy", "general_loss")


def section(results: Results, drawn: Sequence[str]) -> str:
    groups = [_group(results, group) for group in tuned_or_tested(results)]
    return render("methods.md.j2", drawn, seeds=seeds(results), groups=groups) if groups else ""


def _group(results: Results, group: Pair) -> dict[str, object]:
    trained, headline = results.as_trained(group), ranking.headline(results, group)
    listed = {"answers": metrics.columns("answers"), "likelihood": metrics.columns("likelihood")}
    kind = metrics.metric(headline)[1].kind
    listed[kind] = with_headline(listed[kind], headline)
    beside = letters(results, trained, headline) | _standing(results, trained, headline)
    # What answers are judged by first, then what their texts are like.
    paired = dict.fromkeys(("f1", "cosine", *metrics.side_by_side()))
    both = [f"{split}_{name}" for name in paired for split in ("test", "seen")]
    cut = cut_short(results, trained)
    floor = results.floor(group)
    return {
        "title": heading(group),
        "answers": quality_table(
            results, trained, listed["answers"], lambda v: v.method, after=headline, beside=beside, floor=floor, cut=cut
        ),
        "floor": floor is not None,
        "cut": what_was_cut(results, cut),
        "likelihood": quality_table(
            results, trained, listed["likelihood"], lambda v: v.method, after=headline, beside=beside
        ),
        "test_and_seen": quality_table(results, trained, both, lambda v: v.method, split_names=True),
        "preferences": any(tuning.rewards(results, v) for v in trained),
        "training": _training_table(results, trained),
        "settings": _settings_table(results, trained),
        "gpu": any((tuning.peak_memory(results.trained(v)) or (0, False))[1] for v in trained),
        "answering": _answering_table(results, trained),
        "timed": any("latency_mean_seconds" in results.cost[v] for v in trained),
        "on_gpu": any(costs.HOST in results.cost[v] for v in trained),
        "machines": len(_machines(results, trained)) > 1,
        "seeds": _seeds_table(results, trained),
        "only_as_trained": why_only_as_trained(results, group),
        "adalora": _adalora_ranks(results, trained),
        **_validated(results, trained),
    }


def _standing(results: Results, trained: list[Variant], name: str) -> dict[str, list[str]]:
    """Columns beside the headline metric: the verdict on each method, and with several seeds what they say."""
    standing = verdicts.standing(results, trained, name)
    words = {v: "the best of these" if v == standing.best else found.word for v, found in standing.verdicts.items()}
    columns = {"against the best": [words[v] for v in trained]}
    if (several := seeds(results)) > 1:
        means = [verdicts.over_seeds(results, v, name) for v in trained]
        shares = [verdicts.seed_share(results, v, name) for v in trained]
        columns[f"mean of {several} seeds"] = ["" if mean is None else interval_of(mean, name) for mean in means]
        columns["the seed's share"] = ["" if share is None else f"{100 * share:.0f} %" for share in shares]
    return columns


def _training_table(results: Results, trained: list[Variant]) -> Lines:
    facts: list[dict[str, str]] = []
    ruled = any(tuning.rule(results, variant, part) for variant in trained for part in tuning.PARTS)
    for variant in trained:
        found = {key: short(value) for key, value in tuning.numbers(results, variant).items()}
        found |= {name: accuracy_of(interval) for name, interval in tuning.rewards(results, variant).items()}
        if results.has(variant, "general_loss"):
            found["general_loss"] = short(results.interval(variant, "general_loss").value)
        found.pop("train_steps", None)
        if ruled and (steps := _steps(results, variant)):
            found["train_steps"] = steps
        facts.append(found)
    columns = {key: name for key, name in TRAINING.items() if any(key in found for found in facts)}
    if len(_machines(results, trained)) > 1:  # of a cluster
        columns["machine"] = "machine"
        for variant, found in zip(trained, facts, strict=True):
            found["machine"] = next(iter(_machines(results, [variant])), "")
    rows = [
        [f"`{v.method}`", *(found.get(key, "") for key in columns)] for v, found in zip(trained, facts, strict=True)
    ]
    return table(["method", *columns.values()], rows)


def _steps(results: Results, variant: Variant) -> str:
    """Those that were made, that there were to make, and of which the weights are; then those on pairs."""
    row, said = results.trained(variant), []
    for part in tuning.PARTS:
        if f"{part}train_steps" in row:
            taken, budget, kept = (row[f"{part}{name}"] for name in ("train_steps", "steps", "kept_step"))
            said.append(f"{taken:,} of {budget:,}" + (f", kept {kept:,}" if kept < taken else ""))
    return "; ".join(said)


def _validated(results: Results, trained: list[Variant]) -> dict[str, object]:
    """What the validation loss decided: the methods by the rule that they had, and those that stopped early."""
    rules: dict[str, dict[tuning.Rule | None, list[str]]] = {part: {} for part in tuning.PARTS}
    for variant in trained:
        for part, found in rules.items():
            if f"{part}train_steps" in results.trained(variant):
                name = f"`{variant.method}`" + (", on pairs" if part else "")
                found.setdefault(tuning.rule(results, variant, part), []).append(name)
    every = [(rule, "; ".join(names)) for found in rules.values() for rule, names in found.items()]
    if not any(rule for rule, _ in every):
        return {"rules": []}
    return {
        "rules": every,
        "kept": any(rule and rule.keep == "best" for rule, _ in every),
        "uneven": any(len(found) > 1 for found in rules.values()),
        "early": [f"`{v.method}`" for v in trained if tuning.stopped_early(results, v)],
    }


def _settings_table(results: Results, trained: list[Variant]) -> Lines:
    """What each was trained with in the end: the settings of its model, data set and method laid over each other."""
    rows = []
    for variant in trained:
        found, config = tuning.numbers(results, variant), results.trained(variant).get("config")
        if config is not None:
            said = ", ".join(f"{key}: {short(v) if isinstance(v, float) else v}" for key, v in config.items())
            rows.append([f"`{variant.method}`", *(short(found.get(key)) for key in BUDGET), escaped(said)])
    return table(["method", *BUDGET.values(), "adapter"], rows) if rows else []


def _answering_table(results: Results, trained: list[Variant]) -> Lines:
    """What each method as trained takes to answer one prompt at a time, and an answer's share of a batch of them."""
    keys = [key for key in costs.with_host(results, trained, ANSWERING) if any(key in results.cost[v] for v in trained)]
    columns = {costs.COST[key]: [cost_of(results, v, key) for v in trained] for key in keys}
    batched = [reading.seconds(results.columns[v], "test") for v in trained]
    if any(len(took) for took in batched):
        columns["mean s, in batches"] = [short(float(took.mean())) if len(took) else "" for took in batched]
    rows = [[f"`{v.method}`", *cells] for v, *cells in zip(trained, *columns.values(), strict=True)]
    return table(["method", *columns], rows)


def _machines(results: Results, trained: list[Variant]) -> set[str]:
    """That they were trained on, as far as their rows say."""
    rows = [results.trained(variant) for variant in trained]
    return {written(row["hardware"]) for row in rows if "hardware" in row}


def _seeds_table(results: Results, trained: list[Variant]) -> Lines:
    """Each training by its seed, and how far those of a method lie apart; no lines where each was trained once."""
    trainings = [v for first in trained for v in results.trainings(first.cell)]
    if len(trainings) == len(trained):
        return []
    names = [name for name in OF_A_SEED if any(results.has(v, name) for v in trainings)]
    rows = []
    for first in trained:
        for variant in results.trainings(first.cell):
            values = [results.interval(variant, n).value if results.has(variant, n) else None for n in names]
            rows.append([f"`{variant.method}`", str(variant.training(results.run.seeds).seed), *map(short, values)])
        apart = [tuning.between_seeds(results, first.cell, name) for name in names]
        if any(sd is not None for sd in apart):
            rows.append([f"`{first.method}`", "sd", *map(short, apart)])
    return table(["method", "seed", *(full_label(results, trained[0].dataset, name) for name in names)], rows)


def _adalora_ranks(results: Results, trained: list[Variant]) -> list[dict[str, str]]:
    """How many ranks AdaLoRA ended with, and how many it may keep, of all its matrices together."""
    found = [(v.method, results.training[v.cell]) for v in trained]
    return [
        {"method": method, "left": short(facts["adalora_rank_final"]), "allowed": short(facts["adalora_rank_budget"])}
        for method, facts in found
        if "adalora_rank_final" in facts
    ]
