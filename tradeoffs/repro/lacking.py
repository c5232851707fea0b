"""What a run lacks on this machine, said before it begins: the last of its steps would be the first to say so."""

from collections.abc import Sequence

from tradeoffs.formats.names import CUDA
from tradeoffs.harness import finding
from tradeoffs.params import Params
from tradeoffs.plumbing.errors import UserError
from tradeoffs.repro.slots import gpus

TASKS = ("tasks", "tasks_gpu", "tasks_cpu")


def require(asked: Params, planned: Sequence[str] = ("measure", *TASKS)) -> None:
    """Of what the `planned` steps need, by default all.

    Raises UserError if costs are to be measured on a GPU and there is none, if tasks are asked and
    lm-evaluation-harness is not installed, or if it has not all of them.
    """
    stages = {name.partition("@")[0] for name in planned}
    if "measure" in stages and CUDA in asked.run.devices and not gpus():
        raise UserError(
            f"run.devices: {CUDA}: this machine has no GPU that may be used (CUDA_VISIBLE_DEVICES); take it out, or "
            "run where there is one"
        )
    if asked.evaluate.tasks and stages.intersection(TASKS):
        finding.require_known(asked.evaluate.tasks, asked.evaluate.harness)
