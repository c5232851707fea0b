"""What was tried, as tables in Markdown and as CSV: a sweep chooses a setting, an ablation shows what each changes."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tradeoffs import metrics
from tradeoffs.experiments.choosing import (
    Methods,
    Tried,
    at_the_edge,
    by_measure,
    by_method,
    label,
    nothing_earned,
    shown,
    tied,
    unfair,
    varying,
    written,
)
from tradeoffs.experiments.reading import EXAMPLES, VALID
from tradeoffs.experiments.trial import FACTS, TESTED, Sweep
from tradeoffs.methods.trl_stages import SUPERVISED, Measure
from tradeoffs.report.formatting import Lines, bold, counted, difference, escaped, interval_of, short, table
from tradeoffs.results import intervals, simultaneous, tables

PLAIN = ("experiment", "model", "dataset", "method", "seed")
ABLATED = ("test_bits_per_byte", "test_f1")  # a loss per token is no measure of settings that change the windows
SPREAD = ("min to max", "sd", "seeds")  # beside the mean of what a setting is chosen by
BUDGET = ("examples", "tokens", "train s")


# --- a sweep


def report(sweep: Sweep) -> Lines:
    """Per model and data set what is not fair, the best setting of each method, and all settings; Markdown."""
    lines: Lines = []
    for group in sweep.groups:
        methods = by_method(sweep.trials, group)
        notes = _notes(methods)
        lines += [f"## {escaped(f'{group[0]} on {group[1]}')}", ""]
        lines += [*(f"- {note}" for note in notes), *([""] if notes else [])]
        for measure, some in by_measure(methods):
            lines += [*_best(measure, some), "", *_all(measure, some), ""]
    return lines + _left_out(sweep)


def _notes(methods: Methods) -> Lines:
    notes = [f"**not a fair comparison: {escaped(why)}**" for why in unfair(methods)]
    for method, settings in methods.items():
        edges = [escaped(f"{method}: the best {edge}") for edge in at_the_edge(settings)]
        notes += [f"{edge}; a better one may lie beyond" for edge in edges]
        notes += [escaped(f"{method}: {why}") for why in _undecided(settings)]
    for measure, some in by_measure(methods):
        if measure != SUPERVISED:
            end = {"lower": "lowest", "higher": "highest"}[measure.better]
            notes.append(f"{escaped(', '.join(some))}: chosen by {measure.label}, the {end} is the best")
    return notes


def _undecided(settings: Sequence[Tried]) -> Lines:
    """Why no setting of a method is the best."""
    label, lines = settings[0].measure.label, []
    if nothing_earned(settings):
        lines.append("nothing was earned: every answer to the validation questions earned 0, so none is told apart")
    if same := tied(settings):
        lines.append(f"tied: {len(same)} settings have the same {label}, so none of them is chosen")
    return lines


def _best(measure: Measure, methods: Methods) -> Lines:
    alone = [settings[0] for settings in methods.values() if not tied(settings)]
    tests = [key for key in TESTED if any(_mean_tested(best, key) for best in alone)]
    guard = [] if measure == SUPERVISED else [SUPERVISED.label]
    rows = []
    for method, settings in methods.items():
        best = settings[0]
        if tied(settings):  # what else there is of one of them is not that of the best
            said = [escaped(method), "tied", f"{best.value:.4f}", *("" for _ in SPREAD), str(len(settings))]
            rows.append([*said, *("" for _ in (*BUDGET, *guard, *tests))])
            continue
        rows.append(
            [
                *(escaped(method), escaped(best.label), *_spread(best), str(len(settings))),
                f"{best.trials[0].examples:,}",
                f"{statistics.fmean(t.tokens for t in best.trials):,.0f}",
                _seconds(best),
                *(_mean_loss(best) for _ in guard),
                *(_mean_tested(best, key) for key in tests),
            ]
        )
    head = ["method", "best setting", measure.label, *SPREAD, "settings", *BUDGET, *guard]
    return table([*head, *(TESTED[key] for key in tests)], rows, texts=("best setting",))


def _all(measure: Measure, methods: Methods) -> Lines:
    rows = [
        [
            *(escaped(method), bold(escaped(one.label), one is settings[0] and not tied(settings)), *_spread(one)),
            escaped(", ".join(t.experiment for t in one.trials)),
        ]
        for method, settings in methods.items()
        for one in settings
    ]
    head = ["method", "setting", measure.label, *SPREAD, "experiments"]
    return table(head, rows, texts=("setting", "experiments"))


def _spread(one: Tried) -> list[str]:
    """The cells under the name of what it is chosen by, and under SPREAD."""
    several = len(one.values) > 1
    return [
        f"{one.value:.4f}",
        f"{min(one.values):.4f} to {max(one.values):.4f}" if several else "",
        f"{statistics.stdev(one.values):.4f}" if several else "",
        str(len(one.values)),
    ]


def _mean_loss(one: Tried) -> str:
    return f"{statistics.fmean(trial.valid[SUPERVISED.name] for trial in one.trials):.4f}"


def _mean_tested(one: Tried, key: str) -> str:
    found = [trial.test[key] for trial in one.trials if key in trial.test]
    return f"{statistics.fmean(found):.3f} ({counted(found, 'seed')})" if found else ""


def _seconds(one: Tried) -> str:
    return short(statistics.fmean(trial.train_seconds for trial in one.trials))


def _left_out(sweep: Sweep) -> Lines:
    return [
        f"Left out: {counted(list(names), 'experiment')}, {escaped(reason)}: {escaped(', '.join(names))}"
        for reason, names in sweep.left_out.items()
    ]


# --- an ablation


def ablation(sweep: Sweep) -> Lines:
    """What every setting changes: test quality against the commit's own setting (or the first), size and time."""
    lines: Lines = []
    for group in sweep.groups:
        for method, settings in by_method(sweep.trials, group).items():
            if len(settings) > 1:
                lines += [f"## {escaped(f'{method}: {group[0]} on {group[1]}')}", "", *_ablation(sweep, settings), ""]
    return lines + _left_out(sweep)


