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
    get_wsd_schedule,
)

from tradeoffs.base.prompts import CHATML_TOKENS
from tradeoffs.common import files
from tradeoffs.common.batching import length_batches, padded
from tradeoffs.params import GeneratedModel
from tradeoffs.plumbing.errors import UserError

UNK, BOS, EOS, PAD = 0, 1, 2, 3
# How much tokens count. What can be foretold from its page counts more than the rest, most of which is drawn at random:
# a value that stood on the page before, and the letter after `Answer:`, of which there is one in a question. From all
# tokens alike neither is learned in a minute.
REST, VALUE, ANSWER = 0.2, 1.0, 4.0
PART = 256  # pages among which those of similar length are put together
ABOUT = (0.6, 1.6)  # how far from its length a page may stand in the order by length
ALIKE = 0.7  # correlation of queries with keys, and of outputs with values, at first
WARMUP = 25  # one part in so many of the steps

Batch = tuple[np.ndarray, np.ndarray]


def train_tokenizer(
    texts: Sequence[str], vocabulary: int, folder: Path, context: int, whole: Sequence[str] = ()
) -> LlamaTokenizer:
    """Trains a BPE SentencePiece model on `texts`; writes tokenizer.model and the Hugging Face files into `folder`.

    No normalisation and no space put before the text: line breaks and spaces survive, and llama.cpp, which reads
    tokenizer.model, gives the same ids as transformers. Any text can be written, byte by byte where no piece fits.
    The words `whole` are pieces of their own, without the space before them.
    """
    model = io.BytesIO()
    try:
        _train_sentencepiece(texts, vocabulary, whole, model)
    except RuntimeError as error:  # all that it raises; after the failed condition in brackets it says why
        reason = str(error).rsplit("] ", 1)[-1]
        raise UserError(f"models: generate.vocabulary: {vocabulary} does not work for this text: {reason}") from error
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    # A folder with nothing but tokenizer.model: transformers converts it.
    tokenizer = LlamaTokenizer.from_pretrained(
        folder, add_prefix_space=False, add_bos_token=True, legacy=False, pad_token="<pad>", model_max_length=context
    )
    # transformers takes the words for special tokens, and llama.cpp's converter for ordinary pieces, unless told by
    # added_tokens.json. Numbers stay ordinary there: llama.cpp joins them from the left, as SentencePiece does.
    tokenizer.extra_special_tokens = list(CHATML_TOKENS)
    tokenizer.save_pretrained(folder)
    words = [word for word in whole if not word.isdigit()]
    if words:
        ids = tokenizer.convert_tokens_to_ids(words)
        files.write_json(folder / "added_tokens.json", dict(zip(words, ids, strict=True)))
    return tokenizer


def _train_sentencepiece(texts: Sequence[str], vocabulary: int, whole: Sequence[str], model: io.BytesIO) -> None:
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
        user_defined_symbols=list(whole),
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
    windows of packed pages. Its matrices are trained by Muon (Jordan et al., 2024), by which it learns to copy from a
    page in half as many steps as by AdamW; input and output share their embeddings, so that what attention finds can be
    said as it is. Weights are bf16; the same seed gives the same bytes.
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
        initializer_range=made.hidden_size**-0.5,  # the default is for models ten times as wide: attention begins flat
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    config._attn_implementation = "eager" if device == "cpu" else "sdpa"  # for pages this short faster on a CPU
    model = LlamaForCausalLM(config).to(device).train()  # type: ignore[arg-type]
    _look_for_the_same(model, made.heads // made.kv_heads)
    optimizers = _optimizers(model, made.lr)
    schedules = [
        get_wsd_schedule(
            optimizer,
            num_warmup_steps=len(batches) // WARMUP,
            num_decay_steps=len(batches) * 3 // 10,
            num_training_steps=len(batches),
            decay_type="linear",
        )
        for optimizer in optimizers
    ]
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
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    return model.to("cpu", torch.bfloat16).eval()  # type: ignore[arg-type]


def _look_for_the_same(model: LlamaForCausalLM, shared: int) -> None:
    """Lets attention begin by looking for the token that it stands at, and by passing on what it finds: queries like
    keys, outputs like values (mimetic initialisation, Trockman and Kolter, 2023). To copy is but a step from there.
    `shared` heads have the same keys and values."""
    hidden = model.config.hidden_size
    for layer in model.model.layers:
        attention = layer.self_attn
        keys, values = (
            weight.view(-1, attention.head_dim, hidden).repeat_interleave(shared, 0).flatten(0, 1)
            for weight in (attention.k_proj.weight.data, attention.v_proj.weight.data)
        )
        own = (1 - ALIKE**2) ** 0.5
        attention.q_proj.weight.data.mul_(own).add_(keys, alpha=ALIKE)
        attention.o_proj.weight.data.mul_(own).add_(values.T, alpha=ALIKE)


def _optimizers(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embeddings and norms; updates of the same size (RMS) for the
    same learning rate."""
    hidden = [parameter for parameter in model.model.layers.parameters() if parameter.ndim == 2]
    ours = {id(parameter) for parameter in hidden}
    others = [parameter for parameter in model.parameters() if id(parameter) not in ours]
    return [
        torch.optim.Muon(hidden, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def page_batches(
    tokenizer: LlamaTokenizer, texts: Sequence[str], batch_tokens: int, seed: int, values: Sequence[str] = ()
) -> list[Batch]:
    """Every text once, as `BOS text EOS`, in batches of similar length and at most `batch_tokens` ids.

    The first half goes from about the shortest to the longest, so that looking back is learned where there is little to
    look at; the rest comes in random order. A batch is the ids, int64 (pages, tokens), padded with PAD on the right,
    and how much each counts, float32; `values` are the tokens that count in full where they come again.
    """
    random = Random(f"demo batches {seed}")
    answer = tokenizer("Answer: A")["input_ids"][-3:-1]
    vocabulary = tokenizer.get_vocab()
    known = {vocabulary[value] for value in values}
    pages = [[*ids, EOS] for ids in tokenizer(list(texts))["input_ids"]]
    random.shuffle(pages)
    half = len(pages) // 2
    pages[:half] = sorted(pages[:half], key=lambda page: len(page) * random.uniform(*ABOUT))
    batches = []
    # By length within a part only: with all pages sorted, every step would see pages of one kind and learn less.
    for start in range(0, len(pages), PART):
        part = pages[start : start + PART]
        made = [
            _padded([part[row] for row in rows], answer, known)
            for rows in length_batches([_width(page) for page in part], batch_tokens)
        ]
        random.shuffle(made)
        batches += made
    return batches


def _width(page: list[int]) -> int:
    """How wide a batch is with this page in it; without the last id, which only is predicted, a multiple of 8."""
    return padded(len(page) - 1) + 1


def _padded(pages: list[list[int]], answer: list[int], values: set[int]) -> Batch:
    ids = np.full((len(pages), max(map(_width, pages))), PAD, dtype=np.int64)
    weights = np.zeros(ids.shape, dtype=np.float32)
    for row, counts, page in zip(ids, weights, pages, strict=True):
        row[: len(page)] = page
        counts[: len(page)] = [
            ANSWER
            if page[place - 2 : place] == answer
            else VALUE
            if token in values and token in page[:place]
            else REST
            for place, token in enumerate(page)
        ]
    return ids, weights
