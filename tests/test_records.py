"""Reading data: every format gives the same rows as they are asked for, and every mistake a message with its place."""

import hashlib
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import quick_yaml
from needs import needs

from benchmarks import assets
from tradeoffs import params
from tradeoffs.params import Columns
from tradeoffs.plumbing.errors import UserError
from tradeoffs.prepare import hub_datasets, mmlu_files, records
from tradeoffs.sources import readers

COLUMNS = Columns(instruction="ask", input="more", answer="reply")
ROWS = [
    {"ask": "What is debt?", "more": "", "reply": "Money that is owed, with interest."},
    {"ask": "Add up.", "more": "1\n2", "reply": "3"},
]
EXPECTED = [
    {"prompt": "What is debt?", "answer": "Money that is owed, with interest."},
    {"prompt": "Add up.\n\n1\n2", "answer": "3"},
]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def read(path, columns=COLUMNS):
    return list(readers.read(path, columns))


def problem(path, columns=COLUMNS):
    with pytest.raises(UserError) as error:
        read(path, columns)
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
    assert read(path, COLUMNS) == EXPECTED


def test_text_is_split_at_empty_lines(tmp_path):
    path = write(tmp_path / "a.txt", "\nFirst line\nsecond line.\n\n \n\nNext document.\n")
    assert read(path, None) == [{"text": "First line\nsecond line."}, {"text": "Next document."}]


def test_text_without_empty_lines_holds_a_document_per_line(tmp_path):
    path = write(tmp_path / "a.txt", "One.\nTwo.\n")
    assert read(path, None) == [{"text": "One."}, {"text": "Two."}]


def test_a_text_column_can_come_from_any_format(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"body": "Hello."}\n')
    assert read(path, Columns(text="body")) == [{"text": "Hello."}]


def test_windows_line_ends_are_line_ends(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"First line\r\nsecond line.\r\n\r\nNext document.\r\n")
    assert read(path, None) == [{"text": "First line\nsecond line."}, {"text": "Next document."}]


def test_a_template_puts_columns_together(tmp_path):
    path = write(
        tmp_path / "a.jsonl", '{"title": "T ", "year": 7, "body": null}\n{"title": null, "year": "", "body": ""}\n'
    )
    columns = Columns(text="{title} ({year})\n\n{body}")
    assert read(path, columns) == [{"text": "T (7)"}, {"text": ""}]


def test_a_template_may_ask_what_the_data_does_not(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "Shares {fell}.", "label": "Business"}\n')
    columns = Columns(instruction="World or Business?\n\n{text}", answer="label")
    assert read(path, columns) == [{"prompt": "World or Business?\n\nShares {fell}.", "answer": "Business"}]


def test_a_template_with_a_column_that_is_not_there_lists_those_that_are(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"title": "T", "abstract": "A"}\n')
    expected = f"{path}:1: no column 'titel' (did you mean title? there are: title, abstract)"
    assert problem(path, Columns(text="{titel}: {abstract}")) == expected


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " What is debt? "},
    {"role": "assistant", "content": "Owed money."},
    {"role": "user", "content": "And equity?"},
    {"role": "assistant", "content": "Owned."},
]
CLEAN = [{**turn, "content": turn["content"].strip()} for turn in TURNS]
NAMES = {"system": "system", "user": "human", "assistant": "gpt"}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("form", ["messages", "sharegpt"])
def test_conversations_of_both_forms_are_the_same(tmp_path, suffix, form):
    turns = TURNS if form == "messages" else [{"from": NAMES[t["role"]], "value": t["content"]} for t in TURNS]
    path = tmp_path / f"a.{suffix}"
    if suffix == "jsonl":
        write(path, json.dumps({"talk": turns}))
    else:
        pq.write_table(pa.Table.from_pylist([{"talk": turns}]), path)
    assert read(path, Columns(messages="talk")) == [{"messages": CLEAN}]


