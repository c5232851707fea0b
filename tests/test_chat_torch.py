"""Of transformers' models each answer is the one that it would be alone, whatever joins, leaves or was said before."""

import copy

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from tiny import ROOT
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Phi3Config,
)

from tradeoffs.chat.worker import loading
from tradeoffs.chat.worker.decoder import NoRoomError
from tradeoffs.chat.worker.torch_apart import ApartDecoder
from tradeoffs.chat.worker.torch_decoder import TorchDecoder, decoder
from tradeoffs.common import files
from tradeoffs.common.cells import Cell
from tradeoffs.plumbing.errors import UserError
from tradeoffs.transformers_runtime import TransformersRuntime

VOCABULARY, CONTEXT, INVOCATION = 97, 96, [11, 12]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY}
LLAMA = SIZES | {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
SCALED = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 20}
# What a model keeps, and how it counts positions: a window that is shorter than most sequences, of some layers or all;
# none but what its attention mask says; a state; scaled where a sequence is long.
CONFIGS = {
    "llama": LlamaConfig(**LLAMA),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT),
    "gpt_neox": GPTNeoXConfig(**SIZES, intermediate_size=48, max_position_embeddings=CONTEXT),
    "window": MistralConfig(**LLAMA, sliding_window=9, head_dim=8),
    "window_of_some": Gemma3TextConfig(
        **LLAMA, head_dim=8, sliding_window=9, layer_types=["sliding_attention", "full_attention"]
    ),
    "alibi": BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, max_position_embeddings=CONTEXT),
    "falcon_alibi": FalconConfig(**SIZES, alibi=True, max_position_embeddings=CONTEXT),
    "state": Lfm2Config(**LLAMA, layer_types=["conv", "full_attention"]),
    "scaled": Phi3Config(
        **LLAMA,
        pad_token_id=0,
        original_max_position_embeddings=20,
        rope_parameters=SCALED | {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]},
    ),
}
APART = {"state", "scaled", "alora", "LILY"}
QUICK = {"llama", "alibi", "state", "PREFIX_TUNING"}  # one of each way; the others are many, and take long together
ADAPTERS = {
    "PROMPT_TUNING": {"num_virtual_tokens": 5},
    "P_TUNING": {"num_virtual_tokens": 5, "encoder_hidden_size": 16},
    "PREFIX_TUNING": {"num_virtual_tokens": 5},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2},
    "LORA": {"target_modules": "all-linear"},
    "alora": {"target_modules": "all-linear", "alora_invocation_tokens": INVOCATION},
    "LILY": {"target_modules": "all-linear", "r": 4, "num_B": 2},
}


def random_model(config):
    torch.manual_seed(0)
    # Larger than the usual initialisation, so that the next token depends visibly on what came before.
    config.initializer_range = 0.3
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def llama():
    return random_model(CONFIGS["llama"])


@pytest.fixture(
    scope="module",
    params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in (*CONFIGS, *ADAPTERS)],
)
def model(request, llama, tmp_path_factory):
    """A model with random weights, or one with a random adapter, saved and read again."""
    if request.param in CONFIGS:
        return random_model(CONFIGS[request.param])
    torch.manual_seed(1)
    kind = "LORA" if request.param == "alora" else request.param
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **ADAPTERS[request.param])
    trained = get_peft_model(copy.deepcopy(llama), config)
    for parameter in trained.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    folder = tmp_path_factory.mktemp(request.param)
    trained.save_pretrained(folder)
    return PeftModel.from_pretrained(copy.deepcopy(llama), folder).eval()


@pytest.fixture
def name(request):
    return request.node.callspec.params["model"]


@pytest.fixture(scope="module")
def prompts():
    """Of several lengths, most with the invocation tokens at another place."""
    random, found = np.random.default_rng(5), []
    for length, at in ((7, 2), (30, 9), (18, 9), (18, None), (47, 30), (3, None)):
        ids = random.integers(13, VOCABULARY, length).tolist()
        if at is not None:
            ids[at : at + 2] = INVOCATION
        found.append(ids)
    return found


class Answer:
    def __init__(self, prompt, most):
        self.prompt, self.most, self.said, self.place = prompt, most, [], None
        self.waiting = []


