"""The one way in for all that is started by `python -m`: a stage by `run`, a command that is no stage by `command`.

The help is the docstring of the module that was started. Bad input, and what this machine lacks, is one clear message
and exit code 1, a wrong option exit code 2; anything else is a bug of ours and keeps its traceback.
"""

import argparse
import inspect
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tradeoffs.common.texts import harmless
from tradeoffs.plumbing import clock, held
from tradeoffs.plumbing.errors import UserError
from tradeoffs.plumbing.lacking import lacking


def parser() -> argparse.ArgumentParser:
    """That of the module that was started, without any option yet."""
    return argparse.ArgumentParser(
        prog=f"python -m {_started()}",
        description=sys.modules["__main__"].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def count(text: str) -> int:
    """How many, from an argument. Raises ArgumentTypeError for what is no number from 1 on."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def run(main: Callable[..., None]) -> None:
    """Call a stage's `main` with one required option per parameter (`main(model, seed)` -> --model, --seed).

    The times of a stage that succeeds are recorded.
    """
    options = parser()
    for name, parameter in inspect.signature(main).parameters.items():
        number = parameter.annotation is int
        what = "a number of params.yaml" if number else "a name from params.yaml"
        options.add_argument(f"--{name}", required=True, type=int if number else str, help=what)
    arguments = vars(options.parse_args())
    stage = _started().rpartition(".")[2]
    with explained(), held.alone(stage, arguments.values()), clock.stage(stage):
        main(**arguments)


def command(main: Callable[..., None], options: argparse.ArgumentParser | None = None) -> None:
    """Call a command's `main` with what `options` read, by the names of its parameters; None: it takes none.

    A reader that has seen enough and closes the pipe (head, less) ends it quietly.
    """
    arguments = vars((options or parser()).parse_args())
    with explained():
        try:
            main(**arguments)
            sys.stdout.flush()
        except BrokenPipeError:
            if not _reader_is_gone():  # another pipe
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer


def _reader_is_gone() -> bool:
    """Whether nobody reads standard output any more: poll(2) then says POLLERR of a pipe."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(events & select.POLLERR for _, events in poll.poll(0))


@contextmanager
def explained() -> Iterator[None]:
    """A UserError inside becomes its message on stderr and exit code 1, and so does what this machine lacks.

    What is printed and the terminal cannot show, such as the name of a folder where the locale is C, is written out.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {harmless(str(error))}")  # it may hold names and texts of data
    except Exception as error:  # raised again unless it says what is lacking
        if not (said := lacking(error)):
            raise
        sys.exit(f"error: {harmless(said)}")


def _started() -> str:
    """The name that stands behind `python -m`."""
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__") if spec else sys.argv[0]
