"""A small checkpoint of random weights for each family of models, with the family's real tokenizer.

What they say means nothing. Names and shapes of tensors, tokens and chat template are those of the published models, so
loading, training, merging, conversion and scoring meet what they would meet there.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import assets

if TYPE_CHECKING:  # to import it takes seconds, and a benchmark may find its models made
    from transformers import PretrainedConfig

NAMES = ("gpt2", "pythia", "smollm2", "qwen2", "olmo2")
LAYERS, WIDTH, HEADS, CONTEXT = 2, 256, 4, 1024
END = "<|endoftext|>"  # opens and closes a text of GPT-2, Pythia and OLMo-2


def tokenizer(family: str) -> Any:
    """The family's tokenizer, from its published files. Raises UserError if they are not there."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    folder = assets.find(f"tokenizers/{family}")
    if family == "gpt2":
        made = gpt2_tokenizer(folder)
    elif family in ("pythia", "olmo2"):
        made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:  # all that there is to know stands in their files
        return AutoTokenizer.from_pretrained(folder)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token=END, eos_token=END)


def gpt2_tokenizer(folder: Path) -> Any:
    """A byte-level BPE of vocab.json and merges.txt, as GPT-2 published them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    made = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    made.decoder = decoders.ByteLevel()
    return made


def config(family: str, vocabulary: int) -> "PretrainedConfig":
    """Two layers of 256 in the family's architecture; embeddings are tied where its small models tie them."""
    from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, Olmo2Config, Qwen2Config

    if family == "gpt2":
        return GPT2Config(vocab_size=vocabulary, n_layer=LAYERS, n_embd=WIDTH, n_head=HEADS, n_positions=CONTEXT)
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "num_hidden_layers": LAYERS,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_attention_heads": HEADS,
        "max_position_embeddings": CONTEXT,
    }
    if family == "pythia":
        return GPTNeoXConfig(**shape)
    shape["num_key_value_heads"] = HEADS // 2
    if family == "olmo2":
        return Olmo2Config(**shape)
    return {"smollm2": LlamaConfig, "qwen2": Qwen2Config}[family](tie_word_embeddings=True, **shape)


def build(family: str, into: Path) -> None:
    """Writes the family's checkpoint, bf16 and of a fixed seed, to the folder of its name in `into`."""
    import torch
    from transformers import AutoModelForCausalLM

    made = tokenizer(family)
    settings = config(family, len(made))
    settings.bos_token_id, settings.eos_token_id = made.bos_token_id, made.eos_token_id
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16)
    model.save_pretrained(into / family)
    made.save_pretrained(into / family)
