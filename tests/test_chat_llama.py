"""Sequences of one llama.cpp context: each says what it would say alone, whatever is shared, cut and dropped."""

import numpy as np
import pytest
import torch
from tiny_gguf import CONTEXT, VOCABULARY, make_checkpoint
from transformers import Gemma2Config, Gemma2ForCausalLM, MambaConfig, MambaForCausalLM

from benchmarks.ties import Difference, first_difference
from tradeoffs.chat import room
from tradeoffs.chat.messages import Asked, Ended
from tradeoffs.chat.worker.answer import Answer
from tradeoffs.chat.worker.decoder import NoRoomError
from tradeoffs.chat.worker.llama import LlamaDecoder
from tradeoffs.chat.worker.llama_apart import PAGE, Pages
from tradeoffs.chat.worker.llama_shared import Cells, Shared
from tradeoffs.chat.worker.loop import Loop
from tradeoffs.chat.worker.prompts import Prompt
from tradeoffs.chat.worker.sampling import Sampler
from tradeoffs.chat.worker.text import Text
from tradeoffs.convert.gguf_converter import convert
from tradeoffs.evaluate.runtime import Target
from tradeoffs.llama_cpp.context import SEQUENCES
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime

CLOSE = 0.02  # see test_llama_cpp_runtime
STOP = 2

BOTH = pytest.mark.parametrize("cells", [4096, None], ids=["shared", "apart"])

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    make_checkpoint(folder / "checkpoint")
    convert(folder / "checkpoint", folder / "tiny.gguf")
    return folder / "tiny.gguf"


@pytest.fixture(scope="module")
def runtime(gguf):
    with LlamaCppRuntime(gguf, batch_tokens=2048) as opened:
        yield opened


@pytest.fixture
def opened(gguf):
    made = []

    def open_(cells=4096):
        made.append(LlamaDecoder(gguf, cells))
        return made[-1]

    yield open_
    for decoder in made:
        decoder.close()


def ids(seed, length):
    return np.random.default_rng(seed).integers(3, VOCABULARY, length).tolist()


def alone(runtime, sequence):
    """Log-probabilities after these ids, computed by evaluation's own code."""
    scored = np.zeros(len(sequence) + 1, bool)
    scored[-1] = True
    everything = np.arange(VOCABULARY, dtype=np.int32)[None]
    target = Target(np.array([*sequence, 3], np.int32), scored, at=everything)
    return runtime.score([target])[0].at_logprob[0]


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def read(decoder, sequence, length=None, known=None):
    """The place of a sequence that has been read, and its log-probabilities."""
    place, cached = decoder.begin(sequence, length or len(sequence) + 1)
    if known is not None:
        assert cached == known
    logits = decoder.feed({place: sequence[cached:]}, {place})[place]
    return place, log_softmax(logits)


@BOTH
def test_sequences_that_grow_beside_each_other_say_what_each_says_alone(opened, runtime, cells):
    decoder, random = opened(cells), np.random.default_rng(0)
    sequences = [ids(at, length) for at, length in enumerate((30, 4, 61, 12, 5, 300))]
    places = [decoder.begin(one, 400)[0] for one in sequences]
    fed = [0] * len(sequences)
    checked = 0
    while any(count < len(one) for count, one in zip(fed, sequences, strict=True)):
        parts, wanted = {}, set()
        for at, (place, one) in enumerate(zip(places, sequences, strict=True)):
            count = min(int(random.integers(0, 40)), len(one) - fed[at])
            if count:
                parts[place], fed[at] = one[fed[at] : fed[at] + count], fed[at] + count
                wanted |= {place} if random.random() < 0.7 else set()
        logits = decoder.feed(parts, wanted) if parts else {}
        assert set(logits) == wanted
        for place, row in logits.items():
            at = places.index(place)
            np.testing.assert_allclose(log_softmax(row), alone(runtime, sequences[at][: fed[at]]), atol=CLOSE)
            checked += 1
    assert checked > 10


