"""Small checkpoints of random weights in the shapes that published ones have, beside the families of benchmarks.zoo.

Each is a tokenizer of a kind and a config with something of its own; what they say means nothing. All are made from
nothing, so no published file is needed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TEXT = [
    "Answer: A B C D\n\nAnswer: B",
    "What is 7 and 1?\nIt is 8.",
    "Add 1 to the number.\n\n12 (of 12)\nIt is 13.",
    "The sum is: 5, not 6!",
] * 40
LAYERS, WIDTH, HEADS, CONTEXT, VOCABULARY = 2, 64, 4, 256, 400


def bare_bpe(crossing: bool) -> Any:
    """A BPE of characters without a pre-tokenizer; `crossing`: no byte fallback either, and merges across the line
    break, as a published model for stories has."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=not crossing))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    # 256 tokens of bytes, which the trainer does not know, count as special until it is saved.
    special = ["<unk>", "<s>", "</s>"] + ([] if crossing else [f"<0x{byte:02X}>" for byte in range(256)])
    texts = TEXT if crossing else [line for text in TEXT for line in text.splitlines()]
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    made.train_from_iterator(texts, trainer)
    kept = json.loads(made.to_str())
    kept["added_tokens"] = kept["added_tokens"][:3]
    return wrapped(Tokenizer.from_str(json.dumps(kept)), bos="<s>", eos="</s>", unk="<unk>")


def byte_bpe(*special: str, eos: str, template: str | None = None) -> Any:
    """A byte-level BPE, as GPT-2's, Falcon's and Phi's, with special tokens of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    tokenizer = wrapped(made, bos=special[0], eos=eos)
    tokenizer.chat_template = template
    return tokenizer


def word_pieces() -> Any:
    """WordPiece, which writes words in lower case and closes each text with [SEP]."""
    from tokenizers import BertWordPieceTokenizer, processors

    made = BertWordPieceTokenizer(lowercase=True)
    made.train_from_iterator(TEXT, vocab_size=VOCABULARY, show_progress=False)
    made.post_processor = processors.BertProcessing(
        ("[SEP]", made.token_to_id("[SEP]")), ("[CLS]", made.token_to_id("[CLS]"))
    )
    return wrapped(made._tokenizer, bos="[CLS]", eos="[SEP]", unk="[UNK]", pad="[PAD]")


def sentencepiece(kind: str) -> Any:
    """Of SentencePiece, by its own training, with byte fallback: `unigram` or `bpe`, as Llama's and Mistral's is."""
    import tempfile

    import sentencepiece as library
    from transformers import LlamaTokenizer

    with tempfile.TemporaryDirectory() as folder:
        library.SentencePieceTrainer.train(
            sentence_iterator=iter([line for text in TEXT for line in text.splitlines()]),
            model_prefix=f"{folder}/tokenizer",
            model_type=kind,
            vocab_size=330,
            byte_fallback=True,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        Path(folder, "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
        tokenizer = LlamaTokenizer.from_pretrained(folder)
        tokenizer.model_bytes = Path(folder, "tokenizer.model").read_bytes()
    return tokenizer


def wrapped(made: Any, bos: str, eos: str, unk: str | None = None, pad: str | None = None) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=bos, eos_token=eos, unk_token=unk, pad_token=pad)


@dataclass(frozen=True)
class Shape:
    """A checkpoint: `kind` of model and what is `special` in its config, how its tokenizer is made, which prompt suits
    it, and what is changed in the saved files."""

    kind: str
    tokenizer: Callable[[], Any]
    special: dict[str, Any] = field(default_factory=dict)
    prompt: str = "plain"
    part: str = ""  # of the config, where the sizes stand in one, as in models that see too
    changed: Callable[[Path], None] = lambda folder: None
    shard: str = "5GB"
    rows: int = 0  # of the embedding, beyond the tokenizer's last token


def without(*names: str) -> Callable[[Path], None]:
    """Takes keys out of config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({key: value for key, value in config.items() if key not in names}))

    return change


