"""Where the real models, texts and tokenizers lie that tests, benchmarks and examples use.

One folder, which is no part of the project. TRADEOFFS_ASSETS names it; without it, it is `shared`, beside the checkout.
`python -m benchmarks.fetch` fills it, and everything that needs a part of it is left out where that part is missing.
"""

import os
from pathlib import Path

from tradeoffs.plumbing.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
VARIABLE = "TRADEOFFS_ASSETS"
COMMAND = "python -m benchmarks.fetch"
# Read once and made absolute: tests and benchmarks change the working directory.
FOLDER = Path(os.environ.get(VARIABLE) or ROOT.parent / "shared").expanduser().absolute()


def find(path: str) -> Path:
    """A file or folder of the assets, as `data/mmlu`. Raises UserError that says how to get it if it is not there."""
    if reason := lacking(path):
        raise UserError(reason)
    return FOLDER / path


def lacking(*paths: str) -> str | None:
    """Which of the assets are not there and how to get them; None where all are."""
    absent = [path for path in paths if not (FOLDER / path).exists()]
    if not absent:
        return None
    return f"{FOLDER}: no {', '.join(absent)}; `{COMMAND}` gets it, and {VARIABLE} says in which folder it is"


def shown(text: str) -> str:
    """A text without the place of the folder on this machine: $TRADEOFFS_ASSETS in its stead."""
    return text.replace(str(FOLDER), f"${VARIABLE}")