@BOTH
def test_a_conversation_goes_on_from_what_is_kept_of_it(opened, runtime, cells):
    decoder = opened(cells)
    first = ids(1, 40)
    place, _ = read(decoder, first)
    _, found = read(decoder, [*first[:30], *ids(2, 5)], known=30)  # beside one that grows
    np.testing.assert_allclose(found, alone(runtime, [*first[:30], *ids(2, 5)]), atol=CLOSE)
    decoder.end(place)
    for sequence, known in [
        ([*first, *ids(3, 9)], 40),  # the next turn
        ([*first, *ids(3, 9)], 48),  # the same once more: all but the last id, whose logits are asked for
        ([*first[:35], *ids(4, 3)], 35),  # another question in place of the last one
        ([*first, *ids(3, 9), *ids(5, 60)], 35),  # that one is gone: it was gone on from
    ]:
        place, found = read(decoder, sequence, known=known)
        np.testing.assert_allclose(found, alone(runtime, sequence), atol=CLOSE)
        decoder.end(place)


@BOTH
def test_a_conversation_is_kept_while_others_begin_with_its_first_words(opened, runtime, cells):
    decoder = opened(cells)
    system = ids(1, 10)
    conversation = [*system, *ids(2, 60)]
    decoder.end(read(decoder, conversation)[0])
    for other in range(3, 6):
        decoder.end(read(decoder, [*system, *ids(other, 5)], known=10)[0])
    _, found = read(decoder, [*conversation, *ids(7, 3)], known=70)
    np.testing.assert_allclose(found, alone(runtime, [*conversation, *ids(7, 3)]), atol=CLOSE)


def test_room_is_made_of_what_was_not_used_for_longest(opened, runtime):
    decoder = opened(cells=512)
    for seed in range(5):
        decoder.end(read(decoder, ids(seed, 100), length=100)[0])
    place, known = decoder.begin([*ids(2, 100), 5], 150)  # of the first ones there is no room any more
    assert known == 100
    decoder.feed({place: [5]}, set())
    decoder.end(place)
    assert decoder.begin(ids(0, 100), 100)[1] == 0
    assert decoder.begin(ids(4, 100), 100)[1] == 99


def test_there_is_no_room_beside_those_that_grow_until_one_ends(opened):
    decoder = opened(cells=512)
    place, _ = decoder.begin(ids(0, 10), 300)
    assert decoder.begin(ids(1, 10), 300) is None  # what is promised counts, not what is there
    decoder.end(place)
    assert decoder.begin(ids(1, 10), 512) is not None


def test_shared_tokens_take_room_once(opened):
    decoder = opened(cells=512)
    system = ids(0, 200)
    read(decoder, system, length=210)
    for seed in range(20):
        place, known = decoder.begin([*system, *ids(seed, 3)], 212)
        assert known == 200
        decoder.feed({place: ids(seed, 3)}, {place})


def test_a_sequence_may_take_the_whole_cache_although_one_that_ended_is_worth_keeping(opened, runtime):
    decoder = opened(cells=512)
    long = ids(0, 500)
    decoder.end(read(decoder, long, length=500)[0])
    sequence = [*long[:100], *ids(1, 390)]
    _, found = read(decoder, sequence, length=512, known=100)
    np.testing.assert_allclose(found, alone(runtime, sequence), atol=CLOSE)


@BOTH
def test_hundreds_of_sequences_come_and_go(opened, runtime, cells, monkeypatch):
    """More than there is room for, in any order, most going on from others."""
    monkeypatch.setattr(room, "KEPT_BYTES", 40 * PAGE)
    decoder, random = opened(cells and 2048), np.random.default_rng(0)
    texts, growing = [ids(at, 150) for at in range(6)], {}
    checked = reused = 0
    for turn in range(300):
        while growing and (random.random() < 0.5 or len(growing) == decoder.places):
            decoder.end(place := random.choice(list(growing)))
            del growing[place]
        text = texts[random.integers(6)]
        sequence = [*text[: random.integers(1, 150)], *ids(turn, random.integers(1, 20))]
        if not (found := decoder.begin(sequence, len(sequence) + 30)):
            continue
        place, known = found
        reused += known
        growing[place] = [*sequence]
        logits = decoder.feed({place: sequence[known:]}, {place})[place]
        if turn % 10 == 0:
            np.testing.assert_allclose(log_softmax(logits), alone(runtime, sequence), atol=CLOSE)
            checked += 1
        for other in list(growing):  # a token more of each
            if len(growing[other]) < len(decoder._sequences.held[other].ids):
                token = int(random.integers(3, VOCABULARY))
                decoder.feed({other: [token]}, set())
                growing[other].append(token)
        if isinstance(decoder._sequences, Shared):
            held = decoder._sequences.held.values()
            used = {int(cell) for one in held for cell in one.cells[: one.count]}
            assert len(used) == 2048 - decoder._sequences._cells.free  # what llama.cpp holds is what is counted
            assert len(held) <= SEQUENCES
    assert checked > 20 and reused > 300 * 20


