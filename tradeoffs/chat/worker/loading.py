"""A variant of the run list as a `Decoder`."""

from tradeoffs.chat.worker.decoder import Decoder
from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.formats.names import QUANTS
from tradeoffs.plumbing.errors import UserError


def load(variant: Variant) -> Decoder:
    """Raises UserError where its files are not there, or not what was made."""
    if variant.format in QUANTS:
        from tradeoffs.chat.worker.llama import LlamaDecoder

        files.require_unchanged(variant.gguf)
        return LlamaDecoder(variant.gguf)
    raise UserError(f"{variant}: not of llama.cpp")
