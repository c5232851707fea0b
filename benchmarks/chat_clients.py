"""Many who talk with a server at the same time, as OpenAI's clients do: conversations, each turn a request.

    python -m benchmarks.chat_clients < load.json > answers.json

A process of its own, so that what it costs is known, and cheap: while an answer comes its bytes are only kept; they are
read once all are there. The same for every server. Each client has a connection, which it keeps for all of its turns.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import cycle
from typing import Any

from tradeoffs.plumbing import cli

# Of a chunk that holds text, and not only a role.
FIRST = re.compile(rb'"(?:content|text)": ?"(?!")')
LAST = b"\r\n0\r\n\r\n"  # a body in chunks ends (RFC 9112, 7.1)
IN_CHUNKS = -1  # in place of a length
PATIENCE = 120.0  # seconds without an answer


@dataclass(frozen=True)
class Load:
    """What is asked: `conversations`, each the questions of its turns.

    `clients` share them. Without `seconds` each conversation is held once; with it they are held over and over, and
    none begins after that time. `leave`: who has so many bytes of an answer closes the connection. `ends_count`: this
    server counts the token that ends an answer among those of the answer.
    """

    port: int
    model: str
    conversations: list[list[str]]
    clients: int
    max_tokens: int
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    leave: int | None = None
    ends_count: bool = False


@dataclass
class Answer:
    """`history`: the messages it answers. Times are seconds since the load began; `first` is that of the first text.

    `problem`: None, or why it is no whole answer. `said`: what this project's server says of an answer beside it.
    """

    client: int
    history: list[dict[str, str]]
    sent: float
    first: float = 0.0
    done: float = 0.0
    text: str = ""
    finish: str | None = None
    tokens: int = 0
    prompt_tokens: int = 0
    pieces: int = 0  # of text, in which it came
    refused: int = 0  # times that the server asked to come back later (429)
    said: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


class Connection(asyncio.Protocol):
    """Answers one request at a time."""

    def __init__(self) -> None:
        self.open = False
        self.first = 0.0
        self._bytes = bytearray()
        self._searched = 0
        self._length: int | None = None
        self._done: asyncio.Future[bytes] | None = None
        self._leave: int | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport, self.open = transport, True

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._done and not self._done.done():
            self._done.set_result(bytes(self._bytes))

    async def ask(self, request: bytes, leave: int | None = None) -> bytes:
        """The whole answer as it came, head and body; what there is of it where the connection broke."""
        self._bytes, self._searched, self._length, self.first = bytearray(), 0, None, 0.0
        self._leave = leave
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await asyncio.wait_for(self._done, PATIENCE)
        except TimeoutError:
            self.close()
            return bytes(self._bytes)

    def close(self) -> None:
        self.open = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        held = self._bytes
        held += data
        if not self.first:
            if FIRST.search(held, self._searched):
                self.first = time.monotonic()
            self._searched = max(len(held) - 32, 0)
        if self._leave is not None and self.first and len(held) > self._leave:
            self.close()
        elif self._ended():
            self._finish()

    def _ended(self) -> bool:
        held = self._bytes
        if self._length is None:
            end = held.find(b"\r\n\r\n")
            if end < 0:
                return False
            found = re.search(rb"\r\ncontent-length: *(\d+)", held[:end], re.IGNORECASE)
            self._length = end + 4 + int(found[1]) if found else IN_CHUNKS
        return held.endswith(LAST) if self._length == IN_CHUNKS else len(held) >= self._length

    def _finish(self) -> None:
        if self._done and not self._done.done():
            self._done.set_result(bytes(self._bytes))


class Client:
    def __init__(self, number: int, load: Load, begun: float) -> None:
        self._number, self._load, self._begun = number, load, begun
        self._connection: Connection | None = None

    async def talk(self, conversations: Iterator[list[str]]) -> list[Answer]:
        """All its answers; the first one that fails is its last."""
        answers: list[Answer] = []
        for questions in conversations:
            history: list[dict[str, str]] = []
            for question in questions:
                if self._over():
                    break
                history = [*history, {"role": "user", "content": question}]
                answers.append(await self._answer(history))
                if answers[-1].problem:
                    return answers
                history = [*history, {"role": "assistant", "content": answers[-1].text}]
            if self._over():
                break
        return answers

    def close(self) -> None:
        if self._connection:
            self._connection.close()

    def _over(self) -> bool:
        return self._load.seconds is not None and self._now() > self._load.seconds

    def _now(self) -> float:
        return time.monotonic() - self._begun

    async def _answer(self, history: list[dict[str, str]]) -> Answer:
        answer = Answer(self._number, history, self._now())
        body = {"model": self._load.model, "messages": history, "max_tokens": self._load.max_tokens}
        body |= {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
        while True:
            try:
                used = self._connection
                connection = await self._connected()
                raw = await connection.ask(self._request(body), self._load.leave)
                if not raw and connection is used:  # the server has closed what it does not keep
                    continue
            except OSError as error:
                answer.problem = f"no connection: {error}"
                break
            answer.done = self._now()
            answer.first = connection.first - self._begun if connection.first else 0.0
            if not raw.startswith(b"HTTP/1.1 429"):
                read(raw, answer)
                answer.tokens -= self._load.ends_count and answer.finish == "stop"
                break
            answer.refused += 1
            wait = re.search(rb"\r\nretry-after: *(\d+)", raw, re.IGNORECASE)
            await asyncio.sleep(float(wait[1]) if wait else 1.0)
        answer.done = answer.done or self._now()
        return answer

    async def _connected(self) -> Connection:
        if not (self._connection and self._connection.open):
            loop = asyncio.get_running_loop()
            _, self._connection = await loop.create_connection(Connection, "127.0.0.1", self._load.port)
        return self._connection

    def _request(self, body: dict[str, Any]) -> bytes:
        content = json.dumps(body).encode()
        head = {"Host": f"127.0.0.1:{self._load.port}", "Content-Type": "application/json"}
        head |= {"Content-Length": f"{len(content)}"} | self._load.headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        return f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode() + content


def read(raw: bytes, answer: Answer) -> None:
    """Fills an answer with what came for it."""
    head, _, body = raw.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        said = " ".join(body.decode(errors="replace").split())[:300]
        status = head.split(b"\r\n", 1)[0].decode(errors="replace")
        answer.problem = f"{status or 'no answer'}: {said}"
        return
    if b"chunked" in head.lower():
        body = _joined(body)
    ended = False
    for line in body.split(b"\n")[:-1]:  # what comes after the last one is no whole line
        if line.rstrip() == b"data: [DONE]":
            ended = True
        elif line.startswith(b"data: "):
            _take(json.loads(line[6:]), answer)
    answer.tokens = answer.tokens or answer.pieces
    if not answer.problem and not (ended and answer.finish):
        answer.problem = "cut off"


def _take(chunk: dict[str, Any], answer: Answer) -> None:
    if "error" in chunk:
        answer.problem = f"error: {chunk['error'].get('message')}"
    for choice in chunk.get("choices") or []:
        if piece := (choice.get("delta") or {}).get("content"):
            answer.text += piece
            answer.pieces += 1
        answer.finish = choice.get("finish_reason") or answer.finish
    if usage := chunk.get("usage"):
        answer.tokens, answer.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
    answer.said |= {key: value for key, value in (chunk.get("tradeoffs") or {}).items() if key in ("begun", "ended")}


def _joined(body: bytes) -> bytes:
    """A body that came in chunks; of one that broke off, what there is."""
    parts, at = [], 0
    while (end := body.find(b"\r\n", at)) >= 0:
        try:
            size = int(body[at:end].split(b";")[0], 16)
        except ValueError:
            break
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)


async def held(load: Load, begun: float) -> list[Answer]:
    shared = cycle(load.conversations) if load.seconds else iter(load.conversations)
    clients = [Client(number, load, begun) for number in range(load.clients)]
    found = await asyncio.gather(*(client.talk(shared) for client in clients))
    for client in clients:
        client.close()
    return [answer for answers in found for answer in answers]


def main() -> None:
    load = Load(**json.load(sys.stdin))
    begun, before = time.monotonic(), time.process_time()
    answers = asyncio.run(held(load, begun))
    used = time.process_time() - before
    json.dump({"begun": begun, "cpu_seconds": used, "answers": [asdict(answer) for answer in answers]}, sys.stdout)


if __name__ == "__main__":
    cli.command(main)
