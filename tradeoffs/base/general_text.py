"""Text of the kind that a model learned from, held out: by it forgetting is measured."""

from pathlib import Path

from tradeoffs import params
from tradeoffs.base import demo_pages
from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources import readers

MOST = 1000  # documents that are kept


def documents(model: params.Model, seed: int, where: str) -> list[dict[str, str]]:
    """Documents (id, text), all different, in an order that does not change when others come or go. Raises UserError
    for a file without any."""
    if model.general:
        columns = params.Columns(text=model.general.column or "text")  # a text file's documents are in that one
        texts = [row["text"] for row in readers.read(Path(model.general.path), columns)]
    elif model.generate:
        texts = demo_pages.held_out(MOST, model.generate.sentences, seed)
    else:
        texts = []
    found = {files.content_id(text): text for text in texts if text}
    if model.general and not found:
        raise UserError(f"{where}.general.path: {model.general.path} holds no text; name another file, or leave it out")
    return [{"id": id, "text": found[id]} for id in sorted(found)[:MOST]]
