"""The report says what the numbers say, and every picture and table holds."""

import csv
import re
from dataclasses import replace
from itertools import combinations

import fake_results
import numpy as np
import pytest
import quick_yaml
from jinja2 import UndefinedError
from scipy.stats import binomtest

from stages import score
from tradeoffs.common import files
from tradeoffs.common.cells import Pair
from tradeoffs.report import (
    answers,
    choices,
    comparisons,
    data,
    decision,
    formats,
    formatting,
    front,
    ladder,
    methods,
    page,
    prompts,
    reading,
    rendering,
)
from tradeoffs.report.pictures import PICTURES
from tradeoffs.results import answers as results_answers
from tradeoffs.results import costs, ranking, tuning, verdicts
from tradeoffs.results.decision import decide


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def results(folder):
    """Two models and two data sets, so that every table has more than one group."""
    return fake_results.finished(
        folder,
        painted=True,
        models=["demo", "stories260k"],
        datasets=["demo", "instructions"],
        methods=["base", "lora"],
        precisions=["nf4"],
        quants=["f16", "q4_0"],
    )


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three methods: three pairs of them, so that the best is picked out of more than one."""
    folder = tmp_path_factory.mktemp("three")
    return fake_results.finished(
        folder, stages=[score], methods=["base", "lora", "qlora"], precisions=[], quants=["q4_0"]
    )


MIXED = ["base", "lora", "prompt_tuning", "lora_dpo"]
PAIR = Pair("demo", "demo")


@pytest.fixture(scope="module")
def mixed_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mixed")


@pytest.fixture(scope="module")
def mixed(mixed_folder):
    """A method that exists as trained only, and one that learnt from pairs."""
    lists = {"methods": MIXED, "precisions": ["bf16"], "quants": ["f16", "q4_0"]}
    return fake_results.finished(mixed_folder, painted=True, **lists)


@pytest.fixture(scope="module")
def text(folder, results):
    return fake_results.report(folder)


def test_the_answer_comes_first(text, results):
    ours = decide(results, PAIR).recommended
    first = text.split("\n## ")[0]
    assert f"**demo on demo: ship `{ours.method} {ours.format}`" in first
    assert first.count("| demo / demo |") == 1


def test_every_section_is_there(text):
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert heads == [
        "More",
        "Expected against generated",
        "Prompts: the answers side by side",
        "The grid: models and data sets",
        "Methods, as trained",
        "What it forgot",
        "Who beats whom",
        "Formats",
        "What costs as little",
        "The ladder: where a fine-tune is lost",
        "Multiple choice, by subject",
        "Data, and what it can show",
        "How to read the numbers",
        "Machine",
    ]


def test_a_section_is_a_module_and_a_template_of_the_same_name():
    sections = [section for one in page.PAGES.values() for section in one.sections]
    names = [section.__module__.rpartition(".")[2] for section in (decision.section, front.section, *sections)]
    templates = {path.name for path in rendering.TEMPLATES.iterdir()}
    others = {"cut.md.j2", "throughput.md.j2", "pages.md.j2", "page.html.j2", "page.css"}
    assert templates == {*(f"{name}.md.j2" for name in names), *others}


def test_a_sentence_about_a_value_that_nobody_gives_is_an_error():
    with pytest.raises(UndefinedError, match="runs"):
        rendering.render("machine.md.j2", machines=[])


def test_a_difference_is_marked_exactly_when_its_interval_excludes_0(mixed_folder, mixed):
    text = fake_results.report(mixed_folder)
    words = "good enough|best found|undecided|too much worse|one training"
    verdict = rf"\[([+-][\d.e+-]+), ([+-][\d.e+-]+)\](, (?:{words}))?(?: \([\d,]+ items would decide\))?(, excludes 0)?"
    found = re.findall(verdict, text)
    assert ", too much worse" in {word for *_, word, _ in found}
    for low, high, word, mark in found:
        if (word or mark) and float(low) != 0 != float(high):  # not decided by rounding
            assert (float(low) <= 0 <= float(high)) == (not mark)


def test_every_verdict_follows_from_its_bounds(text, results):
    for group in results.groups():
        name = ranking.headline(results, group)
        standing = verdicts.standing(results, results.of(group), name)
        for found in standing.verdicts.values():
            low, high = found.difference.low, found.difference.high
            assert (found.word == verdicts.WORSE) == (high < -standing.margin)
            assert found.word != verdicts.GOOD or low > -standing.margin
        best = standing.verdicts[standing.best]
        behind = max(abs(best.difference.low), abs(best.difference.high))
        assert best.word == (verdicts.GOOD if behind < standing.margin else verdicts.BEST)


def test_the_metric_that_decides_is_that_of_the_params_where_it_was_measured(results, monkeypatch):
    asked, without = PAIR, Pair("demo", "instructions")
    assert ranking.headline(results, asked) == "test_f1"
    monkeypatch.setattr(results, "decide", replace(results.decide, metric="mmlu_accuracy"))
    assert ranking.headline(results, asked) == "mmlu_accuracy"
    assert ranking.headline(results, without) == "test_f1", "it has no such questions"


@pytest.mark.parametrize("name", ["test_exact_match", "seen_f1", "test_rouge_1"])
def test_the_metric_that_decides_stands_in_the_tables_with_its_letters(results, monkeypatch, name):
    margins = results.decide.margins | {"rouge_1": 0.03}
    monkeypatch.setattr(results, "decide", replace(results.decide, metric=name, margins=margins))
    label = {"test_exact_match": "exact match", "seen_f1": "seen F1", "test_rouge_1": "ROUGE-1"}[name]
    for found, count in ((methods.section(results, []), 4), (formats.section(results, []), 8)):
        assert len(re.findall(rf"^\|.*\| {label} \| letters \|", found, re.MULTILINE)) == count
        assert len(re.findall(r"^\|.*\| F1 \|", found, re.MULTILINE)) == count, "beside it"


def test_no_sentence_calls_what_is_not_shown_a_tie(text):
    assert not re.search(r"\b(tie[sd]?|Bonferroni)\b", text)


def test_numbers_in_the_report_are_those_of_the_results(text, results):
    for variant in results.variants:
        found = results.interval(variant, "test_f1")
        assert f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" in text


def test_every_table_has_as_many_cells_in_each_row(text):
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        assert len({row.count("|") for row in table.strip().split("\n")}) == 1, table


def test_every_picture_in_the_report_exists(mixed_folder, mixed):
    links = re.findall(r"!\[.*?\]\((.*?)\)", fake_results.report(mixed_folder))
    # No heatmap of a single cell, and nothing was tuned by reward.
    assert len(set(links)) == len(set(PICTURES) - {"bits_per_byte", "reward_curves"})
    assert all((mixed_folder / "report" / link).is_file() for link in links)


def test_a_picture_without_data_is_neither_drawn_nor_linked(folder, text):
    assert not (folder / "plots/preference_curves.png").exists()
    assert "preference_curves" not in text


def test_the_page_holds_the_same_tables_and_pictures(folder, text):
    for path in sorted((folder / "report").glob("*.html")):
        own, made = path.with_suffix(".md").read_text(), path.read_text()
        assert made.count("<table>") == len(re.findall(r"^\|:?---", own, re.MULTILINE)), path.name
        assert made.count("<img") == own.count("!["), path.name
        assert made.count("<details>") == own.count("<details>"), path.name
    pages = {page.FRONT, *page.PAGES} - {"tasks"}  # none is asked
    assert {path.stem for path in (folder / "report").glob("*.html")} == pages


def test_variants_of_a_table_share_a_letter_exactly_when_they_are_not_told_apart(results, text):
    for group in results.groups():
        tables = [[v for v in results.of(group) if v.format == "trained"]]
        tables += [results.of(group, method) for method in results.run.methods]
        for compared in tables:
            letters = ranking.letters(results, compared, "test_f1")
            apart = verdicts.told_apart(results, compared, "test_f1")
            for one, other in combinations(compared, 2):
                assert bool(set(letters[one]) & set(letters[other])) == (frozenset((one, other)) not in apart)
            for variant, letter in letters.items():
                name = variant.method if compared is tables[0] else variant.format
                found = re.escape(formatting.quality_of(results, variant, "test_f1"))
                row = rf"^\| `{name}` \|.*{found} \| {letter} \|"
                assert re.search(row, text, re.MULTILINE), (variant, letter)


def test_the_subject_tables_hold_intervals(results, text):
    part = section(text, "Multiple choice, by subject")
    for variant in results.of(PAIR):
        if variant.format == "trained":
            for found, _ in results.subjects(variant).values():
                assert f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" in part


def test_few_questions_of_a_subject_and_few_pairs_have_the_exact_interval(mixed, monkeypatch):
    variant = mixed.of(PAIR, "lora_dpo")[0]
    monkeypatch.setitem(mixed.trained(variant), "reward_margins", [1.0] * 38 + [-1.0] * 2)
    found = [*mixed.subjects(variant).values(), (tuning.rewards(mixed, variant)["reward_accuracy"], 40)]
    assert len(found) == 5
    for one, count in found:
        exact = binomtest(round(one.value * count), count).proportion_ci(0.95, method="exact")
        assert (one.low, one.high) == pytest.approx((exact.low, exact.high))


def test_generated_questions_are_not_called_mmlu(results, text):
    assert results.label("demo", "mmlu_accuracy") == "multiple choice"
    assert results.label("instructions", "mmlu_accuracy") == "MMLU"
    part = section(text, "Methods, as trained")
    own = part.split("### stories260k on demo")[0].split("### demo on demo")[1]
    assert "multiple choice" in own
    assert "MMLU" not in own


def test_an_answer_reads_as_it_was_given(folder, text):
    assert "| `lora q4_0` | lora &#124; q4_0<br>&lt;i&gt;says&lt;/i&gt; so | 9 | 0.25 | 36 |" in text
    page = (folder / "report/answers.html").read_text()
    assert "lora | q4_0<br>&lt;i&gt;says&lt;/i&gt; so</td>" in page
    assert "Is `a|b` &lt;b&gt;more&lt;/b&gt;<br>than *c*?" in page


def test_mcnemar_stands_beside_every_compared_accuracy(results, text):
    tables = text.split("## Who beats whom")[1].split("\n## ")[0]
    lora, base = (results.of(PAIR, method)[0] for method in ("lora", "base"))
    for name in ("test_exact_match", "mmlu_accuracy"):
        found = verdicts.standing(results, results.as_trained(PAIR), name).verdicts[base]
        assert f"| {formatting.verdict(found, name)} | {results.mcnemar(base, lora, name):.2g} |" in tables


def test_every_method_stands_against_the_best_and_against_the_base(three):
    trained = [v for v in ranking.ranked(three, PAIR) if v.format == "trained"]
    base = three.of(PAIR, "base")[0]
    for name in ("test_exact_match", "mmlu_accuracy"):
        standing = verdicts.standing(three, trained, name)
        lines = comparisons._against(three, trained, name)
        cells = {line.split("|")[1].strip(" `"): [cell.strip() for cell in line.split("|")[3:-1]] for line in lines}
        for variant in trained:
            found = []
            for other, says in (
                (standing.best, formatting.verdict(standing.verdicts[variant], name)),
                (base, formatting.difference(verdicts.against(three, variant, base, name).difference, name)),
            ):
                found += ["", ""] if variant == other else [says, f"{three.mcnemar(variant, other, name):.2g}"]
            assert cells[variant.method] == found


def test_with_one_seed_a_method_has_no_verdict_unless_it_is_too_much_worse(three, text):
    standing = verdicts.standing(three, three.as_trained(PAIR), "test_f1")
    words = {found.word for variant, found in standing.verdicts.items() if variant != standing.best}
    assert words <= {verdicts.ONE, verdicts.WORSE}
    assert "nobody knows how much the seed matters" in text


def test_the_decision_states_how_far_the_base_is_behind(three):
    base, found = three.untouched(PAIR), decide(three, PAIR)
    behind = found.standing.verdicts[base]
    cells = f"| {formatting.verdict(behind, 'test_f1')} |"
    assert any(f"`base {base.format}`" in line and cells in line for line in choices._choices(three, found))


def test_throughput_has_its_intervals_and_a_batch_that_did_not_fit_is_empty(results):
    first, other = results.of(PAIR, "lora")[:2]
    lines = formats._throughput(results, [first, other]).splitlines()
    assert "Empty: so many did not fit the memory." in lines
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]
    assert [row[-1] == "" for row in rows] == [True, False]
    found = costs.interval(results, other, "decode_tokens_per_second_batch_16")
    (written,) = re.findall(r"^([\d,]+) \[([\d,]+), ([\d,]+)\]$", rows[1][-1])
    shown = [float(number.replace(",", "")) for number in written]
    assert shown == pytest.approx([found.value, found.low, found.high], rel=0.01)
    assert "Empty: so many did not fit the memory." not in formats._throughput(results, [other])


def test_the_report_says_how_far_sampling_can_move_kld(results, text):
    shares = {
        v: results.interval(v, "kld_error").value / results.interval(v, "kld").value
        for v in results.variants
        if results.has(v, "kld")
    }
    worst = max(shares, key=lambda v: shares[v])
    (line,) = (line for line in text.split("\n") if line.startswith("- **KLD** "))
    assert f"at most {shares[worst]:.2g} of it" in line
    assert f"`{worst}`" in line


@pytest.mark.slow
def test_merges_of_one_training_stand_under_each_other(tmp_path):
    """Three methods of which the first and the last were trained alike and merged onto different bases."""
    found = fake_results.finished(tmp_path, methods=["lora_8bit", "lora", "qlora"], precisions=["bf16"], quants=[])
    first, other, last = (found.of(PAIR, method) for method in ("lora_8bit", "lora", "qlora"))
    found.facts[other[1]]["merged_onto"] = "trained_base"
    found._values[last[0], "test_loss"] = found._resampled(first[0], "test_loss")
    rows = [line for line in ladder._merges(found, PAIR) if line.startswith("| `")]
    assert [row.split("|")[1].strip() for row in rows] == ["`lora_8bit bf16`", "`qlora bf16`", "`lora bf16`"]
    assert "the de-quantised base it was trained on" in rows[0]
    assert "the original base" in rows[1]
    for row, cell in zip(rows, (first, last, other), strict=True):
        assert formatting.signed(found.compare(cell[1], cell[0], "test_loss"), "test_loss") in row
        assert formatting.quality_of(found, cell[1], "kld") in row


def test_what_quantising_lost_is_not_put_down_to_merging(tmp_path):
    """Without bf16 the first rung is merged and quantised at once."""
    found = fake_results.finished(tmp_path, stages=[score], methods=["lora_8bit"], precisions=["int8"], quants=["q4_0"])
    assert ladder._merges(found, PAIR) == []


def test_the_costliest_step_of_a_ladder_is_the_largest_one_that_is_shown(results, text):
    cell = results.of(PAIR, "lora")
    steps = {v: results.compare(v, results.made_from(v), "test_loss") for v in cell[1:]}
    worst = max(steps, key=lambda v: steps[v].value)
    step = ladder._costliest_step(results, cell)
    assert step["to"] == worst.format
    assert (
        f"- `lora`: the largest loss that is shown is from `{step['below']}` to `{worst.format}`, {step['loss']} nats."
        in text
    )


@pytest.mark.slow
def test_one_method_in_one_format_is_reported_too(tmp_path):
    fake_results.finished(tmp_path, methods=["lora"], precisions=[], quants=[])
    text = fake_results.report(tmp_path)
    assert "1 variant: 1 method of tuning in 1 format" in text
    assert "`lora trained`" in text


def test_the_plots_of_dvc_show_columns_that_are_written(folder, results):
    declared = quick_yaml.load((fake_results.REPO / "dvc.yaml").read_text())["plots"]
    for entry in declared:
        if isinstance(entry, str):
            assert (folder / entry).is_file(), entry
            continue
        ((name, plot),) = entry.items()
        if name == "live":  # of trainings while they go on, written by dvclive
            continue
        assert (fake_results.REPO / ".dvc/plots" / f"{plot['template']}.json").is_file()
        for name, column in plot["y"].items():
            with (folder / name).open() as file:
                assert {column, plot["x"], "method"} <= set(next(csv.reader(file)))


def section(text: str, head: str) -> str:
    return text.split(f"\n## {head}\n")[1].split("\n## ")[0]


def cells(text: str, row: str) -> list[list[str]]:
    """The cells of every table row of a text that begins with `row`."""
    found = re.findall(rf"^\| {re.escape(row)} \|(.*)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in found]


def test_a_method_that_cannot_be_merged_says_so_wherever_a_format_of_it_is_missing(mixed_folder, mixed):
    text = fake_results.report(mixed_folder)
    note = f"`prompt_tuning`: as trained only: {fake_results.UNMERGEABLE['prompt_tuning']}."
    assert note in (mixed_folder / "report/summary.md").read_text()
    heads = ("Methods, as trained", "Formats", "The ladder: where a fine-tune is lost")
    for part in (text.split("\n## ")[0], *(section(text, head) for head in heads)):
        assert note in part
    assert cells(section(text, "Formats"), "`prompt_tuning`")[0][1:] == ["as trained only"] * 3
    assert cells(section(text, "The ladder: where a fine-tune is lost"), "`prompt_tuning`") == [["as trained only"] * 3]
    assert "every step of prompt_tuning" not in text
    assert "prompt_tuning q4_0" not in text


def test_a_data_set_without_prompts_has_no_part_among_the_prompts(results, monkeypatch):
    for variant in results.variants:
        if variant.dataset == "instructions":
            mine = results.columns[variant]
            others = np.where(mine["split"] == "prompt", "", mine["split"])
            monkeypatch.setitem(results.columns, variant, mine | {"split": others})
    parts = re.findall(r"^### (.*)$", prompts.section(results, ()), re.MULTILINE)
    assert parts == ["demo on demo", "stories260k on demo"]


def test_a_method_that_cannot_be_merged_is_compared_as_trained(mixed_folder, mixed):
    text = fake_results.report(mixed_folder)
    variant = mixed.of(PAIR, "prompt_tuning")[0]
    assert mixed.of(PAIR, "prompt_tuning") == [variant]
    assert formatting.quality_of(mixed, variant, "test_f1") in section(text, "Methods, as trained")
    assert "`prompt_tuning`" in section(text, "Who beats whom")
    assert "`prompt_tuning trained`" in section(text, "Prompts: the answers side by side")


@pytest.mark.slow
def test_the_best_method_of_all_may_be_one_that_cannot_be_merged(tmp_path, monkeypatch):
    monkeypatch.setitem(fake_results.SKILL, "lora", 0.5)
    monkeypatch.setitem(fake_results.SKILL, "prompt_tuning", 0.9)
    found = fake_results.finished(
        tmp_path, methods=["base", "lora", "prompt_tuning"], precisions=[], quants=["f16", "q4_0"]
    )
    assert ranking.ranked(found, PAIR)[0].method == "prompt_tuning"
    assert ranking.best_shipped(found, PAIR) == "lora"
    text = fake_results.report(tmp_path)
    assert "**demo on demo: ship `prompt_tuning trained`" in text
    assert "Every step of `lora`" in text
    assert "What each format of `lora` costs" in text


@pytest.mark.slow
def test_a_run_of_nothing_that_can_be_merged_is_reported_too(tmp_path):
    fake_results.finished(tmp_path, methods=["prompt_tuning"], precisions=["bf16"], quants=["q4_0"])
    text = fake_results.report(tmp_path)
    assert "1 variant: 1 method of tuning in 1 format" in text
    assert "`prompt_tuning`: as trained only: " in section(text, "The ladder: where a fine-tune is lost")


@pytest.mark.slow
@pytest.mark.parametrize("precisions", [["bf16"], []])
def test_a_model_that_llama_cpp_cannot_run_says_so_wherever_a_format_of_it_is_missing(
    tmp_path, monkeypatch, precisions
):
    monkeypatch.setitem(fake_results.NO_GGUF, "stories260k", "it knows no such model")
    models = ["demo", "stories260k"]
    found = fake_results.finished(
        tmp_path,
        models=models,
        methods=["base", "lora", "prompt_tuning"],
        precisions=precisions,
        quants=["f16", "q4_0"],
    )
    text = fake_results.report(tmp_path)
    note = "`base`, `lora`: in no format of llama.cpp: it knows no such model."
    assert [v.format for v in found.of(Pair("stories260k", "demo"), "lora")] == ["trained", *precisions]
    for head in ("Methods, as trained", "Formats", "The ladder: where a fine-tune is lost"):
        assert section(text, head).count(note) == 1
    assert cells(section(text, "Formats"), "`lora`")[1][-2:] == ["no GGUF"] * 2
    assert " 0 variants in" not in text
    assert "`prompt_tuning`: as trained only: " in section(text, "Formats")


def test_what_was_forgotten_is_the_paired_change_from_the_base_on_the_same_text(mixed_folder, mixed):
    rows = section(fake_results.report(mixed_folder), "What it forgot")
    base, lora = (mixed.of(PAIR, method)[0] for method in ("base", "lora"))
    change = mixed.compare(lora, base, "general_loss")
    assert change.low > 0
    assert tuning.forgotten(mixed, lora) == change
    assert tuning.forgotten(mixed, base) is None
    assert cells(rows, "`lora`")[0] == [
        *(formatting.quality_of(mixed, lora, name) for name in ("general_loss", "test_f1")),
        *(formatting.difference(mixed.compare(lora, base, name), name) for name in ("general_loss", "test_f1")),
    ]
    assert cells(rows, "`base`")[0][2:] == ["", ""]


@pytest.mark.slow
def test_without_general_text_or_without_base_the_report_says_that_forgetting_is_not_known(text, tmp_path):
    part = section(text, "What it forgot")
    assert "Not known: `models.stories260k` gives no general text." in part.split("### stories260k on demo")[1]
    found = fake_results.finished(tmp_path, methods=["lora", "full"], precisions=[], quants=[])
    alone = section(fake_results.report(tmp_path), "What it forgot")
    assert "The run list lacks `base`" in alone
    assert tuning.forgotten(found, found.variants[0]) is None
    assert not (tmp_path / "plots/forgetting.png").exists()


def test_the_training_table_holds_what_pairs_taught_with_its_intervals(mixed_folder, mixed):
    part = section(fake_results.report(mixed_folder), "Methods, as trained")
    rows: dict[str, dict[str, str]] = {method: {} for method in MIXED}
    for table in re.findall(r"(?:^\|.*\|\n)+", part.split("What training took.")[1], re.MULTILINE):
        names = [name.strip() for name in table.split("\n")[0].split("|")[2:-1]]
        for method in MIXED:
            rows[method] |= dict(zip(names, cells(table, f"`{method}`")[0], strict=True))
    margins = mixed.training[PAIR.cell("lora_dpo")]["reward_margins"]
    accuracy = sum(margin > 0 for margin in margins) / len(margins)
    found = tuning.rewards(mixed, mixed.of(PAIR, "lora_dpo")[0])
    assert found["reward_accuracy"].value == pytest.approx(accuracy)
    assert found["reward_accuracy"].low < accuracy < found["reward_accuracy"].high
    assert found["reward_margin"].value == pytest.approx(sum(margins) / len(margins))
    assert rows["lora_dpo"]["held-out pairs"] == "40"
    assert rows["lora_dpo"]["reward accuracy"] == formatting.accuracy_of(found["reward_accuracy"])
    assert rows["lora_dpo"]["reward margin"] == formatting.accuracy_of(found["reward_margin"])
    assert rows["lora"]["reward accuracy"] == rows["lora"]["held-out pairs"] == ""
    assert rows["lora"]["tokens/s"] == "9,625", "the median, which a slow beginning does not move"
    assert rows["lora"]["validation loss"]
    assert rows["base"]["general loss"]
    assert rows["base"]["tokens/s"] == ""


def test_the_leak_report_shows_what_was_dropped_and_what_it_is_like(text):
    part = section(text, "Data, and what it can show")
    (row,) = cells(part, "`instructions`")
    assert row == ["5,800", "5,000", "600", "200", "200", "1", "12", "3", "2", "7"]
    dropped = fake_results.DROPPED["near_duplicate_examples"][0]
    assert f"| train, like test | {formatting.escaped(dropped['dropped'][:200].rstrip())} ... | What is a" in part
    assert "| train, like train | Name a fund. | Name one fund. |" in part
    assert "| duplicate | What is a bond? |  |" in part


@pytest.mark.slow
def test_what_preparation_did_not_drop_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(fake_results, "DROPPED", {"empty": 0, "duplicates": 0, "near_duplicates": 0})
    fake_results.finished(tmp_path, methods=["lora"], precisions=[], quants=[])
    part = section(fake_results.report(tmp_path), "Data, and what it can show")
    assert "train rows like another one" not in part
    assert "what was dropped of" not in part


def test_what_is_tokenised_apart_is_said_once_of_its_model_and_data_set(folder, results, monkeypatch):
    monkeypatch.chdir(folder)
    assert "does not split" not in data.section(results, [])
    found = {pair: lengths | {"tokenised_apart": ["answers"]} for pair, lengths in [*results.lengths.items()][:1]}
    monkeypatch.setattr(results, "lengths", results.lengths | found)
    said = data.section(results, [])
    (pair,) = found
    assert said.count("text does not split between a prompt and its answer") == 1
    assert f"**{pair.model} / {pair.dataset}**: in this tokenizer text does not split" in said


def test_the_lengths_are_those_that_each_tokenizer_makes(folder, results, text):
    part = section(text, "Data, and what it can show")
    for pair in results.groups():
        found = files.read_json(folder / f"data/lengths/{pair}.json")
        row = cells(part, formatting.row_head(pair))[0]
        assert row == [formatting.short(found[s][what]) for s in ("train", "test") for what in ("median", "longest")]


def test_copying_stands_below_the_methods_and_its_examples_in_the_data(text, results):
    floor = results.floor(PAIR)
    mine = section(text, "Methods, as trained").split("\n### ")[1]
    row = " ".join(line for line in mine.splitlines() if line.startswith("| **copying** |"))
    assert formatting.quality_of(results, floor, "test_f1") in row
    assert formatting.quality_of(results, floor, "test_cosine") in row
    data = section(text, "Data, and what it can show")
    assert "Copying in `demo`: 4,000 of 5,000 training questions were searched" in data
    assert "<summary>what was copied in demo: examples</summary>" in data
    assert "| 0.90 | Question 0? | Another &#124; question 0? |" in data


def test_exact_match_says_by_which_pattern_it_compares(results, monkeypatch):
    assert "not the whole" not in reading.section(results, [])
    monkeypatch.setitem(results.prepared["instructions"], "answer_pattern", r"#### (\d+)")
    (line,) = (line for line in reading.section(results, []).splitlines() if line.startswith("- **exact match**"))
    assert r"On `instructions` not the whole is compared, but what `#### (\d+)` finds first in each" in line


def unbroken(cell: str) -> int:
    """Characters of a cell's longest part that a browser does not break."""
    return max(map(len, re.findall(r"`[^`]*`|\[[-+\d.,e ]*\]|[^\s`\[]+", cell.replace("<br>", " ")) or [""]))


