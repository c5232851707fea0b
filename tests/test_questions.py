"""Every question with its options, probabilities and letters is that of the evaluation, and misuse is one message."""

import csv
import math
from pathlib import Path

import forked
import pytest

from tradeoffs import questions
from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.evaluate.items import ITEMS
from tradeoffs.formats import trained_only
from tradeoffs.plumbing.errors import UserError
from tradeoffs.tokenize.tables import QUESTIONS

REPO = Path(__file__).parents[1]
NAME = "demo-sums-lora-q4_0"
CHOICES = ["one", "two, or so", "three", "four"]
# Of two subjects that share an id: probabilities of the options, the right one.
ASKED = {
    ("interest", "q1"): ([0.1, 0.4, 0.2, 0.1], 1),
    ("interest", "q2"): ([0.5, 0.1, 0.1, 0.1], 3),
    ("rates", "q1"): ([0.01, 0.01, 0.01, 0.07], 3),
}


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"split": "test", "item": "t1", "prompt": "?"}]
    for (subject, item), (probabilities, right) in ASKED.items():
        said = {"chosen": probabilities.index(max(probabilities)), "correct_option": right}
        logprobs = [math.log(p) for p in probabilities]
        rows.append({"split": "mmlu", "item": item, "subject": subject, "option_logprobs": logprobs, **said})
    files.write_table(f"data/items/{NAME}.parquet", rows, ITEMS)
    files.write_table("data/items/demo-sums-lora-f16.parquet", rows[:1], ITEMS)
    write_questions(ASKED)
    return tmp_path


def write_questions(asked, choices=CHOICES):
    rows = [
        {"id": item, "subject": subject, "question": f" {subject} {item}? ", "choices": choices}
        for subject, item in asked
    ]
    files.write_table("data/tokens/demo-sums/mmlu.parquet", rows, QUESTIONS)


def test_each_answer_stands_with_its_own_question(evaluated):
    found = questions.answered(NAME)
    assert [(one.subject, one.id) for one in found] == list(ASKED)
    assert [one.question for one in found] == [" interest q1? ", " interest q2? ", " rates q1? "]
    assert [(one.chosen, one.right) for one in found] == [(1, 1), (0, 3), (3, 3)]


def test_a_further_training_is_asked_for_by_its_seed(evaluated):
    place = Path("data/seeds/demo-sums-lora/43.parquet")
    place.parent.mkdir(parents=True)
    place.write_bytes(Path(f"data/items/{NAME}.parquet").read_bytes())
    assert questions.answered("demo-sums-lora-trained-43") == questions.answered(NAME)
    with pytest.raises(UserError, match=r"did you mean demo-sums-lora-trained-43\?"):
        questions.answered("demo-sums-lora-trained-42")


def test_a_further_seed_of_what_trains_nothing_names_the_first(evaluated):
    files.write_table("data/seeds/demo-sums-base/43.parquet", [], ITEMS)
    with pytest.raises(UserError, match=r"trains nothing, .*; name demo-sums-base-trained$"):
        questions.answered("demo-sums-base-trained-43")


def test_probabilities_are_those_of_the_vocabulary_and_shares_those_among_the_four(evaluated):
    last = questions.answered(NAME, "rates")[0]
    assert last.probabilities == pytest.approx([0.01, 0.01, 0.01, 0.07])
    assert last.shares == pytest.approx([0.1, 0.1, 0.1, 0.7])


def test_a_question_is_shown_with_both_letters_marked(evaluated, capsys):
    questions.main(NAME, "interest", wrong=True, table=None)
    assert capsys.readouterr().out == (
        "interest q2  wrong: A, not D\n"
        "interest q2?\n"
        "        0.5   62.5%  chosen        A. one\n"
        "        0.1   12.5%                B. two, or so\n"
        "        0.1   12.5%                C. three\n"
        "        0.1   12.5%   right        D. four\n"
        "\n"
        "interest: 1 of 2 right (50.0%)\n"
    )


