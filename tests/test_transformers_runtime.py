"""The transformers runtime says what the model itself says, whatever the batch."""

import copy
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from tradeoffs import transformers_runtime
from tradeoffs.common import cores
from tradeoffs.common.batching import BATCH_TOKENS, fitting_batch
from tradeoffs.evaluate.runtime import Target
from tradeoffs.evaluate.torch_scores import observe
from tradeoffs.models import forward
from tradeoffs.plumbing.errors import UserError
from tradeoffs.transformers_runtime import TransformersRuntime

VOCABULARY, CONTEXT = 97, 64


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request):
    torch.manual_seed(0)
    if request.param == "llama":
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
        )
    else:
        config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT)
    # Larger than the usual initialisation, so that the next token depends visibly on what came before.
    config.initializer_range = 0.3
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def targets():
    random = np.random.default_rng(0)
    found = []
    for length in (5, 40, 17, 17, 63, 2):
        scored = random.random(length) < 0.6
        scored[0], scored[-1] = False, True
        found.append(Target(random.integers(0, VOCABULARY, length).astype(np.int32), scored))
    return found


def direct(model, target):
    """Log-probabilities of one sequence alone, the plain way; float64 (scored tokens, vocabulary)."""
    with torch.no_grad():
        logits = model(torch.from_numpy(target.ids.astype(np.int64))[None]).logits[0]
    return logits.double().log_softmax(-1).numpy()[:-1][target.scored[1:]]


@pytest.mark.parametrize(("paid_for", "set_to"), [(3, [3]), (4, []), (8, [])])
def test_threads_are_at_most_the_cores_that_are_paid_for(model, monkeypatch, paid_for, set_to):
    found = []
    monkeypatch.setattr(cores, "usable", lambda: paid_for)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    TransformersRuntime(model, 100, pad_id=0)
    assert found == set_to


@pytest.mark.parametrize("batch_tokens", [1, 130, 10_000])
def test_scores_are_the_models_own_in_any_batch(model, targets, batch_tokens):
    scores = TransformersRuntime(model, batch_tokens, pad_id=0).score(targets)
    for target, score in zip(targets, scores, strict=True):
        full = direct(model, target)
        true = target.ids[target.scored]
        np.testing.assert_allclose(score.logprob, full[np.arange(len(true)), true], atol=2e-5)
        assert (score.argmax == full.argmax(-1)).all()


def test_top_k_and_the_tail_hold_all_the_mass(model, targets):
    runtime = TransformersRuntime(model, 200, pad_id=0)
    for target, score in zip(targets, runtime.score(targets, top_k=7), strict=True):
        full = direct(model, target)
        assert (score.at_ids[:, 0] == full.argmax(-1)).all()
        np.testing.assert_allclose(score.at_logprob, np.take_along_axis(full, score.at_ids, 1), atol=2e-5)
        np.testing.assert_allclose(np.exp(score.at_logprob).sum(1) + np.exp(score.tail), 1, atol=1e-5)


def test_log_probabilities_at_given_ids_are_those_of_the_top_k(model, targets):
    runtime = TransformersRuntime(model, 200, pad_id=0)
    top = runtime.score(targets, top_k=7)
    again = runtime.score([replace(t, at=s.at_ids) for t, s in zip(targets, top, strict=True)])
    for first, second in zip(top, again, strict=True):
        np.testing.assert_allclose(first.at_logprob, second.at_logprob, atol=1e-6)
        np.testing.assert_allclose(first.tail, second.tail, atol=1e-5)


@pytest.mark.parametrize("shared", [0, 1, 30])
def test_a_shared_prefix_in_the_cache_changes_no_choice(model, shared):
    random = np.random.default_rng(shared)
    prefix = random.integers(0, VOCABULARY, shared)
    prompts = [np.concatenate([prefix, random.integers(0, VOCABULARY, n)]) for n in (3, 9, 9, 21)]
    options = [random.integers(0, VOCABULARY, 4) for _ in prompts]
    found = TransformersRuntime(model, 70, pad_id=0).choose(prompts, options)
    for row, prompt, letters in zip(found, prompts, options, strict=True):
        with torch.no_grad():
            alone = model(torch.from_numpy(prompt)[None]).logits[0, -1].log_softmax(-1).numpy()
        np.testing.assert_allclose(row, alone[letters], atol=2e-5)