@BOTH
def test_log_probabilities_of_a_prompt_are_those_of_evaluation(opened, runtime, cells):
    decoder = opened(cells)
    sequence = ids(1, 300)
    place, _ = decoder.begin(sequence[:1], 310)
    rows = np.concatenate([decoder.every(place, sequence[at : at + 128]).copy() for at in range(0, 300, 128)])
    assert rows.shape == (300, VOCABULARY)
    target = Target(np.array(sequence, np.int32), np.arange(300) > 0)
    expected = runtime.score([target])[0].logprob
    found = [log_softmax(row)[one] for row, one in zip(rows, sequence[1:], strict=False)]
    np.testing.assert_allclose(found, expected, atol=CLOSE)
    logits = decoder.feed({place: [7]}, {place})[place]
    np.testing.assert_allclose(log_softmax(logits), alone(runtime, [*sequence, 7]), atol=CLOSE)


def test_a_full_cache_takes_nothing_in_and_drops_what_is_only_kept_first(opened, runtime, monkeypatch):
    decoder = opened(cells=512)
    monkeypatch.setattr(decoder._sequences, "_make_room", lambda *_: True)  # as if it counted wrongly
    kept = ids(0, 200)
    decoder.end(read(decoder, kept, length=200)[0])
    place, _ = read(decoder, ids(1, 100), length=600)
    more = ids(2, 300)
    decoder.feed({place: more}, set())  # fits once the kept one is gone
    assert decoder.begin(kept, 1)[1] == 0
    with pytest.raises(NoRoomError):
        decoder.feed({place: ids(3, 200)}, set())
    logits = decoder.feed({place: [9]}, {place})[place]
    np.testing.assert_allclose(log_softmax(logits), alone(runtime, [*ids(1, 100), *more, 9]), atol=CLOSE)


@BOTH
def test_answers_all_at_once_are_those_of_evaluation(opened, runtime, cells):
    """Where one differs, it is a tie of two tokens."""
    decoder, told = opened(cells), []
    loop = Loop(decoder, [STOP], told.extend)
    prompts = [ids(at, 3 + at * 5 % 90) for at in range(60)]
    for at, prompt in enumerate(prompts):
        asked = Asked(f"{at}", "tiny")
        loop.add(Answer(asked, Prompt(prompt, 0, 20), 1e12, Text(NoText()), Sampler(asked)))
    while sum(isinstance(event, Ended) for event in told) < len(prompts):
        told.extend(loop.step())
    found = {int(event.id): list(event.ids) for event in told if isinstance(event, Ended)}
    expected = runtime.generate([np.array(prompt, np.int32) for prompt in prompts], 20, [STOP])
    for at, prompt in enumerate(prompts):
        difference = first_difference(decoder, prompt, found[at], expected[at], STOP)
        assert difference is None or difference.tie
    assert sum(found[at] == expected[at] for at in found) >= 55


def test_answers_that_differ_by_more_than_rounding_are_no_tie(opened, runtime):
    decoder, prompt = opened(), ids(1, 30)
    (answer,) = runtime.generate([np.array(prompt, np.int32)], 10, [STOP])
    wrong = [*answer[:4], int(alone(runtime, [*prompt, *answer[:4]]).argmin()), *answer[5:]]
    found = first_difference(decoder, prompt, wrong, answer, STOP)
    assert (found.at, found.ours, found.theirs) == (4, wrong[4], answer[4])
    assert not found.tie and max(found.gaps) < -0.5 and max(found.gaps) - min(found.gaps) < 2 * CLOSE
    shorter = first_difference(decoder, prompt, answer[:3], answer, STOP)
    assert (shorter.at, shorter.ours, shorter.theirs) == (3, STOP, answer[3])
    assert first_difference(decoder, prompt, answer, answer, STOP) is None
    assert Difference(0, 1, 2, (0.001, 0.002)).tie and Difference(0, 1, 2, (0.1, -0.001)).tie
    assert not Difference(0, 1, 2, (0.1, 0.08)).tie


