"""What all variants of a run list scored, ready to compare: items, scores, cost and training read into one place.

Every quality number is a metric per bootstrap resample (see tradeoffs.metrics and intervals); variants of one data set
share the resamples, so that any two of them are compared on the same items. An item is a question, or a whole
document of a text: its windows are no independent samples, and every tokenizer cuts other ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED, Cell, Copied, Pair, Variant, pairs, prepared, variants
from tradeoffs.formats import trained_only
from tradeoffs.params import Decide, Run
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results import costs, intervals, reading, tasks
from tradeoffs.results.intervals import Interval

# How each format is made: the rung of the ladder below it, or the nearest one of these that the run list has.
# What is made of the merged checkpoint is held against it in its own bfloat16, else in another unquantised precision.
MERGED = ("bf16", "float32", "fp16", TRAINED)
MADE_FROM = dict.fromkeys(("float32", "bf16", "fp16"), (TRAINED,)) | dict.fromkeys(("int8", "nf4", "f16"), MERGED)
QUANT_MADE_FROM = ("f16", *MERGED)

MANY_CUT = 0.01  # of the answers: above this share it is said beside what is made of them

Judged = Variant | Copied  # whose answers have metrics, of which a Copied has those of answers alone


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

    `seed` and `resamples` decide the bootstrap, `decide` what is good enough. `variants` are those that were made; why
    a method has none but the one as trained is in `unmergeable`, by its cell, and why it has none of llama.cpp in
    `no_gguf`. `facts` are what is known of each, `cost` what it costs, by the names of the numbers, `costs` the
    intervals of these. `training` is the row of data/training of each cell for its first seed. `columns` are the items
    of each variant and of each further training, by the names of their columns. All is read below `root`.
    Raises UserError if a file of a variant is missing.
    """

    def __init__(
        self, run: Run, seed: int, resamples: int, decide: Decide, only: Sequence[Variant] = (), root: Path = Path()
    ):
        self.run, self.decide, self.root = run, decide, root
        listed = list(only) or variants(run)
        facts = {variant: reading.read_json(root / variant.facts) for variant in listed}
        absent = {variant: trained_only.in_place_of(found) for variant, found in facts.items()}
        self.unmergeable, self.no_gguf = (
            {v.cell: found[0] for v, found in absent.items() if found and found[1] == key} for key in trained_only.SAID
        )
        self.facts = {variant: found for variant, found in facts.items() if not absent[variant]}
        self.variants = list(self.facts)
        self._trainings = {
            cell.training(seed): reading.read_json(root / cell.training(seed).facts)
            for cell in dict.fromkeys(v.cell for v in listed)
            for seed in run.seeds
        }
        self.training = {t.cell: found for t, found in self._trainings.items() if t.seed == run.seeds[0]}
        self._of: dict[Pair, list[Variant]] = {}
        for variant in self.variants:
            self._of.setdefault(variant.pair, []).append(variant)
        datasets = dict.fromkeys(variant.dataset for variant in self.variants)
        self.prepared = {name: reading.read_json(root / prepared(name) / "info.json") for name in datasets}
        self._seed, self._resamples = seed, resamples
        self._draws: dict[int, np.ndarray] = {}
        self._sums: dict[tuple[Judged, str], tuple[list[str], np.ndarray] | None] = {}
        self._values: dict[tuple[Judged, str], tuple[list[str], np.ndarray] | None] = {}
        self._subjects: dict[Variant, dict[str, tuple[Interval, int]]] = {}
        scores, self.embedding = reading.scores(root)
        # Where nothing was trained there is one model, whatever the seed.
        again = {cell: run.seeds if "train_seconds" in row else () for cell, row in self.training.items()}
        self._further = {cell: cell.further(seeds) for cell, seeds in again.items()}
        asked = [*self.variants, *chain.from_iterable(self._further.values())]
        of_models = {variant: reading.columns(root, variant, scores.get(str(variant))) for variant in asked}
        there = {variant: tasks.added(found, root / variant.tasks(run.seeds)) for variant, found in of_models.items()}
        tasks.require_known(decide, any(there[variant] is not of_models[variant] for variant in asked))
        self.costs = costs.read(self.facts, of_models, root, run.devices)
        self.cost = self.costs.numbers
        self.columns: dict[Judged, dict[str, np.ndarray]] = dict(there.items())
        self.subject_seconds = {variant: reading.subject_seconds(root / variant.items) for variant in self.variants}
        for floor in () if only else map(Copied, datasets):
            self.columns[floor] = reading.copied(root, floor, scores.get(str(floor)))

    @cached_property
    def lengths(self) -> dict[Pair, dict]:
        """Of each model and data set, by split: how many examples (documents of a text) have how many tokens."""
        return {pair: reading.read_json(self.root / pair.lengths) for pair in pairs(self.run)}

    def groups(self) -> list[Pair]:
        """Each model with each data set: the variants inside one pair are alternatives to each other."""
        return pairs(self.run)

    def of(self, pair: Pair, method: str | None = None) -> list[Variant]:
        """Variants of a pair, or of one method in it, in the order of the ladder."""
        return [v for v in self._of.get(pair, []) if method in (None, v.method)]

    def only_as_trained(self, pair: Pair) -> dict[str, str]:
        """Methods of a pair that cannot be merged, and why; not known where run asks for no other format."""
        mine = {v.method: self.unmergeable.get(v.cell) for v in self.as_trained(pair)}
        return {method: why for method, why in mine.items() if why is not None}

    def without_gguf(self, pair: Pair) -> dict[str, str]:
        """Methods of a pair of which llama.cpp can run none, and why; not known where run asks for no quant."""
        return {cell.method: why for cell, why in self.no_gguf.items() if cell.pair == pair}

    def as_trained(self, pair: Pair) -> list[Variant]:
        """Each method of a pair as it left training, in the order of the run list."""
        return [variant for variant in self.of(pair) if variant.format == TRAINED]

    def trainings(self, cell: Cell) -> list[Variant]:
        """A cell as trained with each seed: the variant `trained`, then one with a `seed` for each of the others."""
        return [cell.variant(TRAINED), *self._further[cell]]

    def trained(self, variant: Variant) -> dict:
        """The row of data/training of the training that gave a variant its weights."""
        return self._trainings[variant.training(self.run.seeds)]

    def untouched(self, pair: Pair) -> Variant | None:
        """The base of a pair as it is, if the run list has it."""
        return next((v for v in self.as_trained(pair) if v.method == "base"), None)

    def floor(self, pair: Pair) -> Copied | None:
        """What copying the answer of the most similar training question comes to; None where nothing was copied."""
        floor = Copied(pair.dataset)
        return floor if floor in self.columns and len(self.columns[floor]["item"]) else None

    def made_from(self, variant: Variant) -> Variant:
        """The rung of the ladder that this format was made from."""
        listed = {v.format: v for v in self.of(variant.pair, variant.method)}
        return next(listed[name] for name in MADE_FROM.get(variant.format, QUANT_MADE_FROM) if name in listed)

    @property
    def formats(self) -> list[str]:
        """All formats, in the order of the ladder."""
        return list(dict.fromkeys(variant.format for variant in self.variants))

    @cached_property
    def batch_sizes(self) -> list[int]:
        """How many sequences any variant decoded at the same time, besides one alone."""
        found = {costs.bare(name) for cost in self.cost.values() for name in cost if name.startswith(costs.BATCH)}
        return sorted(int(name.removeprefix(costs.BATCH)) for name in found)

    @cached_property
    def cost_labels(self) -> dict[str, str]:
        """The cost numbers that a variant of this run can have, by their names, and what tables call them."""
        return costs.labels(self.batch_sizes, self.run.devices)

    def label(self, dataset: str, name: str) -> str:
        """What a quality metric is called: questions that were generated are not those of MMLU."""
        made_here = self.prepared[dataset].get("mmlu", {}).get("source") == "generated"
        return "multiple choice" if name == "mmlu_accuracy" and made_here else metrics.metric(name)[1].label

    def has(self, variant: Judged, name: str) -> bool:
        """Whether a quality metric was measured for a variant."""
        return self._resampled(variant, name) is not None

    def values(self, variant: Judged, name: str) -> np.ndarray:
        """A quality metric per resample, float64 (1 + resamples,), the value itself first."""
        return self._measured(variant, name)[1]

    def count(self, variant: Judged, name: str) -> int:
        """Number of items behind a metric."""
        return len(self._measured(variant, name)[0])

    def interval(self, variant: Judged, name: str) -> Interval:
        """A value with its 95 % interval; an exact one of what is right or wrong, where few are either."""
        values = self.values(variant, name)
        if not metrics.metric(name)[1].right_or_wrong:
            return intervals.interval(values)
        right, asked = self.sums(variant, name).sum(axis=0)
        return intervals.share(round(right), round(asked), values)

    def compare(self, ours: Judged, theirs: Judged, name: str) -> Interval:
        """Paired difference ours - theirs. Raises UserError if the two were not asked the same items."""
        return intervals.difference(*self.together([ours, theirs], name)[1])

    def together(self, some: Sequence[Judged], name: str) -> tuple[list[str], np.ndarray]:
        """The items of some variants on one data set, and a metric of each per resample; float64 (some, 1 + resamples).

        Of several models these are the items that all have, should one have items in which it has nothing to score (a
        document that is a single token to its tokenizer). Raises UserError if they were not asked the same items.
        """
        found = [self._measured(variant, name) for variant in some]
        own = next((variant.model for variant in some if variant.model), "")  # what was copied has no model
        first: dict[str, int] = {}  # of each model
        for place, variant in enumerate(some):
            other = first.setdefault(variant.model or own, place)
            require_same(name, some[other], found[other][0], variant, found[place][0])
        lists = [found[place][0] for place in first.values()]
        items = [item for item in lists[0] if all(item in other for other in map(set, lists[1:]))]
        if not items:
            require_same(name, some[0], lists[0], some[list(first.values())[-1]], lists[-1])
        if any(items != other for other in lists):
            found = [self._measured(variant, name, items) for variant in some]
        return items, np.stack([values for _, values in found])

    def sums(self, variant: Judged, name: str, items: list[str] | None = None) -> np.ndarray:
        """What a metric is made of, per item or per one of `items`; float64 (items, columns)."""
        mine, found = self._item_sums(variant, name) or ([], np.zeros((0, 0)))
        places = {item: place for place, item in enumerate(mine)}
        return found if items is None else found[[places[item] for item in items]]

    def margin(self, name: str, of: Variant | float) -> float:
        """How much worse is good enough, in the metric's own unit, against a variant (or a value).

        A margin of what is better when lower is a part of the value, as losses have no scale of their own. Raises
        ValueError if `decide.margins` has none.
        """
        metric = metrics.metric(name)[1]
        found = self.decide.margins.get(name, self.decide.margins.get(metric.name))
        if found is None:
            raise ValueError(f"decide.margins has none for {name}")
        if metric.better != "lower":
            return found
        return found * abs(float(self.values(of, name)[0]) if isinstance(of, Variant) else of)

    def judged(self, name: str) -> bool:
        """Whether there is a margin for a metric."""
        return bool({name, metrics.metric(name)[1].name} & set(self.decide.margins))

    def luck(self, name: str) -> np.random.Generator:
        """Random draws that belong to a name, whatever else there is."""
        return np.random.default_rng([self._seed, *name.encode()])

    def mcnemar(self, ours: Judged, theirs: Judged, name: str) -> float:
        """p-value that the two are right equally often, by a metric of right or wrong. Raises as `compare`."""
        require_same(name, ours, self._measured(ours, name)[0], theirs, self._measured(theirs, name)[0])
        split, metric = metrics.metric(name)
        right = [self.columns[v][metric.columns[0]][self.columns[v]["split"] == split] for v in (ours, theirs)]
        return intervals.mcnemar(*right)

    def same_tokens(self, ours: Variant, theirs: Variant) -> bool:
        """Whether both split the scored texts into as many tokens: what counts tokens compares only then."""
        mine, other = (self.columns[v] for v in (ours, theirs))
        return all(
            np.array_equal(mine["tokens"][mine["split"] == split], other["tokens"][other["split"] == split])
            for split in ("test", "seen")
        )

    def scored(self, variant: Variant, split: str = "test") -> Scored:
        mine = self.columns[variant]
        rows = mine["split"] == split
        tokens, size = (int(mine[column][rows].sum()) for column in ("tokens", "bytes"))
        return Scored(len(set(mine["item"][rows])), tokens, size)

    def cut(self, variant: Variant) -> tuple[int, int]:
        """How many answers to test questions did not end by themselves, and of how many; 0 of 0 of a text."""
        lengths = self._test_lengths(variant, "generated_tokens")
        return int((lengths >= self.longest_answer(variant.pair)).sum()) if len(lengths) else 0, len(lengths)

    def too_long(self, pair: Pair) -> tuple[int, int]:
        """How many expected answers of a pair's test questions no generated one can be as long as, and of how many.

        0 of 0 of a text.
        """
        lengths = self._test_lengths(self.of(pair)[0], "answer_tokens")
        return int((lengths > self.longest_answer(pair)).sum()) if len(lengths) else 0, len(lengths)

    def longest_answer(self, pair: Pair) -> int:
        """At so many tokens a generated answer was cut. Raises KeyError for a text, of which none is generated."""
        return self.facts[self.of(pair)[0]]["max_new_tokens"]

    def _test_lengths(self, variant: Variant, column: str) -> np.ndarray:
        """Tokens of each answer to a test question; none of a text."""
        mine = self.columns[variant]
        found = mine[column][mine["split"] == "test"]
        return found[~np.isnan(found)]

    def share(self, right: np.ndarray) -> Interval:
        """The part of some items that is right, from 1 or 0 for each (items,); exact where few are either."""
        return intervals.share(round(right.sum()), len(right), self.resample(len(right)) @ right / len(right))

    def subjects(self, variant: Variant) -> dict[str, tuple[Interval, int]]:
        """Accuracy and number of questions per multiple-choice subject, in their order."""
        if variant not in self._subjects:
            mine = self.columns[variant]
            asked = mine["split"] == "mmlu"
            names, correct = mine["subject"][asked], mine["correct"][asked]
            by_subject = {name: correct[names == name] for name in dict.fromkeys(names)}
            self._subjects[variant] = {name: (self.share(right), len(right)) for name, right in by_subject.items()}
        return self._subjects[variant]

    def _measured(self, variant: Judged, name: str, only: list[str] | None = None) -> tuple[list[str], np.ndarray]:
        """What _resampled gives, or the same of `only` some items. Raises ValueError if the metric is not there."""
        found = self._resampled(variant, name) if only is None else self._item_sums(variant, name)
        if found is None:
            raise ValueError(f"{variant} has no {name}")
        if only is None:
            return found
        places = {item: place for place, item in enumerate(found[0])}
        return only, self._of_sums(name, found[1][[places[item] for item in only]])

    def _resampled(self, variant: Judged, name: str) -> tuple[list[str], np.ndarray] | None:
        """Item ids behind a metric and the metric per resample."""
        if (variant, name) not in self._values:
            found = self._item_sums(variant, name)
            self._values[variant, name] = found and (found[0], self._of_sums(name, found[1]))
        return self._values[variant, name]

    def _item_sums(self, variant: Judged, name: str) -> tuple[list[str], np.ndarray] | None:
        """Item ids behind a metric, and per item what the metric is made of; float64 (items, columns)."""
        if (variant, name) not in self._sums:
            split, metric = metrics.metric(name)
            mine = self.columns[variant]
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
        return metrics.metric(name)[1].of(self.resample(len(sums)) @ sums)

    def resample(self, count: int) -> np.ndarray:
        """How often each resample draws each of `count` items; float64 (1 + resamples, count)."""
        if count not in self._draws:
            self._draws[count] = intervals.resamples(count, self._resamples, self._seed)
        return self._draws[count]


def require_same(what: str, ours: Judged, mine: list[str], theirs: Judged, other: list[str]) -> None:
    """Raises UserError if two variants were not asked the same items."""
    if mine != other:
        raise UserError(
            f"{what}: {ours} and {theirs} were evaluated on different items, so they cannot be compared; run `dvc "
            "repro` so that both are evaluated on the present data"
        )