def test_batched_generation_gives_the_text_of_one_prompt_alone(model):
    random = np.random.default_rng(1)
    prompts = [random.integers(1, VOCABULARY, n) for n in (4, 31, 12, 12)]
    batched = TransformersRuntime(model, 10_000, pad_id=0).generate(prompts, 12, stop_ids=[3])
    runtime = TransformersRuntime(model, 1, pad_id=0)
    assert batched == runtime.generate(prompts, 12, stop_ids=[3])
    for prompt, expected in zip(prompts, batched, strict=True):
        tokens, first, whole = runtime.stream(prompt, 12, stop_ids=[3])
        assert tokens == expected
        assert 0 < first <= whole
        assert runtime.answer_gpu_mb is None, "it ran on no GPU"


def test_the_memory_of_an_answer_is_the_peak_above_what_was_there_before(model, monkeypatch):
    """As torch counts it: weights of 500 MB, of which the first answer adds 20 and the second 4."""
    counts = {"now": 500_000_000, "peak": 900_000_000}  # of what went before
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda on: counts.update(peak=counts["now"]))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda on: counts["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda on: counts["peak"])
    for added in (20, 4):
        risen = forward.gpu_rise(torch.device("cuda"))
        assert risen() == 0
        counts["peak"] += added * 1_000_000
        assert risen() == added
    assert forward.gpu_rise(torch.device("cpu"))() is None


@pytest.mark.parametrize("batch_tokens", [40, 10_000])
def test_what_each_sequence_took_adds_up_to_what_the_call_took(model, batch_tokens):
    random, runtime = np.random.default_rng(1), TransformersRuntime(model, batch_tokens, pad_id=0)
    prompts = [random.integers(1, VOCABULARY, n) for n in (4, 31, 12, 12)]
    for call in (
        lambda: runtime.generate(prompts, 6, stop_ids=[3]),
        lambda: runtime.choose(prompts, [random.integers(0, VOCABULARY, 4) for _ in prompts]),
    ):
        begun = time.perf_counter()
        call()
        whole = time.perf_counter() - begun
        assert runtime.seconds.shape == (4,) and (runtime.seconds > 0).all()
        assert runtime.seconds.sum() <= whole


def test_a_stop_token_ends_an_answer_and_is_not_part_of_it(model):
    prompt = np.arange(1, 9)
    runtime = TransformersRuntime(model, 100, pad_id=0)
    free = runtime.generate([prompt], 10, stop_ids=[VOCABULARY - 1])[0]
    stopped = runtime.generate([prompt], 10, stop_ids=[free[4]])[0]
    assert stopped == free[: free.index(free[4])]


def test_a_sequence_longer_than_the_context_is_refused(model):
    runtime = TransformersRuntime(model, 100, pad_id=0)
    long = Target(np.zeros(CONTEXT + 1, np.int32), np.arange(CONTEXT + 1) > 0)
    with pytest.raises(UserError, match="65 tokens does not fit the model's context of 64"):
        runtime.score([long])


def test_the_checkpoints_own_sampling_settings_are_not_used(model):
    model.generation_config.do_sample = True
    model.generation_config.temperature = 5.0
    runtime = TransformersRuntime(model, 100, pad_id=0)
    first = runtime.generate([np.arange(1, 20)], 12, stop_ids=[0])
    assert first == runtime.generate([np.arange(1, 20)], 12, stop_ids=[0])


def test_one_sequence_with_too_many_logits_is_scored_in_pieces(model, targets, monkeypatch):
    whole = TransformersRuntime(model, 200, pad_id=0).score(targets, top_k=3, tail_samples=2)
    monkeypatch.setattr(transformers_runtime, "LOGITS", 10 * VOCABULARY)
    sizes = []
    monkeypatch.setattr(
        transformers_runtime, "observe", lambda logits, asked: sizes.append(len(logits)) or observe(logits, asked)
    )
    pieces = TransformersRuntime(model, 200, pad_id=0).score(targets, top_k=3, tail_samples=2)
    assert max(sizes) <= 10 and len(sizes) > len(targets)
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(one.logprob, other.logprob, atol=2e-5)
        assert (one.at_ids[:, 0] == other.at_ids[:, 0]).all()


def fails_above(model, tokens):
    """A stand-in for the model's forward that runs out of memory when a batch holds more than so many tokens."""
    forward, seen = model.forward, []

    def limited(*args, **kwargs):
        seen.append(kwargs["input_ids"].numel())
        if seen[-1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(*args, **kwargs)

    return limited, seen


def test_a_batch_that_does_not_fit_is_halved_and_the_next_ones_stay_small(model, targets, monkeypatch):
    expected = TransformersRuntime(model, 10_000, pad_id=0).score(targets)
    limited, seen = fails_above(model, 100)
    monkeypatch.setattr(model, "forward", limited)
    runtime = TransformersRuntime(model, 10_000, pad_id=0)
    found = runtime.score(targets)
    assert runtime.batch_tokens <= 200 and max(seen) > 100
    before = len(seen)
    runtime.score(targets)
    assert max(seen[before:]) <= 100, "what did not fit once is not tried again"
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one.logprob, other.logprob, atol=2e-5)


def test_one_sequence_that_does_not_fit_is_one_clear_message(model, targets, monkeypatch):
    monkeypatch.setattr(model, "forward", fails_above(model, 10)[0])
    with pytest.raises(UserError, match="out of memory on cpu with one sequence of 63 tokens alone"):
        TransformersRuntime(model, 10_000, pad_id=0).score(targets)


def test_another_error_is_no_reason_to_try_again(model, targets, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(model, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        TransformersRuntime(model, 10_000, pad_id=0).score(targets)


def test_the_automatic_batch_is_what_the_memory_holds():
    low, high = BATCH_TOKENS
    assert fitting_batch(1e6, 0.5e9) == 512 and fitting_batch(1e5, 0.5e9) == 4096
    assert fitting_batch(1e9, 0.5e9) == low and fitting_batch(1, 1e12) == high


def test_a_larger_model_gets_a_smaller_automatic_batch(model):
    large = copy.copy(model)
    large.config = copy.deepcopy(model.config)
    large.config.num_hidden_layers = 1000
    small, smaller = (TransformersRuntime(one, "auto", pad_id=0).batch_tokens for one in (model, large))
    assert smaller < small


def test_all_sequences_of_a_batch_are_decoded_as_one_alone(model, monkeypatch):
    runtime, steps = TransformersRuntime(model, 100, pad_id=0), []
    step = runtime._step
    monkeypatch.setattr(runtime, "_step", lambda ids, cache: steps.append(step(ids, cache)) or steps[-1])
    assert len(runtime.decode(np.arange(1, 9), 5)) == 5
    alone = torch.cat(steps, 1)
    steps.clear()
    runtime.decode(np.arange(1, 9), 5, sequences=4)
    assert (torch.cat(steps, 1) == alone.expand(4, 6)).all()


def test_sequences_that_do_not_fit_together_are_one_clear_message(model, monkeypatch):
    monkeypatch.setattr(model, "forward", fails_above(model, 10)[0])
    with pytest.raises(UserError, match="out of memory on cpu with 4 sequences of 11 tokens"):
        TransformersRuntime(model, 100, pad_id=0).decode(np.arange(1, 9), 3, sequences=4)


# What stands beside the text, of every kind; aLoRA begins where its invocation tokens stand.
INVOCATION = [11, 12]
BESIDE_THE_TEXT = {
    "PROMPT_TUNING": {"num_virtual_tokens": 5},
    "P_TUNING": {"num_virtual_tokens": 5, "encoder_hidden_size": 16},
    "PREFIX_TUNING": {"num_virtual_tokens": 5},
    "CARTRIDGE": {"num_virtual_tokens": 5},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2},
    "LORA": {"target_modules": "all-linear", "alora_invocation_tokens": INVOCATION},
}


@pytest.fixture(scope="module", params=BESIDE_THE_TEXT)
def adapted(model, request, tmp_path_factory):
    """The model with an adapter that changes what it says, saved and read again as evaluation reads it."""
    torch.manual_seed(1)
    config = PEFT_TYPE_TO_CONFIG_MAPPING[request.param](task_type="CAUSAL_LM", **BESIDE_THE_TEXT[request.param])
    trained = get_peft_model(copy.deepcopy(model), config)
    for parameter in trained.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    folder = tmp_path_factory.mktemp(request.param)
    trained.save_pretrained(folder)
    return PeftModel.from_pretrained(copy.deepcopy(model), folder).eval()


@pytest.fixture(scope="module")
def sequences():
    """Of several lengths, most with the invocation tokens at another place."""
    random, found = np.random.default_rng(5), []
    for length, at in ((7, 2), (30, 9), (18, 9), (18, None), (50, 30)):
        ids = random.integers(13, VOCABULARY, length).astype(np.int32)
        if at is not None:
            ids[at : at + 2] = INVOCATION
        found.append(ids)
    return found


def peft_logits(model, ids):
    """What PEFT's own forward says after each token of one sequence alone; float64 (length, vocabulary)."""
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(np.asarray(ids, np.int64))[None]).logits[0]
    return logits[-len(ids) :].double()  # virtual tokens come first, where they have logits at all


def test_what_is_beside_the_text_counts_in_every_score(adapted, model, sequences, monkeypatch):
    targets = [Target(ids, np.arange(len(ids)) > 2) for ids in sequences]
    one, many = (TransformersRuntime(adapted, size, pad_id=0).score(targets, top_k=4) for size in (1, 10_000))
    monkeypatch.setattr(transformers_runtime, "LOGITS", 10 * VOCABULARY)  # in pieces, where that can be
    pieces = TransformersRuntime(adapted, 1, pad_id=0).score(targets, top_k=4)
    moved = 0.0
    for target, *scores in zip(targets, one, many, pieces, strict=True):
        expected = peft_logits(adapted, target.ids).log_softmax(-1).numpy()[:-1][target.scored[1:]]
        true = np.arange(len(expected)), target.true
        moved = max(moved, np.abs(expected - direct(model, target)).max())
        for score in scores:
            np.testing.assert_allclose(score.logprob, expected[true], atol=5e-5)
            np.testing.assert_allclose(score.at_logprob, np.sort(expected, 1)[:, :-5:-1], atol=5e-5)
    assert moved > 0.1, "the adapter must be one that can be missed"


@pytest.mark.parametrize("shared", [0, 8])
def test_what_is_beside_the_text_counts_in_every_choice(adapted, sequences, shared):
    prompts = [np.concatenate([sequences[1][:shared], ids[: len(ids) - 3]]) for ids in sequences]
    # The invocation within what all of them share.
    prompts += [np.concatenate([sequences[1][:shared], INVOCATION, ids]) for ids in sequences[:2]]
    options = [np.array([20, 30, 40, 50])] * len(prompts)
    one, many = (TransformersRuntime(adapted, size, pad_id=0).choose(prompts, options) for size in (1, 10_000))
    for alone, batched, prompt in zip(one, many, prompts, strict=True):
        expected = peft_logits(adapted, prompt)[-1].log_softmax(-1).numpy()[options[0]]
        np.testing.assert_allclose(alone, expected, atol=5e-5)
        np.testing.assert_allclose(batched, expected, atol=5e-5)


def test_a_shared_beginning_that_holds_the_invocation_changes_no_choice(adapted, sequences):
    shared = sequences[1][:20]
    prompts = [np.concatenate([shared, ids[3:6]]) for ids in sequences]
    found = TransformersRuntime(adapted, 10_000, pad_id=0).choose(prompts, [np.array([20, 30])] * len(prompts))
    for row, prompt in zip(found, prompts, strict=True):
        expected = peft_logits(adapted, prompt)[-1].log_softmax(-1).numpy()[[20, 30]]
        np.testing.assert_allclose(row, expected, atol=5e-5)


def test_what_is_beside_the_text_counts_in_every_answer(adapted, sequences):
    expected = []
    for prompt in sequences[:4]:
        ids = list(prompt)
        for _ in range(6):
            ids.append(int(peft_logits(adapted, ids)[-1].argmax()))
        expected.append(ids[len(prompt) :])
    one, many = (
        TransformersRuntime(adapted, size, pad_id=0).generate(sequences[:4], 6, stop_ids=[VOCABULARY])
        for size in (1, 10_000)
    )
    assert one == expected
    assert many == expected
    runtime = TransformersRuntime(adapted, 100, pad_id=0)
    assert [runtime.stream(prompt, 6, [VOCABULARY])[0] for prompt in sequences[:4]] == expected


def test_what_is_decoded_for_its_speed_is_the_answer_too(adapted, sequences, monkeypatch):
    if getattr(adapted.active_peft_config, "alora_invocation_tokens", None):
        pytest.skip("token by token the invocation is out of sight; the work is the same")
    prompt = sequences[0]
    runtime, steps = TransformersRuntime(adapted, 100, pad_id=0), []
    step = runtime._step
    monkeypatch.setattr(runtime, "_step", lambda ids, cache: steps.append(step(ids, cache)) or steps[-1])
    runtime.decode(prompt, 4, sequences=3)
    answer = runtime.generate([prompt], 5, stop_ids=[VOCABULARY])[0]
    assert torch.cat(steps, 1).tolist() == [answer] * 3
    assert runtime.prefill(prompt) > 0


def test_virtual_tokens_take_their_place_in_the_context_and_count_in_the_size(adapted, model):
    runtime = TransformersRuntime(adapted, 100, pad_id=0)
    assert runtime.size_mb > TransformersRuntime(model, 100, pad_id=0).size_mb
    count = getattr(adapted.active_peft_config, "num_virtual_tokens", 0)
    assert runtime.context == CONTEXT - count
    long = Target(np.zeros(CONTEXT - count + 1, np.int32), np.arange(CONTEXT - count + 1) > 0)
    beside = f" beside {count} virtual tokens" if count else ""
    with pytest.raises(
        UserError, match=f"{CONTEXT - count + 1} tokens does not fit the model's context of 64{beside};"
    ):
        runtime.score([long])