def answered(decoder, answers, arrive=None, piece=7, pause=lambda step, number: False):
    """Greedy answers, as the loop asks for them: they arrive at the steps of `arrive`, leave when they have their
    length, are read `piece` ids at a time, and are left out of a step where `pause` says so."""
    arrive = arrive or [0] * len(answers)
    step, left = 0, len(answers)
    while left:
        for answer, begins in zip(answers, arrive, strict=True):
            waits = begins <= step and answer.place is None and not answer.said
            if waits and (found := decoder.begin(answer.prompt, len(answer.prompt) + answer.most)):
                answer.place, answer.cached = found
                answer.waiting = answer.prompt[answer.cached :]
        parts = {}
        for number, answer in enumerate(answers):
            if answer.place is not None and not pause(step, number):
                parts[answer.place], answer.waiting = answer.waiting[:piece], answer.waiting[piece:]
        growing = {answer.place: answer for answer in answers if answer.place in parts}
        found = decoder.feed(parts, {place for place, answer in growing.items() if not answer.waiting})
        assert set(found) == {place for place, answer in growing.items() if not answer.waiting}
        for place, logits in found.items():
            answer = growing[place]
            assert logits.dtype == np.float32 and logits.shape == (decoder.vocabulary,)
            answer.said.append(int(logits.argmax()))
            answer.waiting = [answer.said[-1]]
            answer.logits = [*getattr(answer, "logits", []), logits]
            if len(answer.said) == answer.most:
                decoder.end(place)
                answer.place, left = None, left - 1
        step += 1
        assert step < 500
    return [answer.said for answer in answers]


def alone(model, prompts, most):
    """What `generate` answers to each prompt by itself."""
    runtime = TransformersRuntime(model, 100, pad_id=0)
    return [
        runtime.stream(np.array(prompt), length, [VOCABULARY])[0] for prompt, length in zip(prompts, most, strict=True)
    ]


def logits_after(model, ids, last):
    """What the model says after each of the last ids, alone and in one pass; float32 (last, vocabulary)."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0, -last:].numpy()


def test_an_answer_is_the_one_it_would_be_alone_while_others_join_and_leave(model, name, prompts):
    most = [9, 5, 12, 3, 7, 11]
    made = decoder(model, pad_id=0)
    assert isinstance(made, ApartDecoder if name in APART else TorchDecoder)
    said = answered(made, [Answer(*one) for one in zip(prompts, most, strict=True)], arrive=[0, 2, 2, 5, 6, 9])
    assert said == alone(model, prompts, most)


def test_logits_of_a_batch_of_unequal_lengths_are_those_of_a_single_run(model, name, prompts):
    answers = [Answer(prompt, 8) for prompt in prompts]
    answered(decoder(model, pad_id=0), answers, piece=100)
    single = [Answer(prompt, 8) for prompt in prompts]
    for one in single:
        answered(decoder(model, pad_id=0), [one], piece=100)
    for one, other in zip(answers, single, strict=True):
        assert one.said == other.said
        np.testing.assert_allclose(one.logits, other.logits, atol=2e-5, rtol=1e-4)


def test_what_was_said_before_is_not_read_again(model, name, prompts):
    made = decoder(model, pad_id=0)
    first = Answer(prompts[1], 6)
    answered(made, [first])
    # The conversation goes on; the same question again; another one that begins alike.
    more = [prompts[1] + first.said + prompts[0], prompts[1], prompts[1][:20] + prompts[3]]
    for prompt in more:
        answer = Answer(prompt, 6)
        assert answered(made, [answer]) == alone(model, [prompt], [6])
        # The last token that was said was never read.
        known = {0: len(prompts[1]) + 5, 1: len(prompts[1]) - 1, 2: 20}[more.index(prompt)]
        assert answer.cached == (0 if name in APART else known)


def test_what_grows_is_a_beginning_for_others(llama, prompts):
    made = decoder(llama, pad_id=0)
    asked = [prompts[4], prompts[4][:30] + prompts[0], prompts[4]]
    answers = [Answer(prompt, 10) for prompt in asked]
    assert answered(made, answers, arrive=[0, 9, 10], piece=100) == alone(llama, asked, [10] * 3)
    assert [answer.cached for answer in answers] == [0, 30, 46]


def test_an_answer_that_waits_for_a_step_goes_on_where_it_was(model, prompts):
    most = [12, 12, 12, 12]
    answers = [Answer(prompt, 12) for prompt in prompts[:4]]
    said = answered(decoder(model, pad_id=0), answers, pause=lambda step, number: (step + number) % 3 == 0)
    assert said == alone(model, prompts[:4], most)


def test_what_is_kept_is_bounded_and_the_longest_unused_goes_first(llama, prompts):
    made = decoder(llama, pad_id=0, cells=100)
    for prompt in (prompts[1], prompts[4], prompts[1]):  # 30, 47 tokens
        answered(made, [Answer(prompt, 2)])
    again = Answer(prompts[2], 40)  # 58 tokens: there is room for no more than one of them
    answered(made, [again])
    for prompt, known in ((prompts[1], 29), (prompts[4], 0)):
        answer = Answer(prompt, 2)
        answered(made, [answer])
        assert answer.cached == known


def test_what_has_no_room_beside_the_others_waits(llama, prompts):
    made = decoder(llama, pad_id=0, cells=60)
    place, _ = made.begin(prompts[0], 25)
    assert made.begin(prompts[1], 35) is None, "two rows of 35"
    assert made.begin(prompts[0], 28) is not None
    made.end(place)
    # By itself each sequence is served that fits the context.
    alone_in_it = decoder(llama, pad_id=0, cells=10)
    assert alone_in_it.begin(prompts[1], CONTEXT) is not None


def test_all_answers_come_where_there_is_room_for_few(model, prompts):
    made = decoder(model, pad_id=0, cells=120)
    assert answered(made, [Answer(prompt, 6) for prompt in prompts]) == alone(model, prompts, [6] * 6)


def test_there_are_no_more_places_than_it_says(llama):
    made = decoder(llama, pad_id=0)
    places = {made.begin([1, 2, 3], 4)[0] for _ in range(made.places)}
    assert len(places) == made.places
    assert made.begin([1, 2, 3], 4) is None
    made.end(5)
    assert made.begin([1, 2, 3], 4)[0] == 5


def runs_out(model, monkeypatch, where):
    """The model's forward runs out of memory for such token ids."""
    forward = model.forward

    def limited(*args, **kwargs):
        if where(kwargs["input_ids"]):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", limited)


