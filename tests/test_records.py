"""Reading datasets: every format gives the same rows, and every mistake one message that says where it is."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tradeoffs import records
from tradeoffs.errors import UserError
from tradeoffs.params import Columns

COLUMNS = Columns(instruction="ask", input="more", answer="reply")
ROWS = [
    {"ask": "What is debt?", "more": "", "reply": "Money that is owed, with interest."},
    {"ask": "Add up.", "more": "1\n2", "reply": "3"},
]
EXPECTED = [
    {"prompt": "What is debt?", "answer": "Money that is owed, with interest."},
    {"prompt": "Add up.\n\n1\n2", "answer": "3"},
]
MMLU = Path("../shared/data/mmlu")


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def problem(path, columns=COLUMNS):
    with pytest.raises(UserError) as error:
        records.read(path, columns)
    return str(error.value)


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_examples(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    if suffix == "json":
        write(path, json.dumps(ROWS))
    elif suffix == "jsonl":
        write(path, "\n".join(map(json.dumps, ROWS)) + "\n\n")
    elif suffix == "csv":
        write(path, 'ask,more,reply\nWhat is debt?,,"Money that is owed, with interest."\nAdd up.,"1\n2",3\n')
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    assert records.read(path, COLUMNS) == EXPECTED


def test_text_is_split_at_empty_lines(tmp_path):
    path = write(tmp_path / "a.txt", "\nFirst line\nsecond line.\n\n \n\nNext document.\n")
    assert records.read(path, None) == [{"text": "First line\nsecond line."}, {"text": "Next document."}]


def test_text_without_empty_lines_holds_a_document_per_line(tmp_path):
    path = write(tmp_path / "a.txt", "One.\nTwo.\n")
    assert records.read(path, None) == [{"text": "One."}, {"text": "Two."}]


def test_a_text_column_can_come_from_any_format(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"body": "Hello."}\n')
    assert records.read(path, Columns(text="body")) == [{"text": "Hello."}]


def test_the_answer_of_a_pair_is_the_chosen_one(tmp_path):
    columns = Columns(instruction="ask", input="more", chosen="good", rejected="bad")
    path = write(tmp_path / "a.jsonl", '{"ask": "Sum?", "more": "1 2", "good": 3, "bad": " four ", "reply": "x"}\n')
    assert records.read(path, columns) == [{"prompt": "Sum?\n\n1 2", "answer": "3", "rejected": "four"}]


@pytest.mark.parametrize("lacking", ["good", "bad"])
def test_a_pair_without_one_of_its_answers_is_told_which_columns_there_are(tmp_path, lacking):
    columns = Columns(instruction="ask", chosen="good", rejected="bad")
    row = {name: "x" for name in ("ask", "good", "bad") if name != lacking}
    path = write(tmp_path / "a.jsonl", json.dumps(row))
    assert problem(path, columns) == f"{path}:1: no column {lacking!r} (there are: {', '.join(row)})"


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfask,reply\nWho?,Me\n")
    columns = Columns(instruction="ask", answer="reply")
    assert records.read(path, columns) == [{"prompt": "Who?", "answer": "Me"}]


def test_an_input_column_that_no_row_has_is_a_typo_and_one_that_some_lack_is_not(tmp_path):
    some = write(tmp_path / "some.jsonl", '{"ask": "1", "reply": "2"}\n{"ask": "1", "more": "3", "reply": "2"}\n')
    assert [row["prompt"] for row in records.read(some, COLUMNS)] == ["1", "1\n\n3"]
    none = write(tmp_path / "none.jsonl", '{"ask": "1", "mroe": "3", "reply": "2"}\n')
    assert problem(none).endswith("no column 'more' (did you mean mroe?)")


def test_numbers_become_text_and_null_becomes_empty(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"ask": "1+1", "reply": 2}\n{"ask": "x", "more": null, "reply": null}\n')
    assert records.read(path, COLUMNS) == [{"prompt": "1+1", "answer": "2"}, {"prompt": "x", "answer": ""}]


def test_missing_file_says_what_is_there(tmp_path):
    assert problem(tmp_path / "x.csv") == f"{tmp_path}/x.csv: no such file, and no other data file in {tmp_path}"
    (tmp_path / "train.jsonl").touch()
    (tmp_path / "trian.log").touch()
    assert problem(tmp_path / "trian.jsonl") == f"{tmp_path}/trian.jsonl: no such file (did you mean train.jsonl?)"
    assert problem(tmp_path / "x.csv") == f"{tmp_path}/x.csv: no such file (there are: train.jsonl)"


def test_unknown_suffix_names_the_known_ones(tmp_path):
    path = write(tmp_path / "a.xlsx", "")
    assert problem(path) == f"{path}: unknown suffix '.xlsx'; known are .json, .jsonl, .csv, .parquet, .txt"


def test_broken_jsonl_names_file_and_line(tmp_path):
    path = write(tmp_path / "a.jsonl", json.dumps(ROWS[0]) + '\n\n{"ask": \n')
    assert problem(path) == f"{path}:3: not valid JSON: Expecting value (column 8)"


def test_broken_json_names_file_and_line(tmp_path):
    path = write(tmp_path / "a.json", '[\n{"ask": 1},\n{"ask" 2}\n]')
    assert problem(path) == f"{path}:3: not valid JSON: Expecting ':' delimiter"


def test_json_must_be_an_array_of_objects(tmp_path):
    path = write(tmp_path / "a.json", '{"ask": 1}')
    assert problem(path) == f"{path}: must be an array of objects, is a dict; one object a line is .jsonl"
    path = write(tmp_path / "b.json", "[1]")
    assert problem(path) == f"{path}: entry 1: must be an object with named columns, is a int"


def test_a_missing_column_is_answered_with_the_near_one_or_all(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"ask": "x", "replay": "y"}\n')
    assert problem(path) == f"{path}:1: no column 'reply' (did you mean replay?)"
    path = write(tmp_path / "b.jsonl", '{"ask": "x", "output": "y"}\n')
    assert problem(path) == f"{path}:1: no column 'reply' (there are: ask, output)"


def test_a_column_of_lists_is_no_text(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"ask": ["x"], "reply": "y"}\n')
    assert problem(path) == f"{path}:1: column 'ask' must hold text, is a list"


def test_a_csv_row_with_a_field_too_many_names_its_line(tmp_path):
    path = write(tmp_path / "a.csv", "ask,reply\nWho?,Me\nWho, then?,You\n")
    assert problem(path) == f"{path}:3: 3 fields, the header has 2; quote fields that hold commas"


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "txt"])
def test_bytes_that_are_not_utf8_name_their_line(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b'{"ask": "x", "reply": "y"}\n{"ask": "caf\xe9", "reply": "y"}\n')
    message = problem(path)
    assert message.startswith(f"{path}:2: not UTF-8 (") and message.endswith("save the file as UTF-8")


def test_a_file_that_is_no_parquet_is_said_to_be_none(tmp_path):
    path = write(tmp_path / "a.parquet", "ask,reply\n")
    assert problem(path).startswith(f"{path}: not a Parquet file: ")


def mmlu_folder(tmp_path):
    for split in ("dev", "test"):
        (tmp_path / split).mkdir()
        for subject in ("anatomy", "virology"):
            write(tmp_path / split / f"{subject}_{split}.csv", f'"{split}, which?",a,b,c,d,C\n')
    return tmp_path


def test_mmlu_files_are_read_as_dev_and_test(tmp_path):
    rows = records.read_mmlu(mmlu_folder(tmp_path), ["virology"], "datasets.x.mmlu")
    assert rows == [
        {"subject": "virology", "split": s, "question": f"{s}, which?", "choices": ["a", "b", "c", "d"], "answer": 2}
        for s in ("dev", "test")
    ]
    assert len(records.read_mmlu(tmp_path, None, "datasets.x.mmlu")) == 4


@pytest.mark.parametrize(
    ("subject", "hint"), [("virolgy", "did you mean virology?"), ("law", "there are: anatomy, virology")]
)
def test_an_unknown_subject_is_answered_with_the_near_one_or_all(tmp_path, subject, hint):
    with pytest.raises(UserError) as error:
        records.read_mmlu(mmlu_folder(tmp_path), ["anatomy", subject], "datasets.x.mmlu")
    assert str(error.value) == f"datasets.x.mmlu.subjects[1]: no subject {subject!r} in {tmp_path} ({hint})"


def test_a_folder_without_mmlu_files_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"datasets\.x\.mmlu\.path: .* has no test/<subject>_test\.csv"):
        records.read_mmlu(tmp_path, None, "datasets.x.mmlu")


def test_a_broken_mmlu_line_is_named(tmp_path):
    path = write(mmlu_folder(tmp_path) / "test" / "anatomy_test.csv", "q,a,b,c,d,A\nq,a,b,c,d,E\n")
    with pytest.raises(UserError) as error:
        records.read_mmlu(tmp_path, ["anatomy"], "datasets.x.mmlu")
    assert str(error.value) == f"{path}:2: expected question, four choices and a letter from A to D"


@pytest.mark.skipif(not MMLU.is_dir(), reason="no ../shared/data/mmlu")
def test_the_original_mmlu_is_read_whole():
    rows = records.read_mmlu(MMLU, None, "datasets.x.mmlu")
    assert len({row["subject"] for row in rows}) == 57
    assert sum(row["split"] == "test" for row in rows) == 14042
    assert all(sum(r["split"] == "dev" for r in rows if r["subject"] == s) == 5 for s in ("anatomy", "virology"))