@pytest.mark.parametrize("name", ["folder", "mixed_folder"])
def test_no_table_is_wider_than_a_laptops_screen(request, name, results, mixed):
    text, widest = fake_results.report(request.getfixturevalue(name)), 0
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
        width = sum(max(map(unbroken, column)) + formatting.PADDING for column in zip(*rows, strict=True))
        widest = max(widest, width)
        assert width <= formatting.SCREEN, table
    assert widest > formatting.SCREEN / 2, "they use it"


def test_a_wide_table_is_cut_into_ones_that_all_say_whose_a_row_is():
    head, row = ["", "variant", *(f"metric{n}" for n in range(12))], ["ship", "`lora`", *12 * ["0.5 [0.123, 0.456]"]]
    lines = formatting.table(head, [row], keys=2, together=6 * [2])
    tables = "\n".join(lines).split("\n\n")
    assert len(tables) == 2
    found = [[cell.strip() for cell in one.split("\n")[0].split("|")[1:-1]] for one in tables]
    assert all(names[:2] == ["", "variant"] and len(names) % 2 == 0 for names in found)
    assert [name for names in found for name in names[2:]] == head[2:]
    assert all(one.split("\n")[2].startswith("| ship | `lora` | 0.5") for one in tables)


@pytest.mark.parametrize("before", range(5))
def test_what_stands_beside_a_metric_is_not_parted_from_it(before):
    head = ["", *(f"metric{n}" for n in range(before)), "F1", "letters", *(f"other{n}" for n in range(9))]
    rows = [["`lora`", *["0.500 [0.123, 0.456]"] * (len(head) - 1)]]
    tables = "\n".join(formatting.table(head, rows, together=[*[1] * before, 2])).split("\n\n")
    assert len(tables) > 1
    assert all(("| F1 |" in one) == ("| letters |" in one) for one in tables)


