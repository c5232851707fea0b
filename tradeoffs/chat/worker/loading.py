"""A variant of the run list as a `Decoder`, loaded as its evaluation loads it."""

import logging
from typing import Any

from tradeoffs import params
from tradeoffs.chat.worker.decoder import Decoder
from tradeoffs.common import files
from tradeoffs.common.cells import TRAINED, Variant
from tradeoffs.formats import trained_only
from tradeoffs.formats.names import PRECISIONS, QUANTS
from tradeoffs.plumbing.errors import UserError, near


def load(variant: Variant, most_mb: float | None = None) -> Decoder:
    """`most_mb`: memory of all models together; None: a share of the machine's.

    Raises UserError where there is no such variant, where its files are not there, or not what was made."""
    formats = (TRAINED, *PRECISIONS, *QUANTS)
    if variant.format not in formats:
        raise UserError(f"{variant}: no format {variant.format!r}{near(variant.format, formats)}")
    files.must_exist(variant.facts)
    facts = files.read_facts(variant.facts)
    if found := trained_only.in_place_of(facts):
        raise UserError(f"{variant}: there is none: {trained_only.sentence(*found)}")
    if variant.format in QUANTS:
        from tradeoffs.chat.worker.llama import LlamaDecoder

        files.require_unchanged(variant.gguf)
        return LlamaDecoder(variant.gguf, most_mb=most_mb)
    return _of_transformers(variant, facts)


def _of_transformers(variant: Variant, facts: dict[str, Any]) -> Decoder:
    # At import it asks for an optional kernel from the hub, and of int8 layers it says that they round activations.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # A second and hundreds of megabytes, which a model of llama.cpp does without.
    import torch

    from tradeoffs.chat.worker.torch_decoder import decoder
    from tradeoffs.models.loading import load_model, load_trained

    cell = variant.cell
    if variant.format == TRAINED:
        dtype = getattr(torch, params.load_all().evaluate.reference_dtype)
        weights = cell.training(facts["seed"]).weights
        model = load_trained(cell.base, weights, params.Method(**facts["method"]), dtype)
    else:
        how = PRECISIONS[variant.format]
        model = load_model(cell.merged, how.load, getattr(torch, how.dtype))
    return decoder(model, files.read_json(cell.tokens / "info.json")["pad_id"])
