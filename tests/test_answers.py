"""Every answer stands with its own question and scores, picks are what they say, and misuse is one message."""

import csv
import shutil
from pathlib import Path
from types import SimpleNamespace

import fake_results
import forked
import numpy as np
import pytest

from stages import score
from tradeoffs import answers as command
from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import SCORES, TRAINED, Copied, Variant
from tradeoffs.evaluate.items import ITEMS
from tradeoffs.formats import trained_only
from tradeoffs.metrics.answers import exact_match, f1
from tradeoffs.plumbing.errors import UserError
from tradeoffs.results import answers, evaluated
from tradeoffs.results.answers import Asked

REPO = Path(__file__).parents[1]
LORA, FULL, AGAIN = "demo-sums-lora-q4_0", "demo-sums-full-q4_0", "demo-sums-lora-trained-43"
EXPECTED = "one two three four"
# By id, in the order they are asked: question, expected, and what two say; F1 0.4, 1, 0.857, 0.667, 0 and 1, 1, 0.667,
# 0.857, 0.
ASKED = {
    "q5": ("Five?", "12 months", "14 MONTHS\nYe", "12 months"),
    "q2": ("Two\nlines?", EXPECTED, "One, two, three, four.", EXPECTED),
    "q4": ("Is a warranty given?", EXPECTED, "one two three", "one two"),
    "q1": ("=1+1", EXPECTED, "one two", "one two three"),
    "q3": ("Three?", EXPECTED, "", "\x1b[2Jnone"),
}
NOTHING: dict = {"other": None, "worst": None, "sample": None, "differ": False, "find": None, "table": None}