def test_every_page_is_linked_from_the_first_and_every_link_leads_to_one(folder, results):
    for suffix in ("md", "html"):
        pages = {path.name: path.read_text() for path in (folder / "report").glob(f"*.{suffix}")}
        pages.pop("summary.md", None)
        first = pages[f"{page.FRONT}.{suffix}"]
        for name, made in pages.items():
            links = set(re.findall(r'(?:\]\(|href=")(\w[\w.]*)', made))
            assert {link for link in links if not (folder / "report" / link).is_file()} == set()
            assert name == f"{page.FRONT}.{suffix}" or name in re.findall(r'(?:\]\(|href=")(\w[\w.]*)', first)


def test_a_page_that_has_nothing_to_say_any_more_is_removed(tmp_path):
    page.write({page.FRONT: "# One\n", "grid": "# Two\n"}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "report.html", "grid.md", "grid.html"}
    (tmp_path / "prompts.csv").touch()
    page.write({page.FRONT: "# One\n"}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "report.html", "prompts.csv"}


def test_the_summary_is_a_screen_and_the_front_page_begins_with_it(mixed_folder, mixed):
    summary = (mixed_folder / "report/summary.md").read_text()
    assert (mixed_folder / "report/report.md").read_text().startswith(summary.rstrip("\n"))
    assert len(summary) < 2500 and "|" not in summary
    found = re.findall(r"^- \*\*(.*?)\*\*", summary, re.MULTILINE)
    assert found == ["Why", "Costs", "Loses", "Not known"]


