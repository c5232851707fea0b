"""Data, and what it can show: what preparation kept and dropped, lengths, and how small a difference can be seen."""

from collections.abc import Sequence
from statistics import median

from tradeoffs.common import examples
from tradeoffs.common.cells import Copied
from tradeoffs.report.formatting import Lines, escaped, row_head, share_of, short, shortened, table, with_notes
from tradeoffs.report.rendering import render
from tradeoffs.results import intervals, ranking, reading, verdicts
from tradeoffs.results.results import Results
from tradeoffs.results.verdicts import Verdict

# Of data/prepared/<dataset>/info.json: what was counted; what was dropped, and of what there are examples.
KEPT = {"read": "rows read", "train": "train", "test": "test", "seen": "seen, of train", "valid": "validation"}
# ... where a data set is multiple choice alone.
ASKED = {"mmlu_dev": "multiple choice: examples", "mmlu_test": "questions"}
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
EXAMPLES = 5  # of copied answers


def section(results: Results, drawn: Sequence[str]) -> str:
    return render(
        "data.md.j2",
        drawn,
        counts=_counts(results),
        alone=any("mmlu" in found for found in results.lengths.values()),
        leaks={name: rows for name in results.prepared if (rows := _leaks(results, name))},
        lengths=_lengths(results),
        apart=_apart(results),
        cut=_cut(results),
        floors=_floors(results),
        differences=_differences(results),
    )


def _counts(results: Results) -> Lines:
    """Nothing where tasks are all that is asked, which come with data of their own."""
    infos = results.prepared.values()
    alone = any(info["kind"] == "questions" and info["counts"]["mmlu_test"] for info in infos)
    kept = (KEPT if {info["kind"] for info in infos} != {"questions"} else {}) | (ASKED if alone else {})
    if not kept:
        return []
    named = {key for info in results.prepared.values() for key in info["dropped"]}
    lost = {key: label for key, label in LOST.items() if key in named}
    rows = []
    for name, info in results.prepared.items():
        counts, dropped = [info["counts"][key] for key in kept], [info["dropped"].get(key) for key in lost]
        rows.append([f"`{name}`", *map(short, counts + dropped)])
    header = ["data set", *kept.values(), *(f"dropped: {label}" for label in lost.values())]
    notes = reading.notes(results.root, "datasets")
    return with_notes(header, rows, [notes.get(name) for name in results.prepared])


def _leaks(results: Results, dataset: str) -> Lines:
    """Examples of what was dropped, beside what each is like; nothing where nothing was."""
    dropped = results.prepared[dataset]["dropped"]
    rows = [
        [label, *(escaped(shortened(pair[side])) for side in ("dropped", "like"))]
        for key, label in LEAKS.items()
        for pair in dropped.get(key, ())
    ]
    rows += [["duplicate", escaped(shortened(text)), ""] for text in dropped.get("duplicate_examples", ())]
    return table(["", "dropped", "is like"], rows, texts=["dropped", "is like"]) if rows else []


def _lengths(results: Results) -> Lines:
    """Of multiple choice that stands alone how long its prompts are, with their examples."""
    listed = {"train": "train", "test": "test", "mmlu": "multiple choice"}
    splits = {key: name for key, name in listed.items() if any(key in found for found in results.lengths.values())}
    if not splits:
        return []
    header = ["model / data set", *(f"{name}: {what}" for name in splits.values() for what in ("median", "longest"))]
    rows = [
        [row_head(pair), *(short(found.get(key, {}).get(what)) for key in splits for what in ("median", "longest"))]
        for pair, found in results.lengths.items()
    ]
    notes = reading.notes(results.root, "models")
    return with_notes(header, rows, [notes.get(pair.model) for pair in results.lengths])


def _apart(results: Results) -> Lines:
    """A sentence for each model and data set whose tokenizer lets no text split where it must."""
    return [
        f"**{row_head(pair)}**: in this tokenizer text does not split between {what}, so in all rows they are "
        "tokenised apart, as what is generated follows the tokens of what was asked."
        for pair, found in results.lengths.items()
        for what in examples.tokenised_apart(found)
    ]


def _cut(results: Results) -> Lines:
    """How many expected and generated answers do not fit `evaluate.max_new_tokens`; nothing where none is given."""
    rows = []
    for group in results.groups():
        longer, count = results.too_long(group)
        if not count:
            continue
        cut = sorted((results.cut(v)[0], str(v)) for v in results.of(group))
        (fewest, _), (most, worst) = cut[0], cut[-1]
        limit = results.longest_answer(group)
        rows.append([row_head(group), str(limit), str(count), *(share_of(n, count) for n in (longer, fewest, most))])
        rows[-1].append(f"`{worst}`" if most > fewest else "")
    header = ["model / data set", "most tokens", "test answers", "expected: longer", "generated: cut, fewest", "most"]
    return table([*header, "of"], rows) if rows else []


def _floors(results: Results) -> list[dict[str, object]]:
    """Of each data set that answers are copied in: how many training questions were searched, and examples."""
    found: list[dict[str, object]] = []
    for floor in dict.fromkeys(results.floor(group) for group in results.groups()):
        if floor is not None:
            searched, training = reading.searched(floor)
            facts = {"dataset": floor.dataset, "searched": f"{searched:,}", "training": f"{training:,}"}
            found.append({**facts, "examples": _copied(results, floor)})
    return found


def _copied(results: Results, floor: Copied) -> Lines:
    mine = results.columns[floor]
    texts = {"prompt": "test question", "question": "most similar training question"}
    texts |= {"generated": "its answer, copied", "answer": "expected answer"}
    rows = [
        [f"{mine['similarity'][row]:.2f}", *(escaped(shortened(mine[name][row])) for name in texts)]
        for row in range(min(EXAMPLES, len(mine["item"])))
    ]
    return table(["similarity", *texts.values()], rows, texts=list(texts.values()))


def _differences(results: Results) -> Lines:
    """The smallest true differences from the best that a run like this one finds most of the time."""
    header = ["model / data set", "metric", "items", "another method", "another format of the best method"]
    rows = []
    for group in results.groups():
        first = results.as_trained(group)[0]
        names = [name for name in ("test_loss", "test_f1", "mmlu_accuracy") if results.has(first, name)]
        for name in names or [ranking.headline(results, group)]:
            standing = verdicts.standing(results, results.of(group), name)
            others = {v: found for v, found in standing.verdicts.items() if v != standing.best}
            same = [found for v, found in others.items() if v.cell == standing.best.cell]
            methods = [found for v, found in others.items() if v.cell != standing.best.cell]
            label, count = results.label(group.dataset, name), str(results.count(first, name))
            rows.append([row_head(group), label, count, _detectable(methods), _detectable(same)])
    return table(header, rows)


def _detectable(found: list[Verdict]) -> str:
    smallest = [intervals.detectable(verdict.difference.error, verdict.critical) for verdict in found]
    return f"{median(smallest):.2g}" if smallest else ""
