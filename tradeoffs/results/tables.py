"""The files of numbers that come out: metrics/*.json, the CSVs beside them, answers, the data behind DVC's plots."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from tradeoffs import metrics
from tradeoffs.common import files
from tradeoffs.common.cells import TRAINED, Variant, cells
from tradeoffs.common.texts import harmless
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results import costs, decision, prompted, reading, tuning
from tradeoffs.results.costs import COST
from tradeoffs.results.decision import Decision
from tradeoffs.results.intervals import Interval
from tradeoffs.results.results import Results

# What each rung of the ladder is compared by.
LADDER = ("test_loss", "test_f1", "mmlu_accuracy")
BY_REWARD = ("reward", "reward_spread", "kl", "entropy", "answer_tokens", "cut_off")
MEASURED = ("loss", "token_accuracy", "reward_accuracy", "reward_margin")
VALID = tuple(f"valid_{name}" for name in (*MEASURED, "reward"))
POINT = ("step", *MEASURED, *BY_REWARD, "lr", "grad_norm", *tuning.MEDIANS, *VALID)
# What spreadsheets take for a formula, also behind what they drop before it, and full-width; but for plain numbers. And
# what begins a cell with a call, a reference or a command to one that parts cells by semicolons or tabs; such a one may
# begin a row with a line of a text, which is a command far more seldom than it is an item of a list.
_FORMULA = re.compile(r"(?![-+][\d.,]+(?:[eE][-+]?\d+)?\Z)(?:\t|[\s\x00-\x1f\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_BEGIN, _REST = r"[ \"']*[=+\-@\uff1d\uff0b\uff0d\uff20]", r"[^;\t\n]*"
_WITHIN = re.compile(rf"(?<=[;\t])(?={_BEGIN}{_REST}[(|!])|(?<=\n)(?={_BEGIN}{_REST}\|{_REST}!)")


def training(results: Results) -> dict[str, dict]:
    """Numbers of each cell's training, and the loss on general text after it with its change from the base's.

    Of several trainings, which differ in their seeds alone, the means.
    """
    table = {}
    for cell in results.training:
        rows = [_trained(results, variant) for variant in results.trainings(cell)]
        table[str(cell)] = {name: _mean([row[name] for row in rows if name in row]) for name in rows[0]}
    return table


def _trained(results: Results, variant: Variant) -> dict[str, float]:
    found = tuning.numbers(results, variant)
    if results.has(variant, "general_loss"):
        found["general_loss"] = results.interval(variant, "general_loss").value
    if forgotten := tuning.forgotten(results, variant):
        found["general_loss_change"] = forgotten.value
    return found


def _mean(values: list[float]) -> float:
    """Of equal ones the value itself: a count stays a whole number."""
    return values[0] if len(set(values)) == 1 else fmean(values)


def quality(results: Results) -> dict[str, dict]:
    return {
        str(v): {name: results.interval(v, name).value for name in metrics.names("quality") if results.has(v, name)}
        for v in results.variants
    }


def cost(results: Results) -> dict[str, dict]:
    return {str(v): _present(results.cost_labels, results.cost[v]) for v in results.variants}


def headline(results: Results, decisions: Sequence[Decision]) -> dict[str, dict]:
    """metrics/headline.json, which `dvc exp show` and `dvc metrics diff` show: by model and data set what is
    recommended with its headline metric, costs and guards, and that metric of the best found and of copying.

    What is recommended and the best found are names without model and data set, as these are the key.
    """
    return {str(found.pair): _decided(results, found) for found in decisions}


def _decided(results: Results, found: Decision) -> dict[str, float | str]:
    best = found.standing.best
    row: dict[str, float | str] = {}
    if found.recommended:
        row = {"recommended": f"{found.recommended.method}-{found.recommended.format}"}
        row |= _spread(found.metric, results.interval(found.recommended, found.metric))
        for name in results.decide.guards:
            measured = (found.recommended, found.recommended.cell.variant(TRAINED))  # the latter alone of general text
            asked = next((variant for variant in measured if results.has(variant, name)), None)
            row |= {name: results.interval(asked, name).value} if asked and name not in row else {}
        row |= _present((*decision.WEIGHED, costs.HOST), results.cost[found.recommended])
        row |= _present(("train_seconds",), results.trained(found.recommended))
    row |= {"best": f"{best.method}-{best.format}", f"best_{found.metric}": results.interval(best, found.metric).value}
    return row | ({f"copying_{found.floor.metric}": found.floor.value} if found.floor else {})


def mmlu(results: Results) -> dict[str, dict]:
    """Accuracy per subject, seconds by clock for all questions and for each subject's, and by the clock on the wall for
    one question in the mean; a variant that was asked none is left out."""
    table: dict[str, dict[str, Any]] = {}
    for variant in results.variants:
        subjects = results.subjects(variant)
        if subjects:
            seconds = reading.mmlu_seconds(variant)
            table[str(variant)] = {"accuracy": {_key(name): found.value for name, (found, _) in subjects.items()}}
            table[str(variant)] |= {f"{clock}_seconds": value for clock, value in seconds.items()}
            if of_subjects := results.subject_seconds[variant]:
                table[str(variant)]["seconds"] = {_key(name): took for name, took in of_subjects.items()}
            table[str(variant)] |= _mean_seconds(results, variant, "mmlu", "question_seconds")
    return table


def _mean_seconds(results: Results, variant: Variant, split: str, name: str) -> dict[str, float]:
    """What an answer or a choice of a split took in the mean, by its name; nothing where that was not measured."""
    took = reading.seconds(results.columns[variant], split)
    return {name: float(took.mean())} if len(took) else {}


def summary(results: Results) -> list[dict]:
    """One row per variant with every number there is; what has an interval with `_low` and `_high`.

    Raises UserError where two numbers have one name.
    """
    by_subject = mmlu(results)
    return [_joined(_numbers(results, variant, by_subject.get(str(variant), {}))) for variant in results.variants]


def _joined(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Parts of a row as one. Raises UserError where two have a column of one name, of which one would be lost."""
    row: dict[str, Any] = {}
    for part in parts:
        for name in part.keys() & row.keys():
            raise UserError(
                f"metrics/summary.csv: {name} would be the name of two columns: a task of evaluate.tasks, or a subject "
                "of multiple choice, has a metric that is called like another number; give it another name"
            )
        row |= part
    return row