@pytest.fixture
def evaluated_run(tmp_path, monkeypatch):
    """Two variants and a further training with the same answers as the first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((REPO / "params.yaml").read_text())
    said = {LORA: 2, FULL: 3, AGAIN: 2}
    write_items(said)
    write_scores(said)
    return tmp_path


def write_items(said):
    for name, place in said.items():
        rows = [
            {"split": split, "item": item, "prompt": row[0], "answer": row[1], "generated": row[place]}
            for split in ("test", "seen")
            for item, row in ASKED.items()
        ]
        rows.append({"split": "mmlu", "item": "m", "subject": "s", "chosen": 1, "correct_option": 2})
        rows.append({"split": "prompt", "item": "p", "prompt": "Yours?", "generated": "Mine."})
        files.write_table(Variant.parse(name).items, rows, ITEMS)


def write_scores(said):
    rows = []
    for name, place in said.items():
        for split in ("test", "seen"):
            for item, row in ASKED.items():
                # What answers were trained on is scored otherwise, so that it would be seen if it were taken.
                right = exact_match(row[place], row[1]) if split == "test" else 1.0
                found = {"f1": f1(row[place], row[1]) if split == "test" else 0.123, "exact_match": right}
                rows.append({"variant": name, "split": split, "item": item, **found})
        rows.append({"variant": name, "split": "prompt", "item": "p"})
    files.write_table(SCORES, rows, score.schema().with_metadata({"embedding": "none"}))


def told(capsys, *names, **options):
    """What the command prints."""
    command.main(names[0], **NOTHING | ({"other": names[1]} if len(names) > 1 else {}) | options)
    return capsys.readouterr().out


def ids(out):
    """Of the questions that were shown, in their order."""
    return [line.split()[0] for line in out.splitlines() if line[:2] in ASKED]


def test_each_question_stands_with_its_answer_and_its_own_scores(evaluated_run):
    found = answers.read(Variant.parse(LORA))
    assert [(row.id, row.question, row.expected, row.generated) for row in found] == [
        (item, *row[:3]) for item, row in ASKED.items()
    ]
    assert [row.f1 for row in found] == pytest.approx([0.4, 1, 6 / 7, 2 / 3, 0])
    assert [row.exact for row in found] == [False, True, False, False, False]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run with what is none of the usual: a text, a method that trains nothing, one that cannot be merged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score.embeddings, "load_embedder", lambda name: SimpleNamespace(device="none"))
        patch.setattr(score.embeddings, "similarities", unlike)
        folder = tmp_path_factory.mktemp("answered")
        lists = {"models": ["demo"], "datasets": ["demo", fake_results.TEXT], "precisions": [], "quants": ["q4_0"]}
        lists |= {"methods": ["base", "lora", "prompt_tuning"], "seeds": [42, 43]}
        fake_results.finished(folder, items=12, stages=(score,), **lists)
    return folder


def unlike(embedder, pairs):
    return np.zeros(len(pairs)), {text: np.zeros(1) for pair in pairs for text in pair}


def test_the_report_reads_what_the_command_does(finished, monkeypatch):
    monkeypatch.chdir(finished)
    results = fake_results.read()
    variants = [v for variant in results.as_trained(results.groups()[0]) for v in results.trainings(variant.cell)]
    variants += [variant for variant in results.variants if variant.format != TRAINED]
    assert len({v for v in variants if v.dataset == "demo"}) > 5
    for variant in variants:
        found = answers.asked(results, variant)
        assert found == answers.read(variant)
        assert len(found) == (0 if variant.dataset == fake_results.TEXT else 12)
        if found:
            assert np.mean([row.f1 for row in found]) == pytest.approx(results.values(variant, "test_f1")[0])
            assert np.mean([row.exact for row in found]) == pytest.approx(
                results.values(variant, "test_exact_match")[0]
            )
    copied = answers.asked(results, Copied("demo"))
    assert [row.id for row in copied] == [row.id for row in answers.read(variants[0])]
    assert sum(row.exact for row in copied) == 3


def test_a_text_has_no_answers(finished, monkeypatch):
    monkeypatch.chdir(finished)
    with pytest.raises(UserError, match=rf"demo-{fake_results.TEXT}-lora-q4_0: has no answers: .* plain text"):
        command.main(f"demo-{fake_results.TEXT}-lora-q4_0", **NOTHING)


# --- which of them


def rows(**scores):
    return [Asked(item, "?", "yes", f"says {value}", value, value == 1) for item, value in scores.items()]


def test_the_worst_come_by_f1_then_by_id():
    mine = rows(d=0.5, b=0.0, c=1.0, a=0.0)
    assert [row.id for row in answers.worst(mine, 3)] == ["a", "b", "d"]
    assert [row.id for row in answers.worst(mine, 9)] == ["a", "b", "d", "c"]


@pytest.mark.parametrize(("n", "found"), [(1, "c"), (2, "bc"), (3, "bcd"), (4, "abcd"), (5, "abcde"), (9, "abcde")])
def test_the_median_ones_lie_around_the_middle(n, found):
    mine = rows(e=1.0, a=0.1, d=0.7, c=0.4, b=0.2)
    assert "".join(row.id for row in answers.median(mine, n)) == found


def test_drawn_are_the_same_ones_for_every_variant_and_others_by_another_seed():
    first, second = rows(**{f"q{n}": n / 50 for n in range(50)}), rows(**{f"q{n}": 0.5 for n in reversed(range(50))})
    found = [row.id for row in answers.drawn(first, 8, 42)]
    assert [row.id for row in answers.drawn(second, 8, 42)] == found
    assert [row.id for row in answers.drawn(first, 5, 42)] == found[:5]
    assert [row.id for row in answers.drawn(first, 8, 43)] != found
    assert len({row.id for row in answers.drawn(first, 60, 42)}) == 50


def test_differing_are_those_with_another_answer_the_greatest_difference_first():
    ours, theirs = rows(a=0.5, b=0.0, c=1.0, d=0.4), rows(a=0.5, b=0.3, c=0.1, d=0.7)
    assert [(one.f1, other.f1) for one, other in answers.differing(ours, theirs)] == [
        (1.0, 0.1),
        (0.0, 0.3),
        (0.4, 0.7),
    ]
    with pytest.raises(UserError, match="asked different test questions; run `dvc repro`"):
        answers.differing(ours, theirs[1:])


# --- the command


def test_an_answer_is_shown_below_what_was_expected(evaluated_run, capsys):
    assert told(capsys, LORA, worst=2) == (
        "q3  F1 0.000\n"
        "  question   Three?\n"
        "  expected   one two three four\n"
        "  generated  (empty)\n"
        "\n"
        "q5  F1 0.400\n"
        "  question   Five?\n"
        "  expected   12 months\n"
        "  generated  14 MONTHS\n"
        "             Ye\n"
        "\n"
        "2 of 5 questions shown\n"
        f"{LORA}: 5 test answers, 1 exact (20.0%), mean F1 0.585\n"
    )


def test_two_variants_stand_side_by_side_where_they_differ(evaluated_run, capsys):
    out = told(capsys, LORA, FULL, differ=True)
    assert ids(out) == ["q5", "q1", "q4", "q2", "q3"]
    assert out.startswith(
        "q5  first: F1 0.400; second: F1 1.000, exact\n"
        "  question   Five?\n"
        "  expected   12 months\n"
        "  first      14 MONTHS\n"
        "             Ye\n"
        "  second     12 months\n"
        "\n"
    )
    assert out.endswith(
        "5 of 5 questions shown\n"
        f"first, {LORA}: 5 test answers, 1 exact (20.0%), mean F1 0.585\n"
        f"second, {FULL}: 5 test answers, 2 exact (40.0%), mean F1 0.705\n"
        "5 answers differ; F1 is higher in 1 of the first, in 2 of the second\n"
    )


def test_where_two_answer_alike_nothing_differs(evaluated_run, capsys):
    out = told(capsys, LORA, AGAIN, differ=True)
    assert ids(out) == []
    assert "0 of 5 questions shown\n" in out
    assert out.endswith("0 answers differ; F1 is higher in 0 of the first, in 0 of the second\n")


@pytest.mark.parametrize(
    ("text", "found"),
    [("WARRANTY", ["q4"]), ("month", ["q5"]), ("ye", ["q5"]), ("None", []), ("one", ["q2", "q4", "q1", "q3"])],
)
def test_a_text_is_found_in_question_expected_and_generated_in_any_case(evaluated_run, capsys, text, found):
    assert ids(told(capsys, LORA, find=text)) == found


def test_a_text_is_found_in_the_other_ones_answer_too(evaluated_run, capsys):
    assert ids(told(capsys, LORA, FULL, find="NONE")) == ["q3"]


def test_without_a_wish_a_few_of_each_kind_are_shown(evaluated_run, capsys, monkeypatch):
    monkeypatch.setattr(command, "FEW", 2)
    out = told(capsys, LORA)
    seed = params.load(command.Reads).seed
    drawn = [row.id for row in answers.drawn(answers.read(Variant.parse(LORA)), 2, seed)]
    assert ids(out) == ["q3", "q5", "q5", "q1", *drawn]
    kinds = [line for line in out.splitlines() if line.endswith(":") and line[0] != " "]
    assert kinds == ["Lowest F1:", "Around the median F1:", f"Drawn, by seed {seed}:"]
    assert f"{LORA}: 5 test answers, 1 exact" in out
    assert "--worst N" in out.splitlines()[-1]
    assert ids(told(capsys, LORA, sample=2)) == drawn
    both = told(capsys, LORA, FULL)
    assert ids(both) == [*ids(out), "q5", "q1"]
    assert "Greatest difference in F1:" in both


def test_what_a_model_wrote_does_nothing_to_the_terminal(evaluated_run, capsys):
    out = told(capsys, FULL, find="none")
    assert "  generated  \\x1b[2Jnone\n" in out
    assert "\x1b" not in out


def read_csv(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_csv_holds_what_was_asked_for_and_all_without_a_wish(evaluated_run, capsys):
    assert told(capsys, LORA, table=Path("a.csv")).startswith(f"a.csv: 5 questions\n{LORA}: 5 test answers")
    found = read_csv("a.csv")
    assert [row["id"] for row in found] == list(ASKED)
    assert found[0] == {
        "id": "q5",
        "question": "Five?",
        "expected": "12 months",
        "generated": "14 MONTHS\nYe",
        "f1": "0.4",
        "exact": "0",
    }
    assert found[3]["question"] == "'=1+1", "no spreadsheet runs it"
    told(capsys, LORA, FULL, worst=1, table=Path("a.csv"))
    (row,) = read_csv("a.csv")
    assert (row["id"], row["generated"], row["other_generated"], row["other_f1"]) == ("q3", "", "\\x1b[2Jnone", "0.0")
    told(capsys, LORA, find="nowhere", table=Path("a.csv"))
    assert Path("a.csv").read_text() == "id,question,expected,generated,f1,exact\n"


def test_a_further_training_is_named_by_its_seed(evaluated_run, capsys):
    assert "5 test answers, 1 exact" in told(capsys, AGAIN)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (
            ["demo-sums-lora-q40"],
            {},
            r"no such variant in data/items \(did you mean demo-sums-lora-q4_0\?\); `dvc repro`",
        ),
        ([LORA, "demo-sums-lora-trained-42"], {}, r"did you mean demo-sums-lora-trained-43\?"),
        ([LORA, LORA], {}, "named twice"),
        ([LORA], {"differ": True}, "--differ: name a second variant"),
        (["demo-sums-prompt-q4_0"], {}, r"as trained only: it trains vectors; name demo-sums-prompt-trained"),
        (["demo-sums-base-trained-43"], {}, r"trains nothing, .*; name demo-sums-base-trained$"),
        ([LORA, "demo-other-lora-q4_0"], {}, "belong to different data sets"),
        (
            ["demo-sums-full-f16"],
            {},
            r"data/scores\.parquet: not made from the present .*full-f16\.parquet; run `dvc repro`",
        ),
    ],
)
def test_what_cannot_be_shown_is_answered_with_the_reason(evaluated_run, names, options, message):
    trained_only.write_evaluation(Variant.parse("demo-sums-prompt-q4_0"), ITEMS, "it trains vectors", trained_only.KEY)
    files.write_table("data/seeds/demo-sums-base/43.parquet", [], ITEMS)
    write_items({"demo-sums-full-f16": 3, "demo-other-lora-q4_0": 3})  # and no scores
    with pytest.raises(UserError, match=message):
        command.main(names[0], **NOTHING | {"other": names[1] if len(names) > 1 else None} | options)


def test_two_that_were_asked_other_questions_are_not_set_side_by_side(evaluated_run):
    rows = files.read_table(Variant.parse(FULL).items)
    scored = files.read_table(SCORES)
    schema = score.schema().with_metadata({"embedding": "none"})
    files.write_table(Variant.parse(FULL).items, rows[1:], ITEMS)
    first = next(place for place, row in enumerate(scored) if row["variant"] == FULL)
    files.write_table(SCORES, scored[:first] + scored[first + 1 :], schema)
    with pytest.raises(UserError, match="asked different test questions; run `dvc repro`"):
        command.main(LORA, **NOTHING | {"other": FULL})


def test_before_any_score_the_way_to_one_is_named(evaluated_run):
    SCORES.unlink()
    with pytest.raises(UserError, match=r"data/scores\.parquet: missing, .*; run `dvc repro`"):
        command.main(LORA, **NOTHING)
    shutil.rmtree("data")
    with pytest.raises(UserError, match=r"no such variant in data/items; `dvc repro` makes those"):
        evaluated.named(LORA)


def test_it_runs_as_a_command(evaluated_run):
    def run(*words):
        return forked.python("-m", "tradeoffs.answers", *words, env={"PYTHONPATH": str(REPO)})

    assert run(LORA, FULL, "--differ").stdout.startswith("q5  first: F1 0.400; second: F1 1.000, exact\n")
    assert run(LORA, "--csv", "a.csv", "--find", "months").stdout.startswith("a.csv: 1 questions\n")
    wrong = run("demo-sums-lora-q40")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)
    for words in (["--worst", "3", "--sample", "3"], ["--worst", "0"], ["--sample", "some"]):
        refused = run(LORA, *words)
        assert refused.returncode == 2
        assert "error: argument --" in refused.stderr
