"""The floor: of each test question the answer of the most similar training question, the same on every machine."""

import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import quick_yaml

from stages import copying
from tradeoffs.common import files
from tradeoffs.metrics import embeddings

REPO = Path(__file__).parents[1]
TRAIN = [
    {"id": "t0", "prompt": "What is a bond?", "answer": "A loan."},
    {"id": "t1", "prompt": "What is a share?", "answer": "A part of a firm."},
    {"id": "t2", "prompt": "Who lends money?", "answer": "A bank."},
    {"id": "t3", "prompt": "What is a bond?", "answer": "A promise."},
]
TEST = [
    {"id": "q0", "prompt": "What is a bond, then?", "answer": "A loan to a firm."},
    {"id": "q1", "prompt": "Who lends?", "answer": "Banks do."},
    {"id": "q2", "prompt": "What is a share?", "answer": "A part."},
]


class Words:
    """Stands in for the embedding model: texts are as similar as the words that they share."""

    device = "cpu"

    def __init__(self):
        self.seen: list[str] = []

    def encode(self, texts, **options):
        self.seen += texts
        found = np.zeros((len(texts), 4096), np.float32)
        for vector, text in zip(found, texts, strict=True):
            for word in text.lower().replace("?", "").replace(",", "").split():
                vector[zlib.crc32(word.encode()) % 4096] += 1
        return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A function that runs the stage on these examples; the rows that it writes, and the stand-in that it asked."""
    monkeypatch.chdir(tmp_path)

    def run(train=TRAIN, test=TEST, most=20000, questions=300):
        raw = quick_yaml.load((REPO / "params.yaml").read_text())
        raw["evaluate"]["copying"] = most
        raw["evaluate"]["splits"]["test"] = questions
        Path("params.yaml").write_text(quick_yaml.dump(raw))
        files.write_jsonl("data/prepared/demo/train.jsonl", train)
        files.write_jsonl("data/prepared/demo/test.jsonl", test)
        words = Words()
        monkeypatch.setattr(copying, "load_embedder", lambda name: words)
        copying.main("demo")
        return files.read_table("data/copying/demo.parquet"), words

    return run


def searched():
    found = pq.read_schema("data/copying/demo.parquet").metadata
    return found[b"searched"], found[b"training"]


def test_the_answer_of_the_most_similar_training_question_is_copied(copied):
    rows, _ = copied()
    assert rows[0] == {
        "split": "test",
        "item": "q0",
        "prompt": "What is a bond, then?",
        "answer": "A loan to a firm.",
        "generated": "A loan.",  # t3 asks the same: the first of both is taken
        "similarity": round(4 / np.sqrt(4 * 5), 4),
        "example": "t0",
        "question": "What is a bond?",
    }
    assert [(row["item"], row["example"]) for row in rows] == [("q0", "t0"), ("q1", "t2"), ("q2", "t1")]
    assert rows[2]["similarity"] == 1
    assert searched() == (b"4", b"4")


def test_as_many_questions_are_asked_as_a_variant_is_and_in_their_order(copied):
    rows, _ = copied(questions=2)
    assert [row["item"] for row in rows] == ["q0", "q1"]


def test_no_more_training_questions_are_searched_than_asked_for_and_it_is_recorded(copied):
    rows, words = copied(most=2)
    assert [row["example"] for row in rows] == ["t0", "t0", "t1"]
    assert "Who lends money?" not in words.seen
    assert searched() == (b"2", b"4")


def test_equal_questions_go_through_the_model_once(copied):
    _, words = copied()
    assert sorted(words.seen) == sorted({example["prompt"] for example in TRAIN + TEST})


def test_of_a_conversation_the_question_is_all_before_its_last_answer(copied):
    def talk(id, *said):
        roles = ["user", "assistant"] * 2
        return {"id": id, "messages": [{"role": r, "content": c} for r, c in zip(roles, said, strict=False)]}

    train = [
        talk("t0", "Hello there", "Hello.", "Bonds?", "Loans."),
        talk("t1", "Shares?", "Parts of firms."),
    ]
    rows, _ = copied(train, [talk("q0", "Hello there", "Good day.", "Bonds?", "Yes."), talk("q1", "Shares?", "No.")])
    assert [(row["generated"], row["answer"]) for row in rows] == [("Loans.", "Yes."), ("Parts of firms.", "No.")]
    assert rows[0]["prompt"] == "user: Hello there\nassistant: Good day.\nuser: Bonds?"
    assert rows[1]["prompt"] == rows[1]["question"] == "Shares?"


def test_of_a_pair_the_chosen_answer_is_copied(copied):
    rows, _ = copied([{**example, "rejected": "No idea."} for example in TRAIN], TEST)
    assert "No idea." not in {row["generated"] for row in rows}


@pytest.mark.parametrize(("test", "most"), [([{"id": "d0", "text": "Once upon a time."}], 9), (TEST, 0)])
def test_where_nothing_is_copied_the_table_is_empty_and_no_model_is_loaded(copied, test, most):
    rows, words = copied(test=test, most=most)
    assert rows == [] and words.seen == []


def test_what_only_rounding_tells_apart_is_as_similar(monkeypatch):
    ours = np.array([[1.0, 0.0]] * 3, np.float32)
    theirs = np.array([[0.5, 0.5], [0.9, 0.1], [0.900004, 0.1], [0.2, 0.8]], np.float32)
    whole = copying.most_similar(ours, theirs)
    assert whole == [(1, 0.9)] * 3
    monkeypatch.setattr(copying, "BLOCK", 2)
    assert copying.most_similar(ours, theirs) == whole


def test_real_embeddings_find_what_asks_the_same_in_other_words():
    texts = ["How do I open an account?", "What is inflation?", "What must I do to start an account?", "Inflation?"]
    vectors = embeddings.embed(embeddings.load_embedder(embeddings.PACKAGED), texts)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert [place for place, _ in copying.most_similar(vectors[2:], vectors[:2])] == [0, 1]
