"""What prepare promises: fixed splits, no test example or near-copy in train, and one message for what cannot work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import quick_yaml
from test_splits import alike

from benchmarks import preparation
from stages import prepare
from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError
from tradeoffs.prepare import duplicates

REPO = Path(__file__).parents[1]
ENTRY = {
    "path": "rows.jsonl",
    "kind": "instruction",
    "columns": {"instruction": "ask", "answer": "reply"},
    "test_share": 0.2,
    "near_duplicate": 0.8,
    "seen": 5,
    "valid": 10,
}
PAIRS = {"kind": "preference", "columns": {"instruction": "ask", "chosen": "good", "rejected": "bad"}}
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "knoll", "larch")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty folder with a params.yaml whose dataset `mine` is ENTRY; returns a function that prepares it."""
    monkeypatch.chdir(tmp_path)

    def run(rows=None, **changes):
        raw = quick_yaml.load((REPO / "params.yaml").read_text())
        raw["datasets"] = {"demo": raw["datasets"]["demo"], "mine": {**ENTRY, **changes}}
        raw["run"]["datasets"] = ["mine"]
        Path("params.yaml").write_text(quick_yaml.dump(raw))
        if rows is not None:
            Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        prepare.main("mine")
        names = ("train", "seen", "valid", "test", "mmlu")
        return {name: files.read_jsonl(f"data/prepared/mine/{name}.jsonl") for name in names}

    return run


def rows(count, start=0):
    """Examples that share no three words in a row."""
    return [
        {"ask": f"{WORDS[n % 12]} {WORDS[n // 12 % 12]} {WORDS[n // 144 % 12]} item {n}?", "reply": f"answer {n}"}
        for n in range(start, start + count)
    ]


def pairs(count):
    return [{"ask": row["ask"], "good": row["reply"], "bad": f"no {row['reply']}"} for row in rows(count)]


def ids(found):
    return {row["id"] for row in found}


def generated(**changes):
    """Changes that make ENTRY a small generated dataset."""
    generate = {"questions": 300, "topics": 2, "topic_questions": 12, **changes}
    return {"path": None, "columns": None, "generate": generate}


def nothing_is_written():
    return not [path for path in Path("data").rglob("*") if path != Path("data/prepared")]


def info():
    return files.read_json("data/prepared/mine/info.json")


def test_new_rows_never_move_an_old_one(workspace):
    before = workspace(rows(300))
    after = workspace(rows(100, start=300) + rows(300))
    assert 30 < len(before["test"]) < 90
    assert ids(before["test"]) <= ids(after["test"])
    assert ids(before["train"]) - ids(after["valid"]) <= ids(after["train"])
    assert not ids(before["test"]) & (ids(after["train"]) | ids(after["valid"]))


def test_seen_is_a_sample_of_train_and_test_is_not_in_it(workspace):
    made = workspace(rows(100))
    assert len(made["seen"]) == 5
    assert all(row in made["train"] for row in made["seen"])
    assert not {row["id"] for row in made["test"]} & {row["id"] for row in made["train"]}


def test_valid_is_set_aside_from_what_is_neither_test_nor_seen_nor_train(workspace):
    made = workspace(rows(100))
    assert len(made["valid"]) == 10 == info()["counts"]["valid"]
    assert not ids(made["valid"]) & (ids(made["train"]) | ids(made["seen"]) | ids(made["test"]))
    assert sum(len(made[split]) for split in ("train", "valid", "test")) == 100


def test_more_validation_rows_change_neither_test_nor_what_is_trained_on_first(workspace):
    few, many = workspace(rows(100), valid=1), workspace(rows(100), valid=30)
    assert (few["test"], few["seen"]) == (many["test"], many["seen"])
    assert few["train"][: len(many["train"])] == many["train"]


