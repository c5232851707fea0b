"""Which setting of a method is the best on held-out rows, by what its last stage is judged by, and whether the choice
was a fair one."""

import itertools
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tradeoffs.experiments.reading import DATA
from tradeoffs.experiments.trial import Setting, Trial
from tradeoffs.methods.trl_stages import STAGES, SUPERVISED, Measure
from tradeoffs.plumbing.live import digest

CODE = "reward.code."  # of a setting's keys: the texts of its files
EARNED = ("reward.functions.", "reward.answer_pattern", CODE)
PAID = STAGES["grpo"].chosen_by.name


@dataclass(frozen=True)
class Tried:
    """A setting with its trials, one per seed."""

    label: str
    setting: Setting
    trials: list[Trial]

    @property
    def measure(self) -> Measure:
        """What it is chosen by."""
        return self.trials[0].measure

    @property
    def values(self) -> list[float]:
        return [trial.value for trial in self.trials]

    @property
    def value(self) -> float:
        return statistics.fmean(self.values)

    @property
    def rank(self) -> float:
        """The lowest is the best."""
        return self.value if self.measure.better == "lower" else -self.value


def tied(settings: Sequence[Tried]) -> list[Tried]:
    """The best settings, of several best first, where there is more than one; else nothing."""
    found = [one for one in settings if one.rank == settings[0].rank]
    return found if len(found) > 1 else []


def nothing_earned(settings: Sequence[Tried]) -> bool:
    """Whether what these are chosen by is what answers earn, and all of them earned 0."""
    return settings[0].measure.name == PAID and not any(value for one in settings for value in one.values)


Methods = dict[str, list[Tried]]  # of one model and data set: the settings of each method, best first


def by_method(trials: Iterable[Trial], group: tuple[str, str]) -> Methods:
    """The settings of every method of a group, the methods in the order of their best; what goes by the loss first.

    Trials of one method that end with different stages do not compare: they are methods by themselves.
    """
    found: dict[str, dict[Measure, list[Trial]]] = {}
    for trial in trials:
        if trial.group == group:
            found.setdefault(trial.method, {}).setdefault(trial.measure, []).append(trial)
    methods = {
        f"{name} ({measure.label})" if len(measures) > 1 else name: best_first(some)
        for name, measures in sorted(found.items())
        for measure, some in measures.items()
    }
    return dict(sorted(methods.items(), key=lambda item: _order(item[1][0])))


def _order(one: Tried) -> tuple[bool, str, float]:
    return one.measure != SUPERVISED, one.measure.name, one.rank


def by_measure(methods: Methods) -> list[tuple[Measure, Methods]]:
    """The methods that are chosen by the same."""
    measures = dict.fromkeys(settings[0].measure for settings in methods.values())
    return [(one, {name: some for name, some in methods.items() if some[0].measure == one}) for one in measures]


def best_first(trials: Iterable[Trial]) -> list[Tried]:
    """The settings of one method, best first. A setting is named by the keys in which they differ."""
    by_setting: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.seed):
        by_setting.setdefault(json.dumps(trial.setting, sort_keys=True, default=str), []).append(trial)
    varied = varying([same[0].setting for same in by_setting.values()])
    found = [Tried(label(same[0].setting, varied), same[0].setting, same) for same in by_setting.values()]
    return sorted(found, key=lambda one: one.rank)


def label(setting: Setting, keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={shown(setting, key)}" for key in keys) or "the only one"


def shown(setting: Setting, key: str) -> str:
    """A key's value; the text of a file, which settings hold where it is a reward, by its digest."""
    value = setting.get(key)
    return digest(value) if key.startswith(CODE) and isinstance(value, str) else written(value)


def varying(settings: Sequence[Setting]) -> list[str]:
    """The keys whose value is not the same in all settings; an absent key is a value too."""
    keys = sorted(set().union(*settings))
    return [key for key in keys if any(setting.get(key) != settings[0].get(key) for setting in settings)]


def unfair(methods: Methods) -> Iterator[str]:
    """What keeps the methods of one model and data set from being compared, each as a clause."""
    counts = {method: len(settings) for method, settings in methods.items()}
    if len(set(counts.values())) > 1:
        yield "unequal numbers of settings: " + _per_method(counts)
    seeds = {method: sorted({len(one.trials) for one in settings}) for method, settings in methods.items()}
    if len({n for found in seeds.values() for n in found}) > 1:
        yield "unequal numbers of seeds per setting: " + _per_method(
            {method: " or ".join(map(str, found)) for method, found in seeds.items()}
        )
    trials = {method: [trial for one in settings for trial in one.trials] for method, settings in methods.items()}
    examples = {method: sorted({trial.examples for trial in found}) for method, found in trials.items()}
    if len({n for found in examples.values() for n in found}) > 1:
        yield "unequal budgets in examples: " + _per_method(
            {method: " or ".join(f"{n:,}" for n in found) for method, found in examples.items()}
        )
    rules = {method: sorted({_rule(trial) for trial in found}) for method, found in trials.items()}
    if len({tuple(found) for found in rules.values()}) > 1:
        yield "unequal rules for which weights are kept, and for when to stop: " + _per_method(
            {method: " or ".join(found) for method, found in rules.items()}
        )
    paid = [trial for found in trials.values() for trial in found if trial.measure.name == PAID]
    if len({_earned(trial) for trial in paid}) > 1:
        yield "what answers earn: not the same in all trials, so what they earned does not compare"
    every = list(itertools.chain.from_iterable(trials.values()))
    for what in DATA:
        if len({trial.data[what] for trial in every}) > 1:
            yield f"{what}: not the same in all trials"


def at_the_edge(settings: Sequence[Tried]) -> Iterator[str]:
    """Numeric keys of which the best setting has the smallest or the largest value tried, of three or more.

    None where several are the best: no edge is better than another value then.
    """
    if tied(settings):
        return
    best = settings[0]
    for key in varying([one.setting for one in settings]):
        values = [one.setting.get(key) for one in settings]
        numbers = {value for value in values if isinstance(value, (int, float))}
        if len(numbers) > 2 and len(numbers) == len({json.dumps(value) for value in values}):
            for end, extreme in (("smallest", min(numbers)), ("largest", max(numbers))):
                if best.setting[key] == extreme:
                    yield f"{key}={written(extreme)} is the {end} tried"


def _rule(trial: Trial) -> str:
    """What the validation loss decides on the way in a trial."""
    every, keep, patience = (trial.setting.get(f"train.{key}") for key in ("valid_every", "keep", "patience"))
    return f"the {keep} of every {every} steps, patience {patience}" if every else "the last"


def _earned(trial: Trial) -> str:
    """All that decides what an answer earns in a trial."""
    return json.dumps({key: value for key, value in trial.setting.items() if key.startswith(EARNED)}, sort_keys=True)


def written(value: Any) -> str:
    """A parameter's value as params.yaml or `dvc exp run -S` would have it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _per_method(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{method} {value}" for method, value in values.items())
