"""A model's process with no model in it, for tests of what starts such processes: as `tradeoffs.chat.worker`, but each
answer is known, and files in a folder say when it goes on.

python chat_stand_in.py FOLDER --fd N -- VARIANT

A question is `WHAT COUNT`: COUNT characters that depend on all of it, see `answer`. Some say what goes wrong:
`abort`, `bug` in a step, `refused` and `misread` before it.

In FOLDER: `steps`: how many steps are made at most; `loading`: it loads for as long as this is there; `fails-VARIANT`:
what it says in place of loading; `memory-VARIANT`: MB that it takes. It writes a line to `log` when it starts (`start
VARIANT PID`) and when a sequence ends (`end FED`, after so many tokens).
"""

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

CHARACTERS = [chr(code) for code in range(32, 127)]
STOP = len(CHARACTERS)
PLACES, CONTEXT = 4, 1 << 20


def answer(question: str) -> str:
    text = hashlib.sha256(question.encode()).hexdigest()
    count = int(question.split()[1])
    return (text * (count // len(text) + 1))[:count]


class Known:
    """A decoder that knows each answer once it has seen the question."""

    name, device, context, vocabulary, places, step_tokens = "none", "cpu", CONTEXT, STOP + 1, PLACES, 512

    def __init__(self, folder: Path) -> None:
        self._folder, self._steps = folder, 0
        self._answers: dict[int, str] = {}
        self._asked: dict[int, int] = {}
        self._fed: dict[int, int] = {}

    def begin(self, ids: Sequence[int], length: int) -> tuple[int, int] | None:
        place = next((place for place in range(PLACES) if place not in self._fed), None)
        if place is None:
            return None
        question = "".join(CHARACTERS[one] for one in ids)
        self._answers[place], self._asked[place], self._fed[place] = answer(question), len(ids), 0
        if question.startswith("abort"):
            os.abort()
        if question.startswith("bug"):
            raise ValueError(question)
        return place, 0

    def feed(self, parts: Mapping[int, Sequence[int]], wanted: set[int]) -> dict[int, np.ndarray]:
        self._steps += 1
        wait_while(lambda: (allowed := read(self._folder / "steps")) and self._steps > int(allowed))
        found = {}
        for place, ids in parts.items():
            self._fed[place] += len(ids)
            if place in wanted:
                said = self._fed[place] - self._asked[place]
                left = self._answers[place][said : said + 1]
                found[place] = np.zeros(self.vocabulary, np.float32)
                found[place][CHARACTERS.index(left) if left else STOP] = 1
        return found

    def end(self, place: int) -> None:
        log(self._folder, f"end {self._fed.pop(place)}")

    def close(self) -> None:
        pass


class Questions:
    """Prompts: a question's characters."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer, decoders, models

        self.stop_ids, self.max_tokens = [STOP], CONTEXT // 2
        vocabulary = {character: at for at, character in enumerate(CHARACTERS)}
        self.tokenizer = Tokenizer(models.BPE(vocabulary | {"<stop>": STOP}, []))
        self.tokenizer.decoder = decoders.Fuse()

    def of(self, asked):
        from tradeoffs.chat.worker.prompts import Prompt, TooLongError
        from tradeoffs.plumbing.errors import UserError

        question = asked.turns[-1].content
        if question.startswith("refused"):
            raise UserError(f"refused: {question}")
        if question.startswith("long"):
            raise TooLongError("too long")
        if question.startswith("misread"):
            raise KeyError(question)
        return Prompt([CHARACTERS.index(one) for one in question], 0, asked.max_tokens or self.max_tokens)


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def log(folder: Path, line: str) -> None:
    with (folder / "log").open("a") as file:
        file.write(f"{line}\n")


def wait_while(holds) -> None:
    while holds():
        time.sleep(0.002)


def main(folder: Path, variant: str, fd: int) -> None:
    from tradeoffs.chat.worker import lifetime
    from tradeoffs.chat.worker.pipe import Pipe
    from tradeoffs.plumbing.errors import UserError

    begun = time.monotonic()
    lifetime.set_up()
    pipe = Pipe(fd)
    log(folder, f"start {variant} {os.getpid()}")
    wait_while((folder / "loading").exists)
    if said := read(folder / f"fails-{variant}"):
        if said == "bug":
            raise ValueError(said)
        if said == "abort":
            os.abort()
        raise UserError(said)
    taken = bytearray(int(read(folder / f"memory-{variant}") or 0) * 1_000_000)
    taken[::4096] = b"1" * len(taken[::4096])
    from tradeoffs.chat.worker.serving import serve

    serve(pipe, Known(folder), Questions(), begun)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])
    from tradeoffs.plumbing import cli

    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("variant")
    options.add_argument("--fd", type=int, required=True)
    cli.command(main, options)
