"""The tables of a model and a data set: its splits, general text, pairs; all answers in them tokenised in one way."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tradeoffs.sources import readers
from tradeoffs.tokenize import chat, tables, windows
from tradeoffs.tokenize.tables import PAIRS, TOKENS
from tradeoffs.tokenize.turns import UnsplitError


@dataclass(frozen=True)
class Work:
    """What is tokenised, and how: `sources` by split, windows of text of at most `window` tokens, examples of at most
    `longest`, answers that end with one of `stops`."""

    tokenizer: Any
    kind: str
    sources: dict[str, Path]
    general: Path
    window: int
    longest: int
    stops: list[int]

    def rows(self, split: str, source: Path, lengths: list[int], apart: bool) -> Iterator[dict]:
        if self.kind == "text":
            return _text(self.tokenizer, source, self.window, lengths)
        found = chat.instruction_rows(self.tokenizer, tables.read(source), self.longest, self.stops, source, apart)
        return tables.counted(found, lengths)


def write(
    work: Work, out: Path, apart: bool = False
) -> tuple[dict[str, int], dict[str, int], dict[str, list[int]], UnsplitError | None]:
    """Writes the tables of all splits, of general text and of pairs: how many rows and tokens, and how many tokens each
    example has; prompts and answers apart, with where that was found to be needed, if anywhere."""
    lengths: dict[str, list[int]] = {split: [] for split in work.sources}
    rows = {split: work.rows(split, source, lengths[split], apart) for split, source in work.sources.items()}
    # Its documents lie in the order of a hash: the first of them are a sample of all.
    general = windows.documents(work.tokenizer, tables.read(work.general), "general")
    rows["general"] = windows.text_rows(general, work.window)
    try:
        written = {split: tables.write_rows(out / f"{split}.parquet", found, TOKENS) for split, found in rows.items()}
        # Without any the file is written all the same: training asks for it by name.
        pairs = _pairs(work, out, apart) if work.kind == "preference" else ()
        pair_count, _ = tables.write_rows(out / "pairs.parquet", pairs, PAIRS)
    except UnsplitError as unsplit:
        return *write(work, out, apart=True)[:3], unsplit
    counts = {split: count for split, (count, _) in written.items()} | {"pairs": pair_count}
    return counts, {split: total for split, (_, total) in written.items()}, lengths, None


def _text(tokenizer: Any, source: Path, window: int, lengths: list[int]) -> Iterator[dict]:
    """Trained on in full windows; evaluated document by document, which are the same for every tokenizer."""
    documents = tables.counted(windows.documents(tokenizer, tables.read(source), source.stem), lengths)
    if source.stem == "train":
        return windows.packed_rows(documents, windows.separator_ids(tokenizer), window)
    return windows.text_rows(documents, window)


def _pairs(work: Work, out: Path, apart: bool) -> Iterator[dict[str, Any]]:
    """Of the splits that learn or are measured; the chosen answers are in `out`, tokenised already."""
    for split in ("train", "valid", "test"):
        chosen = (row for _, row in readers.rows(out / f"{split}.parquet"))
        source = work.sources[split]
        examples = tables.read(source)
        for pair in chat.pair_rows(work.tokenizer, examples, chosen, work.longest, work.stops, source, apart):
            yield {"split": split, **pair}