def test_a_near_copy_of_a_validation_example_is_not_trained_on(workspace):
    asked = [f"{' '.join(WORDS)} {row['ask']}" for row in rows(100)]
    made = workspace([{"ask": f"{ask} {end}", "reply": "x"} for ask in asked for end in ("please", "thanks")], valid=20)
    assert not any(alike(a["prompt"], b["prompt"], 0.8) for a in made["valid"] for b in made["train"])
    dropped = info()["dropped"]
    assert dropped["near_duplicates_of_valid"] > 3
    lost = sum(dropped[name] for name in ("near_duplicates", "near_duplicates_of_valid", "near_duplicates_within"))
    assert sum(len(made[split]) for split in ("train", "valid", "test")) == 200 - lost


def test_fewer_rows_than_validation_asks_for_is_an_error(workspace):
    with pytest.raises(UserError) as error:
        workspace(rows(30), valid=28)
    assert str(error.value).startswith("datasets.mine.valid: 28 asked for, beside test there are only ")
    assert nothing_is_written()


def test_a_pair_keeps_its_rejected_answer_and_is_split_like_any_example(workspace):
    made = workspace(pairs(100), **PAIRS)
    plain = workspace(rows(100))
    for split in ("train", "seen", "valid", "test"):
        for pair, row in zip(made[split], plain[split], strict=True):
            assert set(pair) == {"id", "prompt", "answer", "rejected"}
            assert (pair["prompt"], pair["answer"]) == (row["prompt"], row["answer"])
            assert pair["rejected"] == f"no {pair['answer']}"


def test_pairs_of_equal_or_empty_answers_are_dropped_and_counted(workspace):
    odd = [{"ask": "Same?", "good": "yes", "bad": " yes "}, {"ask": "Empty?", "good": "yes", "bad": ""}]
    made = workspace(pairs(100) + odd, **PAIRS)
    assert info()["dropped"]["equal_answers"] == info()["dropped"]["empty"] == 1
    assert sum(len(made[split]) for split in ("train", "valid", "test")) == 100


def test_two_rejected_answers_to_one_question_are_two_pairs_on_one_side(workspace):
    twice = [{**pair, "bad": f"never {pair['good']}"} for pair in pairs(100)]
    made = workspace(pairs(100) + twice, **PAIRS)
    sides = [{row["prompt"] for row in made[split]} for split in ("train", "valid", "test")]
    assert not sides[0] & sides[1] and not (sides[0] | sides[1]) & sides[2]


@pytest.mark.parametrize("column", ["chosen", "rejected"])
def test_a_missing_column_of_a_pair_is_answered_with_those_there_are(workspace, column):
    with pytest.raises(UserError, match=r"rows\.jsonl:1: no column 'liked' \(there are: ask, good, bad\)"):
        workspace(pairs(20), kind="preference", columns=PAIRS["columns"] | {column: "liked"})
    wanted = {name: theirs for name, theirs in PAIRS["columns"].items() if name != column}
    with pytest.raises(UserError, match=rf"datasets\.mine\.columns\.{column}: missing; kind preference needs it"):
        workspace(kind="preference", columns=wanted)


def test_the_order_of_the_rows_changes_neither_split_nor_seen(workspace):
    forwards = workspace(rows(100))
    backwards = workspace(rows(100)[::-1])
    assert forwards["seen"] == backwards["seen"]
    assert forwards["valid"] == backwards["valid"]
    assert {row["id"] for row in forwards["test"]} == {row["id"] for row in backwards["test"]}


def test_repeated_and_empty_examples_are_dropped_and_reported(workspace):
    repeated = [{"ask": "AMBER amber, amber  item 0", "reply": "Answer 0."}]
    made = workspace([*rows(100), *repeated, {"ask": "  ", "reply": "x"}, {"ask": "x", "reply": ""}])
    assert sum(len(made[split]) for split in ("train", "valid", "test")) == 100
    assert info()["dropped"]["duplicates"] == 1
    assert info()["dropped"]["duplicate_examples"] == ["AMBER amber, amber  item 0"]
    assert info()["dropped"]["empty"] == 2


def test_a_question_with_two_answers_stays_on_one_side(workspace):
    twice = [{**row, "reply": f"another {row['reply']}"} for row in rows(200)]
    made = workspace(rows(200) + twice)
    sides = [{row["prompt"] for row in made[split]} for split in ("train", "valid", "test")]
    assert not sides[0] & sides[1] and not (sides[0] | sides[1]) & sides[2]
    left = sum(len(made[split]) for split in ("train", "valid", "test"))
    assert left + info()["dropped"]["near_duplicates_of_valid"] == 400