def test_where_memory_runs_out_less_goes_through_at_once(llama, prompts, monkeypatch):
    expected = alone(llama, prompts, [6] * 6)
    made = decoder(llama, pad_id=0, cells=10_000)
    runs_out(llama, monkeypatch, lambda ids: ids.numel() > 4)
    assert answered(made, [Answer(prompt, 6) for prompt in prompts], piece=30) == expected
    assert made.cells < 10_000


def test_what_did_not_fit_is_as_if_it_had_not_been_fed(model, prompts, monkeypatch):
    """Two grow; in the same step a prompt fails, when they and its first half were read."""
    made = decoder(model, pad_id=0)
    expected = alone(model, prompts[:2], [6, 6])
    places, said = [made.begin(prompt, len(prompt) + 6)[0] for prompt in prompts[:2]], [[], []]
    fed = prompts[:2]
    for step in range(6):
        parts, wanted = dict(zip(places, fed, strict=True)), set(places)
        if step == 3:
            poison = [20, 21, 22, VOCABULARY - 1]
            with monkeypatch.context() as patch:
                runs_out(made.model, patch, lambda ids: (ids == VOCABULARY - 1).any())
                third, _ = made.begin(poison, 10)
                with pytest.raises(NoRoomError):
                    made.feed(parts | {third: poison}, wanted | {third})
                with pytest.raises(NoRoomError):
                    made.every(third, poison)
            made.end(third)
        found = made.feed(parts, wanted)
        for answer, place in zip(said, places, strict=True):
            answer.append(int(found[place].argmax()))
        fed = [answer[-1:] for answer in said]
    assert said == expected


def test_the_logits_after_every_token_are_those_of_one_pass(model, name, prompts):
    made = decoder(model, pad_id=0)
    ids = prompts[4]
    beside = made.begin(prompts[0], 20)[0]
    made.feed({beside: prompts[0]}, {beside})
    place, known = made.begin(ids[:1], len(ids) + 3)
    assert not known
    for begin in range(0, len(ids), 20):
        piece = ids[begin : begin + 20]
        found = made.every(place, piece)
        expected = logits_after(model, ids[: begin + 20], len(piece))
        np.testing.assert_allclose(found, expected, atol=5e-5, rtol=1e-4)
        made.feed({beside: [9]}, {beside})
    if name == "LILY":
        return  # token by token it is another one than in one pass
    said = int(found[-1].argmax())
    again = made.feed({place: [said], beside: [9]}, {place})
    np.testing.assert_allclose(again[place], logits_after(model, [*ids, said], 1)[0], atol=5e-5, rtol=1e-4)


def test_a_model_that_keeps_what_it_reads_in_its_own_way_is_refused():
    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(UserError, match="type mamba keeps what it has read in a form of its own"):
        decoder(AutoModelForCausalLM.from_config(config), pad_id=0)


def test_what_an_evaluation_asks_of_it_is_answered_as_before(model, prompts):
    made, runtime = decoder(model, pad_id=0), TransformersRuntime(model, 100, pad_id=0)
    some = [np.array(prompt) for prompt in prompts[:2]]
    assert made.generate(some, 5, [VOCABULARY]) == runtime.generate(some, 5, [VOCABULARY])
    assert len(made.decode(some[0], 3, sequences=2)) == 3


def test_nothing_stays_when_it_is_closed(llama, prompts):
    made = decoder(llama, pad_id=0)
    answered(made, [Answer(prompts[0], 3)])
    made.close()
    assert made.begin(prompts[0], 20)[1] == 0


METHOD = {"full": None, "peft": "LORA", "load": None, "double_quant": None}


