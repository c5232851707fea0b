"""The divergence from a truncated reference: exact where nothing is cut off, never above the exact value."""

import numpy as np
import pytest

from tradeoffs import kld
from tradeoffs.errors import UserError
from tradeoffs.runtime import Scores, Target


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def truncated(logp, ids):
    rest = np.exp(logp)
    np.put_along_axis(rest, ids, 0.0, axis=1)
    with np.errstate(divide="ignore"):
        return np.take_along_axis(logp, ids, 1), np.log(rest.sum(1))


@pytest.fixture
def distributions():
    random = np.random.default_rng(0)
    logits = random.normal(0, 4, (50, 200))  # about as peaked as a language model
    return log_softmax(logits), log_softmax(logits + random.normal(0, 0.3, logits.shape))


def test_with_the_whole_vocabulary_it_is_the_exact_divergence(distributions):
    p, q = distributions
    ids = np.argsort(-p, 1)
    reference = kld.TopK(ids, *truncated(p, ids))
    exact = (np.exp(p) * (p - q)).sum(1)
    np.testing.assert_allclose(kld.kl_divergence(reference, *truncated(q, ids)), exact, rtol=1e-9)


def test_truncation_gives_a_lower_bound_close_to_the_exact_mean(distributions):
    p, q = distributions
    ids = np.argsort(-p, 1)[:, :64]
    found = kld.kl_divergence(kld.TopK(ids, *truncated(p, ids)), *truncated(q, ids))
    exact = (np.exp(p) * (p - q)).sum(1)
    assert (found <= exact + 1e-12).all()
    assert found.mean() == pytest.approx(exact.mean(), rel=0.01)


def test_a_model_does_not_diverge_from_itself(distributions):
    p, _ = distributions
    ids = np.argsort(-p, 1)[:, :5]
    assert np.abs(kld.kl_divergence(kld.TopK(ids, *truncated(p, ids)), *truncated(p, ids))).max() == 0


def make(count):
    ids = np.arange(count, dtype=np.int32)
    target = Target(ids, ids > 0)
    scores = Scores(
        logprob=np.zeros(count - 1, np.float32),
        argmax=ids[1:],
        at_logprob=np.full((count - 1, 2), -1, np.float32),
        at_ids=np.full((count - 1, 2), count, np.int32),
        tail=np.full(count - 1, -2, np.float32),
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
