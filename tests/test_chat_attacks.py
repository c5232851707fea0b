"""Attacks on the chat's server, byte by byte on the real one: each is refused, and the engine never hears of it."""

import json
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from chat_server import NAME, QUESTION, TOKEN, Reply, Script, Server, kept, read, running

from tradeoffs.chat.server import connections, guard, serving
from tradeoffs.chat.server.bodies import MOST

SECURITY = Path(__file__).parents[1] / "docs" / "security.md"
ASKED = json.dumps(QUESTION).encode()
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(ASKED), ASKED)
TRAILER = f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.fixture(scope="module")
def server():
    with running() as found:
        yield found


@pytest.fixture
def hasty(monkeypatch):
    """A server that waits for nobody."""
    for name in ("HEAD_SECONDS", "BODY_SECONDS", "STUCK_SECONDS"):
        monkeypatch.setattr(connections, name, 0.2)
    with running() as found:
        yield found


def lines(server: Server, first: str, *more: str) -> bytes:
    return "\r\n".join([first, *more, f"Authorization: Bearer {TOKEN}", "Connection: close", "", ""]).encode("latin-1")


def beside(found: bytes) -> bytes:
    """In a place whose content is passed over."""
    return ASKED[:-1] + b', "metadata": ' + found + b"}"


def with_token_twice(server: Server) -> bytes:
    return server.head("GET /v1/models HTTP/1.1", "Authorization: Bearer other")


