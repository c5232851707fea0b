"""Which variant people found better, of two whose answers they saw side by side: wins, ties, and how sure that is.

    python -m tradeoffs.votes                     all votes of data/votes.jsonl, pair by pair
    python -m tradeoffs.votes --blind-only        only those cast without the names in sight
    python -m tradeoffs.votes --json

They are cast on the page of `python -m tradeoffs.chat --serve VARIANT VARIANT`, and kept on this machine alone.

The win rate is the share of wins in the votes that name a winner: ties are shown, and are for nobody. Its 95 % interval
is exact (Clopper and Pearson 1934); where it holds 50 %, neither is shown to be better. A pair's votes are taken for
independent: many by one person, or on one question, say less than the interval does.
"""

import json
from collections.abc import Sequence

from tradeoffs import params
from tradeoffs.chat import votes
from tradeoffs.chat.votes import Vote
from tradeoffs.common import cells
from tradeoffs.plumbing import cli
from tradeoffs.report.formatting import code, table

FEW = 10  # votes with a winner, below which nothing is said of the sides


def shown(found: list[dict], known: set[str]) -> list[str]:
    """A line for each pair; a name that the run list lacks has a star."""
    names = {one[side] for one in found for side in ("variant", "other")}
    head = ["variant", "against", "votes", "wins", "losses", "ties", "win rate [95 %]", "blind"]
    rows = []
    for one in found:
        pair = [code(name) + ("" if name in known else "*") for name in (one["variant"], one["other"])]
        rate = "only ties"
        if "win_rate" in one:
            rate = "{win_rate:.1%} [{win_rate_low:.1%}, {win_rate_high:.1%}]".format(**one)
        counts = [str(one[key]) for key in ("votes", "wins", "losses", "ties")]
        rows.append([*pair, *counts, rate, str(one["blind"])])
    gone = ["", "* no longer in the run list"] if names - known else []
    return [*table(head, rows, texts=["variant", "against"], keys=2), *gone]


def sides(cast: Sequence[Vote]) -> list[str]:
    """Whether people judged the side, too: how often the left answer was the better one."""
    left, right = (sum(vote.better == side for vote in cast) for side in (votes.LEFT, votes.RIGHT))
    if left + right < FEW:
        return []
    found = "{win_rate:.1%} [{win_rate_low:.1%}, {win_rate_high:.1%}]".format(**votes.rate(left, right))
    return [
        "",
        f"Of {left + right} votes with a winner the left answer won {found}.",
        "Where that interval leaves out 50 %, people judged the side, too.",
    ]


def main(as_json: bool, blind_only: bool) -> None:
    cast = [vote for vote in votes.votes() if vote.blind or not blind_only]
    found = votes.counted(cast)
    if as_json:
        print(json.dumps(found, indent=2))
    elif not cast:
        kind = "blind vote" if blind_only else "vote"
        print(f"no {kind} in {votes.VOTES} yet: cast them on the page of `python -m tradeoffs.chat --serve A B`")
    else:
        known = {str(one) for one in cells.variants(params.load_all().run)}
        print("\n".join([*shown(found, known), *sides(cast)]))


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument("--json", dest="as_json", action="store_true", help="the same as JSON, a list of pairs")
    parser.add_argument(
        "--blind-only", action="store_true", help="only votes that were cast without the names in sight"
    )
    cli.command(main, parser)
