"""The gate by its policy, and what it says of every variant."""

from dataclasses import replace
from pathlib import Path

from tradeoffs.comment.writing import Compared
from tradeoffs.gate import policy as policies
from tradeoffs.gate.judging import judge
from tradeoffs.plumbing.errors import UserError
from tradeoffs.revisions import Revision


def compared(base: Revision, head: Revision, path: Path | None) -> Compared | str:
    """Both; or why the two cannot be compared, which reviewers have to see as well.

    Raises UserError if the policy cannot be read.
    """
    policy = policies.of(base, head, path)
    try:
        gate = judge(base, head, policy)
        return Compared(gate, gate if policy.variants == "all" else judge(base, head, replace(policy, variants="all")))
    except UserError as error:
        return str(error)
