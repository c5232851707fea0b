"""One file of HTML that asks for nothing else: the page's text, style and scripts, and what it shows as JSON."""

import base64
import hashlib
import json
from functools import cache
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

from tradeoffs.common import files

FOLDER = Path(__file__).parent
LARGEST = 4_000_000  # bytes of the whole page
BUNDLES = Path(".scratch/explore")
SNIPPET = "window.vegaEmbed = vegaEmbed;"
# In this order: each uses what stands in those before it.
SCRIPTS = (
    "dom",
    "unpack",
    "state",
    "choose",
    "limits",
    "decision",
    "charts",
    "scatter",
    "table",
    "ladder",
    "subjects",
    "items",
    "start",
)
# Nothing is loaded, sent or framed, and only these very scripts run: Vega's expressions are interpreted, not compiled.
POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src data:; base-uri 'none'; form-action 'none'"
)


def page(shown: dict[str, Any], stamp: str) -> str:
    """The whole page. `shown` is what the scripts read; its texts are data in every place of the page."""
    style, scripts = _read("page.css"), (drawing(), own_script())
    policy = POLICY.format(script=" ".join(map(_source, scripts)), style=_source(style))
    return Template(_read("page.html")).substitute(
        policy=policy, stamp=stamp, style=style, drawing=scripts[0], script=scripts[1], data=written(shown)
    )


def written(value: Any) -> str:
    """JSON that may stand within an element of HTML: nothing in it ends that, or begins another."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def size(value: Any) -> int:
    return len(written(value).encode())


def frame() -> int:
    """Bytes of the page without what it shows."""
    return len(page({}, "0" * 64).encode())


def own_script() -> str:
    """One function, so that no name of it is a name of the page."""
    parts = [_read(f"js/{name}.js") for name in SCRIPTS]
    return "\n".join(["(() => {", '"use strict";', *parts, "})();"])


@cache
def drawing() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, which sets `vegaEmbed`.

    Kept beside the other scratch of a run: to bundle it takes longer than all else of a small page.
    """
    version = metadata.version("vl-convert-python")
    kept = BUNDLES / f"{hashlib.sha256(f'{version} {SNIPPET}'.encode()).hexdigest()[:16]}.js"
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    found = _bundled()
    files.write_text(kept, found)
    return found


def _bundled() -> str:
    import vl_convert

    found: str = vl_convert.javascript_bundle(SNIPPET)
    if "</script" in found.lower() or "<!--" in found:  # either would change where the element ends
        found = found.replace("</", "<\\/").replace("<!--", "<\\!--")
    return found


def _source(text: str) -> str:
    """How a policy names a script or style that stands in the page: https://www.w3.org/TR/CSP3/#grammardef-hash-source"""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
