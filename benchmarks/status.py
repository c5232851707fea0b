"""Which code each committed result measured, and the figures of results in the pages: printed, and written there.

    python -m benchmarks.status

The list in benchmarks/README.md, between its two markers, and the figures of SENTENCES come from benchmarks/results. A
result is older than its code where a file that it measured has changed since, in whatever way: it may give the same.
"""

import re
from typing import Any

from benchmarks import common, measured
from benchmarks.common import ROOT
from tradeoffs.common import files
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError

BEGIN, END = "<!-- status:begin -->", "<!-- status:end -->"
LIST = "benchmarks/README.md"
# Sentences with figures, once in each of PAGES; {RESULT.KEY} is one, a number with one decimal.
PAGES = ("CHANGELOG.md", "docs/training.md")
SENTENCES = (
    "{train_lora.ratio} times (LoRA) and {train_full.ratio} times (all weights) as fast as TRL in its best setting "
    "(its defaults: {train_lora.ratio_defaults} and {train_full.ratio_defaults})",
)
FIELD = re.compile(r"\{(\w+)\.(\w+)\}")


def main() -> None:
    results = read()
    print(table(results))
    for page in (LIST, *PAGES):
        path = ROOT / page
        files.write_text(path, with_results(page, path.read_text(encoding="utf-8"), results))


def read() -> dict[str, dict[str, Any]]:
    """The committed results by name, in the order of their names."""
    return {path.stem: files.read_json(path) for path in sorted(common.RESULTS.glob("*.json"))}


def table(results: dict[str, dict[str, Any]]) -> str:
    """A Markdown table: of each result its ratios, the commit that it measured, and whether that code has changed."""
    rows = ["| result | ratio | to the peer's defaults | measured | its code |", "| --- | ---: | ---: | --- | --- |"]
    for name, result in results.items():
        code = result.get("code", {})
        ratios = [f"{result[key]:.2f}" if key in result else "" for key in ("ratio", "ratio_defaults")]
        state = "**changed since**" if is_older(code) else "as it is"
        rows.append(f"| `{name}` | {' | '.join(ratios)} | {code.get('commit', 'unknown')} | {state} |")
    return "\n".join(rows)


def is_older(code: dict[str, Any]) -> bool:
    """Whether the code that a result measured is no longer what it was; a result without a digest of it is old."""
    scripts = code.get("scripts", ())
    there = all((ROOT / script).is_file() for script in scripts)
    return not (there and code.get("digest") == measured.digest(scripts))


def with_results(page: str, text: str, results: dict[str, dict[str, Any]]) -> str:
    """The text of a page with today's list and figures. Raises UserError if a place for one of them is missing."""
    if page == LIST:
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not (begin and end):
            raise UserError(f"{page}: needs a line {BEGIN} and then a line {END}; the list goes in between")
        text = f"{before}{BEGIN}\n{table(results)}\n{END}{after}"
    for sentence in SENTENCES if page in PAGES else ():
        text, count = re.subn(pattern(sentence), with_figures(sentence, results), text)
        if count != 1:
            raise UserError(f"{page}: says {count} times, not once: {sentence}")
    return text


def pattern(sentence: str) -> str:
    """Finds a sentence with any figures."""
    return "[0-9.]+".join(re.escape(part) for part in FIELD.sub("\0", sentence).split("\0"))


def with_figures(sentence: str, results: dict[str, dict[str, Any]]) -> str:
    return FIELD.sub(lambda found: f"{results[found[1]][found[2]]:.1f}", sentence)


if __name__ == "__main__":
    cli.command(main)