@pytest.mark.parametrize(
    ("turns", "kept"),
    [
        (TURNS + TURNS[1:2], CLEAN),
        (TURNS[:2], []),
        ([], []),
        (None, []),
        ([*TURNS[:3], TURNS[1], {**TURNS[4], "content": " "}], []),
    ],
)
def test_what_no_answer_follows_is_left_out_and_a_gap_makes_a_conversation_empty(tmp_path, turns, kept):
    path = write(tmp_path / "a.jsonl", json.dumps({"talk": turns}))
    assert read(path, Columns(messages="talk")) == [{"messages": kept}]


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ("text", "column 'talk' must hold a list of messages, is a str"),
        ([*TURNS, TURNS[0]], "message 6 in 'talk': role is 'system'; only the first message can be that"),
        (
            [{"role": "tool", "content": "x"}],
            "message 1 in 'talk': role is 'tool'; known are system, user, assistant, human, gpt",
        ),
        (
            [{"role": "user", "text": "x"}],
            "message 1 in 'talk' must have role and content (or from and value), has role, text",
        ),
        (["x"], "message 1 in 'talk' must have role and content (or from and value), is a str"),
        ([{"role": "user", "content": ["x"]}], "message 1 in 'talk': column 'content' must hold text, is a list"),
    ],
)
def test_what_is_no_conversation_is_named_by_its_message(tmp_path, turns, said):
    path = write(tmp_path / "a.jsonl", json.dumps({"talk": turns}))
    assert problem(path, Columns(messages="talk")) == f"{path}:1: {said}"


def dataset(**more):
    return params.Dataset(kind="text", near_duplicate=0.9, seen=1, valid=1, columns=Columns(text="text"), **more)


def lines(path, *texts):
    return str(write(path, "".join(json.dumps({"text": text}) + "\n" for text in texts)))


def test_a_source_without_test_rows_of_its_own_has_none(tmp_path):
    path = lines(tmp_path / "a.jsonl", "one", "two")
    source = records.open_source(dataset(path=path, test_share=0.5), "datasets.x")
    assert source.test is None
    assert list(source.train) == [{"text": "one"}, {"text": "two"}]
    assert source.facts == {"source": path, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def test_a_test_file_is_the_test_split(tmp_path):
    path, other = lines(tmp_path / "a.jsonl", "one"), lines(tmp_path / "b.jsonl", "two")
    source = records.open_source(dataset(path=path, test_path=other), "datasets.x")
    assert (list(source.train), list(source.test)) == ([{"text": "one"}], [{"text": "two"}])
    assert source.facts["test_source"] == other
    with pytest.raises(UserError, match=r"c\.jsonl: no such file \(did you mean"):
        records.open_source(dataset(path=str(tmp_path / "c.jsonl"), test_share=0.5), "datasets.x")


def test_rows_are_the_first_that_are_short_enough_and_nothing_is_read_after_them(tmp_path):
    path = tmp_path / "a.jsonl"
    lines(path, "one", "much too long", "two")
    with path.open("a") as file:
        file.write("{broken")
    source = records.open_source(dataset(path=str(path), test_share=0.5, rows=2, max_characters=5), "datasets.x")
    assert list(source.train) == [{"text": "one"}, {"text": "two"}]
    assert source.facts["too_long"] == {"train": 1}


@pytest.mark.parametrize(
    ("example", "length"),
    [
        ({"prompt": "abc", "answer": "de"}, 5),
        ({"prompt": "abc", "answer": "de", "rejected": "fghi"}, 7),
        ({"messages": [{"role": "user", "content": "abc"}, {"role": "assistant", "content": "de"}]}, 5),
    ],
)
def test_how_long_an_example_is_counts_all_its_texts(tmp_path, example, length):
    for most, short in ((length, True), (length - 1, False)):
        wanted, facts = dataset(path="x", test_share=0.5, max_characters=most), {"too_long": {"train": 0}}
        assert records._short_enough(wanted, "train", facts, example) is short
        assert facts["too_long"]["train"] == (0 if short else 1)


VALID = {"kind": "instruction", "near_duplicate": 0.9, "seen": 1, "valid": 1}
ASKED = {"instruction": "q", "answer": "a"}
HUB = {"hub": "me/data", "revision": "main", "splits": {"train": "train"}, "columns": ASKED}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            {"path": "a.csv", "columns": ASKED},
            ".test_share: missing; says which share of the rows is never trained on; or",
        ),
        ({**HUB}, ".test_share: missing; says which share of the rows is never trained on; or give splits.test"),
        (
            {"path": "a.csv", "columns": ASKED, "test_path": "b.csv", "test_share": 0.1},
            ".test_share: means nothing beside test_p",
        ),
        (
            {**HUB, "splits": {"train": "a", "test": "b"}, "test_share": 0.1},
            ".test_share: means nothing beside splits.test",
        ),
        ({**HUB, "splits": {"train": "a", "test": "a"}}, ".splits: train and test are the same split, 'a'"),
        ({**HUB, "splits": None, "test_share": 0.1}, ".splits: missing; says which split of me/data is trained on"),
        ({**HUB, "path": "a.csv", "test_share": 0.1}, ": needs exactly one of generate, path, hub (has path and hub)"),
        ({**HUB, "columns": None, "test_share": 0.1}, ".columns: missing; says which column holds what"),
        ({**HUB, "test_path": "a.csv"}, ".test_path: means nothing without path"),
        ({"path": "a.csv", "columns": ASKED, "test_share": 0.1, "config": "x"}, ".config: means nothing without hub"),
        ({**HUB, "test_share": 0.1, "kind": "chat"}, ".columns.messages: missing; kind chat needs it"),
        (
            {**HUB, "test_share": 0.1, "kind": "chat"},
            ".columns.answer: means nothing for kind chat (columns: messages)",
        ),
        (
            {**HUB, "test_share": 0.1, "columns": {"instruction": "{q", "answer": "a"}},
            ".columns.instruction: braces hold a column's name, as {title}; is '{q'",
        ),
        (
            {**HUB, "test_share": 0.1, "columns": {**ASKED, "answer": "{}"}},
            ".columns.answer: braces hold a column's name",
        ),
        (
            {**HUB, "test_share": 0.1, "kind": "chat", "columns": {"messages": "{talk}"}},
            ".columns.messages: must be one column, which holds the turns; is '{talk}'",
        ),
    ],
)
def test_a_block_that_cannot_be_read_is_told_why(tmp_path, entry, said):
    raw = quick_yaml.load((Path(__file__).parents[1] / "params.yaml").read_text())
    raw["datasets"]["mine"] = {key: value for key, value in {**VALID, **entry}.items() if value is not None}
    with pytest.raises(UserError) as error:
        params.load_all(write(tmp_path / "params.yaml", quick_yaml.dump(raw)))
    assert f"\n  datasets.mine{said}" in str(error.value)