def test_the_front_page_has_the_decision_then_a_picture_then_three_short_tables(mixed_folder, mixed):
    front_page = (mixed_folder / "report/report.md").read_text()
    assert front_page.index("ship `") < front_page.index("![") < front_page.index("\n|")
    tables = re.findall(r"(?:^\|.*\|\n)+", front_page, re.MULTILINE)
    found = decide(mixed, PAIR)
    first = "ship, best found" if found.recommended == found.standing.best else "ship"
    assert [table.split("|")[2].split(":")[0].strip() for table in tables] == [first, "F1", "F1"]
    assert front_page.count("![") == 1
    value = mixed.interval(found.recommended, "test_f1")
    assert f"| test F1 | {value.value:.3f} [{value.low:.3f}, {value.high:.3f}] |" in tables[0]
    assert ("joined by a dashed line" in front_page) == (len(found.pareto["size_mb"]) > 1)


def test_the_front_page_of_several_pairs_has_the_tables_of_each(folder, results):
    front_page = (folder / "report/report.md").read_text()
    for pair in results.groups():
        found = decide(results, pair)
        title = f"<summary>{pair.model} on {pair.dataset}: candidates, methods, formats</summary>"
        tables = re.findall(r"(?:^\|.*\|\n)+", front_page.split(title)[1].split("</details>")[0], re.MULTILINE)
        assert f": `{found.recommended.method} {found.recommended.format}` |" in tables[0].split("\n")[0]
        assert [table.split("|")[2].strip() for table in tables[-2:]] == ["F1", "F1"]
        assert len(re.findall(r"^\| `", tables[-2], re.MULTILINE)) == len(results.run.methods)
        assert len(re.findall(r"^\| `", tables[-1], re.MULTILINE)) == len(results.of(pair, found.recommended.method))


