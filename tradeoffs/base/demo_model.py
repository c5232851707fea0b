"""The demo's base model: a SentencePiece tokenizer and a small Llama, trained on text that the project generates."""

import io
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import sentencepiece
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    get_cosine_schedule_with_warmup,
)

from tradeoffs.base.prompts import CHATML_TOKENS
from tradeoffs.common.batching import length_batches, padded
from tradeoffs.params import GeneratedModel
from tradeoffs.plumbing.errors import UserError

UNK, BOS, EOS, PAD = 0, 1, 2, 3
# How much more the letter after `Answer:` counts than any other token: it is one token in forty of a quiz, and a minute
# of training is too short to learn it from that.
ANSWER_WEIGHT = 4.0
PART = 512  # pages among which those of similar length are put together

Batch = tuple[np.ndarray, np.ndarray]


def train_tokenizer(texts: Sequence[str], vocabulary: int, folder: Path, context: int) -> LlamaTokenizer:
    """Trains a BPE SentencePiece model on `texts`; writes tokenizer.model and the Hugging Face files into `folder`.

    No normalisation and no space put before the text: line breaks and spaces survive, and llama.cpp, which reads
    tokenizer.model, gives the same ids as transformers. Any text can be written, byte by byte where no piece fits.
    """
    model = io.BytesIO()
    try:
        _train_sentencepiece(texts, vocabulary, model)
    except RuntimeError as error:  # all that it raises; after the failed condition in brackets it says why
        reason = str(error).rsplit("] ", 1)[-1]
        raise UserError(f"models: generate.vocabulary: {vocabulary} does not work for this text: {reason}") from error
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    # A folder with nothing but tokenizer.model: transformers converts it.
    tokenizer = LlamaTokenizer.from_pretrained(
        folder, add_prefix_space=False, add_bos_token=True, legacy=False, pad_token="<pad>", model_max_length=context
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _train_sentencepiece(texts: Sequence[str], vocabulary: int, model: io.BytesIO) -> None:
    sentencepiece.SentencePieceTrainer.train(
        # Pieces are learned line by line; a line break itself is a byte token.
        sentence_iterator=iter([line for text in texts for line in text.split("\n") if line]),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary,
        byte_fallback=True,
        split_digits=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        control_symbols=list(CHATML_TOKENS),
        unk_id=UNK,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=PAD,
        num_threads=1,
        minloglevel=2,
    )


def train_model(made: GeneratedModel, batches: Sequence[Batch], seed: int) -> LlamaForCausalLM:
    """A Llama trained from scratch to predict the next token, one step per batch.

    Each page stands alone: attention that has little to look at learns where to look several times sooner than in long
    windows of packed pages. Weights are bf16; the same seed gives the same bytes.
    """
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = LlamaConfig(
        vocab_size=made.vocabulary,
        hidden_size=made.hidden_size,
        intermediate_size=made.intermediate_size,
        num_hidden_layers=made.layers,
        num_attention_heads=made.heads,
        num_key_value_heads=made.kv_heads,
        max_position_embeddings=made.context,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    config._attn_implementation = "eager" if device == "cpu" else "sdpa"  # for pages this short faster on a CPU
    model = LlamaForCausalLM(config).to(device).train()  # type: ignore[arg-type]
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    norms = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=made.lr, betas=(0.9, 0.95), fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, len(batches) // 20, len(batches))
    bar = tqdm(batches, desc=f"training on {device}", unit="step", mininterval=1)
    for pages, counts in bar:
        ids, weights = torch.from_numpy(pages).to(device), torch.from_numpy(counts).to(device)
        with torch.autocast(device, torch.bfloat16):
            # Padding is on the right, where no real token looks: causal attention needs no mask for it.
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        losses = cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    return model.to("cpu", torch.bfloat16).eval()  # type: ignore[arg-type]


def page_batches(tokenizer: LlamaTokenizer, texts: Sequence[str], batch_tokens: int, seed: int) -> list[Batch]:
    """Every text once, as `BOS text EOS`, in batches of similar length and at most `batch_tokens` ids, in random order.

    A batch is the ids, int64 (pages, tokens), padded with PAD on the right, and how much each counts, float32.
    """
    random = Random(f"demo batches {seed}")
    mark = tokenizer("Answer: A")["input_ids"][-3:-1]
    pages = [[*ids, EOS] for ids in tokenizer(list(texts))["input_ids"]]
    random.shuffle(pages)
    batches = []
    # By length within a part only: with all pages sorted, every step would see pages of one kind and learn less.
    for start in range(0, len(pages), PART):
        part = pages[start : start + PART]
        for rows in length_batches([_width(page) for page in part], batch_tokens):
            batches.append(_padded([part[row] for row in rows], mark))
    random.shuffle(batches)
    return batches


def _width(page: list[int]) -> int:
    """How wide a batch is with this page in it; without the last id, which only is predicted, a multiple of 8."""
    return padded(len(page) - 1) + 1


def _padded(pages: list[list[int]], mark: list[int]) -> Batch:
    ids = np.full((len(pages), max(map(_width, pages))), PAD, dtype=np.int64)
    for row, page in zip(ids, pages, strict=True):
        row[: len(page)] = page
    weights = (ids != PAD).astype(np.float32)
    weights[:, 2:][(ids[:, :-2] == mark[0]) & (ids[:, 1:-1] == mark[1])] = ANSWER_WEIGHT
    return ids, weights
