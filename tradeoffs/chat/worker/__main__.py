"""A model's process, which `tradeoffs.chat` starts: it answers through a socket that it has inherited.

python -m tradeoffs.chat.worker VARIANT --fd N
"""

import time

from tradeoffs.chat.worker import lifetime
from tradeoffs.chat.worker.pipe import Pipe
from tradeoffs.common import cores
from tradeoffs.common.cells import Variant
from tradeoffs.plumbing import cli


def main(variant: str, fd: int) -> None:
    begun = time.monotonic()
    lifetime.set_up()
    pipe = Pipe(fd)
    cores.wait_politely()  # before a library reads it
    name = Variant.parse(variant)
    # Imported while the pipe is watched, and without torch where the model does without.
    from tradeoffs.chat.worker.prompts import Prompts, spare_torch

    spare_torch(name)
    from tradeoffs.chat.worker.loading import load
    from tradeoffs.chat.worker.serving import serve

    decoder = load(name)
    serve(pipe, decoder, Prompts(name, decoder.context), begun)


if __name__ == "__main__":
    options = cli.parser()
    options.add_argument("variant", metavar="VARIANT")
    options.add_argument("--fd", type=int, required=True, help="of the socket")
    cli.command(main, options)
