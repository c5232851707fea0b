"""A model's process, which `tradeoffs.chat` starts: it answers through a socket that it has inherited.

python -m tradeoffs.chat.worker VARIANT --fd N [--memory MB]
"""

import time

from tradeoffs.chat.worker import lifetime
from tradeoffs.chat.worker.pipe import Pipe
from tradeoffs.common import cores
from tradeoffs.common.cells import Variant
from tradeoffs.plumbing import cli


def main(variant: str, fd: int, memory: float | None) -> None:
    begun = time.monotonic()
    lifetime.set_up()
    pipe = Pipe(fd)
    cores.wait_politely()  # before a library reads it
    name = Variant.parse(variant)
    # Imported while the pipe is watched, and without torch where the model does without.
    from tradeoffs.chat import room
    from tradeoffs.chat.worker.prompts import Prompts, let_templates_take, spare_torch

    most_mb = room.limit_mb() if memory is None else memory
    spare_torch(name)
    let_templates_take(name, most_mb)
    from tradeoffs.chat.worker.loading import load
    from tradeoffs.chat.worker.serving import serve

    decoder = load(name, most_mb)
    serve(pipe, decoder, Prompts(name, decoder.context), begun)


if __name__ == "__main__":
    options = cli.parser()
    options.add_argument("variant", metavar="VARIANT")
    options.add_argument("--fd", type=int, required=True, help="of the socket")
    options.add_argument("--memory", type=float, metavar="MB", help="of all models together")
    cli.command(main, options)
