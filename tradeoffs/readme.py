"""Puts the decision into README.md, between its two markers; the stage `publish` does, and `make run` at its end.

python -m tradeoffs.readme
python -m tradeoffs.readme --check      writes nothing; exit code 1 if it is not the decision of report/summary.md
"""

import re
from pathlib import Path

from tradeoffs.common import files
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
README, SUMMARY, FRONT = Path("README.md"), Path("report/summary.md"), Path("report/report.md")
# The pictures that the report's first page can have, and what they show.
PICTURES = {
    "quality_vs_size": "Test quality against size, the Pareto set marked",
    "quality_vs_speed": "Test quality against decode speed, the Pareto set marked",
    "bits_per_byte": "Bits per byte of every model on every data set",
}


def with_results(readme: str, summary: str, front: str) -> str:
    """`readme` with `summary`, less its headline, and the picture of `front` between the markers.

    `front` is the report's first page, whose first picture of PICTURES it is; none where that has none. Raises
    UserError if the markers are not there, once each and in order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after or END in before + after:
        raise UserError(f"{README}: needs a line {BEGIN} and then a line {END}, once each; results go in between")
    body = summary.split("\n", 1)[1].strip()
    if BEGIN in body or END in body:
        raise UserError(f"{SUMMARY}: has a marker of {README} in it; run `dvc repro -f -s aggregate`")
    return f"{before}{BEGIN}\n{body}\n{_picture(front)}{END}{after}"


def _picture(front: str) -> str:
    found = re.search(rf"^!\[.*\]\(\.\./plots/({'|'.join(PICTURES)})\.png\)$", front, re.MULTILINE)
    return f"\n![{PICTURES[found[1]]}](plots/{found[1]}.png)\n" if found else ""


def is_wanted() -> bool:
    """Whether there is a README with one marker at least; who removes both wants no results in it."""
    text = README.read_text(encoding="utf-8") if README.is_file() else ""
    return BEGIN in text or END in text


def write(check: bool = False) -> None:
    """Raises UserError if a file is missing, README.md has no markers, or, with `check`, its block is another."""
    for path in (README, SUMMARY, FRONT):
        if not path.is_file():
            raise UserError(f"{path}: not found in {Path.cwd()}; run after `dvc repro`, from the folder of dvc.yaml")
    readme, summary, front = (path.read_text(encoding="utf-8") for path in (README, SUMMARY, FRONT))
    wanted = with_results(readme, summary, front)
    if check and readme != wanted:
        raise UserError(
            f"{README}: its results are not those of {SUMMARY}; run python -m tradeoffs.readme and commit it"
        )
    if readme != wanted:
        files.write_text(README, wanted)


if __name__ == "__main__":
    options = cli.parser()
    options.add_argument("--check", action="store_true", help="write nothing, and fail where it would")
    cli.command(write, options)
