"""Both runtimes say of continuations and answers what the model itself says, whatever is shared, packed or cut."""

import copy
import random

import numpy as np
import pytest
import torch
from test_transformers_runtime import CONTEXT as SHORT
from test_transformers_runtime import VOCABULARY as FEW
from tiny_gguf import CONTEXT, VOCABULARY, make_checkpoint
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    FalconConfig,
    GPT2Config,
    GPTNeoConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
)
from transformers.pytorch_utils import Conv1D

from tradeoffs.convert.gguf_converter import convert
from tradeoffs.harness import growing, onednn, packing, torch_side
from tradeoffs.harness.asking import Asked, alike, runs
from tradeoffs.harness.llama_side import LlamaTasks
from tradeoffs.harness.torch_side import TorchTasks
from tradeoffs.plumbing.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def never(answer):
    return False


def asked_of(vocabulary, context, seed=0):
    """Choices after one context, a subject's examples before several questions, texts alone, what is cut, twins."""
    drawn = random.Random(seed)

    def ids(count):
        return tuple(drawn.randrange(3, vocabulary) for _ in range(count))

    question, examples = ids(9), ids(min(40, context // 2))
    found = [Asked(question, ids(count)) for count in (1, 3, 3, 7)]
    for _ in range(4):
        one = examples + ids(5)
        found += [Asked(one, (token,)) for token in (5, 6, 7)] + [Asked(one, ids(4))]
    found += [Asked((1,), ids(count)) for count in (2, 11, context - 1, context)]
    found += [Asked(ids(context), ids(6)), Asked(ids(context - 3), ids(3)), found[0], found[5]]
    return found


def direct(model, one, context):
    """The plain way: a sequence alone, and nothing left out of it but what the context has no place for."""
    ids = torch.tensor([(one.context + one.continuation)[-(context + 1) :]])
    with torch.no_grad():
        logits = model(ids[:, :-1]).logits[0].double().log_softmax(-1)[-len(one.continuation) :]
    true = ids[0, -len(one.continuation) :]
    return float(logits.gather(1, true[:, None]).sum()), bool((logits.argmax(-1) == true).all())


@pytest.fixture(params=["llama", "gpt2"])
def model(request):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": FEW}
    if request.param == "llama":
        config = LlamaConfig(intermediate_size=48, num_key_value_heads=2, max_position_embeddings=SHORT, **sizes)
    else:
        config = GPT2Config(n_positions=SHORT, **sizes)
    config.initializer_range = 0.3
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    model = make_checkpoint(folder / "checkpoint")
    convert(folder / "checkpoint", folder / "tiny.gguf")
    return model, folder / "tiny.gguf"


@pytest.mark.parametrize("row", [512, 48, 8])
def test_continuations_are_what_the_model_says_of_each_alone(model, monkeypatch, row):
    monkeypatch.setattr(torch_side, "ROW", row)
    asked, runtime = asked_of(FEW, SHORT), TorchTasks(model, 200, pad_id=0)
    said = runtime.continuations(asked)
    assert runtime._packs
    for one, found in zip(asked, said, strict=True):
        nats, greedy = direct(model, one, SHORT)
        assert found.log_likelihood == pytest.approx(nats, abs=1e-3)
        assert found.greedy == greedy


SMALL = {"hidden_size": 32, "num_attention_heads": 2}
FEWER = {"num_key_value_heads": 1, "intermediate_size": 32} | SMALL
NEO = {"hidden_size": 32, "num_heads": 2, "num_layers": 2, "attention_types": [[["global", "local"], 1]]}
OTHERS = {
    "a window": MistralConfig(num_hidden_layers=1, sliding_window=8, **FEWER),
    "a window by another name": GPTNeoConfig(window_size=8, **NEO),
    "a mask of its own": FalconConfig(num_hidden_layers=1, alibi=True, **SMALL),
    "a state": Lfm2Config(num_hidden_layers=2, full_attn_idxs=[1], **FEWER),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_model_of_another_attention_is_asked_one_by_one_and_that_is_said(kind, capsys):
    torch.manual_seed(0)
    config = copy.deepcopy(OTHERS[kind])
    config.vocab_size, config.max_position_embeddings, config.initializer_range = FEW, SHORT, 0.3
    config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
    model = AutoModelForCausalLM.from_config(config).eval()
    asked, runtime = asked_of(FEW, SHORT), TorchTasks(model, 200, pad_id=0)
    for _ in range(2):
        said = runtime.continuations(asked)
    assert capsys.readouterr().out.count("note: this model does not take packed rows") == 1
    for one, found in zip(asked, said, strict=True):
        assert found.log_likelihood == pytest.approx(direct(model, one, SHORT)[0], abs=1e-3)
    prompts = [(3, 5, 8, 7), (13, 21, 34, 55)]
    assert runtime.answers(prompts, 6, [], never) == [runtime.generate([np.array(one)], 6, [])[0] for one in prompts]


def test_a_model_that_takes_no_packed_rows_says_the_same_one_by_one(model, monkeypatch):
    asked = asked_of(FEW, SHORT)
    packed = TorchTasks(model, 200, pad_id=0).continuations(asked)
    monkeypatch.setattr(torch_side, "ROUNDING", -1.0)  # whatever comes out of the trial
    single = TorchTasks(model, 200, pad_id=0)
    found = single.continuations(asked)
    assert not single._packs
    for one, other in zip(packed, found, strict=True):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-3)


def test_many_logits_go_through_piece_by_piece(model, monkeypatch):
    monkeypatch.setattr(torch_side, "TASK_LOGITS", 10 * FEW)
    monkeypatch.setattr(torch_side, "PIECE", 16)
    asked = asked_of(FEW, SHORT)
    for one, found in zip(asked, TorchTasks(model, 200, pad_id=0).continuations(asked), strict=True):
        assert found.log_likelihood == pytest.approx(direct(model, one, SHORT)[0], abs=1e-3)


def test_rows_that_do_not_fit_the_memory_are_halved(model, monkeypatch):
    asked, runtime = asked_of(FEW, SHORT), TorchTasks(model, 200, pad_id=0)
    expected = runtime.continuations(asked)
    read = TorchTasks._read

    tried = []

    def full(self, rows, *others):
        tried.append(rows)
        if sum(len(row.asked) for row in rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        read(self, rows, *others)

    monkeypatch.setattr(TorchTasks, "_read", full)
    found = runtime.continuations(asked)
    assert len(tried) < 2 * len(asked)  # what did not fit is not tried again at the same size
    assert [one.greedy for one in found] == [one.greedy for one in expected]
    assert np.allclose([one.log_likelihood for one in found], [one.log_likelihood for one in expected], atol=1e-3)
    monkeypatch.setattr(
        TorchTasks, "_read", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory."))
    )
    with pytest.raises(UserError, match="out of memory on cpu with one sequence"):
        runtime.continuations(asked)


def test_a_continuation_longer_than_the_context_is_refused(model):
    with pytest.raises(UserError, match=f"likelihood of {SHORT + 1} tokens at once"):
        TorchTasks(model, 200, pad_id=0).continuations([Asked((1,), tuple([5] * (SHORT + 1)))])


@pytest.mark.parametrize("shared", [0, 40])
def test_answers_are_those_of_generation(model, shared):
    drawn = random.Random(1)
    begin = tuple(drawn.randrange(3, FEW) for _ in range(shared))
    prompts = [begin + tuple(drawn.randrange(3, FEW) for _ in range(count)) for count in (3, 9, 1, 12, 5)]
    runtime = TorchTasks(model, 150, pad_id=0)
    arrays = [np.asarray(prompt, np.int32) for prompt in prompts]
    expected = runtime.generate(arrays, 10, [])
    assert runtime.answers(prompts, 10, [], never) == expected
    stop = expected[0][4]  # some end at once, others later, and are left behind
    assert runtime.answers(prompts, 10, [stop], never) == runtime.generate(arrays, 10, [stop])
    ended = runtime.answers(prompts, 10, [], lambda answer: len(answer) >= 3 or answer[-1] == stop)
    cuts = [next((at + 1 for at, token in enumerate(one[:3]) if token == stop), 3) for one in expected]
    assert ended == [one[:cut] for one, cut in zip(expected, cuts, strict=True)]


def test_weights_in_another_order_say_the_same(model, monkeypatch):
    asked = asked_of(FEW, SHORT)
    prompts = [(3, 5, 8), (13, 21, 34, 55), (7,)]
    with monkeypatch.context() as little:
        little.setattr(onednn, "SHARE", 0)
        plain = TorchTasks(copy.deepcopy(model), 200, pad_id=0)
    packed = TorchTasks(copy.deepcopy(model), 200, pad_id=0)
    for runtime, reordered in ((plain, False), (packed, True)):
        linear = [one for one in runtime.model.modules() if type(one) in (torch.nn.Linear, Conv1D)]
        assert len(linear) > 8 and all(("forward" in vars(one)) == reordered for one in linear)
    room, caches = growing.with_room, []
    monkeypatch.setattr(torch_side, "with_room", lambda cache: caches.append(cache) or room(cache))
    for one, other in zip(packed.continuations(asked), plain.continuations(asked), strict=True):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-4)
        assert one.greedy == other.greedy
    assert packed.answers(prompts, 12, [], never) == plain.answers(prompts, 12, [], never)
    assert len(caches) == 2


def test_other_precisions_are_left_to_torch(model):
    assert not onednn.reorder(copy.deepcopy(model).to(torch.bfloat16))


def test_a_cache_with_room_is_one_without(model, monkeypatch):
    monkeypatch.setattr(growing, "ROOM", 3)
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]])
    plain, roomy = DynamicCache(config=model.config), growing.with_room(DynamicCache(config=model.config))
    with torch.no_grad():
        for step in range(9):
            if step == 5:  # one is left out
                ids = ids[1:]
                for cache in (plain, roomy):
                    cache.batch_select_indices(torch.tensor([1, 2]))
            one, other = (model(ids, past_key_values=cache, use_cache=True).logits for cache in (plain, roomy))
            assert torch.equal(one, other)
            ids = one[:, -1:].argmax(-1)
    for mine, theirs in zip(roomy.layers, plain.layers, strict=True):
        assert torch.equal(mine.keys, theirs.keys)
        assert torch.equal(mine.values, theirs.values)


