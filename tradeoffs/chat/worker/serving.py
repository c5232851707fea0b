"""A loaded model at work: what is asked becomes an answer of its loop, or says why it cannot."""

import sys
import threading
import time

from tradeoffs.chat.messages import Asked, Failed, Ready
from tradeoffs.chat.worker import lifetime
from tradeoffs.chat.worker.answer import Answer
from tradeoffs.chat.worker.decoder import Decoder
from tradeoffs.chat.worker.gathered import Gathered
from tradeoffs.chat.worker.loop import Loop
from tradeoffs.chat.worker.pipe import Pipe
from tradeoffs.chat.worker.prompts import Prompts, TooLongError
from tradeoffs.chat.worker.sampling import Sampler
from tradeoffs.chat.worker.text import Text
from tradeoffs.common import memory
from tradeoffs.plumbing.errors import UserError

TURN = 0.0005  # seconds that a thread keeps the interpreter while another waits: the loop does so after each step


def serve(pipe: Pipe, decoder: Decoder, prompts: Prompts, begun: float) -> None:
    """Without an end: the process ends when nobody can ask any more. `begun`: time.monotonic() at which it started."""
    sys.setswitchinterval(TURN)
    said = Gathered(pipe.send)
    loop = Loop(decoder, prompts.stop_ids, said.send)
    pipe.leave = loop.leave
    took, has = time.monotonic() - begun, memory.resident_mb()
    ready = Ready(decoder.name, decoder.device, decoder.context, decoder.places, prompts.max_tokens, took, has)
    pipe.send([ready])
    for work in (loop.run, said.run):
        threading.Thread(target=lifetime.or_end(work), daemon=True).start()
    # Templates are rendered here, in the main thread: only here one that takes for ever can be stopped.
    for asked, since in pipe.questions():
        made = _answer(asked, since, prompts)
        with pipe.handed_over(asked.id):
            if isinstance(made, Answer):
                loop.add(made)
        if isinstance(made, Failed):
            pipe.send([made])


def _answer(asked: Asked, since: float, prompts: Prompts) -> Answer | Failed:
    try:
        return Answer(asked, prompts.of(asked), since, Text(prompts.tokenizer, asked.stop), Sampler(asked))
    except UserError as error:
        return Failed(asked.id, "too_long" if isinstance(error, TooLongError) else "invalid", str(error))
    except Exception as error:  # one question shall not end the answers of others
        lifetime.report(error)
        return Failed(asked.id, "invalid", f"it cannot be read: a bug of this program ({type(error).__qualname__})")
