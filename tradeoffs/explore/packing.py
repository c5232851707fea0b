"""A table as the page has it: what there is of every two variants is packed, so that hundreds have room."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from tradeoffs.results.choice import Table


def packed(table: Table, lost: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`Table.as_json`, but base64 instead of rows; js/unpack.js makes rows of it again.

    width: the upper triangle with its diagonal, row by row, float64 with the first byte the lowest: with all digits, so
    that the page decides the same. cheaper: V * V bits, row by row, the first one the highest of its byte. lost: the
    same of each guard by its label, from `lost`: (V, V), row loses it were the column the best; or (V, 1), where the
    best is no matter. Raises ValueError if a width is not that of both directions.
    """
    if not np.array_equal(table.width, table.width.T):
        raise ValueError("the width of a difference is not that of the same two the other way round")
    upper = table.width[np.triu_indices(len(table.names))].astype("<f8")
    return table.as_json() | {
        "width": _text(upper.tobytes()),
        "cheaper": {cost: bits(found) for cost, found in table.cheaper.items()},
        "lost": [{"guard": guard, "columns": found.shape[1], "bits": bits(found)} for guard, found in lost.items()],
    }


def bits(found: np.ndarray) -> str:
    return _text(np.packbits(found.astype(bool)).tobytes())


def _text(found: bytes) -> str:
    return base64.b64encode(found).decode()