def test_a_context_that_memory_does_not_hold_is_shortened(monkeypatch, opened):
    assert opened(None).context == CONTEXT
    monkeypatch.setattr(room, "APART_BYTES", 0)
    assert opened(None).context == CONTEXT
    monkeypatch.setattr(room, "HOST_BATCH", 1)
    token = 2 * 2 * 2 * 128  # bytes of float16 keys and values in two layers with two heads of 64 numbers
    monkeypatch.setattr(room, "SHARED_BYTES", 550 * token)
    assert opened(None).context == 550


def test_cells_are_counted_once_for_all_that_share_them():
    cells = Cells(10)
    first = cells.take(6)
    cells.share(first[:4])
    assert cells.free == 4
    cells.give(first)
    assert cells.free == 6
    second = cells.take(6)
    assert cells.free == 0 and not set(second) & set(first[:4])
    cells.give(first[:4])
    assert cells.free == 4


FAMILIES = {
    "a sliding window of 16": (
        Gemma2ForCausalLM,
        Gemma2Config(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            sliding_window=16,
            max_position_embeddings=CONTEXT,
            initializer_range=0.06,
        ),
    ),
    "recurrent": (
        MambaForCausalLM,
        MambaConfig(vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=2, initializer_range=0.06),
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """A GGUF of a model whose cache cannot always go back, or does not hold all that was read."""
    folder = tmp_path_factory.mktemp("family")
    make_checkpoint(folder / "checkpoint")  # for its tokenizer
    (folder / "checkpoint" / "tokenizer.json").unlink()  # the converter looks for one of GPT-NeoX in it
    kind, config = FAMILIES[request.param]
    torch.manual_seed(0)
    kind(config).save_pretrained(folder / "checkpoint")
    convert(folder / "checkpoint", folder / "tiny.gguf")
    return folder / "tiny.gguf"


@pytest.mark.slow
@pytest.mark.parametrize("cells", [2048, None])
def test_what_was_left_behind_is_computed_again(family, cells):
    random, reused = np.random.default_rng(0), 0
    with LlamaDecoder(family, cells) as decoder, LlamaDecoder(family, 2048) as other:
        conversation, growing = ids(0, 60), []
        for turn in range(60):
            cut = int(random.choice([len(conversation), 40, 20, len(conversation) - 3]))
            conversation = [*conversation[:cut], *ids(turn, 30)][:300]
            place, known = decoder.begin(conversation, 400)
            reused += known
            found = decoder.feed({place: conversation[known:]}, {place})[place].copy()
            fresh, none = other.begin(conversation[:1], 400)
            assert none == 0
            expected = other.feed({fresh: conversation}, {fresh})[fresh]
            np.testing.assert_allclose(log_softmax(found), log_softmax(expected), atol=2 * CLOSE)
            other.end(fresh)
            growing.append(place)
            if turn % 3:
                decoder.end(growing.pop(int(random.integers(len(growing)))))
            if len(growing) > 4:
                decoder.end(growing.pop(0))
    assert reused > 100


def test_pages_hold_states_of_any_size():
    pages, random = Pages(10 * PAGE), np.random.default_rng(0)
    states = [random.integers(0, 255, size, np.uint8) for size in (1, PAGE, PAGE + 1, 4 * PAGE)]
    put = [pages.put(state) for state in states]
    assert [len(one) for one in put] == [1, 1, 2, 4]
    pages.free(put[1])
    assert pages.fits(3 * PAGE) and not pages.fits(3 * PAGE + 1)
    for at in (0, 2, 3):
        np.testing.assert_array_equal(pages.get(put[at], len(states[at])), states[at])


class NoText:
    """A tokenizer where no text is asked for."""

    decoder = None

    def decode(self, ids, skip_special_tokens=True):
        return ""

    def id_to_token(self, one):
        return None

    def get_added_tokens_decoder(self):
        return {}
