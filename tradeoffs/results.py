"""What all variants of a run list scored, ready to compare: items, scores, cost and training read into one place.

Every quality number is a metric per bootstrap resample (tradeoffs.metrics, tradeoffs.intervals); variants of one data
set share the resamples, so that any two of them are compared on the same items.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tradeoffs import files, intervals, items, metrics
from tradeoffs.errors import UserError
from tradeoffs.intervals import Interval
from tradeoffs.params import Run
from tradeoffs.variants import TRAINED, Variant, cells, variants

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
)
_OF_A_SPLIT = ("loss", "perplexity", "token_accuracy", "bits_per_byte", "f1", "bleu", "rouge_l", "bertscore", "cosine")
QUALITY = (
    *(f"{split}_{name}" for split in ("test", "seen") for name in _OF_A_SPLIT),
    "cosine_to_base",
    "mmlu_accuracy",
    "kld",
    "same_top_token",
)
# In summary.csv only: they say little that the ones above do not.
EXTRA = tuple(f"{split}_{name}" for split in ("test", "seen") for name in ("exact_match", "rouge_1", "rouge_2"))
COST = (
    "size_mb",
    "load_seconds",
    "prefill_tokens_per_second",
    "decode_tokens_per_second",
    "ttft_seconds",
    "latency_p50_seconds",
    "latency_p95_seconds",
    "eval_samples_per_second",
    "peak_memory_mb",
    "peak_gpu_memory_mb",
)
# How each format is made: the rung of the ladder below it, or the nearest one of these that the run list has.
MADE_FROM = {"bf16": (TRAINED,), "int8": ("bf16", TRAINED), "nf4": ("bf16", TRAINED), "f16": ("bf16", TRAINED)}
QUANT_MADE_FROM = ("f16", "bf16", TRAINED)

_ITEM_COLUMNS = ["split", "item", "subject", "tokens", "log_likelihood", "correct_tokens", "bytes", "kld", "same_top"]
_ITEM_COLUMNS += ["chosen", "correct_option", "generated"]


class Results:
    """Everything measured for a run list. `seed` and `resamples` decide the bootstrap.

    Raises UserError if a file of a variant is missing.
    """

    def __init__(self, run: Run, seed: int, resamples: int):
        self.run = run
        self.variants = variants(run)
        self.training = {cell: _json("data/training", cell) for cell in map("-".join, cells(run))}
        self.cost = {variant: _json("data/cost", variant) for variant in self.variants}
        self.prepared = {name: _json(f"data/prepared/{name}", "info") for name in run.datasets}
        self._seed, self._resamples = seed, resamples
        self._draws: dict[int, np.ndarray] = {}
        self._values: dict[tuple[Variant, str], tuple[list[str], np.ndarray] | None] = {}
        scores, self.embedding = _scores()
        self._items = {variant: _columns(variant, scores.get(str(variant))) for variant in self.variants}

    def groups(self) -> list[tuple[str, str]]:
        """Each (model, dataset): the variants inside one are alternatives to each other."""
        return [(model, dataset) for model in self.run.models for dataset in self.run.datasets]

    def of(self, model: str, dataset: str, method: str | None = None) -> list[Variant]:
        """Variants of a group, or of one method in it, in the order of the ladder."""
        mine = [v for v in self.variants if (v.model, v.dataset) == (model, dataset)]
        return [v for v in mine if method in (None, v.method)]

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
        """Paired difference ours - theirs. Raises UserError if the two were not asked the same items."""
        mine, other = self._measured(ours, name), self._measured(theirs, name)
        if mine[0] != other[0]:
            raise UserError(
                f"{name}: {ours} and {theirs} were evaluated on different items, so they cannot be compared; "
                "run `dvc repro` so that both are evaluated on the present data"
            )
        return intervals.difference(mine[1], other[1])

    def correct(self, variant: Variant) -> np.ndarray:
        """Whether each multiple-choice question was answered right (1 or 0), in the order of the questions."""
        mine = self._items[variant]
        return mine["correct"][mine["split"] == "mmlu"]

    def subjects(self, variant: Variant) -> dict[str, tuple[float, int]]:
        """Accuracy and number of questions per multiple-choice subject, in their order."""
        mine = self._items[variant]
        asked = mine["split"] == "mmlu"
        names, correct = mine["subject"][asked], mine["correct"][asked]
        return {
            name: (float(correct[names == name].mean()), int((names == name).sum())) for name in dict.fromkeys(names)
        }

    def made_from(self, variant: Variant) -> Variant:
        """The rung of the ladder that this format was made from."""
        listed = {v.format: v for v in self.of(variant.model, variant.dataset, variant.method)}
        return next(listed[name] for name in MADE_FROM.get(variant.format, QUANT_MADE_FROM) if name in listed)

    def headline(self, model: str, dataset: str) -> str:
        """The metric that decides in a group: the F1 of answers, or the loss where nothing is answered (text)."""
        return "test_f1" if self.has(self.of(model, dataset)[0], "test_f1") else "test_loss"

    def ranked(self, model: str, dataset: str) -> list[Variant]:
        """Variants of a group by the headline metric, best first."""
        name = self.headline(model, dataset)
        return sorted(self.of(model, dataset), key=lambda variant: -self._goodness(variant, name))

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
        name, front = self.headline(model, dataset), list[Variant]()
        # sorted() is stable: of several that cost the same, the best one comes first.
        for variant in sorted(self.ranked(model, dataset), key=lambda v: sign * self.cost[v][cost]):
            if all(self.better(variant, other, name) for other in front):
                front.append(variant)
        return front

    def better(self, ours: Variant, theirs: Variant, name: str) -> bool:
        """Whether `ours` is better, by a difference that is no tie even if the two are picked out of their group."""
        difference = self.compare_picked(ours, theirs, name, len(self.of(ours.model, ours.dataset)))
        return not difference.tie and (difference.value > 0) == (metrics.metric(name)[1].better == "higher")

    def _goodness(self, variant: Variant, name: str) -> float:
        """The metric's value, signed so that more is better."""
        value = float(self.values(variant, name)[0])
        return value if metrics.metric(name)[1].better == "higher" else -value

    def _measured(self, variant: Variant, name: str) -> tuple[list[str], np.ndarray]:
        found = self._resampled(variant, name)
        if found is None:
            raise ValueError(f"{variant} has no {name}")
        return found

    def _resampled(self, variant: Variant, name: str) -> tuple[list[str], np.ndarray] | None:
        """Item ids behind a metric and the metric per resample."""
        if (variant, name) not in self._values:
            split, metric = metrics.metric(name)
            mine = self._items[variant]
            columns = [mine[column] for column in metric.columns if column in mine]
            measured = mine["split"] == split
            for column in columns:
                measured = measured & ~np.isnan(column)
            if len(columns) < len(metric.columns) or not measured.any():
                self._values[variant, name] = None
            else:
                sums = metrics.sums([column[measured] for column in columns], self._resample(int(measured.sum())))
                self._values[variant, name] = mine["item"][measured].tolist(), metric.of(sums)
        return self._values[variant, name]

    def _resample(self, count: int) -> np.ndarray:
        if count not in self._draws:
            self._draws[count] = intervals.resamples(count, self._resamples, self._seed)
        return self._draws[count]


