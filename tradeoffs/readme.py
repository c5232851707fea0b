"""Puts the decision into README.md, between its two markers: `python -m tradeoffs.readme`, at the end of `make run`."""

from pathlib import Path

from tradeoffs.common import files

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
README, SUMMARY = Path("README.md"), Path("report/summary.md")
PICTURE = "\n![Test quality against decode speed, the Pareto set marked](plots/quality_vs_speed.png)\n"


def with_results(readme: str, summary: str) -> str:
    """`readme` with what stands between the markers replaced by `summary`, less its headline, and the first picture."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    body = summary.split("\n", 1)[1].strip()
    return f"{before}{BEGIN}\n{body}\n{PICTURE}{END}{after}"


if __name__ == "__main__":
    files.write_text(README, with_results(README.read_text(encoding="utf-8"), SUMMARY.read_text(encoding="utf-8")))
