"""Data files that are not as they should be: each is one message that says where, and no text becomes another."""

import errno
import os
from functools import partial
from types import SimpleNamespace

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_records
from test_hub_mmlu import questions

from benchmarks.breaking import WELL, data
from tradeoffs import params
from tradeoffs.base import general_text
from tradeoffs.common import examples, files
from tradeoffs.params import Columns
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import LISTED, UserError, near
from tradeoffs.prepare import answer_patterns, hub_datasets, hub_mmlu, mmlu_files
from tradeoffs.sources import formats, hub

COLUMNS = Columns(instruction="q", answer="a")
WHERE = "datasets.x.mmlu"
# Of these columns, where a test names no others.
read, problem = (partial(one, columns=COLUMNS) for one in (test_records.read, test_records.problem))


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# What is there twice, or is no number


@pytest.mark.parametrize("said", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_no_answer(tmp_path, said):
    path = write(tmp_path / "a.jsonl", f'{{"q": "x", "a": "y"}}\n{{"q": "x", "a": {said}}}\n')
    value = said.lower().replace("infinity", "inf")
    assert problem(path) == f"{path}:2: column 'a' holds {value}, which is no number; leave it empty"


def test_nor_is_it_in_parquet(tmp_path):
    pq.write_table(pa.table({"q": ["x", "x"], "a": [1.5, float("nan")]}), tmp_path / "a.parquet")
    said = "row 2: column 'a' holds nan, which is no number; leave it empty"
    assert problem(tmp_path / "a.parquet") == f"{tmp_path / 'a.parquet'}: {said}"


def test_what_no_column_reads_may_be_no_number(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"q": "x", "a": "y", "score": NaN}\n')
    assert read(path) == [{"prompt": "x", "answer": "y"}]


TWICE = "'a' is there more than once; keep only the one that is meant"


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("a.csv", "q,a,a\nx,1,2\n", ":2"),
        ("a.jsonl", '{"q": "x", "a": "1"}\n{"q": "x", "a": "1", "a": "2"}\n', ":2"),
        ("a.json", '[{"q": "x", "a": "1", "a": "1"}]', ": entry 1"),
    ],
)
def test_a_name_that_is_there_twice_is_not_guessed(tmp_path, name, content, where):
    path = write(tmp_path / name, content)
    assert problem(path) == f"{path}{where}: {TWICE}"


def test_nor_are_two_columns_of_parquet(tmp_path):
    table = pa.table([pa.array(["x"]), pa.array(["1"]), pa.array(["2"])], names=["q", "a", "a"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert problem(tmp_path / "a.parquet") == f"{tmp_path / 'a.parquet'}: row 1: {TWICE}"


@pytest.mark.parametrize("header", ["q,a,,", "q,a,note,note"])
def test_columns_that_nothing_reads_may_be_of_one_name(tmp_path, header):
    path = write(tmp_path / "a.csv", f"{header}\nx,y,1,2\n")
    assert read(path) == [{"prompt": "x", "answer": "y"}]


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ('{"role": "user", "role": "assistant", "content": "x"}', "role is there more than once; known are"),
        (
            '{"role": "assistant", "content": "x", "content": "y"}',
            "column 'content' must hold text, is there more",
        ),
        ('{"role": ["user"], "content": "x"}', "role is ['user']; known are"),
        ('{"role": {"a": 1}, "content": "x"}', "role is {'a': 1}; known are"),
    ],
)
def test_a_turn_that_nobody_says_is_named(tmp_path, turn, said):
    path = write(tmp_path / "a.jsonl", f'{{"talk": [{turn}]}}\n')
    assert problem(path, columns=Columns(messages="talk")).startswith(f"{path}:1: message 1 in 'talk': {said}")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("3.14159265358979323846", "3.14159265358979323846"),  # a float has no room for it
        ("1e999", "1e999"),
        ("1e-999", "1e-999"),
        ("1e99999999999999999999", "1e99999999999999999999"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("0.1", "0.1"),
        ("1.10", "1.1"),
        ("1e5", "100000.0"),
    ],
)
def test_no_digit_of_a_number_is_lost(tmp_path, written, text):
    path = write(tmp_path / "a.jsonl", f'{{"q": "x", "a": {written}}}\n')
    assert read(path) == [{"prompt": "x", "answer": text}]