def test_the_answer_of_a_pair_is_the_chosen_one(tmp_path):
    columns = Columns(instruction="ask", input="more", chosen="good", rejected="bad")
    path = write(tmp_path / "a.jsonl", '{"ask": "Sum?", "more": "1 2", "good": 3, "bad": " four ", "reply": "x"}\n')
    assert read(path, columns) == [{"prompt": "Sum?\n\n1 2", "answer": "3", "rejected": "four"}]


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
    assert read(path, columns) == [{"prompt": "Who?", "answer": "Me"}]


def test_an_input_column_that_no_row_has_is_a_typo_and_one_that_some_lack_is_not(tmp_path):
    some = write(tmp_path / "some.jsonl", '{"ask": "1", "reply": "2"}\n{"ask": "1", "more": "3", "reply": "2"}\n')
    assert [row["prompt"] for row in read(some)] == ["1", "1\n\n3"]
    none = write(tmp_path / "c.jsonl", '{"ask": "1", "mroe": "3", "reply": "2"}\n')
    assert problem(none).endswith("no column 'more' (did you mean mroe? there are: ask, mroe, reply)")


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """A function that opens rows which lie in a file with the suffix `where`, or on the "hub"; with columns COLUMNS."""

    def open(where, found, **limits):
        shape = {"kind": "instruction", "near_duplicate": 0.9, "seen": 1, "valid": 1, "test_share": 0.5}
        if where == "hub":
            rows = ((f"me/data: train, row {number}", row) for number, row in enumerate(found, 1))
            monkeypatch.setattr(hub_datasets, "open_splits", lambda *_: hub_datasets.Splits({"train": rows}, {}))
            return records.open_source(params.Dataset(**shape, hub="me/data", columns=COLUMNS, **limits), "datasets.x")
        path = tmp_path / f"a.{where}"
        if where == "parquet":
            pq.write_table(pa.Table.from_pylist(found), path)
        else:
            write(path, "".join(json.dumps(row) + "\n" for row in found))
        return records.open_source(params.Dataset(**shape, path=str(path), columns=COLUMNS, **limits), "datasets.x")

    return open


@pytest.mark.parametrize("where", ["jsonl", "parquet", "hub"])
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_an_input_column_that_no_row_has_is_a_typo_however_few_rows_are_taken(opened, where, count):
    source = opened(where, [{"ask": str(n), "mroe": "", "reply": "2"} for n in range(4)], rows=count)
    with pytest.raises(UserError, match=r"no column 'more' \(did you mean mroe\? there are: ask, mroe, reply\)"):
        list(source.train)


@pytest.mark.parametrize("where", ["jsonl", "hub"])
def test_an_input_column_that_a_row_has_is_none_even_where_that_row_is_too_long(opened, where):
    rows = [{"ask": "1", "reply": "2"}, {"ask": "1", "more": "too long", "reply": "2"}, {"ask": "3", "reply": "4"}]
    source = opened(where, rows, rows=2, max_characters=5)
    assert [row["prompt"] for row in source.train] == ["1", "3"]