def test_verdicts_on_the_front_page_are_against_the_best_of_all_variants(folder, results):
    for pair in results.groups():
        found = decide(results, pair)
        mine = results.of(pair, found.recommended.method)
        for lines, variants in (
            (front._methods(results, found, results.as_trained(pair)), results.as_trained(pair)),
            (front._formats(results, found), mine),
        ):
            words = [line.split("|")[3].strip() for line in lines[2:]]
            assert words == [found.standing.verdicts[v].word for v in variants]


def test_a_mark_of_any_candidate_is_explained(three, monkeypatch):
    ours = decide(three, PAIR).recommended.method
    other = next(v for v in three.of(PAIR) if v.method not in (ours, "base") and v.format == "q4_0")
    monkeypatch.setattr(front, "runner_up", lambda results, found: other)
    assert "†" not in front.section(three, [])
    lengths = three.columns[other]["generated_tokens"]
    monkeypatch.setitem(three.columns[other], "generated_tokens", np.full_like(lengths, 48))
    text = front.section(three, [])
    assert text.count(" † |") == 1 and text.count("†: of these answers") == 1


def test_a_change_says_from_what_it_is(three, monkeypatch):
    assert "| general loss as trained, change from the untouched base |" in front.section(three, [])
    held = replace(three.decide, guards={"general_loss": "best"})
    monkeypatch.setattr(three, "decide", held)
    assert "| general loss as trained, change from the best |" in front.section(three, [])