# What it is -> the bytes, and the status that refuses it.
ATTACKS = {
    # A page of another site, by a name that was bound to this address (DNS rebinding).
    "a foreign Host": (lambda s: lines(s, "GET / HTTP/1.1", f"Host: evil.example:{s.port}"), 421),
    "the Host with another port": (lambda s: lines(s, "GET / HTTP/1.1", f"Host: localhost:{s.port + 1}"), 421),
    "the Host with a dot behind it": (lambda s: lines(s, "GET / HTTP/1.1", f"Host: localhost.:{s.port}"), 421),
    "a Host that begins like ours": (lambda s: lines(s, "GET / HTTP/1.1", f"Host: {s.host}.evil.example"), 421),
    "no Host": (lambda s: lines(s, "GET /v1/models HTTP/1.1"), 400),
    "no Host, HTTP/1.0": (lambda s: lines(s, "GET /v1/models HTTP/1.0"), 400),
    "two Hosts": (lambda s: lines(s, "GET / HTTP/1.1", f"Host: {s.host}", "Host: evil.example"), 400),
    "a foreign host in the request line": (
        lambda s: lines(s, f"GET http://evil.example:{s.port}/v1/models HTTP/1.1", f"Host: {s.host}"),
        400,
    ),
    # A page of another site, by what browsers send without asking.
    "a foreign Origin": (lambda s: s.post(ASKED, "Origin: https://evil.example"), 403),
    "an Origin of another port": (lambda s: s.post(ASKED, f"Origin: http://127.0.0.1:{s.port + 1}"), 403),
    "the Origin null of a sandbox or a file": (lambda s: s.post(ASKED, "Origin: null"), 403),
    "our Origin and a foreign one": (
        lambda s: s.post(ASKED, f"Origin: http://{s.host}", "Origin: https://e.example"),
        403,
    ),
    "an image or script of another site": (lambda s: s.head("GET / HTTP/1.1", "Sec-Fetch-Site: cross-site"), 403),
    "a page of another port or subdomain": (lambda s: s.head("GET / HTTP/1.1", "Sec-Fetch-Site: same-site"), 403),
    "a preflight": (
        lambda s: s.head(
            "OPTIONS /v1/models HTTP/1.1", f"Origin: http://{s.host}", "Access-Control-Request-Method: POST"
        ),
        403,
    ),
    "a form of another site (CSRF)": (lambda s: s.post(b"a=b", kind="application/x-www-form-urlencoded"), 415),
    "a form that holds JSON": (lambda s: s.post(ASKED, kind="text/plain"), 415),
    "a form with files": (lambda s: s.post(ASKED, kind="multipart/form-data; boundary=x"), 415),
    "two types of a body": (lambda s: s.post(ASKED, "Content-Type: text/plain"), 415),
    # Another user of the machine.
    "no token": (lambda s: s.head(token=None), 401),
    "no token, to vote": (lambda s: s.head("GET /votes HTTP/1.1", token=None), 401),
    "a wrong token": (lambda s: s.head(token=TOKEN[:-1] + "x"), 401),
    "the beginning of the token": (lambda s: s.head(token=TOKEN[:-1]), 401),
    "an empty token": (lambda s: s.head("GET /v1/models HTTP/1.1", "Authorization: Bearer ", token=None), 401),
    "two tokens": (with_token_twice, 401),
    "the token as a password": (
        lambda s: s.head("GET /v1/models HTTP/1.1", f"Authorization: Basic {TOKEN}", token=None),
        401,
    ),
    "the token in a cookie": (lambda s: s.head("GET /v1/models HTTP/1.1", f"Cookie: token={TOKEN}", token=None), 401),
    "the token behind the body": (
        lambda s: s.post(CHUNKED[:-2] + TRAILER, "Transfer-Encoding: chunked").replace(b"Authorization", b"X", 1),
        401,
    ),
    "the token in the query": (lambda s: s.head(f"GET /v1/models?token={TOKEN} HTTP/1.1", token=None), 400),
    "the token in the query of the page": (lambda s: s.head(f"GET /?token={TOKEN} HTTP/1.1", token=None), 400),
    "the token behind the path": (lambda s: s.head(f"GET /v1/models#token={TOKEN} HTTP/1.1", token=None), 400),
    # Files that are not the page's.
    "a way out of the page's folder": (lambda s: s.head("GET /../guard.py HTTP/1.1"), 404),
    "a way out, written as %2e%2e": (lambda s: s.head("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1"), 404),
    "a way out in a model's name": (lambda s: s.head("GET /v1/models/..%2f..%2fetc%2fpasswd HTTP/1.1"), 404),
    "a path from the root": (lambda s: s.head("GET //etc/passwd HTTP/1.1"), 404),
    "a file beside the page's": (lambda s: s.head("GET /__init__.py HTTP/1.1"), 404),
    "a NUL in a path": (lambda s: s.head("GET /chat.js%00.html HTTP/1.1"), 404),
    # Two readings of one request (smuggling).
    "both lengths": (
        lambda s: s.post(b"0\r\n\r\n" + SMUGGLED, "Content-Length: 5", "Transfer-Encoding: chunked"),
        400,
    ),
    "two lengths": (lambda s: s.post(ASKED, f"Content-Length: {len(ASKED)}", "Content-Length: 5"), 400),
    "a length that is none": (lambda s: s.post(ASKED, "Content-Length: +5"), 400),
    "a length below nothing": (lambda s: s.post(ASKED, "Content-Length: -5"), 400),
    "a transfer encoding that is none": (lambda s: s.post(ASKED, "Transfer-Encoding: xchunked"), 400),
    "a transfer encoding behind another": (lambda s: s.post(ASKED, "Transfer-Encoding: chunked, identity"), 400),
    "a transfer encoding beside another": (lambda s: s.post(CHUNKED, "Transfer-Encoding: gzip, chunked"), 400),
    "a transfer encoding in HTTP/1.0": (
        lambda s: s.post(CHUNKED, "Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
        400,
    ),
    "line ends of one byte": (lambda s: s.head().replace(b"\r\n", b"\n"), 400),
    "a space before the colon": (lambda s: s.post(ASKED, f"Content-Length : {len(ASKED)}"), 400),
    "a chunk whose length is none": (lambda s: s.post(b"zz\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), 400),
    "a chunk longer than any number": (lambda s: s.post(b"f" * 17 + b"\r\n", "Transfer-Encoding: chunked"), 400),
    "a line end within a header": (lambda s: s.head("GET / HTTP/1.1", "X: a\rSet-Cookie: b=c"), 400),
    "a NUL in a header": (lambda s: s.head("GET / HTTP/1.1", "X: a\0b"), 400),
    "a header that goes on in the next line": (lambda s: s.head("GET / HTTP/1.1", "X: a", " Host: evil.example"), 400),
    # Other protocols.
    "a WebSocket": (
        lambda s: s.head(
            *("GET /v1/chat/completions HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade"),
            *("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"),
        ),
        400,
    ),
    "HTTP/2 by Upgrade": (lambda s: s.post(ASKED, "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings"), 400),
    "HTTP/2 outright": (lambda s: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a tunnel": (lambda s: lines(s, "CONNECT evil.example:443 HTTP/1.1", f"Host: {s.host}"), 400),
    "TLS": (lambda s: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),
    "a trace": (lambda s: s.head("TRACE / HTTP/1.1"), 405),
    "another method than the path's": (lambda s: s.head("DELETE /v1/models HTTP/1.1"), 405),
    # What is read as JSON.
    "a body longer than 1 MB": (lambda s: s.post(b" " * (MOST + 1)), 413),
    "a body longer than 1 MB, in chunks": (
        lambda s: s.post(b"%x\r\n%b\r\n0\r\n\r\n" % (MOST + 1, b" " * (MOST + 1)), "Transfer-Encoding: chunked"),
        413,
    ),
    "a compressed body": (lambda s: s.post(ASKED, "Content-Encoding: gzip"), 415),
    "lists within lists": (lambda s: s.post(beside(b"[" * 100_000 + b"]" * 100_000)), 400),
    "objects within objects": (lambda s: s.post(beside(b'{"a":' * 50 + b"1" + b"}" * 50)), 400),
    "NaN": (lambda s: s.post(beside(b"NaN")), 400),
    "a number beyond all": (lambda s: s.post(beside(b"1e999")), 400),
    "a number of a million digits": (lambda s: s.post(beside(b"9" * 900_000)), 400),
    "half a character": (lambda s: s.post(ASKED.replace(b"What", b"\\ud800")), 400),
    "bytes that are no UTF-8": (lambda s: s.post(ASKED.replace(b"What", b"\xff\xfe")), 400),
    "a key that stands twice": (lambda s: s.post(beside(b'{"a": 1, "a": 2}')), 400),
    "a model that is a path": (lambda s: s.post(ASKED.replace(NAME.encode(), b"../../etc/passwd")), 404),
}


@pytest.mark.parametrize("what", ATTACKS)
def test_it_is_refused(what, server, capfd):
    request, status = ATTACKS[what]
    reply = server.send(request(server))
    refused(reply, status)
    assert not server.script.asked
    assert capfd.readouterr() == ("", "")
    assert server.send(server.head()).status == 200  # and it serves others as before


def refused(reply: Reply, status: int) -> None:
    """As clients of OpenAI's API expect it, with the same headers as everything."""
    assert reply.status == status, reply
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    for name, value in guard.HEADERS:
        assert reply.headers[name.decode()] == [value.decode()]
    assert "server" not in reply.headers
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert TOKEN.encode() not in reply.body and b"Traceback" not in reply.body


@pytest.mark.parametrize("second", [SMUGGLED, b"\0 is no request"])
def test_a_second_request_before_the_answer_to_the_first_ends_both(second, capfd):
    """Else nobody would see that the client has left, and a refusal could stand in the middle of an answer."""
    streamed = json.dumps(QUESTION | {"stream": True}).encode()
    with running(Script(says=["It ", None, "is"])) as server, server.connect() as connection:
        first = server.post(streamed).replace(b"Connection: close\r\n", b"")
        connection.sendall(first)
        begun = b""
        while b"It " not in begun:
            begun += connection.recv(1 << 16)
        connection.sendall(second)
        assert not connection.recv(1 << 16)
        server.script.wait_for(server.script.left, 1)
        refused(server.send(first + second), 400)
    assert capfd.readouterr() == ("", "")


def test_who_sends_no_more_has_left(capfd):
    """A client that has closed one direction alone cannot be told from one that is gone."""
    with running(Script(says=["x"] * 20 + [None])) as server:
        with server.connect() as connection:
            connection.sendall(server.post(json.dumps(QUESTION | {"stream": True}).encode()))
            connection.shutdown(socket.SHUT_WR)
            read(connection)
        if server.script.asked:
            server.script.wait_for(server.script.left, 1)
    assert capfd.readouterr() == ("", "")


def test_the_body_of_what_is_refused_is_no_request(server):
    """Whatever stands in it is not read as the next one."""
    body = server.head("GET /v1/models HTTP/1.1")
    with server.connect() as connection:
        assert kept(connection, server.post(body, kind="text/plain")).status == 415
        assert kept(connection, server.head("GET /health HTTP/1.1")).json() == {"status": "ok"}


SLOW = {
    "a head that never ends": b"GET / HTTP/1.1\r\nHost: ",
    "no head at all": b"\r\n",
    "a body that never comes": b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %b\r\n"
    b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
    "a body that never comes, of what is refused": b"POST / HTTP/1.1\r\nHost: evil.example\r\n"
    b"Content-Length: 1000\r\n\r\n{",
}


@pytest.mark.parametrize("what", SLOW)
def test_who_is_slow_is_cut_off(what, hasty):
    with hasty.connect() as connection:
        data = SLOW[what]
        connection.sendall(data % (hasty.port, TOKEN.encode()) if b"%d" in data else data)
        assert read(connection).status == (421 if "refused" in what else 408)  # and it is closed
    assert not hasty.script.asked


def test_a_long_head_is_refused(server):
    first = b"GET / HTTP/1.1\r\nX: "
    with server.connect() as connection:
        connection.sendall(first + b"x" * (connections.HEAD_BYTES + 1 - len(first)))
        refused(read(connection), 431)


def test_who_goes_on_with_a_long_head_is_cut_off(server):
    """And reads why, or not: what is sent to a closed connection takes away what came from it."""
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with suppress(BrokenPipeError, ConnectionResetError):
            for number in range(10_000):
                connection.sendall(b"X-%d: %b\r\n" % (number, b"x" * 1000))
        assert read(connection).status in (0, 431)


def test_who_takes_nothing_is_cut_off_and_holds_up_nobody(hasty):
    hasty.script.says = ["x" * 1000] * 5000 + [None]
    with hasty.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(hasty.post(json.dumps(QUESTION | {"stream": True}).encode()))
        hasty.script.wait_for(hasty.script.asked, 1)
        assert hasty.send(hasty.head()).status == 200
        hasty.script.wait_for(hasty.script.left, 1)


def test_more_answers_at_a_time_than_there_may_be_connections_are_refused(monkeypatch):
    monkeypatch.setattr(connections, "MOST", 3)
    with running(Script(says=[None])) as server, ExitStack() as held:
        for _ in range(3):
            held.enter_context(server.connect()).sendall(server.post(ASKED))
        server.script.wait_for(server.script.asked, 3)
        refused(server.send(b""), 503)


@pytest.mark.parametrize("request_line", ["", "GET /health HTTP/1.1"])
def test_who_has_no_token_locks_nobody_out(server, monkeypatch, request_line):
    monkeypatch.setattr(connections, "MOST", 3)
    with ExitStack() as held:
        ours = held.enter_context(server.connect())
        assert kept(ours, server.head()).status == 200
        for _ in range(10):
            other = held.enter_context(server.connect())
            if request_line:
                assert kept(other, server.head(request_line, token=None)).status == 200
            assert server.send(server.head()).status == 200  # another connection
        assert kept(ours, server.head()).status == 200


def test_a_connection_that_has_shown_no_token_is_soon_ended(monkeypatch):
    monkeypatch.setattr(serving, "STRANGER_SECONDS", 0.1)
    with running() as server, server.connect() as stranger, server.connect() as ours:
        assert kept(ours, server.head()).status == 200
        assert kept(stranger, server.head("GET /health HTTP/1.1", token=None)).status == 200
        assert not stranger.recv(1)
        assert kept(ours, server.head()).status == 200


# Held by the other tests of this file.
OTHERS = dict.fromkeys(list(SLOW)[:3], "408") | {
    "a head longer than 64 KB": "431",
    "a second request before the first answer": "400",
    "more answers at a time than there may be connections": "503",
    "more connections than there may be": "the end of the oldest",
    **dict.fromkeys((list(SLOW)[3], "a reader who takes nothing", "a head that goes on"), "the end of the connection"),
}


def test_the_page_on_security_says_of_every_attack_how_it_is_refused():
    table = SECURITY.read_text(encoding="utf-8").partition("| who | what is tried | refused with |\n")[2]
    rows = [line.strip("| ").split(" | ") for line in table.partition("\n\n")[0].splitlines()[1:]]
    said = {what: status for _, tried, status in rows for what in tried.split("; ")}
    expected = {what: str(status) for what, (_, status) in ATTACKS.items()} | OTHERS
    assert said == expected
