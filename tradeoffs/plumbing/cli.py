"""How every stage is started: arguments from main's signature, one clear message for bad input, times recorded."""

import argparse
import inspect
import sys
from collections.abc import Callable

from tradeoffs.plumbing import clock
from tradeoffs.plumbing.errors import UserError


def run(main: Callable[..., None]) -> None:
    """Call a stage's `main` with one required option per parameter (`main(model, dataset)` -> --model, --dataset).

    A UserError becomes its message on stderr and exit code 1; anything else is a bug of ours and keeps its traceback.
    """
    module = sys.modules[main.__module__]
    name = (module.__spec__ or module).name.rsplit(".", 1)[-1]  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(
        prog=f"python -m stages.{name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for parameter in inspect.signature(main).parameters:
        parser.add_argument(f"--{parameter}", required=True, help="a name from params.yaml")
    arguments = vars(parser.parse_args())
    try:
        with clock.stage(name):
            main(**arguments)
    except UserError as error:
        sys.exit(f"error: {error}")
