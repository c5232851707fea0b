"""A random two-layer Llama with a SentencePiece tokenizer, and a look into its GGUF, for tests of llama.cpp's side."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from tiny import LLAMA
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from tradeoffs.base.demo_model import train_tokenizer
from tradeoffs.common import files
from tradeoffs.llama_cpp.native import llama_cpp

torch.set_num_threads(1)  # matrices this small make threads wait for each other

VOCABULARY, CONTEXT = 320, 600
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
TEXTS = [
    "A loan of 1200 at 5 percent costs 60 a year.\nThe rate rose to 7 percent.",
    "The bank pays interest on the balance of each account at the end of the year.",
    "What is a bond? A bond is a loan that can be sold.",
]
# Plain words, digits, line breaks, double spaces, and what only bytes can spell.
SAMPLE = "The rate of 12 loans:\n\n  naïve café, 3.5 % — 😀 a year"


def make_checkpoint(folder: Path, words: Sequence[str] = (), **changes: object) -> LlamaForCausalLM:
    """Writes the checkpoint; float32, so that transformers can be the judge. `changes` go into its config.

    `words` are tokens of their own, for which the vocabulary has room beside the others.
    """
    folder.mkdir(parents=True)
    vocabulary = VOCABULARY + len(words)
    tokenizer = train_tokenizer(TEXTS, vocabulary, folder, CONTEXT, words)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=CONTEXT,
        initializer_range=0.06,  # larger than usual, so that the next token depends visibly on what came before
        **LLAMA,
    )
    for key, value in changes.items():
        setattr(config, key, value)
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()  # what f16 can hold, so that the GGUF has the same weights
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2)
    model.save_pretrained(folder)
    files.write_json(folder / "run_info.json", {"base_id": "tiny", "seed": 7})
    return model


class Gguf:
    """A GGUF opened by llama.cpp for what only its own functions can tell: metadata and its tokenisation."""

    def __init__(self, path: Path) -> None:
        options = llama_cpp.llama_model_default_params()
        options.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)

    def metadata(self, key: str) -> str:
        value = ctypes.create_string_buffer(10_000)
        assert llama_cpp.llama_model_meta_val_str(self._model, key.encode(), value, len(value)) >= 0, f"no {key}"
        return value.value.decode()

    def piece(self, token: int) -> str:
        return llama_cpp.llama_vocab_get_text(self._vocab, token).decode()

    def ends_an_answer(self, token: int) -> bool:
        return llama_cpp.llama_vocab_is_eog(self._vocab, token)

    def tokenize(self, text: str) -> list[int]:
        ids = (ctypes.c_int32 * 1000)()
        count = llama_cpp.llama_tokenize(self._vocab, text.encode(), len(text.encode()), ids, len(ids), False, True)
        return list(ids[:count])
