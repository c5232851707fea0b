"""The llama.cpp runtime says what the model itself says, whatever the batch, and fails with a message."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_gguf import CONTEXT, VOCABULARY, make_checkpoint

from tradeoffs.convert.gguf_converter import convert
from tradeoffs.evaluate.runtime import Rows, Target
from tradeoffs.llama_cpp import context, native
from tradeoffs.llama_cpp import runtime as llama_cpp_runtime
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime
from tradeoffs.llama_cpp.scores import score_rows
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]
# llama.cpp multiplies in f16, keeps an f16 cache and, for a few tokens at a time, sums attention in f16: of logits that
# spread by about 1 single ones are off by up to 0.01, on average by less than 0.001.
CLOSE = 0.02

pytestmark = pytest.mark.usefixtures("one_thread")


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=CLOSE)
    assert np.abs(actual - expected).mean() < CLOSE / 8


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    model = make_checkpoint(folder / "checkpoint")
    convert(folder / "checkpoint", folder / "tiny.gguf")
    return model, folder / "tiny.gguf"


@pytest.fixture(scope="module")
def model(made):
    return made[0]


@pytest.fixture(scope="module")
def runtime(made):
    with LlamaCppRuntime(made[1], batch_tokens=2048) as opened:
        yield opened


@pytest.fixture(scope="module")
def targets():
    random = np.random.default_rng(0)
    found = []
    for length in (5, 40, 17, 17, 530, 2, 90):  # 530 is more than one llama_decode takes
        scored = random.random(length) < 0.6
        scored[0], scored[-1] = False, True
        found.append(Target(random.integers(3, VOCABULARY, length).astype(np.int32), scored))
    return found


@pytest.fixture(scope="module")
def prompts():
    random = np.random.default_rng(1)
    return [random.integers(3, VOCABULARY, length).astype(np.int32) for length in (30, 4, 61, 12, 5, 530)]


def direct(model, ids):
    """Log-probabilities after every token of one sequence, in float32; float64 (length, vocabulary)."""
    with torch.no_grad():
        logits = model(torch.from_numpy(np.asarray(ids, np.int64))[None]).logits[0]
    return logits.double().log_softmax(-1).numpy()


def at_scored(model, target):
    return direct(model, target.ids)[:-1][target.scored[1:]]


def test_scores_are_those_of_transformers_in_float32(runtime, model, targets):
    for target, score in zip(targets, runtime.score(targets), strict=True):
        expected = at_scored(model, target)
        true = expected[np.arange(len(expected)), target.ids[target.scored]]
        assert_close(score.logprob, true)
        best = expected.max(axis=1) - expected[np.arange(len(expected)), score.argmax]
        assert best.max() < CLOSE  # the same token, or one that is as likely
        assert np.mean(expected.argmax(axis=1) == score.argmax) > 0.98
        assert score.logprob.dtype == np.float32 and score.argmax.dtype == np.int32
        assert score.at_logprob is score.at_ids is score.tail is None


def test_scores_do_not_depend_on_the_batch(runtime, targets):
    together = runtime.score(targets)
    for target, score in zip(targets, together, strict=True):
        alone = runtime.score([target])[0]
        assert_close(score.logprob, alone.logprob)


def test_few_logits_at_a_time_give_the_same_scores(made, runtime, targets, monkeypatch):
    monkeypatch.setattr(context, "LOGITS_BYTES", 0)  # 64 rows per decode, cut in the middle of sequences
    monkeypatch.setattr(llama_cpp_runtime, "CHUNK_ELEMENTS", 7 * VOCABULARY)  # several softmax tasks per decode
    with LlamaCppRuntime(made[1], batch_tokens=2048) as small:
        for score, expected in zip(small.score(targets), runtime.score(targets), strict=True):
            assert_close(score.logprob, expected.logprob)


def test_log_probabilities_at_given_ids_and_the_mass_of_the_rest(runtime, model, targets):
    random = np.random.default_rng(2)
    asked = [
        replace(t, at=np.stack([random.permutation(VOCABULARY)[:9] for _ in range(t.scored.sum())]).astype(np.int32))
        for t in targets
    ]
    for target, score in zip(asked, runtime.score(asked), strict=True):
        expected = np.take_along_axis(at_scored(model, target), target.at.astype(np.int64), axis=1)
        assert_close(score.at_logprob, expected)
        np.testing.assert_allclose(np.exp(score.at_logprob).sum(axis=1) + np.exp(score.tail), 1, atol=1e-5)
        assert score.at_ids is None


def test_top_k_takes_the_place_of_given_ids(runtime, targets):
    for score in runtime.score(targets, top_k=5):
        assert score.at_ids.shape == score.at_logprob.shape == (len(score.logprob), 5)
        np.testing.assert_array_equal(score.at_ids[:, 0], score.argmax)
        assert (np.diff(score.at_logprob, axis=1) <= 0).all()
        np.testing.assert_allclose(np.exp(score.at_logprob).sum(axis=1) + np.exp(score.tail), 1, atol=1e-5)


def test_tokens_drawn_from_the_tail_are_the_same_in_any_batch(runtime, targets):
    together = runtime.score(targets, top_k=5, tail_samples=3)
    for target, score in zip(targets, together, strict=True):
        alone = runtime.score([target], top_k=5, tail_samples=3)[0]
        assert score.sample_ids.shape == (len(score.logprob), 3)
        assert (
            np.mean(score.sample_ids == alone.sample_ids) > 0.95
        )  # a draw at the border between two may fall either way
        assert not (score.sample_ids[:, :, None] == score.at_ids[:, None]).any()


def test_a_sequence_with_nothing_scored_has_empty_scores(runtime, targets):
    silent = Target(targets[0].ids, np.zeros(len(targets[0].ids), bool))
    first, second = runtime.score([silent, targets[1]], top_k=3)
    assert first.logprob.shape == (0,) and first.at_ids.shape == (0, 3)
    assert len(second.logprob) == targets[1].scored.sum()
    assert runtime.score([silent])[0].argmax.shape == (0,)


def test_what_each_sequence_took_adds_up_to_what_the_call_took(runtime, prompts):
    options = [np.arange(3, 7, dtype=np.int32) for _ in prompts]
    for call in (lambda: runtime.generate(prompts, 5, [2]), lambda: runtime.choose(prompts, options)):
        begun = time.perf_counter()
        call()
        whole = time.perf_counter() - begun
        assert runtime.seconds.shape == (len(prompts),) and (runtime.seconds > 0).all()
        assert runtime.seconds.sum() <= whole


def test_no_work_is_no_error(runtime):
    assert runtime.score([]) == [] and runtime.generate([], 3, [2]) == []


def test_options_are_weighed_after_their_prompt(runtime, model):
    random = np.random.default_rng(3)
    shared = random.integers(3, VOCABULARY, 40)
    prompts = [np.append(shared, random.integers(3, VOCABULARY, n)).astype(np.int32) for n in (8, 1, 30, 450, 12)]
    options = [random.permutation(VOCABULARY)[:4].astype(np.int32) for _ in prompts]
    chosen = runtime.choose(prompts, options)
    expected = [direct(model, prompt)[-1][option] for prompt, option in zip(prompts, options, strict=True)]
    assert_close(chosen, expected)
    assert chosen.shape == (5, 4) and chosen.dtype == np.float32


def test_prompts_without_a_common_prefix_are_weighed_too(runtime, model, prompts):
    options = [np.array([5, 6, 7, 8], np.int32)] * len(prompts)
    expected = [direct(model, prompt)[-1][5:9] for prompt in prompts]
    assert_close(runtime.choose(prompts, options), expected)


def assert_greedy(model, prompt, answer):
    """Every token is the most likely one given all before it, or as likely within what f16 resolves."""
    expected = direct(model, [*prompt, *answer])[len(prompt) - 1 : -1]
    assert (expected.max(axis=1) - expected[np.arange(len(answer)), answer]).max() < CLOSE


def test_answers_are_the_greedy_ones_of_transformers_in_any_batch(runtime, model, prompts):
    together = runtime.generate(prompts, 12, [2])
    assert len({tuple(answer) for answer in together}) == len(prompts)
    for prompt, answer in zip(prompts, together, strict=True):
        for ids in (answer, runtime.generate([prompt], 12, [2])[0], runtime.stream(prompt, 12, [2])[0]):
            assert 1 <= len(ids) <= 12 and 2 not in ids
            assert_greedy(model, prompt, ids)


def test_more_prompts_than_places_are_all_answered(made, model, prompts):
    with LlamaCppRuntime(made[1], batch_tokens=1) as narrow:  # one place
        for prompt, answer in zip(prompts, narrow.generate(prompts, 4, [2]), strict=True):
            assert len(answer) == 4
            assert_greedy(model, prompt, answer)


def test_an_answer_ends_before_its_stop_token(runtime, prompts):
    whole = runtime.generate(prompts[:1], 12, [])[0]
    stop = whole[5]
    assert runtime.generate(prompts[:1], 12, [stop])[0] == whole[: whole.index(stop)]
    assert runtime.stream(prompts[0], 12, [stop])[0] == whole[: whole.index(stop)]


def test_timed_calls_leave_nothing_behind(runtime, prompts):
    before = runtime.generate(prompts, 4, [2])
    answer, first, whole = runtime.stream(prompts[2], 6, [2])
    assert 0 < first <= whole and 1 <= len(answer) <= 6
    assert runtime.prefill(prompts[5]) > 0
    steps = runtime.decode(prompts[0], 5)
    assert len(steps) == 5 and min(steps) > 0
    assert runtime.generate(prompts, 4, [2]) == before


def test_all_sequences_of_a_batch_are_decoded_as_one_alone(runtime, prompts, monkeypatch):
    run, tokens = runtime._llama._run, []

    def kept(rows):
        logits = run(rows)
        tokens.append(logits.argmax(axis=1).tolist())
        return logits

    monkeypatch.setattr(runtime._llama, "_run", kept)
    runtime.decode(prompts[1], 6)
    alone = [token for step in tokens for token in step]
    tokens.clear()
    runtime.decode(prompts[1], 6, sequences=64)
    assert tokens == [alone[:1], *([token] * 64 for token in alone[1:])]


def test_a_short_first_call_leaves_room_for_larger_ones(made, prompts):
    with LlamaCppRuntime(made[1], batch_tokens=2048) as fresh:
        fresh.decode(prompts[0][:4], 2)
        assert len(fresh.generate(prompts, 3, [2])) == len(prompts)


def test_after_a_cache_that_found_no_memory_smaller_ones_still_do(made, prompts, monkeypatch):
    make = context.llama_cpp.llama_init_from_model
    monkeypatch.setattr(
        context.llama_cpp,
        "llama_init_from_model",
        lambda model, options: make(model, options) if options.n_ctx < 2000 else None,
    )
    with LlamaCppRuntime(made[1], batch_tokens=2048) as fresh:
        before = fresh.generate(prompts[:1], 3, [2])
        with pytest.raises(UserError, match="no memory for a KV cache of 3230 tokens"):
            fresh.decode(prompts[0], 50, sequences=64)
        assert fresh.generate(prompts[:1], 3, [2]) == before


def test_size_is_that_of_the_tensors_and_the_context_that_of_the_file(made, runtime):
    bytes_of = {"f32": 4, "f16": 2}
    held = sum(tensor.rows * tensor.row_length * bytes_of[tensor.type] for tensor in native.tensors(made[1]))
    assert runtime.size_mb == held / 1e6 < made[1].stat().st_size / 1e6
    assert runtime.context == CONTEXT and runtime.vocabulary == VOCABULARY


def test_a_sequence_longer_than_the_context_is_refused_with_both_lengths(runtime):
    long = np.full(CONTEXT + 1, 5, np.int32)
    with pytest.raises(UserError, match=rf"{CONTEXT + 1} tokens .* 1 to {CONTEXT}"):
        runtime.score([Target(long, np.arange(len(long)) > 0)])
    with pytest.raises(UserError, match="8 new ones"):
        runtime.generate([long[:-5]], 8, [2])


def test_ids_of_another_tokenizer_are_refused(runtime):
    with pytest.raises(UserError, match=f"vocabulary of {VOCABULARY}"):
        runtime.prefill(np.array([1, VOCABULARY], np.int32))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.gguf: not found"):
        LlamaCppRuntime(tmp_path / "gone.gguf", 512)


def test_a_file_that_is_no_gguf_is_refused_with_what_llama_cpp_says(tmp_path, capfd):
    (tmp_path / "text.gguf").write_text("no model in here")
    with pytest.raises(UserError, match=r"text\.gguf: llama\.cpp cannot load it(.|\n)*magic"):
        LlamaCppRuntime(tmp_path / "text.gguf", 512)
    assert capfd.readouterr().err == ""


def test_an_unknown_architecture_is_refused_with_what_llama_cpp_says(made, tmp_path):
    path = tmp_path / "odd.gguf"
    path.write_bytes(made[1].read_bytes().replace(b"llama", b"lhama", 3))
    with pytest.raises(UserError, match="unknown model architecture"):
        LlamaCppRuntime(path, 512)


def test_llama_cpp_prints_nothing_when_all_goes_well(made, capfd):
    with LlamaCppRuntime(made[1], 512) as quiet:
        quiet.prefill(np.arange(3, 20, dtype=np.int32))
    assert capfd.readouterr().err == ""


def test_the_tail_keeps_its_digits_and_is_finite():
    logits = np.array([[0, -30, -31, -32], [0, -400, -400, -400]], np.float32)
    scores = score_rows(logits, Rows(np.array([0, 0]), np.array([[0, 1], [0, 1]]), None, 0, None))
    np.testing.assert_allclose(scores.tail[0], np.log(np.exp(-31.0) + np.exp(-32.0)), rtol=1e-6)
    assert np.isfinite(scores.tail[1]) and scores.tail[1] < -80


def test_neither_torch_nor_transformers_is_imported():
    code = (
        "import sys, stages.quantize, tradeoffs.llama_cpp.runtime; print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