def _numbers(results: Results, variant: Variant, of_subjects: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All numbers of a variant, in parts; `of_subjects` is its row of `mmlu`."""
    yield {"variant": str(variant)} | _names(variant)
    for name in (*metrics.names("quality"), *metrics.names("summary")):
        if results.has(variant, name):
            yield _spread(name, results.interval(variant, name))
            if variant.format == TRAINED and (sd := tuning.between_seeds(results, variant.cell, name)) is not None:
                yield {f"{name}_seed_sd": sd}
    for name in (name for name in metrics.names("value") if results.has(variant, name)):
        yield {name: results.interval(variant, name).value}
    cut, answered = results.cut(variant)
    yield {"test_cut_share": cut / answered} if answered else {}
    for subject, (accuracy, _) in results.subjects(variant).items():
        yield _spread(f"mmlu_{_key(subject)}", accuracy)
    yield {f"mmlu_{k}": value for k, value in of_subjects.items() if not isinstance(value, dict)}
    yield {f"mmlu_{name}_seconds": took["wall"] for name, took in of_subjects.get("seconds", {}).items()}
    yield _mean_seconds(results, variant, "test", "test_answer_seconds")
    for name in (name for name in results.cost_labels if name in results.cost[variant]):
        bounds = costs.interval(results, variant, name)
        yield _spread(name, bounds) if bounds else {name: results.cost[variant][name]}
    if variant.format == TRAINED and (forgotten := tuning.forgotten(results, variant)):
        yield _spread("general_loss_change", forgotten)
    # The peaks of training and those of inference share their names in the JSON files.
    yield {("train_" + k if k in COST else k): value for k, value in tuning.numbers(results, variant).items()}
    for name, interval in tuning.rewards(results, variant).items():  # whose values are among the numbers
        yield {f"{name}_low": interval.low, f"{name}_high": interval.high}


def ladder(results: Results) -> list[dict]:
    """Per cell each format: its divergence from the model as trained, and its paired differences.

    `step_X` is the difference from the format it was made from, `change_X` that from the model as trained.
    """
    rows = []
    for cell in cells(results.run):
        trained, *rungs = results.of(cell.pair, cell.method)
        for variant in rungs:
            below = results.made_from(variant)
            row: dict[str, Any] = _names(variant) | {"made_from": below.format}
            for name in (name for name in metrics.columns("ladder") if results.has(variant, name)):
                row |= _spread(name, results.interval(variant, name))
            for name in (name for name in LADDER if results.has(variant, name)):
                row |= _spread(f"step_{name}", results.compare(variant, below, name))
                row |= _spread(f"change_{name}", results.compare(variant, trained, name))
            rows.append(row)
    return rows


def curves(results: Results, key: str) -> list[dict]:
    """Every point of the curves `key` (curve, preference_curve, reward_curve), in long form: training, step, what was
    measured."""
    return [
        {"model": v.model, "dataset": v.dataset, "method": v.method, "seed": v.training(results.run.seeds).seed}
        | _present(POINT, point)
        for cell in results.training
        for v in results.trainings(cell)
        for point in results.trained(v).get(key, [])
    ]


def seeds(results: Results) -> list[dict]:
    """Quality, as trained, of each training but those of the first seed, whose numbers all other files hold."""
    return [
        {"model": v.model, "dataset": v.dataset, "method": v.method, "seed": v.seed}
        | {name: results.interval(v, name).value for name in metrics.names("quality") if results.has(v, name)}
        for cell in results.training
        for v in results.trainings(cell)[1:]
    ]


def subjects(results: Results) -> list[dict]:
    """Accuracy per subject and variant, in long form, with the questions and what they took by each clock."""
    rows = []
    for v in results.variants:
        took = results.subject_seconds[v] if results.subjects(v) else {}
        for subject, (accuracy, count) in results.subjects(v).items():
            row: dict[str, Any] = {"variant": str(v)} | _names(v) | {"subject": _key(subject)}
            row |= _spread("accuracy", accuracy) | {"questions": count}
            rows.append(row | {f"{clock}_seconds": found for clock, found in took.get(subject, {}).items()})
    return rows


def prompts(results: Results) -> list[dict]:
    """What each variant answered to each of the user's prompts; no row where there are none."""
    rows = []
    for pair in results.groups():
        for item, prompt in prompted.prompts(results, pair).items():
            for variant in results.of(pair):
                answer = prompted.answers(results, variant)[item]
                row: dict[str, Any] = {"variant": str(variant)} | _names(variant) | {"item": item, "prompt": prompt}
                row |= {"answer": answer.text, "generated_tokens": answer.tokens}
                row |= {"latency_seconds": answer.latency_seconds, "ttft_seconds": answer.ttft_seconds}
                row |= {"tokens_per_second": answer.tokens_per_second}
                row |= {} if answer.gpu_mb is None else {"answer_gpu_mb": answer.gpu_mb}
                rows.append(row | ({} if answer.cosine_to_base is None else {"cosine_to_base": answer.cosine_to_base}))
    return rows


def write_csv(path: str | Path, rows: Sequence[dict], columns: Iterable[str] = ()) -> None:
    """The `columns`, then all others of the rows in order of appearance; what a row lacks is an empty field.

    No text is a formula to a spreadsheet, a column's name neither: see `_field`. Raises UserError for a path that
    cannot be written to.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a folder, or a device such as /dev/stdout, which a file would replace
        raise UserError(f"{path}: is there and is no file; name one that may be written")
    text = io.StringIO()
    names = list(dict.fromkeys((*columns, *chain.from_iterable(rows))))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writerow({name: _field(name) for name in names})
    writer.writerows({name: _field(value) for name, value in files.rounded(row).items()} for row in rows)
    try:
        files.write_text(path, text.getvalue())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name a file that can") from None


def _field(value: Any) -> Any:
    """A value as it is; a text with `'` before what a spreadsheet would run as a formula (OWASP, CSV Injection).

    Its lines end with a line feed alone, since csv quotes no other end of a line; control characters are written out.
    """
    if not isinstance(value, str):
        return value
    text = _WITHIN.sub("'", harmless(re.sub("\r\n?", "\n", value)))
    return f"'{text}" if _FORMULA.match(text) else text


def _key(name: str) -> str:
    """A subject, which is a file's name or the hub's, as a name in metrics/ and plots/: different for different ones.

    Without `<`, since DVC's page of plots puts what it draws into a script, which `</script>` would end.
    """
    written = {"\\": r"\\", "\r": r"\r", "\n": r"\n", "<": r"\x3c"}
    return harmless("".join(written.get(letter, letter) for letter in name))


def _names(variant: Variant) -> dict[str, str]:
    return {"model": variant.model, "dataset": variant.dataset, "method": variant.method, "format": variant.format}


def _present(names: Iterable[str], found: dict) -> dict:
    return {name: found[name] for name in names if name in found}


def _spread(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