def _ablation(sweep: Sweep, settings: Sequence[Tried]) -> Lines:
    keys = varying([one.setting for one in settings])
    settings = sorted(settings, key=lambda one: [_order(one.setting.get(key)) for key in keys])
    first = next((one for one in settings if any(t.experiment == sweep.committed for t in one.trials)), settings[0])
    trials = [trial for one in settings for trial in one.trials]
    measured = [name for name in ABLATED if any(name in trial.tested for trial in trials)]
    # A loss on other rows is no measure of the setting; pairs to choose by lie in the file of those to train on.
    same_rows = len({trial.data[VALID] for trial in trials}) == 1
    measure = settings[0].measure
    own = same_rows and measure != SUPERVISED and len({trial.data[EXAMPLES] for trial in trials}) == 1
    head = ["setting", "seeds"]
    for name in measured:
        head += [TESTED[name], "against the bold one"]
    facts = [key for key in FACTS if any(key in trial.facts for trial in trials)]
    head += [
        *([measure.label] if own else []),
        *([SUPERVISED.label] if same_rows else []),
        *(FACTS[key] for key in facts),
        "train s",
    ]
    tests = [_measured(sweep, settings, first, name) for name in measured]
    rows = []
    for place, one in enumerate(settings):
        row = [_named(one, first, keys), str(len(one.trials))]
        row += [cell for test in tests for cell in test[place]]
        row += [f"{one.value:.4f}"] if own else []
        row += [_mean_loss(one)] if same_rows else []
        rows.append([*row, *(_mean_fact(one, key) for key in facts), _seconds(one)])
    notes = [] if same_rows else [f"- {VALID}: not the same in all trials, so valid losses do not compare"]
    if not measured:
        notes.append("- none of these went on to evaluate: queue reference@MODEL-DATASET-METHOD, not finetune@")
    return [*notes, *([""] if notes else []), *table(head, rows, texts=head[:1])]


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by their size, all else by how it is written, after them."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (0, value, "") if number else (1, 0, written(value))


def _named(one: Tried, first: Tried, keys: list[str]) -> str:
    """What a setting changes of the first one, which has the values of all keys."""
    changed = keys if one is first else [key for key in keys if one.setting.get(key) != first.setting.get(key)]
    return bold(escaped(label(one.setting, changed)), one is first)


def _mean_fact(one: Tried, key: str) -> str:
    values = [trial.facts[key] for trial in one.trials if key in trial.facts]
    return short(statistics.fmean(values) if values else None)


def _measured(sweep: Sweep, settings: Sequence[Tried], first: Tried, name: str) -> list[list[str]]:
    """Of every setting a test metric with its interval, the mean over seeds, and the difference from the first one.

    Differences are paired on the same items, and their intervals hold together.
    """
    tested = [[t.tested[name] for t in one.trials if name in t.tested] for one in settings]
    whole = [len(mine) == len(one.trials) for mine, one in zip(tested, settings, strict=True)]
    resampled = {place: _resampled(sweep, mine, name) for place, mine in enumerate(tested) if whole[place]}
    rows = [
        [interval_of(intervals.interval(resampled[n]), name), ""] if whole[n] else ["", ""] for n in range(len(whole))
    ]
    base = settings.index(first)
    if not whole[base]:
        return rows
    items = tested[base][0][0]
    same = [n for n in resampled if all(names == items for names, _ in tested[n])]
    if base not in same:
        same = []
    found = simultaneous.against(np.stack([resampled[n] for n in same]), same.index(base)) if same else []
    compared = dict(zip(same, found, strict=True))
    for n in resampled:
        if n != base:
            rows[n][1] = difference(compared[n], name) if n in compared else "other test items"
    return rows


def _resampled(sweep: Sweep, tested: list[tuple[list[str], np.ndarray]], name: str) -> np.ndarray:
    """A metric per resample, the mean over trainings with different seeds; float64 (1 + resamples,)."""
    of = metrics.metric(name)[1].of
    return np.mean(
        [of(intervals.resamples(len(sums), sweep.resamples, sweep.seed) @ sums) for _, sums in tested], axis=0
    )


# --- a file


def write_csv(path: Path, sweep: Sweep) -> None:
    """One row per trial, with the keys in which its method's settings differ; `chosen`: 1 for those of the best one.

    Of several that are the best none is chosen.
    """
    rows: list[dict[str, Any]] = []
    for group in sweep.groups:
        for settings in by_method(sweep.trials, group).values():
            keys = varying([one.setting for one in settings])
            for one in settings:
                for trial in one.trials:
                    row = {name: getattr(trial, name) for name in PLAIN} | trial.valid
                    row |= {"chosen_by": trial.measure.name, "chosen": int(one is settings[0] and not tied(settings))}
                    row |= {"examples": trial.examples, "tokens": trial.tokens, "train_seconds": trial.train_seconds}
                    rows.append(row | trial.facts | trial.test | {key: shown(trial.setting, key) for key in keys})
    tables.write_csv(path, rows)
