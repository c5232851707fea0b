"""Whether a number of both sides is of the same items, tokens, settings and definition: only then it is compared."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED, Cell, Variant
from tradeoffs.gate import definitions
from tradeoffs.metrics import Metric
from tradeoffs.results import tasks
from tradeoffs.results.reading import ANSWER_GPU, SECONDS
from tradeoffs.results.results import Results
from tradeoffs.revisions import Revision

# What an item is, beside its id, which is a hash of its content where the project made it.
CONTENT = ("subject", "prompt", "answer", "correct_option", "answer_tokens")
CLOCKS = ("latency_seconds", "ttft_seconds", SECONDS, ANSWER_GPU)  # of an item: never twice the same
COST = "cost"
SIDES = ("base", "head")


def _answers(metric: Metric) -> bool:
    return bool(metric.column)


def _ladder(metric: Metric) -> bool:
    return metric.kind == "ladder"


def _choices(metric: Metric) -> bool:
    return metric.split == "mmlu"


def _embedded(metric: Metric) -> bool:
    return bool(metric.column) and metric.score is None


def _tasks(metric: Metric) -> bool:
    return bool(metric.task)


def _none(metric: Metric) -> bool:
    return False


def _every(metric: Metric) -> bool:
    return True


# Which metrics a setting of `evaluate` makes others. None: how many items there are, which the items say themselves;
# how many intervals are made of; what is faster or slower. One that is not in here, all of them.
SETTINGS: dict[str, Callable[[Metric], bool]] = {
    "splits.test": _none,
    "splits.seen": _none,
    "splits.general": _none,
    "max_new_tokens": _answers,
    "batch_tokens": _none,
    "kld_top_k": _ladder,
    "kld_tail_samples": _ladder,
    "reference_dtype": _ladder,
    "mmlu.shots": _choices,
    "mmlu.questions": _none,
    "tasks": _none,
    "harness.folder": _none,  # what a task asks stands in its items
    "harness.limit": _none,
    "harness.shots": _tasks,
    "harness.chat_template": _tasks,
    "harness.unsafe_code": _none,
    "embedding": _embedded,
    "copying": _none,
    "bootstrap": _none,
}
# Of `evaluate.cost`, what only says how often is measured.
COUNTS = ("cost.rounds", "cost.repetitions", "cost.latency_prompts")


class Pairing:
    """What may be compared of two revisions; `before` and `after` are what they measured, by the same resamples."""

    def __init__(self, base: Revision, head: Revision, before: Results, after: Results):
        self.before, self.after = before, after
        self._rows: dict[tuple[int, Variant, str], dict[str, np.ndarray]] = {}
        self._found: dict[tuple[Variant, Variant, str], tuple[str, bool]] = {}
        self._ends: dict[tuple[int, Variant], dict[str, str]] = {}
        self._definitions = definitions.Changed(base, head)
        self._locks = base.outputs, head.outputs
        old, new = (flat(section(side, "evaluate")) for side in (base, head))
        self.settings = {
            key: (old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)
        }

    def against(self, theirs: Variant, ours: Variant, name: str) -> str:
        """Why a metric of `ours` is not compared with that of `theirs` of the base; nothing where it is."""
        split, metric = metrics.metric(name)
        has = self.before.has(theirs, name), self.after.has(ours, name)
        if not all(has):
            return "measured on neither side" if not any(has) else f"not measured {'in head' if has[0] else 'in base'}"
        return (
            self._of_settings(metric)
            or self._of_definition(theirs, ours, metric)
            or self._items(theirs, ours, split)[0]
            or ("other tokens" if "tokens" in metric.columns and not self._items(theirs, ours, split)[1] else "")
            or self._of_numbers(theirs, ours, name)
        )

    def of_costs(self) -> str:
        """Why costs that are measured are not compared."""
        changed = [key for key in self.settings if key.startswith(f"{COST}.") and key not in COUNTS]
        return f"another {', '.join(f'evaluate.{key}' for key in changed)}" if changed else ""

    def same(self, theirs: Variant, ours: Variant) -> bool:
        """Whether both were asked, said and scored the same, to the last bit; further trainings, too."""
        mine, other = self.after.trainings(ours.cell)[1:], self.before.trainings(theirs.cell)[1:]
        return len(mine) == len(other) and all(
            _equal(self.before.columns[one], self.after.columns[two])
            for one, two in [(theirs, ours), *zip(other, mine, strict=True)]
        )

    def same_trainings(self, theirs: Cell, ours: Cell) -> bool:
        """Whether the weights are those of the same trainings, by their hashes, or by what else is known of them."""
        old, new = self.before.run.seeds, self.after.run.seeds
        if theirs != ours or old != new:
            return False
        found = [tuple(lock.get(theirs.training(seed).weights.as_posix()) for lock in self._locks) for seed in old]
        if all(None not in both for both in found):
            return all(one == two for one, two in found)
        return self.before.training[theirs] == self.after.training[ours]

    def _of_settings(self, metric: Metric) -> str:
        changed = [key for key in self.settings if not key.startswith(f"{COST}.") and SETTINGS.get(key, _every)(metric)]
        return f"another {', '.join(f'evaluate.{key}' for key in changed)}" if changed else ""

    def _of_definition(self, theirs: Variant, ours: Variant, metric: Metric) -> str:
        """Only what an answer is scored by, and which end a task calls better: all else is computed here, by the same
        code for both sides."""
        if metric.task:
            ends = [self._better(side, one).get(metric.name) for side, one in enumerate((theirs, ours))]
            return "base and head say otherwise which end is better" if ends[0] != ends[1] else ""
        if not metric.column:
            return ""
        old, new = self.before.prepared[theirs.dataset], self.after.prepared[ours.dataset]
        if metric.name == "exact_match" and old.get("answer_pattern") != new.get("answer_pattern"):
            return f"another answer_pattern of {ours.dataset}"
        return self._definitions.of(metric)

    def _better(self, side: int, variant: Variant) -> dict[str, str]:
        """Of the base (0) or the head (1); of both there is one register, which has the word of the last one read."""
        if (side, variant) not in self._ends:
            results = (self.before, self.after)[side]
            self._ends[side, variant] = tasks.better(results.root / variant.tasks(results.run.seeds))
        return self._ends[side, variant]

    def _of(self, side: int, variant: Variant, split: str) -> dict[str, np.ndarray]:
        """The items of a split; of the base (0) or the head (1)."""
        if (side, variant, split) not in self._rows:
            columns = (self.before, self.after)[side].columns[variant]
            wanted = columns["split"] == split
            self._rows[side, variant, split] = {name: values[wanted] for name, values in columns.items()}
        return self._rows[side, variant, split]

    def _items(self, theirs: Variant, ours: Variant, split: str) -> tuple[str, bool]:
        """Why the items of a split are not the same, if they are not, and whether they are as many tokens each."""
        if (theirs, ours, split) not in self._found:
            old, new = self._of(0, theirs, split), self._of(1, ours, split)
            self._found[theirs, ours, split] = _other_items(old, new, split), _alike(old["tokens"], new["tokens"])
        return self._found[theirs, ours, split]

    def _of_numbers(self, theirs: Variant, ours: Variant, name: str) -> str:
        split, metric = metrics.metric(name)
        there: list[np.ndarray] = []
        for side, (results, one) in enumerate(((self.before, theirs), (self.after, ours))):
            rows = self._of(side, one, split)
            finite = np.array([np.isfinite(rows[column]) for column in metric.columns])
            there.append(np.asarray(finite.all(axis=0)))
            if not metric.column and bool(np.any(finite.any(axis=0) & ~there[-1])):
                return f"a value of {SIDES[side]} is not a number"
            if not np.isfinite(results.values(one, name)[0]):
                return f"not a number in {SIDES[side]}"
        if _alike(self._of(0, theirs, split)["item"], self._of(1, ours, split)["item"]):
            return "" if np.array_equal(there[0], there[1]) else "measured on other items"
        old, new = self.before.together([theirs], name)[0], self.after.together([ours], name)[0]
        return "" if old == new else "measured on other items"


def section(side: Revision, name: str) -> dict[str, Any]:
    """A block of params.yaml; of a file that is older than it nothing."""
    found = side.params.get(name)
    return found if isinstance(found, dict) else {}


def holder(results: Results, variant: Variant, name: str) -> Variant:
    """Who has a metric of a variant: of general text the model as trained is asked alone."""
    trained = variant.cell.variant(TRAINED)
    lacks = name.startswith("general_") and not results.has(variant, name)
    return trained if lacks and trained in results.columns else variant


def _other_items(old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray], split: str) -> str:
    first, second = (list(dict.fromkeys(rows["item"].tolist())) for rows in (old, new))
    if first != second:
        gone, come = len(set(first) - set(second)), len(set(second) - set(first))
        counted = f"{gone} of base and {come} of head alone" if gone or come else "in another order"
        return f"other {split} items ({counted})"
    if len(first) < len(old["item"]) or len(second) < len(new["item"]):
        return ""  # windows of documents, which each tokenizer cuts as it does
    content = [*CONTENT, *(["bytes"] if any(text is not None for text in old["prompt"]) else [])]
    other = [name for name in content if not _alike(old[name], new[name])]
    return f"other {split} items (their {', '.join(other)})" if other else ""


def _equal(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> bool:
    names = set(ours) - set(CLOCKS)
    return names == set(theirs) - set(CLOCKS) and all(_alike(ours[name], theirs[name]) for name in names)


def _alike(ours: np.ndarray, theirs: np.ndarray) -> bool:
    if ours.shape != theirs.shape or (ours.dtype == object) != (theirs.dtype == object):
        return False
    return bool(np.array_equal(ours, theirs, equal_nan=ours.dtype != object))


def flat(block: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by their dotted names below a section."""
    found: dict[str, Any] = {}
    for key, value in block.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found
