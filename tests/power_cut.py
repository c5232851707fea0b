"""A training that ends in the middle, as by a power cut."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any


def killed_at(step: int, trainer: Any, run: Callable[[], object]) -> int:
    """Runs `run` in a child process that ends while a `trainer` (a class) makes `step`; its exit code."""
    process = os.fork()
    if process == 0:
        os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # torch's threads do not come along with a fork
        made = trainer.training_step

        def until(self: Any, *args: Any, **kwargs: Any) -> Any:
            loss = made(self, *args, **kwargs)
            if self.first_step + self.state.global_step + 1 == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return loss

        trainer.training_step = until
        try:
            run()
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)  # pytest has the other one
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