# What cannot be read


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "not readable JSON: lists or objects in each other, hundreds deep"),
        ('{"a":' * 100_000, "not readable JSON: lists or objects in each other, hundreds deep"),
        ('{"q": "x", "a": ' + "7" * 5000 + "}", "not readable JSON: a number of thousands of digits; put it in quotes"),
        (r'{"q": "x", "a": "y\ud800z"}', r"column 'a' holds '\ud800', half of a character"),
    ],
)
def test_json_that_cannot_be_used_is_named_by_its_line(tmp_path, content, said):
    path = write(tmp_path / "a.jsonl", content)
    assert problem(path).startswith(f"{path}:1: {said}")


def test_so_it_is_in_one_array(tmp_path):
    path = write(tmp_path / "a.json", "[" * 100_000)
    assert problem(path) == f"{path}: not readable JSON: lists or objects in each other, hundreds deep"


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_a_file_of_two_bytes_a_character_is_no_text(tmp_path, name):
    path = write(tmp_path / name, "q,a\nx,y\n".encode("utf-16-le"))
    assert problem(path, columns=None if name == "a.txt" else COLUMNS) == (
        f"{path}:1: holds a NUL character, as UTF-16 and binary files do; save the file as UTF-8"
    )


def test_a_quote_that_is_never_closed_is_named_by_the_row_that_it_begins(tmp_path):
    path = write(tmp_path / "a.csv", 'q,a\nx,y\nx,"y\n' + "x,y\n" * 9)
    said = "not valid CSV: unexpected end of data; a quote of the row that begins here is never closed"
    assert problem(path) == f"{path}:3: {said}"


def test_a_field_may_be_long_and_not_endless(tmp_path, monkeypatch):
    path = write(tmp_path / "a.csv", "q,a\nx," + "y" * 200_000 + "\n")
    assert read(path) == [{"prompt": "x", "answer": "y" * 200_000}]
    monkeypatch.setattr(formats, "FIELD_CHARACTERS", 1000)
    assert problem(path).startswith(f"{path}:2: not valid CSV: field larger than field limit (1000); a quote")


def damaged_parquet(tmp_path, compression="snappy"):
    path = tmp_path / "a.parquet"
    table = pa.table({"q": [f"question {n}" for n in range(3000)], "a": [f"answer {n}" for n in range(3000)]})
    pq.write_table(
        table, path, compression=compression, write_page_checksum=compression == "none", use_dictionary=False
    )
    return path, bytearray(path.read_bytes())


@pytest.mark.parametrize("place", [200, -20, -300, 4])
def test_damaged_parquet_is_one_message(tmp_path, place):
    path, content = damaged_parquet(tmp_path)
    content[place : place + 10] = b"\xff" * 10
    write(path, bytes(content))
    assert problem(path).startswith((f"{path}: not a Parquet file: ", f"{path}: damaged after row "))


def test_a_text_that_fails_the_checksum_of_its_page_is_not_trained_on(tmp_path):
    path, content = damaged_parquet(tmp_path, "none")
    at = content.index(b"question 1234")
    content[at : at + 8] = b"QUESTION"
    write(path, bytes(content))
    assert "CRC" in problem(path)


def test_text_of_parquet_that_is_not_utf8_is_one_message(tmp_path):
    binary = pa.array([b"caf\xe9"])
    text = pa.Array.from_buffers(pa.string(), 1, binary.buffers())
    pq.write_table(pa.table({"q": ["x"], "a": text}), tmp_path / "a.parquet")
    assert problem(tmp_path / "a.parquet").startswith(f"{tmp_path / 'a.parquet'}: not a Parquet file: 'utf-8' codec")


def place(path, kind):
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"loop": path.name, "device": "/dev/zero"}[kind])


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("folder", "is a folder; must be a file"),
        ("pipe", "is a pipe or a device; must be a file"),
        ("device", "is a pipe or a device; must be a file"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
    ],
)
def test_what_is_no_file_is_not_waited_for(tmp_path, kind, said):
    path = tmp_path / "a.jsonl"
    place(path, kind)
    assert problem(path) == f"{path}: {said}"


def test_a_file_that_may_not_be_read_is_said_to_be_such(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", '{"q": "x", "a": "y"}\n')
    monkeypatch.setattr(formats.os, "access", lambda *_: False)
    assert problem(path) == f"{path}: may not be read (permission denied); give yourself the right to"


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
        (MemoryError(), "does not fit into memory; .jsonl and .parquet are read row by row"),
    ],
)
def test_what_the_machine_cannot_read_is_one_message(tmp_path, monkeypatch, raised, said):
    def fail(path):
        raise raised
        yield

    path = write(tmp_path / "a.jsonl", "")
    monkeypatch.setitem(formats.READERS, ".jsonl", fail)
    assert problem(path) == f"{path}: {said}"