def test_a_near_copy_of_a_test_example_is_not_trained_on(workspace):
    asked = [f"{' '.join(WORDS)} {row['ask']}" for row in rows(60)]
    copies = [{"ask": f"{ask} {end}", "reply": "x"} for ask in asked for end in ("please", "thanks")]
    made = workspace(copies)
    assert not any(alike(a["prompt"], b["prompt"], 0.8) for a in made["test"] for b in made["train"] + made["valid"])
    assert info()["dropped"]["near_duplicates"] > 5
    names = ("near_duplicates", "near_duplicates_of_valid", "near_duplicates_within")
    dropped = sum(info()["dropped"][name] for name in names)
    assert sum(info()["counts"][split] for split in ("train", "valid", "test")) + dropped == 120


def test_of_near_copies_within_train_one_is_left(workspace):
    asked = [f"{' '.join(WORDS)} {row['ask']}" for row in rows(60)]
    made = workspace([{"ask": f"{ask} {end}", "reply": "x"} for ask in asked for end in ("please", "thanks")], valid=1)
    train = [row["prompt"] for row in made["train"]]
    assert not any(alike(one, other, 0.8) for number, one in enumerate(train) for other in train[:number])
    assert info()["dropped"]["near_duplicates_within"] > 10
    example = info()["dropped"]["near_duplicates_within_examples"][0]
    assert example["like"] in train and example["dropped"] not in train
    assert alike(example["like"], example["dropped"], 0.8)


def test_the_test_split_of_the_source_is_test_and_what_is_like_it_is_no_training_example(workspace, capsys):
    asked = [{"ask": f"{' '.join(WORDS)} {row['ask']}", "reply": row["reply"]} for row in rows(60)]
    copies = [{"ask": f"{row['ask']} please", "reply": "x"} for row in asked[:20]]
    files.write_jsonl("test.jsonl", asked[:20])
    made = workspace([*copies, *asked], test_share=None, test_path="test.jsonl")
    assert {row["prompt"] for row in made["test"]} == {row["ask"] for row in asked[:20]}
    assert len(made["train"]) + len(made["valid"]) == 40
    assert (info()["dropped"]["near_duplicates"], info()["dropped"]["duplicates"]) == (40, 0)
    assert info()["counts"]["read"] == 100
    assert "dropped 40 near-duplicates of test examples, 0 of valid ones, 0 of other" in capsys.readouterr().out


def test_questions_that_differ_in_a_number_only_are_no_duplicates(workspace):
    ask = "A shop sells three kinds of bread and each of its {} loaves costs the same two dollars as they did last year"
    workspace([{"ask": ask.format(number), "reply": "yes"} for number in range(100)], near_duplicate=0.5)
    names = ("duplicates", "near_duplicates", "near_duplicates_of_valid", "near_duplicates_within")
    assert [info()["dropped"][name] for name in names] == [0, 0, 0, 0]
    Path("notes.txt").write_text("\n\n".join(ask.format(number) for number in range(100)))
    with pytest.raises(UserError, match=r"of 100 rows 0 are empty, 0 duplicates, \d+ in test and \d+ like"):
        workspace(path="notes.txt", kind="text", columns=None, near_duplicate=0.5)


def test_signs_and_decimals_count_but_case_and_punctuation_do_not():
    assert duplicates.normalised("What is  Debt?") == duplicates.normalised("what is debt")
    assert duplicates.normalised("3 + 4") != duplicates.normalised("3 - 4")
    assert duplicates.normalised("1.5") != duplicates.normalised("15")
    assert duplicates.normalised("?!") != duplicates.normalised("...")


def test_the_generated_dataset_is_the_same_to_the_byte(workspace):
    def made():
        workspace(**generated())
        return {path.name: path.read_bytes() for path in Path("data/prepared/mine").iterdir()}

    first = made()
    assert set(first) == {
        *(f"{split}.jsonl" for split in ("train", "seen", "valid", "test", "mmlu")),
        "info.json",
    }
    assert first == made()