def test_llama_cpp_says_the_same(gguf):
    model, path = gguf
    asked = asked_of(VOCABULARY, CONTEXT)
    torch_said = TorchTasks(model, "auto", pad_id=0).continuations(asked)
    with LlamaTasks(path, 2048) as runtime:
        said = runtime.continuations(asked)
        again = runtime.continuations(asked[::-1])[::-1]
    for one, found, twice, exact in zip(asked, said, again, torch_said, strict=True):
        room = 0.004 * len(one.continuation) + 0.02
        assert found.log_likelihood == pytest.approx(exact.log_likelihood, abs=room)
        assert twice.log_likelihood == pytest.approx(exact.log_likelihood, abs=room)


def test_llama_cpp_ends_an_answer_by_what_it_says(gguf):
    _, path = gguf
    prompts = [(1, 50, 60), (1, 70), (1, 80, 90, 100)]
    with LlamaTasks(path, 2048) as runtime:
        whole = runtime.answers(prompts, 8, [], never)
        ended = runtime.answers(prompts, 8, [], lambda answer: len(answer) >= 3)
    assert [len(one) for one in whole] == [8, 8, 8]
    assert ended == [one[:3] for one in whole]


def test_what_begins_alike_is_there_once():
    drawn = random.Random(0)
    examples = tuple(drawn.randrange(1000) for _ in range(600))
    questions = [examples + tuple(drawn.randrange(1000) for _ in range(8)) for _ in range(5)]
    sequences = [(*question, choice) for question in questions for choice in (1, 2, 3, 4)] + [(5, 6, 7)]
    free = [len(ids) - 1 for ids in sequences]
    found = list(runs(sequences, free, row=512))
    assert sorted(index for _, run in found for index in run) == list(range(21))
    assert max(shared for shared, _ in found) == 600
    for shared, run in found:
        ((row,),) = packing.batches(packing.trees(sequences, [1] * 21, shared, run, 512, 100), 512, 100)
        mine = [sequences[index] for index in run]
        assert len(row.tokens) == len({ids[:end] for ids in mine for end in range(shared + 1, len(ids) + 1)})