def test_a_message_lists_no_page_full_of_names(tmp_path):
    names = [f"column number {n}" for n in range(5000)]
    path = write(tmp_path / "a.csv", ",".join(names) + "\n" + ",".join("x" for _ in names) + "\n")
    assert len(problem(path)) < LISTED + 300
    assert problem(path).endswith(" ... (5000 in all))")
    assert len(near("zz", names)) < LISTED + 50


def test_a_terminal_does_not_obey_the_names_of_a_file(tmp_path):
    path = write(tmp_path / "a.csv", "q,\x1b[2Jx\n1,2\n")
    with pytest.raises(SystemExit, match=r"there are: q, \\x1b\[2Jx\)") as ended, cli.explained():
        read(path)
    assert "\x1b" not in str(ended.value)


# Ids, patterns, general text


def test_what_stands_between_the_parts_of_an_id_may_be_in_them():
    assert files.content_id("a\x1fb", "c") != files.content_id("a", "b\x1fc")
    assert files.content_id("a\x1e1b") != files.content_id("a\x1fb")
    assert files.content_id("a", "b") == "f04cdced9736a69d"  # as it always was


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(examples, "PATIENCE", 0.05)


def test_a_pattern_that_never_ends_is_ended(impatient):
    with pytest.raises(UserError, match=r"answer_pattern '\(\(\?:a\+\)\+\)\$' takes more than 0.05 s on 'aaaa"):
        examples.picked("((?:a+)+)$", "a" * 40 + "!")
    assert examples.picked("((?:a+)+)$", "a" * 40) == "a" * 40


def test_so_is_one_that_ends_on_what_is_expected_but_not_on_what_a_model_may_say(tmp_path, impatient):
    for split in answer_patterns.EVALUATED:
        files.write_jsonl(tmp_path / f"{split}.jsonl", [{"prompt": "x", "answer": "aa#"}])
    with pytest.raises(UserError, match=r"takes more than 0\.05 s"):
        answer_patterns.check(tmp_path, "((?:a+)+)#", "datasets.x.answer_pattern")
    answer_patterns.check(tmp_path, "(a+)#", "datasets.x.answer_pattern")


def test_general_text_that_is_none_is_said_to_be(tmp_path):
    path = write(tmp_path / "a.txt", "\n \n")
    model = params.Model(prompt="plain", path="x", general=params.GeneralText(str(path)))
    with pytest.raises(UserError, match=r"models\.m\.general\.path: .* holds no text; name another file"):
        general_text.documents(model, 0, "models.m")
    write(path, "A text.\n")
    assert [row["text"] for row in general_text.documents(model, 0, "models.m")] == ["A text."]


# Multiple choice


def mmlu(folder, *subjects, content=b"q,a,b,c,d,A\n"):
    for split in ("dev", "test"):
        (folder / split).mkdir(exist_ok=True)
        for subject in subjects:
            write(folder / split / f"{subject}_{split}.csv", content)
    return folder


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "", "x" * 101, "\u202egnp", "a\udce9"])
def test_a_name_that_no_table_and_no_file_can_have_is_none_for_a_subject(tmp_path, name):
    with pytest.raises(
        UserError, match=r"datasets\.x\.mmlu\.subjects: .* is no name for a subject: expected printable"
    ):
        mmlu_files.read(mmlu(tmp_path, name, "law"), None, WHERE)
    assert len(mmlu_files.read(tmp_path, ["law"], WHERE)) == 2


def test_a_name_on_the_hub_leads_out_of_no_folder():
    with pytest.raises(UserError, match=r"'\.\./x' of me/data is no name for a subject"):
        mmlu_files.check_subjects(None, ["../x"], "me/data", WHERE)


@pytest.mark.parametrize(
    "names",
    [
        *[("accuracy",), ("wall_seconds",), ("law", "law_low"), ("a b", "a_b"), ("law", "law high"), ("cpu seconds",)],
        *[("gpu",), ("question",), ("law", "law_seconds")],
    ],
)
def test_a_subject_that_would_share_the_column_of_another_is_refused(tmp_path, names):
    with pytest.raises(UserError, match="stands twice, or is named like a column of another one or of all together"):
        mmlu_files.read(mmlu(tmp_path, *names), None, WHERE)