def _json(folder: str, name: object) -> dict:
    path = Path(folder, f"{name}.json")
    items.must_exist(path)
    return files.read_json(path)


def _scores() -> tuple[dict[str, pa.Table], str | None]:
    """data/scores.parquet by variant, and the embedding model behind cosine and BERTScore (None without answers)."""
    path = Path("data/scores.parquet")
    items.must_exist(path)
    table = pq.read_table(path)
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
    columns["items"] = np.ones(table.num_rows)
    chosen, right = columns.pop("chosen"), columns.pop("correct_option")
    columns["correct"] = np.where(np.isnan(chosen), np.nan, chosen == right)
    answered = np.array([text is not None for text in columns.pop("generated")], bool)
    if scores is None:
        return columns
    if scores["item"].to_pylist() != columns["item"][answered].tolist():
        raise UserError(f"data/scores.parquet: not made from the present data/items/{variant}.parquet; run `dvc repro`")
    for name, values in _score_columns(scores).items():
        columns[name] = np.full(table.num_rows, np.nan)
        columns[name][answered] = values
    return columns


def _score_columns(scores: pa.Table) -> dict[str, np.ndarray]:
    counts = np.array(scores["bleu_counts"].to_pylist(), np.float64)
    single: Sequence[str] = [
        name for name in scores.column_names if name not in ("variant", "split", "item", "bleu_counts")
    ]
    found = {name: scores[name].to_numpy().astype(np.float64) for name in single}
    return found | {f"bleu_{i}": counts[:, i] for i in range(counts.shape[1])}