def test_numbers_become_text_and_null_becomes_empty(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"ask": "1+1", "reply": 2}\n{"ask": "x", "more": null, "reply": null}\n')
    assert read(path, COLUMNS) == [{"prompt": "1+1", "answer": "2"}, {"prompt": "x", "answer": ""}]


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


def test_a_missing_column_is_answered_with_the_near_one_and_all(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"ask": "x", "replay": "y"}\n')
    assert problem(path) == f"{path}:1: no column 'reply' (did you mean replay? there are: ask, replay)"
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
    assert message == f"{path}:2: not UTF-8: byte 39 of the file (invalid continuation byte); save the file as UTF-8"


@pytest.mark.parametrize("place", [5, (1 << 20) - 1, (1 << 20), 3 * (1 << 20) + 7])
def test_a_byte_that_is_not_utf8_is_found_wherever_it_is(tmp_path, place):
    path = tmp_path / "a.txt"
    content = bytearray(("Größe " * 9 + "\n").encode() * 60000)  # characters of two bytes at every border between parts
    while content[place] >= 0x80:  # within a character another byte would be the first that is wrong
        place += 1
    content[place] = 0xFF
    path.write_bytes(content)
    line = content[:place].count(b"\n") + 1
    assert problem(path, None).startswith(f"{path}:{line}: not UTF-8: byte {place} of the file (")


def test_bytes_that_end_within_a_character_are_not_utf8(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("One.\n\nGrö".encode()[:-1])
    assert problem(path, None).startswith(f"{path}:3: not UTF-8: byte 8 of the file (unexpected end of data)")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "txt"])
def test_a_file_is_read_no_further_than_it_is_asked_for(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    count = 60_000  # a file of some MB
    if suffix == "jsonl":
        path.write_text("".join(f'{{"text": "Document {n} {"x" * 40}"}}\n' for n in range(count)) + "{broken")
    elif suffix == "csv":
        path.write_text("text\n" + "".join(f"Document {n} {'x' * 40}\n" for n in range(count)) + "broken,row")
    elif suffix == "txt":
        path.write_bytes(b"".join(b"Document %d " % n + b"x" * 40 + b"\n\n" for n in range(count)) + b"\xff")
    else:
        rows = [{"text": f"Document {n} {'x' * 40}"} for n in range(count)]
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=1000)
    found = readers.read(path, Columns(text="text"))
    tracemalloc.start()
    assert [next(found)["text"][:10] for _ in range(3)] == [f"Document {n}" for n in range(3)]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < path.stat().st_size / 4 if suffix != "parquet" else most < 1_000_000


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
    rows = mmlu_files.read(mmlu_folder(tmp_path), ["virology"], "datasets.x.mmlu")
    assert rows == [
        {"subject": "virology", "split": s, "question": f"{s}, which?", "choices": ["a", "b", "c", "d"], "answer": 2}
        for s in ("dev", "test")
    ]
    assert len(mmlu_files.read(tmp_path, None, "datasets.x.mmlu")) == 4


@pytest.mark.parametrize(
    ("subject", "hint"), [("virolgy", "did you mean virology?"), ("law", "there are: anatomy, virology")]
)
def test_an_unknown_subject_is_answered_with_the_near_one_or_all(tmp_path, subject, hint):
    with pytest.raises(UserError) as error:
        mmlu_files.read(mmlu_folder(tmp_path), ["anatomy", subject], "datasets.x.mmlu")
    assert str(error.value) == f"datasets.x.mmlu.subjects[1]: no subject {subject!r} in {tmp_path} ({hint})"


def test_a_folder_without_mmlu_files_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"datasets\.x\.mmlu\.path: .* has no test/<subject>_test\.csv"):
        mmlu_files.read(tmp_path, None, "datasets.x.mmlu")


def test_a_broken_mmlu_line_is_named(tmp_path):
    path = write(mmlu_folder(tmp_path) / "test" / "anatomy_test.csv", "q,a,b,c,d,A\nq,a,b,c,d,E\n")
    with pytest.raises(UserError) as error:
        mmlu_files.read(tmp_path, ["anatomy"], "datasets.x.mmlu")
    assert str(error.value) == f"{path}:2: expected question, four choices and a letter from A to D"


@needs("data/mmlu")
def test_the_original_mmlu_is_read_whole():
    rows = mmlu_files.read(assets.find("data/mmlu"), None, "datasets.x.mmlu")
    assert len({row["subject"] for row in rows}) == 57
    assert sum(row["split"] == "test" for row in rows) == 14042
    assert all(sum(r["split"] == "dev" for r in rows if r["subject"] == s) == 5 for s in ("anatomy", "virology"))