def test_a_subject_that_is_named_twice_is_not_asked_twice(tmp_path):
    with pytest.raises(UserError, match=r"'law' of .* stands twice"):
        mmlu_files.read(mmlu(tmp_path, "law"), ["law", "law"], WHERE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ": holds no question; expected rows of question, four choices and a letter"),
        (b'q,a,b,c,d,A\nq,a,b,c,d,"A\n', ":2: not valid CSV: unexpected end of data"),
        (b"q,a,b,c,d,A\ncaf\xe9,a,b,c,d,A\n", ":2: not UTF-8: byte 15 of the file"),
        (b"q\x00,a,b,c,d,A\n", ":1: holds a NUL character"),
    ],
)
def test_what_is_no_file_of_questions_is_named(tmp_path, content, said):
    mmlu(tmp_path, "law")
    path = write(tmp_path / "test" / "law_test.csv", content)
    with pytest.raises(UserError) as error:
        mmlu_files.read(tmp_path, None, WHERE)
    assert str(error.value).startswith(f"{path}{said}")


@pytest.mark.parametrize("answer", [True, 1.0, "1", None, 4, [1]])
def test_the_answer_of_a_question_on_the_hub_is_a_whole_number(answer):
    row = questions("law", "dev")[0]
    assert hub_mmlu._question(row, "me/data")["answer"] == 0
    with pytest.raises(UserError, match=r"me/data: expected question \(a text\), choices .* and answer \(0 to 3\)"):
        hub_mmlu._question(row | {"answer": answer}, "me/data")


@pytest.mark.parametrize(
    "configs", ["[1]", "{a: b}", "[{name: x}]", "7", "[{config_name: 7}]", "[", "[{config_name: [x]}]"]
)
def test_a_card_that_lists_no_subjects_is_one_message(tmp_path, configs):
    path = write(tmp_path / "README.md", f"---\nconfigs: {configs}\n---\n")
    with pytest.raises(UserError, match=r"datasets\.x\.mmlu\.hub: README\.md of me/data"):
        hub_mmlu._configs(path, "me/data", WHERE)


def test_a_configuration_that_the_card_lists_twice_is_one_subject(tmp_path):
    path = write(tmp_path / "README.md", "---\nconfigs: [{config_name: law}, {config_name: law}]\n---\n")
    assert hub_mmlu._configs(path, "me/data", WHERE) == {"law"}


@pytest.mark.parametrize("raised", [OSError("Corrupt snappy compressed data."), pa.ArrowNotImplementedError("nested")])
def test_a_damaged_file_of_the_hub_is_one_message(raised):
    said = rf"datasets\.x\.hub: me/data cannot be read: {raised}"
    with pytest.raises(UserError, match=said), hub.explained("me/data", None, "dataset", "datasets.x"):
        raise raised


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_what_this_machine_lacks_is_not_blamed_on_the_hub(number):
    error = OSError(number, os.strerror(number), "/read/only")
    with pytest.raises(OSError, match="/read/only"), hub.explained("me/data", None, "dataset", "datasets.x"):
        raise error


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(errno.EIO, "Input/output error"), "cannot be read: Input/output error"),
        (pa.ArrowMemoryError("malloc of size 64 failed"), "does not fit into memory"),
    ],
)
def test_what_the_disk_or_the_memory_lacks_is_not_blamed_on_a_parquet_file(tmp_path, monkeypatch, raised, said):
    def failing(path):
        raise raised

    monkeypatch.setattr(formats, "_batches", failing)
    path = write(tmp_path / "a.parquet", "")
    with pytest.raises(UserError, match=said):
        list(formats.rows(path))


@pytest.mark.parametrize("written", ["0.1", "-0.0", "1.50", "0.30000000000000004", "1e5", "0.000000000001"])
def test_a_number_that_a_float_holds_is_one(written):
    assert formats._number(written) == float(written)


@pytest.mark.parametrize("written", ["0.1234567890123456789", "1e400", "1e-400", "12345678901234567.5"])
def test_a_number_that_no_float_holds_stays_as_it_is_written(written):
    assert formats._number(written) == written


def test_a_streamed_column_that_is_there_twice_is_not_guessed(tmp_path, monkeypatch):
    table = pa.table([pa.array(["x"]), pa.array(["1"]), pa.array(["2"])], names=["q", "a", "a"])
    pq.write_table(table, tmp_path / "a.parquet")
    monkeypatch.setattr(huggingface_hub, "HfFileSystem", lambda: SimpleNamespace(open=lambda path: path.open("rb")))
    rows = hub_datasets.ParquetRows([tmp_path / "a.parquet"], {"q": None}, {"q", "a"})
    with pytest.raises(UserError, match="'a' is there more than once; map another column"):
        list(rows)
    rows.columns = {"q"}
    assert list(rows) == [{"q": "x"}]


def test_of_files_that_are_damaged_at_random_none_is_taken_wrong():
    assert [one for one in data.tries(12, 7) if one.taken not in WELL] == []
