"""Tables that several sections of the report have."""

from collections.abc import Callable, Collection, Sequence

from tradeoffs import metrics
from tradeoffs.common.cells import Copied, Pair, Variant
from tradeoffs.formats import trained_only
from tradeoffs.report.formatting import Lines, change, change_label, full_label, quality_of, table
from tradeoffs.report.rendering import render
from tradeoffs.results import ranking
from tradeoffs.results.decision import Decision
from tradeoffs.results.results import MANY_CUT, Judged, Results

CUT = "†"  # beside the F1 of answers of which many were cut, and beside an answer that was
OF_A_CANDIDATE = ("size_mb", "decode_tokens_per_second", "latency_p50_seconds", "model_memory_mb")  # costs to weigh


def quality_table(
    results: Results,
    variants: list[Variant],
    names: list[str],
    row_name: Callable[[Variant], str],
    split_names: bool = False,
    after: str = "",
    beside: dict[str, list[str]] | None = None,
    floor: Copied | None = None,
    cut: Collection[Judged] = (),
) -> Lines:
    """One row per variant, and one of the `floor`; metrics that no variant has are left out.

    Columns `beside`, of the variants, stand to the right of `after`. The F1 of those in `cut` is marked.
    """
    names = [n for n in names if any(results.has(v, n) for v in variants)]
    if not names:
        return []
    dataset = variants[0].dataset
    judged: list[Judged] = [*variants, *([floor] if floor else [])]
    columns: dict[str, list[str]] = {}
    together: list[int] = []  # what is beside a metric, and the splits of one, are not parted
    for place, name in enumerate(names):
        of_one = place > 0 and split_names and metrics.metric(name)[1] is metrics.metric(names[place - 1])[1]
        before = len(columns) - (together.pop() if of_one else 0)
        seen = name.startswith("seen_")  # among test items it needs its split
        label = full_label(results, dataset, name) if split_names or seen else results.label(dataset, name)
        columns[label] = [marked(quality_of(results, v, name), name, v in cut) for v in judged]
        for title, cells in (beside or {}).items() if name == after else ():
            columns[title] = [*cells, *([""] if floor else [])]
        together.append(len(columns) - before)
    heads = [f"`{row_name(v)}`" for v in variants] + (["**copying**"] if floor else [])
    rows = [list(row) for row in zip(heads, *columns.values(), strict=True)]
    return table(["", *columns], rows, together=together)


def letters(results: Results, variants: list[Variant], name: str) -> dict[str, list[str]]:
    """A column beside a metric: who shares a letter is not told apart by it."""
    found = ranking.letters(results, variants, name)
    return {"letters": [found[v] for v in variants]}


def with_headline(names: list[str], headline: str) -> list[str]:
    """The metrics of a table, the one that decides first."""
    return list(dict.fromkeys((headline, *names)))


def seeds(results: Results) -> int:
    """How many trainings a method has at most."""
    return max(len(results.trainings(variant.cell)) for variant in results.variants)


def tuned_or_tested(results: Results) -> list[Pair]:
    """The groups of which there is something to say about methods: of multiple choice alone, asked of an untouched
    model, there is not."""
    tuned = any(method != "base" for method in results.run.methods)
    return [group for group in results.groups() if tuned or ranking.has_test(results, group)]


def matrix(results: Results, group: Pair, formats: list[str], cells: dict[Variant, str]) -> Lines:
    """Methods down, formats across. `why_only_as_trained` says why some methods lack some of them."""
    rows = []
    only = results.only_as_trained(group)
    for method in results.run.methods:
        mine = {v.format: v for v in results.of(group, method)}
        other = "as trained only" if method in only else "no GGUF"
        row = [cells[mine[f]] if f in mine else other for f in formats]
        rows.append([f"`{method}`", *row])
    return table(["method", *(f"`{f}`" for f in formats)], rows)


def why_only_as_trained(results: Results, group: Pair) -> list[str]:
    """Which methods of a group have no other format, or none of llama.cpp, and why, a sentence for each reason.

    They stand under every table that has a place for such a format.
    """
    methods: dict[str, list[str]] = {}
    for key, found in (
        (trained_only.KEY, results.only_as_trained(group)),
        (trained_only.NO_GGUF, results.without_gguf(group)),
    ):
        for method, why in found.items():
            methods.setdefault(trained_only.sentence(why, key), []).append(f"`{method}`")
    return [f"{', '.join(some)}: {sentence}." for sentence, some in methods.items()]


def cut_short(results: Results, variants: Sequence[Variant]) -> list[Variant]:
    """Those of which so many answers were cut, or expected ones would have been, that it cannot be passed over."""

    def many(number: int, of: int) -> bool:
        return number > MANY_CUT * of

    return [v for v in variants if many(*results.cut(v)) or many(*results.too_long(v.pair))]


def marked(text: str, name: str, cut: bool) -> str:
    """A metric of a variant, marked where it is the F1 of answers that were cut."""
    return f"{text} {CUT}" if cut and name == "test_f1" else text


def what_was_cut(results: Results, cut: Sequence[Variant]) -> str:
    """What the mark means, below or above the tables that have it; nothing where nothing is marked."""
    return render("cut.md.j2", mark=CUT, limit=results.longest_answer(cut[0].pair)) if cut else ""


def guard_changes(results: Results, found: Decision, some: Sequence[Variant]) -> dict[str, list[str]]:
    """Of each guard that is known of some variants, by its label: the change in each, and what it amounts to."""
    mine = [{guard.metric: guard for guard in found.guards[v]} for v in some]
    names = dict.fromkeys(name for guards in mine for name in guards)
    return {
        change_label(results, name, found.pair.dataset): [change(guards.get(name)) for guards in mine] for name in names
    }


def trained_of(results: Results, variant: Variant) -> Variant:
    """The model that a variant is a form of, as it left training."""
    return results.of(variant.pair, variant.method)[0]


def runner_up(results: Results, found: Decision) -> Variant | None:
    """The best variant of another method than the one shown; the untouched base is none."""
    others = (v for v in ranking.ranked(results, found.pair) if v.method not in (found.shown.method, "base"))
    return next(others, None)