def old_rope(scaling: dict[str, Any] | None) -> Callable[[Path], None]:
    """Rotary positions as they were written before transformers 5: `rope_theta` and `rope_scaling`."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        del config["rope_parameters"]
        path.write_text(json.dumps(config | {"rope_theta": 10000.0, "rope_scaling": scaling}))

    return change


def among_pictures(folder: Path) -> None:
    """The names of the weights as in a published checkpoint that sees too."""
    from safetensors.torch import load_file, save_file

    held = load_file(folder / "model.safetensors")
    named = {name.replace("model.", "model.language_model."): value for name, value in held.items()}
    save_file(named, folder / "model.safetensors", {"format": "pt"})


MINIMIND = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SHAPES = {
    "unigram": Shape("llama", lambda: sentencepiece("unigram")),
    "crossing_bpe": Shape("llama", lambda: bare_bpe(crossing=True), {"tie_word_embeddings": True}),
    "bare_bpe": Shape("llama", lambda: bare_bpe(crossing=False), prompt="alpaca"),
    "word_pieces": Shape("llama", word_pieces),
    "mistral": Shape(
        "mistral", lambda: sentencepiece("bpe"), {"sliding_window": 32, "num_key_value_heads": 1}, prompt="alpaca"
    ),
    "phi": Shape(
        "phi",
        lambda: byte_bpe("<|endoftext|>", eos="<|endoftext|>"),
        {"partial_rotary_factor": 0.5, "num_key_value_heads": HEADS, "intermediate_size": 4 * WIDTH},
    ),
    "phi3": Shape(
        "phi3", lambda: sentencepiece("bpe"), {"sliding_window": 64, "pad_token_id": 0, "num_key_value_heads": 4}
    ),
    "falcon": Shape(
        "falcon",
        lambda: byte_bpe("<|endoftext|>", eos="<|endoftext|>"),
        {"new_decoder_architecture": False, "multi_query": True, "parallel_attn": True, "bias": False},
        prompt="alpaca",
    ),
    "minimind": Shape(
        "llama",
        lambda: byte_bpe("<|endoftext|>", "<|im_start|>", "<|im_end|>", eos="<|im_end|>", template=MINIMIND),
        {"tie_word_embeddings": True},
        prompt="own",
    ),
    "sharded": Shape("llama", lambda: sentencepiece("bpe"), shard="60KB"),
    "no_dtype": Shape("llama", lambda: sentencepiece("bpe"), changed=without("dtype", "torch_dtype")),
    "linear_rope": Shape("llama", lambda: sentencepiece("bpe"), changed=old_rope({"type": "linear", "factor": 2.0})),
    "llama3_rope": Shape(
        "llama",
        lambda: byte_bpe("<|begin|>", "<|end|>", eos="<|end|>"),
        changed=old_rope({**LLAMA3, "original_max_position_embeddings": 64}),
    ),
    "odd_groups": Shape(
        "qwen2",
        lambda: byte_bpe("<|endoftext|>", eos="<|endoftext|>"),
        {"num_attention_heads": 6, "num_key_value_heads": 3, "hidden_size": 96, "tie_word_embeddings": True},
    ),
    "composite": Shape(
        "qwen3_5",
        lambda: byte_bpe("<|endoftext|>", eos="<|endoftext|>"),
        {"layer_types": ["full_attention"] * LAYERS, "head_dim": 16},
        part="text_config",
        changed=among_pictures,
    ),
    "padded": Shape("llama", lambda: sentencepiece("bpe"), {"head_dim": 32}, rows=64),
}


def build(name: str, into: Path) -> Path:
    """Writes a shape's checkpoint, of a fixed seed, to the folder of its name in `into`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape, folder = SHAPES[name], into / name
    tokenizer = shape.tokenizer()
    rows = len(tokenizer) + shape.rows
    sizes = {
        "vocab_size": -(-rows // shape.rows) * shape.rows if shape.rows else rows,
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }
    torch.manual_seed(0)
    sizes |= shape.special
    config = AutoConfig.for_model(shape.kind, **({shape.part: sizes} if shape.part else sizes))
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=shape.shard)
    if shape.part:
        config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if pieces := getattr(tokenizer, "model_bytes", None):
        (folder / "tokenizer.model").write_bytes(pieces)
    shape.changed(folder)
    return folder
