"""The divergence from a truncated reference: exact where nothing is cut off, and unbiased where something is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tradeoffs import params
from tradeoffs.evaluate import kld
from tradeoffs.evaluate.runtime import Rows, Scores, Target, uniforms
from tradeoffs.evaluate.torch_scores import observe
from tradeoffs.llama_cpp.scores import score_rows
from tradeoffs.plumbing.errors import UserError

ROWS, VOCABULARY = 400, 300


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.fixture(scope="module")
def logits():
    """Of a model about as peaked as a language model, and of another near it; float32 (rows, vocabulary)."""
    random = np.random.default_rng(0)
    scale = random.uniform(0.5, 4, (ROWS, 1))  # sure of some tokens and unsure of others
    first = random.normal(0, 1, (ROWS, VOCABULARY)) * scale
    return first.astype(np.float32), (first + random.normal(0, 0.1, first.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def exact(logits):
    p, q = (log_softmax(some) for some in logits)
    return (np.exp(p) * (p - q)).sum(1)


RUNTIMES = {"llama.cpp": score_rows, "transformers": lambda logits, asked: observe(torch.from_numpy(logits), asked)}


@pytest.fixture(params=RUNTIMES)
def read(request):
    return RUNTIMES[request.param]


def divergence(read, logits, top_k, samples):
    """Of the second model from a reference that kept so much of the first, by one runtime's own functions."""
    random = np.random.default_rng(1)
    true = random.integers(0, VOCABULARY, ROWS)
    ids = np.concatenate([[0], true]).astype(np.int32)
    drawn = uniforms(Target(ids, np.arange(ROWS + 1) > 0), samples)
    first = read(logits[0], Rows(true, None, None, top_k, drawn))
    reference = kld.Reference(first.at_ids, first.at_logprob, first.tail, first.sample_ids, first.sample_logprob)
    second = read(logits[1], Rows(true, first.at_ids, first.sample_ids, 0, None))
    return kld.kl_divergence(reference, second)


def test_with_the_whole_vocabulary_it_is_the_exact_divergence(read, logits, exact):
    found = divergence(read, logits, VOCABULARY, 2)
    np.testing.assert_allclose(found.total, exact, rtol=2e-4, atol=1e-6)
    assert (found.tail == 0).all() and (found.variance == 0).all()


def test_the_estimate_is_within_its_own_error_and_one_percent_of_the_exact_mean(read, logits, exact):
    found = divergence(read, logits, 16, 32)
    assert found.total.mean() == pytest.approx(exact.mean(), rel=0.01)
    error = np.sqrt(found.variance.sum()) / ROWS
    assert abs(found.total.mean() - exact.mean()) < 3 * error
    assert error < 0.01 * exact.mean()


def test_the_top_k_and_one_bucket_alone_are_a_lower_bound_that_misses_much(read, logits, exact):
    found = divergence(read, logits, 16, 32)
    bucket = found.total - found.tail
    assert (bucket <= exact + 1e-6).all() and (found.tail >= 0).all()
    assert bucket.mean() < 0.9 * exact.mean(), "else the samples were not worth keeping"


def test_tokens_are_drawn_from_the_tail_by_their_probability(read, logits):
    same = np.repeat(logits[0][:1], ROWS, axis=0)
    drawn = np.random.default_rng(2).random((ROWS, 64))
    found = read(same, Rows(np.zeros(ROWS, np.int64), None, None, 5, drawn))
    tail = np.exp(log_softmax(same[0]))
    tail[found.at_ids[0]] = 0
    counts = np.bincount(found.sample_ids.ravel(), minlength=VOCABULARY)
    assert counts[found.at_ids[0]].sum() == 0
    np.testing.assert_allclose(counts / counts.sum(), tail / tail.sum(), atol=0.01)


def test_a_model_does_not_diverge_from_itself(read, logits):
    assert np.abs(divergence(read, (logits[0], logits[0]), 5, 4).total).max() < 1e-6


def test_scores_at_other_ids_are_no_comparison(logits):
    first = score_rows(logits[0], Rows(np.zeros(ROWS, np.int64), None, None, 4, np.full((ROWS, 2), 0.5)))
    reference = kld.Reference(first.at_ids, first.at_logprob, first.tail, first.sample_ids, first.sample_logprob)
    with pytest.raises(ValueError, match="no log-probabilities at the reference's ids"):
        kld.kl_divergence(reference, replace(first, sample_logprob=None))


def make(count):
    ids = np.arange(count, dtype=np.int32)
    target = Target(ids, ids > 0)
    scores = Scores(
        logprob=np.zeros(count - 1, np.float32),
        argmax=ids[1:],
        at_logprob=np.full((count - 1, 2), -1, np.float32),
        at_ids=np.full((count - 1, 2), count, np.int32),
        tail=np.full(count - 1, -2, np.float32),
        sample_logprob=np.full((count - 1, 3), -9, np.float32),
        sample_ids=np.full((count - 1, 3), count, np.int32),
    )
    return target, scores


def test_a_saved_reference_comes_back_item_by_item(tmp_path):
    targets, scores = zip(*(make(n) for n in (3, 7)), strict=True)
    kld.save(tmp_path / "test.safetensors", targets, scores)
    first, second = kld.load(tmp_path / "test.safetensors", targets)
    assert first.ids.tolist() == [[3, 3]] * 2 and second.ids.tolist() == [[7, 7]] * 6


def test_a_reference_made_for_other_tokens_is_refused(tmp_path):
    target, scores = make(5)
    kld.save(tmp_path / "test.safetensors", [target], [scores])
    changed = Target(target.ids[::-1].copy(), target.scored)
    with pytest.raises(UserError, match=r"test\.safetensors: the reference was made for other tokens"):
        kld.load(tmp_path / "test.safetensors", [changed])


def test_the_side_data_of_a_token_take_less_than_a_kilobyte(tmp_path):
    kept = params.load_all(Path(__file__).parents[1] / "params.yaml").evaluate
    count, k, m = 1001, kept.kld_top_k, kept.kld_tail_samples
    target, scores = make(count)
    filled = {"at_logprob": k, "at_ids": k, "sample_logprob": m, "sample_ids": m}
    scores = replace(scores, **{k: np.zeros((count - 1, n), getattr(scores, k).dtype) for k, n in filled.items()})
    kld.save(tmp_path / "test.safetensors", [target], [scores])
    assert (tmp_path / "test.safetensors").stat().st_size < 1000 * (count - 1)
