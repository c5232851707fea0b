"""Plain text as windows of token ids: document by document, or documents packed one after the other."""

from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedTokenizerFast


def documents(tokenizer: PreTrainedTokenizerFast, examples: Iterable[dict], name: str) -> Iterator[dict[str, Any]]:
    """`id`, `ids` and `sizes` of each text: its token ids, and how many bytes of the text, as UTF-8, each adds."""
    for example in tqdm(examples, desc=name, leave=False):
        text = example["text"]
        found = tokenizer(text, add_special_tokens=True, return_offsets_mapping=True, verbose=False)
        sizes, reached = [], 0
        for _, end in found["offset_mapping"]:
            sizes.append(len(text[reached:end].encode()))
            reached = max(reached, end)
        yield {"id": example["id"], "ids": found["input_ids"], "sizes": sizes}


def text_rows(documents: Iterable[dict], window: int) -> Iterator[dict[str, Any]]:
    """Windows of at most `window` tokens, document by document; every token but a window's first is scored.

    A document's last window is what is left of it; a window of a single token has nothing to score and is dropped.
    """
    for document in documents:
        for number, start in enumerate(range(0, len(document["ids"]), window)):
            part = slice(start, start + window)
            if len(document["ids"][part]) > 1:
                yield _window(f"{document['id']}-{number}", document["ids"][part], document["sizes"][part])


def packed_rows(documents: Iterable[dict], separator: list[int], window: int) -> Iterator[dict[str, Any]]:
    """Documents one after the other, each with `separator` behind it, cut into windows of `window` tokens.

    Every token but a window's first is scored. The last window, shorter than the others, is kept: a small data set
    would lose much of itself without it, and one that is smaller than a window all.
    """
    ids: list[int] = []
    sizes: list[int] = []
    number = 0
    for document in documents:
        ids += [*document["ids"], *separator]
        sizes += [*document["sizes"], *(0 for _ in separator)]
        whole = len(ids) - len(ids) % window
        for start in range(0, whole, window):
            yield _window(f"train-{number}", ids[start : start + window], sizes[start : start + window])
            number += 1
        ids, sizes = ids[whole:], sizes[whole:]
    if len(ids) > 1:
        yield _window(f"train-{number}", ids, sizes)


def _window(id: str, ids: list[int], sizes: list[int]) -> dict[str, Any]:
    scored = [False] + [True] * (len(ids) - 1)
    return {"id": id, "ids": ids, "scored": scored, "prompt_tokens": 0, "bytes": sum(sizes[1:])}


def separator_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """What stands between two packed documents: the end of sequence; without one the beginning of sequence; nothing if
    the tokenizer itself puts it there; an empty line where it has neither."""
    around = tokenizer("a")["input_ids"]
    if tokenizer.eos_token_id is not None:
        return [] if around[-1] == tokenizer.eos_token_id else [tokenizer.eos_token_id]
    if tokenizer.bos_token_id is not None:
        return [] if around[0] == tokenizer.bos_token_id else [tokenizer.bos_token_id]
    return tokenizer("\n\n", add_special_tokens=False)["input_ids"]
