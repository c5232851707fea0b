"""The socket between a model's process and whoever started it. When that one is gone, this process ends, whatever it is
at: a thread of its own waits for it."""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn, Protocol

import json

from tradeoffs.chat import messages
from tradeoffs.chat.messages import Asked, Ended, Event

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Leaving(Protocol):
    def leave(self, name: str) -> None: ...


class Pipe:
    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)
