"""Every family of models keeps what it says, its special tokens, its template and its tokenisation as a GGUF."""

import ctypes
import unicodedata
from pathlib import Path

import pytest
import torch
from needs import needs
from tiny_gguf import SAMPLE, Gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import families, ggufs, zoo
from tradeoffs.convert import gguf_converter
from tradeoffs.convert.gguf_converter import SAMPLES
from tradeoffs.llama_cpp import native
from tradeoffs.models import checkpoints

pytestmark = [
    needs(*(f"tokenizers/{family}" for family in families.NAMES), zoo.TEXT),
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
]
# These tokenizers compose characters (NFC) before they cut; llama.cpp takes a text as it is.
COMPOSING = ("pythia", "qwen2")
# The sample texts of which llama.cpp makes other ids. For SmolLM2 it first sets numerals apart, of any script, so white
# space before one is cut like white space at the end of a text.
CUT_OTHERWISE: dict[str, set[str]] = {
    "gpt2": set(),
    "pythia": {"e\u0301 and n\u0303, not composed"},
    "smollm2": {"First line\n\nSecond line\n\n\n3rd", "\n\n2", "مرحبا بالعالم ١٢٣", "∑ x² ≤ ½ ⅔ ①"},
    "qwen2": {"e\u0301 and n\u0303, not composed"},
    "olmo2": set(),
}


class Vocabulary(Gguf):
    """A GGUF that also gives the text of its tokens."""

    def text(self, ids: list[int]) -> bytes:
        """UTF-8, special tokens written out."""
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        text = ctypes.create_string_buffer(1000)
        count = native.llama_cpp.llama_detokenize(self._vocab, tokens, len(ids), text, len(text), False, True)
        assert count >= 0, f"{-count} bytes of text"
        return text.raw[:count]


@pytest.fixture(scope="module")
def models(tmp_path_factory, zoo_models) -> Path:
    """The checkpoints, with room for a GGUF beside each."""
    folder = tmp_path_factory.mktemp("zoo")
    for checkpoint in zoo_models.iterdir():
        (folder / checkpoint.name).symlink_to(checkpoint)
    return folder


@pytest.fixture(scope="module", params=families.NAMES)
def checkpoint(request, models) -> Path:
    return models / request.param


@pytest.fixture(scope="module")
def gguf(checkpoint) -> Path:
    return ggufs.made(checkpoint, "f16")


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def vocabulary(gguf) -> Vocabulary:
    return Vocabulary(gguf)


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def metadata(gguf: Path, key: str) -> str | None:
    """The value of a key, or None where the file has none."""
    try:
        return Gguf(gguf).metadata(key)
    except AssertionError:
        return None


def test_the_f16_file_says_what_transformers_says_in_float32(checkpoint, gguf):
    found = zoo.compare(checkpoint, gguf, windows=3, length=70, dtypes=["float32"])
    assert abs(found["loss_difference"]) < 0.002
    assert found["same_top_token"] >= 0.995


def test_rows_of_the_embedding_beyond_the_tokenizers_last_token_stay(models, tmp_path):
    """Published models have them, so that the size of the vocabulary divides: Pythia, Qwen2.5 and OLMo-2 among them."""
    model = AutoModelForCausalLM.from_pretrained(models / "pythia")
    size = model.config.vocab_size
    model.resize_token_embeddings(size + 27, mean_resizing=False)
    with torch.no_grad():
        model.get_output_embeddings().weight[size:] = model.get_output_embeddings().weight[:27]
    model.save_pretrained(tmp_path / "padded")
    checkpoints.copy_companions(models / "pythia", tmp_path / "padded")
    gguf = ggufs.made(tmp_path / "padded", "f16")
    found = zoo.compare(tmp_path / "padded", gguf, windows=2, length=70, dtypes=["float32"])
    assert abs(found["loss_difference"]) < 0.002


def test_special_tokens_travel(gguf, tokenizer):
    for name in ("bos_token_id", "eos_token_id"):
        token = getattr(tokenizer, name)  # Qwen2 has no BOS
        assert metadata(gguf, f"tokenizer.ggml.{name}") == (None if token is None else str(token)), name


def test_the_chat_template_travels(gguf, tokenizer):
    assert metadata(gguf, "tokenizer.chat_template") == tokenizer.chat_template


@pytest.mark.parametrize(
    "text", [SAMPLE, "x_1 = {'a': 2}\t# don't\r\n\r\n   北京 2024", "<|endoftext|> <|im_start|>user\n"]
)
def test_llama_cpp_makes_the_checkpoints_token_ids(gguf, tokenizer, text):
    assert Gguf(gguf).tokenize(text) == ids_of(tokenizer, text)


def test_llama_cpp_cuts_just_the_known_sample_texts_otherwise(checkpoint, gguf, vocabulary, tokenizer):
    found = gguf_converter.tokenisation(checkpoint, gguf)
    differing = {one["text"]: one["llama_cpp"] for one in found["differing"]}
    assert {text for text in differing if text in SAMPLES} == CUT_OTHERWISE[checkpoint.name]
    for text in SAMPLES:
        assert vocabulary.tokenize(text) == differing.get(text, ids_of(tokenizer, text)), text
    beyond = [text for text in differing if text not in SAMPLES]
    # The question in the chat template has a number behind an empty line.
    assert len(beyond) == (checkpoint.name == "smollm2") and all(gguf_converter.QUESTION in text for text in beyond)


def test_token_ids_become_the_same_text_and_the_text_the_same_ids_in_both(checkpoint, vocabulary, tokenizer):
    for text in SAMPLES:
        read = unicodedata.normalize("NFC", text) if checkpoint.name in COMPOSING else text
        ids, cut = ids_of(tokenizer, text), vocabulary.tokenize(text)
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == read
        assert vocabulary.text(ids) == read.encode()
        assert ids_of(tokenizer, read) == ids
        assert vocabulary.text(cut) == text.encode(), "what llama.cpp cut otherwise is the same text too"
        assert vocabulary.tokenize(vocabulary.text(cut).decode()) == cut
