"""Puts the decision into README.md, between its two markers; `make run` does it at its end.

python -m tradeoffs.readme
"""

from pathlib import Path

from tradeoffs.common import files
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
README, SUMMARY = Path("README.md"), Path("report/summary.md")
PICTURE = "\n![Test quality against decode speed, the Pareto set marked](plots/quality_vs_speed.png)\n"


def with_results(readme: str, summary: str) -> str:
    """`readme` with what stands between the markers replaced by `summary`, less its headline, and the first picture.

    Raises UserError if the markers are not there, once each and in order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after or END in before + after:
        raise UserError(f"{README}: needs a line {BEGIN} and then a line {END}, once each; results go in between")
    body = summary.split("\n", 1)[1].strip()
    return f"{before}{BEGIN}\n{body}\n{PICTURE}{END}{after}"


def main() -> None:
    for path in (README, SUMMARY):
        if not path.is_file():
            raise UserError(f"{path}: not found in {Path.cwd()}; run after `dvc repro`, from the folder of dvc.yaml")
    files.write_text(README, with_results(README.read_text(encoding="utf-8"), SUMMARY.read_text(encoding="utf-8")))


if __name__ == "__main__":
    cli.command(main)
