"""From the start of the server to its end: its address, its token, its signals."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import re
import secrets
import shlex
import signal
import socket
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from tradeoffs.chat import room, variants
from tradeoffs.chat.engine import Engine
from tradeoffs.chat.server import app
from tradeoffs.chat.server.connections import STRANGER_SECONDS, Connection
from tradeoffs.chat.server.guard import bracketed
from tradeoffs.chat.variants import Talker
from tradeoffs.plumbing.errors import UserError

TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{32,512}")  # what a header holds, and no guess finds
MAKE_TOKEN = "(umask 077; python -c 'import secrets; print(secrets.token_urlsafe(32))' > {file})"
ENDING_SECONDS = 5  # in which running answers are told that it ends
BACKLOG = 1024  # connections that wait to be taken


def serve(
    talkers: Sequence[Talker],
    host: str = "127.0.0.1",
    port: int = 0,
    token_file: Path | None = None,
    max_memory_mb: float | None = None,
) -> None:
    """Until Ctrl-C or SIGTERM. Prints its address as one line. Raises UserError where it cannot be served there."""
    address, family = _resolved(host, port)
    ip = ipaddress.ip_address(address.partition("%")[0])
    if not ip.is_loopback and not token_file:
        raise UserError(
            f"--host {host} lets other machines in: give it a token of your own with --token-file FILE, made by\n  "
            f"{MAKE_TOKEN.format(file='FILE')}\n"
            f"or leave --host out, and come from elsewhere by `ssh -L PORT:127.0.0.1:PORT`, with one PORT on both sides"
        )
    name = socket.gethostname() if ip.is_unspecified else host
    token = read_token(token_file) if token_file else secrets.token_urlsafe(32)
    if said := crowded(talkers, max_memory_mb):
        print(said, file=sys.stderr)
    with _listening(address, port, family) as listener:
        port = listener.getsockname()[1]
        if not ip.is_loopback:
            print(
                f"open to every machine that reaches {host}, port {port}, and has the token of {token_file}; what is "
                "said is not encrypted: let it be reached by a proxy with TLS alone",
                file=sys.stderr,
            )
        # Who has a token in a file has it; a log of this line need not.
        shown = f"http://{bracketed(name)}:{port}/" + ("" if token_file else f"#token={token}")
        asyncio.run(
            _run(listener, hosts(name, port, ip.is_loopback or ip.is_unspecified), token, talkers, max_memory_mb, shown)
        )


def crowded(talkers: Sequence[Talker], max_memory_mb: float | None) -> str:
    """That those who were named have no room together, where that is so."""
    most_mb = room.limit_mb() if max_memory_mb is None else max_memory_mb
    needed = sum(room.estimate_mb(one.variant, one.numbers.get("peak_memory_mb"), most_mb) for one in talkers)
    if len(talkers) < 2 or needed <= most_mb:
        return ""
    names = ", ".join(str(one) for one in talkers)
    return (
        f"{names} take about {needed:,.0f} MB, and all models may have {most_mb:,.0f} MB together (--max-memory): one "
        "leaves for another, and is loaded anew when it is asked again"
    )


def read_token(path: Path) -> str:
    """Raises UserError for a file that others can read, and for what is no token."""
    making = MAKE_TOKEN.format(file=shlex.quote(str(path)))
    try:
        # A pipe that nobody writes to is not waited for.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), encoding="ascii") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise UserError(f"{path}: no regular file")
            if found.st_mode & 0o077 or found.st_uid not in (0, os.geteuid()):
                quoted = shlex.quote(str(path))
                raise UserError(f"{path}: others can read or write it; `chmod 600 {quoted}`, and own it")
            token = file.read(1 << 12).strip()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; make one: {making}") from error
    except UnicodeError:
        token = ""
    if not TOKEN.fullmatch(token):
        raise UserError(f"{path}: expected a token: 32 to 512 letters, digits or any of ._~+/=-; make one: {making}")
    return token


class _Server(uvicorn.Server):
    """Ends the engine before the connections, so that those who wait for an answer are told."""

    def __init__(self, config: uvicorn.Config, engine: Engine, shown: str) -> None:
        super().__init__(config)
        self._engine, self._shown = engine, shown

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self._shown, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._engine.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn it ends with exit code 0: it was asked to end, and did."""
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


async def _run(
    listener: socket.socket,
    names: set[str],
    token: str,
    talkers: Sequence[Talker],
    max_memory_mb: float | None,
    shown: str,
) -> None:
    engine = Engine(max_memory_mb)
    known: Mapping[str, Talker] = variants.known()
    picked = [str(talker.variant) for talker in talkers]
    await _Server(configured(app.made(engine, known, picked, names, token)), engine, shown).serve([listener])


def configured(served: ASGIApp) -> uvicorn.Config:
    """How uvicorn serves it."""
    return uvicorn.Config(
        served,
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="off",
        # No line of a log: addresses, questions and answers are nobody's business. Bugs are said by guard.py.
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=STRANGER_SECONDS,
        timeout_graceful_shutdown=ENDING_SECONDS,
    )


def _resolved(host: str, port: int) -> tuple[str, socket.AddressFamily]:
    """The address to listen at, of IPv4 where there is one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise UserError(f"--host {host}: {error.strerror}") from error
    family, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return str(address[0]), family


def _listening(address: str, port: int, family: socket.AddressFamily) -> socket.socket:
    try:
        return socket.create_server((address, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        number = error.errno or 0 if isinstance(error, OSError) else errno.EINVAL
        if number == errno.EADDRNOTAVAIL:
            raise UserError(f"--host {address}: no address of this machine") from error
        said = os.strerror(number)
        raise UserError(f"--port {port} at {address}: {said}; --port 0, the default, takes one that is free") from error


def hosts(name: str, port: int, local: bool) -> set[str]:
    """What the server may be called by; `local`: by this machine's own names, too."""
    names = {bracketed(name).lower()} | ({"127.0.0.1", "localhost", "[::1]"} if local else set())
    ports = [f":{port}", *([""] if port == 80 else [])]
    return {name + port for name in names for port in ports}
