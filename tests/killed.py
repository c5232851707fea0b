"""A process that is ended by the system; in a module of its own, which a fork imports quickly."""

import os
import signal


def without_a_word(*_told: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
