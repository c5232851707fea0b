"""Every family of models keeps what it says, its special tokens, its template and its tokenisation as a GGUF."""

from pathlib import Path

import pytest
import torch
from tiny_gguf import SAMPLE, Gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import common, zoo
from tradeoffs import checkpoints

pytestmark = [
    pytest.mark.skipif(not common.SHARED.is_dir(), reason="no ../shared here"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return zoo.make(tmp_path_factory.mktemp("zoo") / "models")


@pytest.fixture(scope="module", params=zoo.FAMILIES)
def checkpoint(request, models) -> Path:
    return models / request.param


@pytest.fixture(scope="module")
def gguf(checkpoint) -> Path:
    return common.gguf(checkpoint, "f16")


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return AutoTokenizer.from_pretrained(checkpoint)


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
    gguf = common.gguf(tmp_path / "padded", "f16")
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
    assert Gguf(gguf).tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"]
