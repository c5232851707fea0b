"""The chat's server on loopback, with an engine that says what a test wants, and requests byte by byte."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from tradeoffs.chat.messages import Asked, Begun, Ended, Event, Failed, Said
from tradeoffs.chat.server import app, serving
from tradeoffs.chat.variants import Talker
from tradeoffs.common.cells import Variant

NAME, OTHER = "demo-demo-lora-q4_0", "demo-demo-base-f16"
TOKEN = "a-token-of-forty-characters-for-tests---"
KNOWN = {
    name: Talker(Variant.parse(name), "llama.cpp", label, name == NAME, {"size_mb": 4.2}, "test_f1", "size_mb")
    for name, label in ((NAME, "chat"), (OTHER, "completion"))
}
QUESTION = {"model": NAME, "messages": [{"role": "user", "content": "What is 7 and 1?"}]}


@dataclass
class Script:
    """An engine whose answers are these texts and events, one token each. At None it waits until `held` is set."""

    says: list[str | Event | Exception | None] = field(default_factory=lambda: ["It ", "is ", "8."])
    asked: list[Asked] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # ids of answers whose client went away
    held: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def states(self) -> dict:
        return {}

    async def ask(self, asked: Asked) -> AsyncIterator[Event]:
        self._note(self.asked, asked)
        said: list[str] = []
        try:
            for piece in self.says:
                while piece is None and not self.held.is_set():
                    await asyncio.sleep(0.001)
                if isinstance(piece, str):
                    if not said:
                        yield Begun(asked.id, 12, 4, 0, 512, 128)
                    said.append(piece)
                    yield Said(asked.id, piece, len(said))
                elif isinstance(piece, Exception):
                    raise piece
                elif piece is not None:
                    yield piece
                if isinstance(piece, Failed | Ended):
                    return
            yield Ended(asked.id, "stop", "".join(said), 12, 4, len(said), 0.1, 0.2, 0.5, 142.5)
        except BaseException:
            self._note(self.left, asked.id)
            raise

    def _note(self, where: list, what: Any) -> None:
        with self.changed:
            where.append(what)
            self.changed.notify_all()

    def wait_for(self, where: list, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(where) >= count, 10), f"{len(where)} of {count}"


@dataclass
class Reply:
    """`status` 0: the connection was closed without one."""

    status: int
    headers: dict[str, list[str]]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    port: int
    script: Script
    served: uvicorn.Server

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 20)

    def head(self, line: str = "GET /v1/models HTTP/1.1", *more: str, token: str | None = TOKEN) -> bytes:
        """A request without a body, as it should be; `more`: further lines."""
        lines = [line, f"Host: {self.host}", *([f"Authorization: Bearer {token}"] if token else []), *more]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")

    def post(
        self, body: bytes, *more: str, path: str = "/v1/chat/completions", kind: str = "application/json"
    ) -> bytes:
        """A request with a body, as it should be."""
        length = (
            ()
            if any(line.lower().startswith(("content-length", "transfer")) for line in more)
            else (f"Content-Length: {len(body)}",)
        )
        return self.head(f"POST {path} HTTP/1.1", f"Content-Type: {kind}", *length, *more) + body

    def send(self, request: bytes) -> Reply:
        """What comes back until the connection is closed."""
        with self.connect() as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # it need not read all of it
                connection.sendall(request)
            return read(connection)

    def ask(self, path: str = "/v1/chat/completions", **body: Any) -> Reply:
        return self.send(self.post(json.dumps(QUESTION | body).encode(), path=path))


def read(connection: socket.socket) -> Reply:
    found = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            found += piece
    if not found:
        return Reply(0, {}, b"")
    head, _, body = found.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.lower(), []).append(value.strip())
    if headers.get("transfer-encoding") == ["chunked"]:
        body = _unchunked(body)
    return Reply(int(first.split()[1]), headers, body)


def kept(connection: socket.socket, request: bytes) -> Reply:
    """What comes back to a request whose connection is kept open; not of a stream."""
    connection.sendall(request.replace(b"Connection: close\r\n", b"", 1))
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    return Reply(reply.status, {}, reply.read())


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        length, _, body = body.partition(b"\r\n")
        size = int(length, 16)
        whole, body = whole + body[:size], body[size + 2 :]
        if not size:
            break
    return whole


def events(body: bytes) -> list[Any]:
    """Of a stream, in their order; the last is "[DONE]" if it came to its end."""
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


@contextmanager
def running(script: Script | None = None) -> Iterator[Server]:
    script = script or Script()
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        port = listener.getsockname()[1]
        hosts = serving.hosts("127.0.0.1", port, local=True)
        served = uvicorn.Server(serving.configured(app.made(script, KNOWN, [NAME], hosts, TOKEN)))  # type: ignore[arg-type]
        thread = threading.Thread(target=served.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield Server(port, script, served)
        finally:
            script.held.set()
            served.should_exit = True
            thread.join()
