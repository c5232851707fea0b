"""One page to look for yourself: every variant, quality against cost, limits to move, answers side by side.

    python -m tradeoffs.explore                                   report/explore.html, which opens from disk
    python -m tradeoffs.explore --pair demo-demo --out demo.html  some of the models and data sets of a large run list

Reads what the run left in data/; nothing is evaluated again. The page is one file of at most 4 MB that asks no network
for anything; it is made, not committed, and `make run` makes it again when the results have changed.
"""

from collections.abc import Sequence
from pathlib import Path

from tradeoffs.explore import making, stamp
from tradeoffs.plumbing import cli


def main(out: Path, pairs: Sequence[str]) -> None:
    print(making.make(out, pairs))


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument(
        "--out",
        type=Path,
        default=stamp.PAGE,
        metavar="FILE",
        help=f"default: {stamp.PAGE}; a folder that is not there is made",
    )
    parser.add_argument(
        "--pair",
        dest="pairs",
        action="append",
        default=[],
        metavar="MODEL-DATASET",
        help="only this model with this data set; may be given several times (default: all of the run list)",
    )
    cli.command(main, parser)
