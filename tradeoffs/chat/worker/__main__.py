"""A model's process, which `tradeoffs.chat` starts: it answers through a socket that it has inherited.

python -m tradeoffs.chat.worker VARIANT --fd N
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from tradeoffs.chat.messages import Asked, Event, Failed, Ready, line
from tradeoffs.chat.worker.loading import load
from tradeoffs.chat.worker.loop import Answer, Loop
from tradeoffs.chat.worker.prompts import Prompts
from tradeoffs.chat.worker.sampling import Sampler
from tradeoffs.chat.worker.text import Text
from tradeoffs.common import cores, memory
from tradeoffs.common.cells import Variant
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError


def main(variant: str, fd: int) -> None:
    cores.wait_politely()
    begun = time.monotonic()
    with socket.socket(fileno=fd) as pipe:
        send = _sender(pipe)
        name = Variant.parse(variant)
        decoder = load(name)
        prompts = Prompts(name, decoder.context)
        loop = Loop(decoder, prompts.stop_ids, send)
        most = prompts.max_tokens
        took = time.monotonic() - begun
        ready = Ready(decoder.name, decoder.device, decoder.context, decoder.places, most, took, memory.resident_mb())
        send([ready])
        threading.Thread(target=_run, args=(loop,), daemon=True).start()
        # Templates are rendered in the main thread: only here they can be stopped.
        for found in _requests(pipe):
            if "leave" in found:
                loop.leave(found["leave"])
                continue
            asked, since = Asked.of(found), time.monotonic()
            try:
                prompt = prompts.of(asked)
            except UserError as error:
                send([Failed(asked.id, "too_long", str(error))])
                continue
            loop.add(Answer(asked, prompt, since, Text(prompts.tokenizer, asked.stop), Sampler(asked)))
        loop.close()


def _run(loop: Loop) -> None:
    """Ends the process where the loop fails: whoever started it says so to all who wait, and starts another."""
    try:
        loop.run()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def _sender(pipe: socket.socket) -> Callable[[list[Event]], None]:
    lock = threading.Lock()

    def send(events: list[Event]) -> None:
        if events:
            with lock:
                pipe.sendall(line(events))

    return send


def _requests(pipe: socket.socket) -> Iterator[dict]:
    """Until whoever started this process is gone."""
    with pipe.makefile("rb") as lines:
        for text in lines:
            yield json.loads(text)


if __name__ == "__main__":
    options = cli.parser()
    options.add_argument("variant", metavar="VARIANT")
    options.add_argument("--fd", type=int, required=True, help="of the socket")
    cli.command(main, options)