def test_trees_come_into_rows_that_are_no_longer_than_the_longest_and_nearly_full():
    drawn = random.Random(0)
    starts = sorted(tuple(drawn.randrange(1000) for _ in range(drawn.choice((5, 9, 60)))) for _ in range(40))
    sequences = [start + (choice,) * 20 for start in starts for choice in (1, 2)] + [(7,) * 700]
    trees = list(packing.trees(sequences, [1] * 81, 0, range(81), 512, 100))
    nodes = sum(len(tree.tokens) for tree in trees)
    assert len(trees) == 41  # one of each start, and the long sequence
    batches = packing.batches(trees, 512, 100)
    assert sorted(index for batch in batches for row in batch for index, _ in row.asked) == list(range(81))
    for batch in batches:
        for row in batch:
            for index, (node,) in row.asked:
                way = list(np.flatnonzero(row.seen()[node]))
                assert tuple(row.tokens[place] for place in way) == sequences[index]
                assert [row.depths[place] for place in way] == list(range(len(way)))
    assert len(batches[0]) == len(batches[0][0].asked) == 1
    widths = [len(batch) * max(len(row.tokens) for row in batch) for batch in batches]
    assert max(widths[1:]) <= 512
    assert sum(widths) < 1.1 * nodes


def test_a_node_sees_its_own_way_to_the_root_and_nothing_beside_it():
    ((row,),) = packing.batches(packing.trees([(1, 2, 3), (1, 2, 4), (9, 8)], [1, 1, 1], 0, [0, 1, 2], 99, 99), 99, 99)
    assert row.tokens == [1, 2, 3, 4, 9, 8]
    assert row.branches
    ways = [{row.tokens[place] for place in np.flatnonzero(seen)} for seen in row.seen()]
    assert ways == [{1}, {1, 2}, {1, 2, 3}, {1, 2, 4}, {9}, {9, 8}]


def test_an_introduction_of_all_subjects_costs_none_its_examples():
    introduction, drawn = tuple(range(40)), random.Random(0)
    subjects = [introduction + tuple(drawn.randrange(100, 900) for _ in range(400)) for _ in range(3)]
    sequences = [subject + (drawn.randrange(900),) * 300 for subject in subjects for _ in range(4)]
    found = list(runs(sequences, [len(ids) - 1 for ids in sequences], row=512))
    assert [len(run) for _, run in found] == [4, 4, 4]
    assert all(shared >= 440 for shared, _ in found)


def test_how_far_two_sequences_are_alike():
    assert alike((), (1,)) == 0
    assert alike(tuple(range(200)), (*tuple(range(150)), 0)) == 150
    assert alike((1, 2), (1, 2, 3)) == 2