def test_answers_stand_beside_what_was_expected(results, text):
    found = decide(results, PAIR)
    part = section(text, "Expected against generated").split("### ")[1]
    rows = results_answers.asked(results, found.recommended)
    drawn = results_answers.drawn(rows, answers.SHOWN, answers.SEED)
    table = re.findall(r"(?:^\|.*\|\n)+", part, re.MULTILINE)[0]
    for row, line in zip(drawn, table.splitlines()[2:], strict=True):
        own = [cell.strip() for cell in line.split("|")[1:-1]]
        assert own[:2] == [formatting.escaped(row.question), formatting.escaped(row.expected)]
        assert own[2] == (formatting.escaped(row.generated) or "*(empty)*")
        assert own[3] == ("exact" if row.exact else f"{row.f1:.2f}")
    worst = part.split("<summary>the worst of")[1]
    assert results_answers.worst(rows, 1)[0].question in worst
    assert f"`python -m tradeoffs.answers {found.recommended}`" in part
    assert "†" not in part


def test_an_answer_that_was_cut_is_marked(results, monkeypatch):
    ours = decide(results, PAIR).recommended
    lengths = results.columns[ours]["generated_tokens"]
    monkeypatch.setitem(results.columns[ours], "generated_tokens", np.full_like(lengths, 48))
    part = answers.section(results, []).split("### ")[1]
    assert part.count("†: did not end by itself, but was cut at 48 tokens") == 1
    rows = [line.split("|") for line in part.splitlines() if line.startswith("| Question")]
    assert rows and all(row[3].endswith(" † ") and "†" not in row[1] + row[2] for row in rows)