@pytest.fixture
def pipeline(work, elsewhere, tmp_path):
    """A base, a trained adapter and a merged checkpoint in their places, with the facts that an evaluation leaves."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    cell = Cell("base", "numbers", "lora")
    for path, made in ((cell.base, work / "base"), (cell.merged, work / "tied"), (cell.tokens, work / "tokens")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(made)
    torch.manual_seed(1)
    config = PEFT_TYPE_TO_CONFIG_MAPPING["LORA"](task_type="CAUSAL_LM", target_modules="all-linear")
    trained = get_peft_model(AutoModelForCausalLM.from_pretrained(work / "base"), config)
    for parameter in trained.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    trained.save_pretrained(cell.training(7).weights)
    for form in ("trained", "bf16", "int8", "nf4", "f16"):
        files.write_json(cell.variant(form).facts, {"method": METHOD, "seed": 7} if form == "trained" else {})
    return cell


def first_logits(made):
    place, _ = made.begin([5, 6, 7], 10)
    return made.feed({place: [5, 6, 7]}, {place})[place]


def test_the_model_as_trained_is_its_adapter_on_its_base(pipeline):
    made = loading.load(pipeline.variant("trained"))
    assert made.model.active_peft_config.peft_type == "LORA"
    assert {parameter.dtype for parameter in made.model.parameters()} == {torch.float32}, "evaluate.reference_dtype"
    expected = made.model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1].detach().numpy()
    np.testing.assert_allclose(first_logits(made), expected, atol=1e-4)


@pytest.mark.parametrize(("form", "layer"), [("bf16", "Linear"), ("int8", "Linear8bitLt"), ("nf4", "Linear4bit")])
def test_a_precision_is_the_merged_checkpoint_in_it(pipeline, form, layer):
    made = loading.load(pipeline.variant(form))
    assert type(made.model.model.layers[0].mlp.up_proj).__name__ == layer
    assert made.model.config.tie_word_embeddings, "the merged one"
    assert made.model.lm_head.weight.dtype == torch.bfloat16
    assert np.isfinite(first_logits(made)).all()


def test_an_answer_in_int8_does_not_depend_on_the_pieces_it_comes_in_nor_on_others(pipeline):
    made = loading.load(pipeline.variant("int8"))
    draw = np.random.default_rng(0)
    prompts = [draw.integers(1, made.vocabulary, 30).tolist() for _ in range(4)]

    def alone(ids):
        place, cached = made.begin(ids, 40)
        assert not cached
        first = made.feed({place: ids}, {place})[place].copy()
        second = made.feed({place: [7]}, {place})[place].copy()
        made.end(place)
        return first, second

    expected = [alone(ids) for ids in prompts]
    places = [made.begin(ids, 40)[0] for ids in prompts]
    for begin in range(0, 30, 10):
        pieces = {place: ids[begin : begin + 10] for place, ids in zip(places, prompts, strict=True)}
        first = made.feed(pieces, set(places) if begin == 20 else set())
    second = made.feed({place: [7] for place in places}, set(places))
    for place, logits in zip(places, expected, strict=True):
        np.testing.assert_array_equal(first[place], logits[0])
        np.testing.assert_array_equal(second[place], logits[1])


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"unmergeable": "it has virtual tokens"}, "there is none: as trained only: it has virtual tokens"),
        ({"no_gguf": "of type x"}, "there is none: in no format of llama.cpp: of type x"),
    ],
)
@pytest.mark.parametrize("form", ["bf16", "q4_0"])
def test_a_variant_that_there_cannot_be_says_why(pipeline, form, facts, message):
    files.write_json(pipeline.variant(form).facts, facts)
    with pytest.raises(UserError, match=f"^base-numbers-lora-{form}: {message}$"):
        loading.load(pipeline.variant(form))


def test_what_is_not_there_is_one_message_with_what_makes_it(pipeline):
    (pipeline.training(7).weights / "adapter_model.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"models/trained/base-numbers-lora/7: no adapter_model.safetensors .*dvc repro"
    ):
        loading.load(pipeline.variant("trained"))
    pipeline.merged.unlink()
    with pytest.raises(UserError, match=r"models/merged/base-numbers-lora: no config.json .*stage merge"):
        loading.load(pipeline.variant("bf16"))
    with pytest.raises(UserError, match=r"models/gguf/base-numbers-lora-f16.gguf: missing"):
        loading.load(pipeline.variant("f16"))
    pipeline.variant("nf4").facts.unlink()
    with pytest.raises(UserError, match=r"data/facts/base-numbers-lora-nf4.json: missing"):
        loading.load(pipeline.variant("nf4"))
    with pytest.raises(UserError, match=r"no format 'q4' \(did you mean"):
        loading.load(pipeline.variant("q4"))