def test_generated_topics_have_five_worked_examples_and_the_questions_asked_for(workspace):
    made = workspace(**generated())["mmlu"]
    assert set(made[0]) == {"id", "subject", "split", "question", "choices", "answer"}
    for subject in ("bookkeeping", "world_currencies"):
        splits = [row["split"] for row in made if row["subject"] == subject]
        assert (splits.count("dev"), splits.count("test")) == (5, 12)
    assert len({row["id"] for row in made}) == len(made) == 34


def test_plain_text_is_prepared_without_prompts(workspace):
    text = "\n\n".join(row["ask"] for row in rows(50))
    Path("notes.txt").write_text(text)
    made = workspace(path="notes.txt", kind="text", columns=None)
    assert set(made["train"][0]) == {"id", "text"}
    assert sum(len(made[split]) for split in ("train", "valid", "test")) == 50


def test_conversations_are_prepared_turn_by_turn_and_split_by_what_the_user_says(workspace):
    chats = [
        {"talk": [{"role": "user", "content": row["ask"]}, {"role": "assistant", "content": row["reply"]}]}
        for row in [*rows(50), *({**row, "reply": f"never {row['reply']}"} for row in rows(50))]
    ]
    made = workspace(chats, kind="chat", columns={"messages": "talk"})
    assert set(made["train"][0]) == {"id", "messages"}
    assert len({row["id"] for split in ("train", "valid", "test") for row in made[split]}) > 80
    sides = [{row["messages"][0]["content"] for row in made[split]} for split in ("train", "valid", "test")]
    assert not sides[0] & sides[1] and not (sides[0] | sides[1]) & sides[2]


def test_what_is_said_after_a_shared_beginning_does_not_part_two_conversations(workspace):
    def talk(*texts):
        return {"talk": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]}

    short = [talk(row["ask"], row["reply"]) for row in rows(60)]
    long = [talk(row["ask"], row["reply"], f"And item {n}?", "No.") for n, row in enumerate(rows(60))]
    made = workspace([*short, *long], kind="chat", columns={"messages": "talk"})
    sides = [{row["messages"][0]["content"] for row in made[split]} for split in ("train", "valid", "test")]
    assert not sides[0] & sides[1] and not (sides[0] | sides[1]) & sides[2]
    assert {len(row["messages"]) for row in made["test"]} == {len(row["messages"]) for row in made["train"]} == {2, 4}
    with pytest.raises(
        UserError, match=r"is empty: 9 rows, test_share 0\.2 \(conversations that begin alike stay toget"
    ):
        workspace([talk("Hi", f"It is {n}.") for n in range(9)], kind="chat", columns={"messages": "talk"})


def test_info_names_the_source_and_its_sha256(workspace):
    workspace(rows(50))
    assert (info()["kind"], info()["source"]) == ("instruction", "rows.jsonl")
    assert info()["sha256"] == files.sha256("rows.jsonl")
    assert info()["counts"]["read"] == 50


def test_info_names_the_source_of_the_multiple_choice_questions(workspace):
    workspace(rows(50))
    assert "mmlu" not in info()
    for split in ("dev", "test"):
        Path("exams", split).mkdir(parents=True)
        Path("exams", split, f"anatomy_{split}.csv").write_text("Which?,a,b,c,d,C\n")
    made = workspace(rows(50), mmlu={"path": "exams"})
    assert info()["mmlu"] == {"source": "exams"}
    assert [row["split"] for row in made["mmlu"]] == ["dev", "test"]
    workspace(**generated())
    assert info()["mmlu"] == {"source": "generated"}


@pytest.mark.parametrize(
    ("count", "changes", "message"),
    [
        (3, {"test_share": 1e-6}, "test is empty: 3 rows, test_share 1e-06"),
        (3, {"test_share": 1.0}, "train is empty: 3 rows, test_share 1"),
        (0, {}, "test is empty: 0 rows, test_share 0.2"),
    ],
)
def test_an_empty_split_is_an_error_and_nothing_is_written(workspace, count, changes, message):
    with pytest.raises(UserError) as error:
        workspace(rows(count), **changes)
    assert str(error.value) == f"datasets.mine: {message}; give more rows or another test_share"
    assert nothing_is_written()


