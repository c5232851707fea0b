"""What reading a params.yaml that is wrong somewhere ends with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import quick_yaml

from tradeoffs import params
from tradeoffs.plumbing.errors import UserError

OURS = Path(__file__).parents[1] / "params.yaml"


def problems(folder: Path, method: str, edit: Callable[[dict[str, Any], dict[str, Any]], object]) -> str:
    """The message that reading the project's own with a changed block of methods ends with; `edit` gets the file and
    that block."""
    raw = quick_yaml.load(OURS.read_text())
    edit(raw, raw["methods"][method])
    path = folder / "changed.yaml"
    path.write_text(quick_yaml.dump(raw))
    with pytest.raises(UserError) as error:
        params.load_all(path)
    return str(error.value)