def test_a_page_fits_a_phone_and_is_readable_in_the_dark(folder, results):
    made = (folder / "report/report.html").read_text()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in made
    assert "@media (prefers-color-scheme: dark)" in made
    assert made.count("<table>") == made.count('<div class="wide"><table>')


def test_every_picture_says_what_it_shows_to_those_who_do_not_see_it(folder, results):
    assert set(rendering.ALT) == set(PICTURES)
    assert not re.search(r'alt=""', (folder / "report/methods.html").read_text())


def test_what_stands_in_no_table_is_not_explained(results, text):
    part = section(text, "How to read the numbers")
    assert "**ROUGE-L**" in part and "**KLD**" in part
    assert "**ROUGE-1**" not in part and "**KLD tail**" not in part


def test_guards_are_explained_and_margins_only_of_what_was_measured(results, text, monkeypatch):
    part = section(text, "How to read the numbers")
    assert "- **Guards** (`decide.guards`)" in part and "**Lost**: all of it is\n  beyond. **Unclear**: neither" in part
    assert all(f"`{name}` against the untouched base" in part for name in ("mmlu_accuracy", "general_loss"))
    assert "`mmlu_accuracy` 0.03" in part and "**One training**" in part
    there = results.has
    monkeypatch.setattr(results, "has", lambda variant, name: name != "mmlu_accuracy" and there(variant, name))
    assert "mmlu_accuracy" not in reading.section(results, [])