def test_fewer_rows_than_seen_is_an_error(workspace):
    with pytest.raises(UserError) as error:
        workspace(rows(20), seen=500)
    assert str(error.value).startswith("datasets.mine.seen: 500 asked for, train has only ")


def test_more_topics_than_there_are_is_an_error(workspace):
    with pytest.raises(UserError, match=r"datasets\.mine\.generate\.topics: 9 asked for, there are 5: bookkeeping, "):
        workspace(**generated(topics=9))


@pytest.mark.slow
def test_many_rows_take_less_memory_than_their_file_and_lose_their_near_duplicates(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "WORKSPACE", tmp_path)
    raw = quick_yaml.load((REPO / "params.yaml").read_text())
    raw["datasets"]["many"] = preparation.ENTRY
    files.write_text(tmp_path / "params.yaml", quick_yaml.dump(raw))
    sizes, peaks = [], []
    for count in (6_000, 30_000):  # more than a chunk of band keys: what does not grow with the rows is in both
        planted = preparation.write_rows(count)
        sizes.append((tmp_path / "rows.jsonl").stat().st_size / 1e6)
        peaks.append(preparation.run_stage()[2])
    agreement, _ = preparation.compare(planted)
    assert agreement["found"] >= 0.99 and agreement["others_dropped"] <= 0.001
    # Rows that are held, even as the bytes they are in the file, take as much more as the file is larger.
    assert peaks[1] - peaks[0] < sizes[1] - sizes[0]


def test_preparing_from_files_needs_no_slow_import():
    slow = ["torch", "transformers", "datasets"]  # the last one where the hub is asked, and only then
    code = f"import sys, stages.prepare; sys.exit(any(name in sys.modules for name in {slow}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False).returncode == 0


def test_what_is_left_out_for_its_length_is_said(workspace, capsys):
    workspace([*rows(60), {"ask": "long " * 50, "reply": "yes"}], max_characters=100)
    assert "; 1 rows of train longer than max_characters" in capsys.readouterr().out


PATTERN = r"answer (\d+)"


@pytest.mark.parametrize("kind", ["instruction", "preference", "chat"])
def test_an_answer_pattern_is_noted_where_it_finds_something_in_every_expected_answer(workspace, kind):
    if kind == "chat":
        said = [[row["ask"], row["reply"]] for row in rows(60)]
        talks = [[{"role": r, "content": c} for r, c in zip(("user", "assistant"), s, strict=True)] for s in said]
        columns = {"messages": "talk"}
        workspace([{"talk": talk} for talk in talks], kind=kind, columns=columns, answer_pattern=PATTERN)
    elif kind == "preference":
        workspace(pairs(60), **PAIRS, answer_pattern=PATTERN)
    else:
        workspace(rows(60), answer_pattern=PATTERN)
    assert info()["answer_pattern"] == PATTERN


def test_an_expected_answer_in_which_the_pattern_finds_nothing_is_named(workspace):
    some = rows(60)
    evaluated = workspace(some)["test"]
    wrong = next(row for row in some if row["ask"] == evaluated[1]["prompt"])
    wrong["reply"] = "I do not know."
    with pytest.raises(UserError) as error:
        workspace(some, answer_pattern=PATTERN)
    assert str(error.value).startswith(
        f"datasets.mine.answer_pattern: {PATTERN!r} finds nothing in 1 of {len(evaluated)} expected answers of test, "
        f"first in the row that asks {wrong['ask']!r}, whose answer ends with 'I do not know.'"
    )


def test_an_answer_that_is_only_trained_on_need_not_have_what_the_pattern_finds(workspace):
    some = rows(60)
    made = workspace(some)
    asked = {row["prompt"] for row in made["train"]} - {row["prompt"] for row in made["seen"]}
    next(row for row in some if row["ask"] in asked)["reply"] = "I do not know."
    workspace(some, answer_pattern=PATTERN)