def test_the_counts_are_those_of_all_questions_subject_by_subject(evaluated, capsys):
    questions.main(NAME, None, wrong=False, table=None)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "interest: 1 of 2 right (50.0%)",
        "rates: 1 of 1 right (100.0%)",
        "all: 2 of 3 right (66.7%)",
    ]


def test_the_csv_holds_every_question_and_number(evaluated):
    questions.main(NAME, None, wrong=False, table=Path("answers.csv"))
    with Path("answers.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["subject"], row["id"]) for row in rows] == list(ASKED)
    assert (rows[0]["B"], rows[0]["p_B"], rows[0]["share_B"]) == ("two, or so", "0.4", "0.5")
    assert [(row["chosen"], row["right"], row["is_right"]) for row in rows] == [
        ("B", "B", "1"),
        ("A", "D", "0"),
        ("D", "D", "1"),
    ]


def test_the_csv_has_its_head_where_nothing_was_wrong(evaluated):
    questions.main(NAME, "rates", wrong=True, table=Path("answers.csv"))
    head = Path("answers.csv").read_text()
    assert head.startswith("subject,id,question,A,B,C,D,p_A,")
    assert head.endswith("share_D,chosen,right,is_right\n")


def test_what_a_question_holds_does_nothing_to_the_terminal(evaluated, capsys):
    write_questions(ASKED, ["one", "two\x1b[2J", "three", "four"])
    questions.main(NAME, None, wrong=False, table=None)
    assert "B. two\\x1b[2J\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variant", "subject", "message"),
    [
        (
            "demo-sums-lora-q4-0",
            None,
            "demo-sums-lora-q4-0: no such variant in data/items (did you mean demo-sums-lora-q4_0?)",
        ),
        (NAME, "intrest", f"--subject intrest: {NAME} was not asked it (did you mean interest?)"),
        (NAME, "law", f"--subject law: {NAME} was not asked it (there are: interest, rates)"),
        ("demo-sums-lora-f16", None, "demo-sums-lora-f16: was asked no multiple-choice questions"),
    ],
)
def test_a_wrong_name_is_answered_with_the_near_one(evaluated, variant, subject, message):
    with pytest.raises(UserError) as error:
        questions.answered(variant, subject)
    assert str(error.value).startswith(message)


def test_a_variant_that_could_not_be_made_is_answered_with_the_reason(evaluated):
    trained_only.write_evaluation(Variant.parse("demo-sums-prompt-q4_0"), ITEMS, "it trains vectors", trained_only.KEY)
    with pytest.raises(UserError, match=r"as trained only: it trains vectors; name demo-sums-prompt-trained"):
        questions.answered("demo-sums-prompt-q4_0")


def test_questions_that_changed_since_are_not_shown_as_these(evaluated):
    write_questions(list(ASKED)[1:])
    with pytest.raises(UserError, match=r"its questions are not those of data/tokens/demo-sums/mmlu\.parquet; run"):
        questions.answered(NAME)
    Path("data/tokens/demo-sums/mmlu.parquet").unlink()
    with pytest.raises(UserError, match=r"mmlu\.parquet: missing, it holds the questions; run `dvc repro tokenize@"):
        questions.answered(NAME)


def test_before_any_evaluation_the_way_to_one_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such variant in data/items; `dvc repro` makes those of the run list"):
        questions.answered(NAME)


def test_it_runs_as_a_command(evaluated):
    def run(*words):
        command = ["-m", "tradeoffs.questions", *words]
        return forked.python(*command, env={"PYTHONPATH": str(REPO)})

    assert "interest q2  wrong: A, not D" in run(NAME, "--wrong").stdout
    wrong = run("demo-sums-lora-q40")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: demo-sums-lora-q40: no such variant")
    assert "--subject" in run("--help").stdout
    assert run(NAME, "--csv", "answers.csv").stdout.startswith("answers.csv: 3 questions\n")
