"""What all variants of a run list scored, ready to compare: items, scores, cost and training read into one place.

Every quality number is a metric per bootstrap resample (see metrics and intervals); variants of one data set share the
resamples, so that any two of them are compared on the same items. An item is a question, or a whole
document of a text: its windows are no independent samples, and every tokenizer cuts other ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tradeoffs.common import files
from tradeoffs.common.cells import SCORES, TRAINED, Variant, pairs, prepared, variants
from tradeoffs.formats import trained_only
from tradeoffs.params import Run
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results import intervals, items, metrics
from tradeoffs.results.intervals import Interval

# Names in metrics/*.json; other tools read them.
TRAINING = (
    "trainable_params",
    "total_params",
    "adapter_mb",
    "train_seconds",
    "train_tokens_per_second",
    "peak_memory_mb",
    "peak_gpu_memory_mb",
    "train_loss",
    "valid_loss",
)
# ... of the points of its curve, each as a median: the first steps of a run are slower than all others.
MEDIANS = {"tokens_per_second": "median_tokens_per_second", "utilisation": "median_utilisation"}
_OF_A_SPLIT = ("loss", "perplexity", "token_accuracy", "bits_per_byte", "f1", "bleu", "rouge_l", "bertscore", "cosine")
QUALITY = (
    *(f"{split}_{name}" for split in ("test", "seen") for name in _OF_A_SPLIT),
    "cosine_to_base",
    "mmlu_accuracy",
    "kld",
    "same_top_token",
)
# In summary.csv only: they say little that the ones above do not.
EXTRA = (
    *(f"{split}_{name}" for split in ("test", "seen") for name in ("exact_match", "rouge_1", "rouge_2")),
    "general_loss",
    "kld_tail",
)
# ... and what tables call them.
COST = {
    "size_mb": "size MB",
    "load_seconds": "load s",
    "prefill_tokens_per_second": "prefill tok/s",
    "decode_tokens_per_second": "decode tok/s",
    "ttft_seconds": "first token s",
    "latency_p50_seconds": "p50 latency s",
    "latency_p95_seconds": "p95 latency s",
    "eval_samples_per_second": "scored items/s",
    "peak_memory_mb": "memory MB",
    "peak_gpu_memory_mb": "GPU memory MB",
    "peak_gpu_memory_reserved_mb": "GPU memory reserved MB",
}
BATCH = "decode_tokens_per_second_batch_"  # and how many sequences; of all of them together
MEMORY_NOISE = 0.02
# How each format is made: the rung of the ladder below it, or the nearest one of these that the run list has.
MADE_FROM = {"bf16": (TRAINED,), "int8": ("bf16", TRAINED), "nf4": ("bf16", TRAINED), "f16": ("bf16", TRAINED)}
QUANT_MADE_FROM = ("f16", "bf16", TRAINED)

_ITEM_COLUMNS = ["split", "item", "document", "subject", "tokens", "log_likelihood", "correct_tokens", "bytes"]
_ITEM_COLUMNS += ["kld", "kld_tail", "kld_variance", "same_top", "chosen", "correct_option"]
_ITEM_COLUMNS += ["prompt", "generated", "generated_tokens", "latency_seconds", "ttft_seconds"]


@dataclass(frozen=True)
class Answer:
    """What a variant said to one of the user's prompts, alone (batch 1)."""

    text: str
    tokens: int
    latency_seconds: float
    ttft_seconds: float
    cosine_to_base: float | None  # None where the run list has no `base`

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.latency_seconds


@dataclass(frozen=True)
class Scored:
    """How much of a split a variant was scored on."""

    items: int
    tokens: int
    bytes: int  # UTF-8, of the scored tokens' text

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens


class Results:
    """Everything measured for a run list, or for `only` some of its variants.

    `seed` and `resamples` decide the bootstrap. `variants` are those that were made; why a method has none but the one
    as trained is in `unmergeable`, by its cell. Raises UserError if a file of a variant is missing.
    """

    def __init__(self, run: Run, seed: int, resamples: int, only: Sequence[Variant] = ()):
        self.run = run
        listed = list(only) or variants(run)
        self.training = {cell: _json(cell.training) for cell in dict.fromkeys(v.cell for v in listed)}
        cost = {variant: _cost(variant) for variant in listed}
        self.unmergeable = {v.cell: found[trained_only.KEY] for v, found in cost.items() if trained_only.KEY in found}
        self.cost = {variant: found for variant, found in cost.items() if trained_only.KEY not in found}
        self.variants = list(self.cost)
        datasets = dict.fromkeys(variant.dataset for variant in self.variants)
        self.prepared = {name: _json(prepared(name) / "info.json") for name in datasets}
        self._seed, self._resamples = seed, resamples
        self._draws: dict[int, np.ndarray] = {}
        self._sums: dict[tuple[Variant, str], tuple[list[str], np.ndarray] | None] = {}
        self._values: dict[tuple[Variant, str], tuple[list[str], np.ndarray] | None] = {}
        self._subjects: dict[Variant, dict[str, tuple[Interval, int]]] = {}
        scores, self.embedding = _scores()
        self._items = {variant: _columns(variant, scores.get(str(variant))) for variant in self.variants}

    @cached_property
    def lengths(self) -> dict[tuple[str, str], dict]:
        """Of each model and data set, by split: how many examples (documents of a text) have how many tokens."""
        return {(pair.model, pair.dataset): _json(pair.lengths) for pair in pairs(self.run)}

    def groups(self) -> list[tuple[str, str]]:
        """Each (model, dataset): the variants inside one are alternatives to each other."""
        return [(model, dataset) for model in self.run.models for dataset in self.run.datasets]

    def of(self, model: str, dataset: str, method: str | None = None) -> list[Variant]:
        """Variants of a group, or of one method in it, in the order of the ladder."""
        mine = [v for v in self.variants if (v.model, v.dataset) == (model, dataset)]
        return [v for v in mine if method in (None, v.method)]

    def only_as_trained(self, model: str, dataset: str) -> dict[str, str]:
        """Methods of a group that cannot be merged, and why; not known where run asks for no other format."""
        mine = {v.method: self.unmergeable.get(v.cell) for v in self.as_trained(model, dataset)}
        return {method: why for method, why in mine.items() if why is not None}

    def as_trained(self, model: str, dataset: str) -> list[Variant]:
        """Each method of a group as it left training, in the order of the run list."""
        return [variant for variant in self.of(model, dataset) if variant.format == TRAINED]

    def untouched(self, model: str, dataset: str) -> Variant | None:
        """The base of a group as it is, if the run list has it."""
        return next((v for v in self.as_trained(model, dataset) if v.method == "base"), None)

    @property
    def formats(self) -> list[str]:
        """All formats, in the order of the ladder."""
        return list(dict.fromkeys(variant.format for variant in self.variants))

    @property
    def batch_sizes(self) -> list[int]:
        """How many sequences any variant decoded at the same time, besides one alone."""
        found = {name for cost in self.cost.values() for name in cost if name.startswith(BATCH)}
        return sorted(int(name.removeprefix(BATCH)) for name in found)

    @property
    def cost_labels(self) -> dict[str, str]:
        """The cost numbers that a variant of this run can have, by their names, and what tables call them."""
        return COST | {f"{BATCH}{size}": f"decode tok/s, {size} at a time" for size in self.batch_sizes}

    def label(self, dataset: str, name: str) -> str:
        """What a quality metric is called: questions that were generated are not those of MMLU."""
        made_here = self.prepared[dataset].get("mmlu", {}).get("source") == "generated"
        return "multiple choice" if name == "mmlu_accuracy" and made_here else metrics.metric(name)[1].label

    def has(self, variant: Variant, name: str) -> bool:
        """Whether a quality metric was measured for a variant."""
        return self._resampled(variant, name) is not None

    def values(self, variant: Variant, name: str) -> np.ndarray:
        """A quality metric per resample, float64 (1 + resamples,), the value itself first."""
        return self._measured(variant, name)[1]

    def count(self, variant: Variant, name: str) -> int:
        """Number of items behind a metric."""
        return len(self._measured(variant, name)[0])

    def interval(self, variant: Variant, name: str) -> Interval:
        return intervals.interval(self.values(variant, name))

    def compare(self, ours: Variant, theirs: Variant, name: str) -> Interval:
        """Paired difference ours - theirs. Raises UserError if the two were not asked the same items.

        Of two models it is over the items that both have, should one have items in which it has nothing to score (a
        document that is a single token to its tokenizer).
        """
        mine, other = self._measured(ours, name), self._measured(theirs, name)
        if ours.model != theirs.model and mine[0] != other[0]:
            there = set(other[0])
            common = [item for item in mine[0] if item in there]
            if common:
                mine, other = (self._measured(variant, name, common) for variant in (ours, theirs))
        _require_same(name, ours, mine[0], theirs, other[0])
        return intervals.difference(mine[1], other[1])

    def mcnemar(self, ours: Variant, theirs: Variant, name: str) -> float:
        """p-value that the two are right equally often, by one of metrics.ACCURACIES. Raises UserError as `compare`."""
        _require_same(name, ours, self._measured(ours, name)[0], theirs, self._measured(theirs, name)[0])
        split, metric = metrics.metric(name)
        right = [self._items[v][metric.columns[0]][self._items[v]["split"] == split] for v in (ours, theirs)]
        return intervals.mcnemar(*right)

    def same_tokens(self, ours: Variant, theirs: Variant) -> bool:
        """Whether both split the scored texts into as many tokens: what counts tokens compares only then."""
        mine, other = (self._items[v] for v in (ours, theirs))
        return all(
            np.array_equal(mine["tokens"][mine["split"] == split], other["tokens"][other["split"] == split])
            for split in ("test", "seen")
        )

    def scored(self, variant: Variant, split: str = "test") -> Scored:
        mine = self._items[variant]
        rows = mine["split"] == split
        tokens, size = (int(mine[column][rows].sum()) for column in ("tokens", "bytes"))
        return Scored(len(set(mine["item"][rows])), tokens, size)

    def letters(self, compared: Sequence[Variant], name: str) -> dict[Variant, str]:
        """Letters that two of the variants share exactly when they are tied, all their pairs compared at once."""
        order = self.sorted(compared, name)
        told_apart = [
            (one, other)
            for one, other in combinations(range(len(order)), 2)
            if not self.compare_picked(order[one], order[other], name, len(order)).tie
        ]
        found = intervals.letters(len(order), told_apart)
        return {variant: "".join(mine) for variant, mine in zip(order, found, strict=True)}

    def subjects(self, variant: Variant) -> dict[str, tuple[Interval, int]]:
        """Accuracy and number of questions per multiple-choice subject, in their order."""
        if variant not in self._subjects:
            mine = self._items[variant]
            asked = mine["split"] == "mmlu"
            names, correct = mine["subject"][asked], mine["correct"][asked]
            by_subject = {name: correct[names == name] for name in dict.fromkeys(names)}
            self._subjects[variant] = {
                name: (intervals.interval(self._resample(len(right)) @ right / len(right)), len(right))
                for name, right in by_subject.items()
            }
        return self._subjects[variant]

    def prompts(self, model: str, dataset: str) -> dict[str, str]:
        """The user's prompts by their ids. Raises UserError if the variants of a group were not all asked the same."""
        asked = {}
        for variant in self.of(model, dataset):
            mine = self._items[variant]
            wanted = mine["split"] == "prompt"
            asked[variant] = dict(zip(mine["item"][wanted], mine["prompt"][wanted], strict=True))
        first, *others = asked
        for other in others:
            _require_same("prompts", first, list(asked[first]), other, list(asked[other]))
        return asked[first]

    def answers(self, variant: Variant) -> dict[str, Answer]:
        """What a variant said to the user's prompts, by their ids."""
        mine = self._items[variant]
        found = {}
        for row in np.flatnonzero(mine["split"] == "prompt"):
            cosine = mine["cosine_to_base"][row]
            found[mine["item"][row]] = Answer(
                mine["generated"][row],
                int(mine["generated_tokens"][row]),
                float(mine["latency_seconds"][row]),
                float(mine["ttft_seconds"][row]),
                None if np.isnan(cosine) else float(cosine),
            )
        return found

    def rewards(self, variant: Variant) -> dict[str, Interval]:
        """Of a method that learnt from pairs of answers, over the held-out pairs; empty for any other.

        `reward_accuracy` is the share whose chosen answer has the higher reward, `reward_margin` the mean difference.
        """
        margins = np.array(self.training[variant.cell].get("reward_margins", []), np.float64)
        if not len(margins):
            return {}
        measured = {"reward_accuracy": (margins > 0).astype(np.float64), "reward_margin": margins}
        draws = self._resample(len(margins))
        return {name: intervals.interval(draws @ values / len(values)) for name, values in measured.items()}

    def training_numbers(self, variant: Variant) -> dict[str, float]:
        """What is known of a variant's training as single numbers, by their names in metrics/training.json."""
        row = self.training[variant.cell]
        found = {name: row[name] for name in TRAINING if name in row}
        for key, name in MEDIANS.items():
            points = [point[key] for point in row.get("curve", []) if key in point]
            found |= {name: float(np.median(points))} if points else {}
        if rewards := self.rewards(variant):
            found |= {"preference_pairs": len(row["reward_margins"])}
            found |= {name: interval.value for name, interval in rewards.items()}
        return found

    def forgotten(self, variant: Variant) -> Interval | None:
        """How much the loss on general text rose from the untouched base to this model as trained, paired, in nats.

        None where it was not measured: for the base itself, without `base` in the run list, without general text.
        """
        base = self.untouched(variant.model, variant.dataset)
        if base is None or base == variant or not all(self.has(v, "general_loss") for v in (base, variant)):
            return None
        return self.compare(variant, base, "general_loss")

    def made_from(self, variant: Variant) -> Variant:
        """The rung of the ladder that this format was made from."""
        listed = {v.format: v for v in self.of(variant.model, variant.dataset, variant.method)}
        return next(listed[name] for name in MADE_FROM.get(variant.format, QUANT_MADE_FROM) if name in listed)

    def headline(self, model: str, dataset: str) -> str:
        """The metric that decides in a group: the F1 of answers, or the loss where nothing is answered (text)."""
        return "test_f1" if self.has(self.of(model, dataset)[0], "test_f1") else "test_loss"

    def ranked(self, model: str, dataset: str) -> list[Variant]:
        """Variants of a group by the headline metric, best first."""
        return self.sorted(self.of(model, dataset), self.headline(model, dataset))

    def sorted(self, some: Sequence[Variant], name: str) -> list[Variant]:
        """Variants by a quality metric, best first."""
        return sorted(some, key=lambda variant: -self._goodness(variant, name))

    def best_shipped(self, model: str, dataset: str) -> str:
        """The method of the best variant, among the methods that can be merged, if there are any."""
        methods = [variant.method for variant in self.ranked(model, dataset)]
        only = self.only_as_trained(model, dataset)
        return next((method for method in methods if method not in only), methods[0])

    def tied_with_best(self, model: str, dataset: str) -> list[Variant]:
        """The best variant of a group and all whose paired difference from it has an interval that contains 0."""
        best, *rest = self.ranked(model, dataset)
        name = self.headline(model, dataset)
        return [best] + [v for v in rest if self.compare_picked(v, best, name, 1 + len(rest)).tie]

    def compare_picked(self, ours: Variant, theirs: Variant, name: str, among: int) -> Interval:
        """Paired difference of two that were picked out of `among` variants by their values: a wider interval."""
        return intervals.simultaneous(self.compare(ours, theirs, name), among * (among - 1) // 2)

    def pareto(self, model: str, dataset: str, cost: str, cheaper: str) -> list[Variant]:
        """Variants of a group that are worth their cost, cheapest first: no cheaper one is as good, not even by a tie.

        Quality is the headline metric; `cheaper` is "lower" or "higher": which way a cost number gets better.
        """
        sign = 1 if cheaper == "lower" else -1
        name = self.headline(model, dataset)
        # sorted() is stable: of several that cost the same, the best one comes first.
        by_cost = sorted(self.ranked(model, dataset), key=lambda v: sign * self.cost[v][cost])
        # Against every cheaper one, not only those of the set: a tie of a tie need not be one.
        return [v for place, v in enumerate(by_cost) if all(self.better(v, other, name) for other in by_cost[:place])]

    def cheapest_tied(self, model: str, dataset: str, cost: str, cheaper: str) -> Variant:
        """The cheapest variant that is tied with the best; the better one of several whose costs are not told apart."""
        tied = self.tied_with_best(model, dataset)  # best first
        pick = (min if cheaper == "lower" else max)(tied, key=lambda v: self.cost[v][cost])
        return next(v for v in tied if self.same_cost(v, pick, cost))

    def same_cost(self, ours: Variant, theirs: Variant, cost: str) -> bool:
        """Whether a cost number of two is not told apart.

        Speeds: their repetitions overlap. Memory, which depends on what else a process loads: within MEMORY_NOISE.
        Other numbers: equal.
        """
        repeated = [self.cost[v].get("spread", {}).get(cost) for v in (ours, theirs)]
        if all(repeated):
            return max(map(min, repeated)) <= min(map(max, repeated))
        one, other = self.cost[ours][cost], self.cost[theirs][cost]
        return abs(one - other) <= (MEMORY_NOISE * other if "memory" in cost else 0)

    def better(self, ours: Variant, theirs: Variant, name: str) -> bool:
        """Whether `ours` is better, by a difference that is no tie even if the two are picked out of their group."""
        difference = self.compare_picked(ours, theirs, name, len(self.of(ours.model, ours.dataset)))
        return not difference.tie and (difference.value > 0) == (metrics.metric(name)[1].better == "higher")

    def _goodness(self, variant: Variant, name: str) -> float:
        """The metric's value, signed so that more is better."""
        value = float(self.values(variant, name)[0])
        return value if metrics.metric(name)[1].better == "higher" else -value

    def _measured(self, variant: Variant, name: str, only: list[str] | None = None) -> tuple[list[str], np.ndarray]:
        """What _resampled gives, or the same of `only` some items. Raises ValueError if the metric is not there."""
        found = self._resampled(variant, name) if only is None else self._item_sums(variant, name)
        if found is None:
            raise ValueError(f"{variant} has no {name}")
        if only is None:
            return found
        places = {item: place for place, item in enumerate(found[0])}
        return only, self._of_sums(name, found[1][[places[item] for item in only]])

    def _resampled(self, variant: Variant, name: str) -> tuple[list[str], np.ndarray] | None:
        """Item ids behind a metric and the metric per resample."""
        if (variant, name) not in self._values:
            found = self._item_sums(variant, name)
            self._values[variant, name] = found and (found[0], self._of_sums(name, found[1]))
        return self._values[variant, name]

    def _item_sums(self, variant: Variant, name: str) -> tuple[list[str], np.ndarray] | None:
        """Item ids behind a metric, and per item what the metric is made of; float64 (items, columns)."""
        if (variant, name) not in self._sums:
            split, metric = metrics.metric(name)
            mine = self._items[variant]
            columns = [mine[column] for column in metric.columns if column in mine]
            measured = mine["split"] == split
            for column in columns:
                measured = measured & ~np.isnan(column)
            self._sums[variant, name] = None
            if len(columns) == len(metric.columns) and measured.any():
                rows = np.stack([column[measured] for column in columns], axis=-1)
                self._sums[variant, name] = metrics.per_item(mine["item"][measured].tolist(), rows)
        return self._sums[variant, name]

    def _of_sums(self, name: str, sums: np.ndarray) -> np.ndarray:
        """A metric per resample, from its sums per item (items, columns)."""
        return metrics.metric(name)[1].of(self._resample(len(sums)) @ sums)

    def _resample(self, count: int) -> np.ndarray:
        if count not in self._draws:
            self._draws[count] = intervals.resamples(count, self._resamples, self._seed)
        return self._draws[count]


def _require_same(what: str, ours: Variant, mine: list[str], theirs: Variant, other: list[str]) -> None:
    if mine != other:
        raise UserError(
            f"{what}: {ours} and {theirs} were evaluated on different items, so they cannot be compared; run `dvc "
            "repro` so that both are evaluated on the present data"
        )


def _cost(variant: Variant) -> dict:
    """data/cost/<variant>.json with its sweep over batch sizes, and the spread of that, as single numbers."""
    found = _json(variant.cost)
    for numbers in (found, found.get("spread", {})):
        numbers.update({f"{BATCH}{size}": number for size, number in numbers.pop("batch_sweep", {}).items()})
    return found


def _json(path: Path) -> dict:
    items.must_exist(path)
    return files.read_json(path)


def _scores() -> tuple[dict[str, pa.Table], str | None]:
    """data/scores.parquet by variant, and the embedding model behind cosine and BERTScore (None without answers)."""
    items.must_exist(SCORES)
    table = pq.read_table(SCORES)
    if not table.num_rows:
        return {}, None
    names = table["variant"].unique().to_pylist()
    by_variant = {name: table.filter(pc.equal(table["variant"], name)) for name in names}
    return by_variant, table.schema.metadata[b"embedding"].decode()


def _columns(variant: Variant, scores: pa.Table | None) -> dict[str, np.ndarray]:
    """Items of one variant as arrays (items,): float64 with NaN for null, object for texts; scores joined to them."""
    table = items.read(variant, _ITEM_COLUMNS)
    columns: dict[str, np.ndarray] = {}
    for name in table.column_names:
        values = table[name].to_numpy()
        columns[name] = values if pa.types.is_string(table.schema.field(name).type) else values.astype(np.float64)
    document = columns.pop("document")
    columns["item"] = np.where(document != None, document, columns["item"])  # noqa: E711 (element by element)
    columns["items"] = np.ones(table.num_rows)
    chosen, right = columns.pop("chosen"), columns.pop("correct_option")
    columns["correct"] = np.where(np.isnan(chosen), np.nan, chosen == right)
    answered = np.array([text is not None for text in columns["generated"]], bool)
    if (scores["item"].to_pylist() if scores else []) != columns["item"][answered].tolist():
        raise UserError(f"{SCORES}: not made from the present {variant.items}; run `dvc repro`")
    for name, values in (_score_columns(scores) if scores else {}).items():
        columns[name] = np.full(table.num_rows, np.nan)
        columns[name][answered] = values
    return columns


def _score_columns(scores: pa.Table) -> dict[str, np.ndarray]:
    """NaN where a score is null: those of prompts, which have no expected answer."""
    names = metrics.METRICS["bleu"].columns
    counts = np.array([row or [np.nan] * len(names) for row in scores["bleu_counts"].to_pylist()], np.float64)
    single: Sequence[str] = [
        name for name in scores.column_names if name not in ("variant", "split", "item", "bleu_counts")
    ]
    found = {name: scores[name].to_numpy().astype(np.float64) for name in single}
    return found | {name: counts[:, column] for column, name in enumerate(names)}
