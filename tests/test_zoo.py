"""Every family of models keeps what it says, its special tokens, its template and its tokenisation as a GGUF."""

import os
from pathlib import Path

import pytest
from tiny_gguf import SAMPLE, Gguf
from transformers import AutoTokenizer

from benchmarks import common, zoo

pytestmark = pytest.mark.skipif(not common.SHARED.is_dir(), reason="no ../shared here")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models this small only make threads wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 1)
        yield


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
    found = zoo.compare(checkpoint, gguf, windows=3, length=70)
    assert abs(found["loss_difference"]) < 0.002
    assert found["same_top_token"] >= 0.995


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
