"""What this project's chat server endures: many conversations, a long one, clients that leave, a model that dies."""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chat_models import conversations
from benchmarks.chat_servers import Server
from tradeoffs.llama_cpp.context import SEQUENCES
from tradeoffs.plumbing.errors import UserError

PARTS, WARM_UP = 10, 3  # in which many conversations are held, with a look at the memory after each
PATIENCE = 60.0
Row = dict[str, Any]


def flat(server: Server, asked: Sequence[str], count: int) -> Row:
    """Resident memory of the server and of the model's process while conversations are held, eight at a time."""
    each = count // PARTS
    memory: dict[str, list[float]] = {}
    for part in range(PARTS):
        questions = [asked[(part * each + at) % len(asked)] for at in range(len(asked))]
        server.load(conversations=conversations(questions, each, 2), clients=8, max_tokens=32)
        for name, megabytes in server.resident_mb().items():
            memory.setdefault(name, []).append(megabytes)
    drift = {f"{name}_drift": max(values[WARM_UP:]) / values[WARM_UP - 1] - 1 for name, values in memory.items()}
    return {"flat": {"conversations": each * PARTS, **drift, "resident_mb": memory}}


def long(server: Server, asked: Sequence[str], turns: int) -> Row:
    """One conversation of many turns, whose oldest no longer fit the context."""
    answers = server.load(conversations=conversations(asked, 1, turns), clients=1, max_tokens=32)["answers"]
    left_out = answers[-1]["said"].get("begun", {}).get("left_out", 0)
    whole = sum(not answer["problem"] for answer in answers)
    return {"long": {"turns": turns, "lost": turns - whole, "left_out": left_out}}


def killed(server: Server, asked: Sequence[str], clients: int, max_tokens: int = 1000, busy: float = 3.0) -> Row:
    """SIGKILL of the model's process once `clients` have had `busy` seconds of it; then one asks again."""
    before = server.cpu_seconds().get("model", 0.0)
    process = server.begin(conversations=conversations(asked, clients, 1), clients=clients, max_tokens=max_tokens)
    until = time.monotonic() + PATIENCE
    while server.cpu_seconds().get("model", 0.0) < before + busy:
        if time.monotonic() > until:
            raise UserError("the model's process is not at work")
        time.sleep(0.05)
    model = next(one for one in server.processes() if "tradeoffs.chat.worker" in one.cmdline())
    model.kill()
    at = time.monotonic()
    found = server.answers(process)
    known = [found["begun"] + answer["done"] - at for answer in found["answers"]]
    again = server.load(conversations=[[asked[0]]], clients=1, max_tokens=8)["answers"][0]
    return {
        "killed": {
            "clients": clients,
            "began": sum(answer["first"] > 0 for answer in found["answers"]),
            "uninformed": sum(not (answer["finish"] or answer["problem"]) for answer in found["answers"]),
            "seconds_until_all_know": max(known),
            "said": sorted({answer["problem"] or answer["finish"] for answer in found["answers"]}),
            "next_answer_whole": not again["problem"],
            "next_answer_seconds": again["done"],
        }
    }


@dataclass
class Watched:
    """A client that notes when what came; `leave` makes it go."""

    begun: float = 0.0
    pieces: list[float] = field(default_factory=list)
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, server: Server, question: str, max_tokens: int) -> None:
        body = {"model": server.model, "messages": [{"role": "user", "content": question}], "max_tokens": max_tokens}
        content = json.dumps(body | {"temperature": 0, "stream": True}).encode()
        lines = {"Host": f"127.0.0.1:{server.port}", "Content-Type": "application/json"} | server.headers
        head = "".join(
            f"{name}: {value}\r\n" for name, value in (lines | {"Content-Length": f"{len(content)}"}).items()
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 20)
        writer.write(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + content)
        reading = asyncio.create_task(self._read(reader))
        leaving = asyncio.create_task(self.leave.wait())
        await asyncio.wait([reading, leaving], return_when=asyncio.FIRST_COMPLETED)
        reading.cancel(), leaving.cancel()
        writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            if b'"begun"' in line:
                self.begun = time.monotonic()
            elif b'"content"' in line:
                self.pieces.append(time.monotonic())
            elif line.startswith(b"data: [DONE]"):
                return


def leaving(server: Server, asked: Sequence[str], count: int = 4) -> Row:
    """More clients than the model has places. One after the other leaves, and each time another one begins: after how
    many steps of the model, the one under way and the newcomer's own first counted."""
    steps, step = asyncio.run(_leaving(server, asked, SEQUENCES + count, count))
    return {"leaving": {"clients": SEQUENCES + count, "steps": steps, "most_steps": max(steps), "step_seconds": step}}


async def _leaving(server: Server, asked: Sequence[str], clients: int, count: int) -> tuple[list[float], float]:
    all_of_them = [Watched() for _ in range(clients)]
    tasks = [
        asyncio.create_task(one.ask(server, question, 1000))
        for one, question in zip(all_of_them, asked[:clients], strict=True)
    ]
    try:
        # All that find a place have read their prompts, and grow.
        await _until(lambda: sum(len(one.pieces) >= 3 for one in all_of_them) >= 1)
        await _until(lambda: all(len(one.pieces) >= 3 for one in all_of_them if one.begun))
        grow = [one for one in all_of_them if one.begun]
        gaps = [after - before for one in grow for before, after in zip(one.pieces, one.pieces[1:], strict=False)]
        step, found = statistics.median(gaps), []
        for one in grow[:count]:
            waiting = [other for other in all_of_them if not other.begun]
            if not waiting:
                raise UserError(f"{clients} clients, and none of them waits")
            left = time.monotonic()
            one.leave.set()
            await _until(lambda waiting=waiting: any(other.begun for other in waiting))
            found.append((max(other.begun for other in waiting) - left) / step)
            await asyncio.sleep(2 * step)
        return found, step
    finally:
        for one in all_of_them:
            one.leave.set()
        await asyncio.gather(*tasks)


async def _until(true: Any) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > until:
            raise UserError(f"nothing has happened for {PATIENCE:.0f} seconds")
        await asyncio.sleep(0.002)
