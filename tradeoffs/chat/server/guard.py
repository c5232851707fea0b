"""Who may speak to the server. A page of another site, a name that was bound to this machine's address, another user of
the machine: none of them may. Each check stands by itself, so that one that fails leaves the others."""

import hmac
import sys
import traceback
from collections import defaultdict
from collections.abc import Collection

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tradeoffs.chat.server.errors import RequestError

HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
CHECKED = (
    *(b"host", b"origin", b"sec-fetch-site", b"upgrade", b"authorization"),
    *(b"content-type", b"content-encoding", b"transfer-encoding"),
)

TRUSTED = "trusted"  # in the state of a request that has shown the token
BUG = "a bug of the server; where it is stands on its terminal"


class Guard:
    """Before every other code of the server. `hosts`: what it may be called by, `name:port` each, in small letters;
    besides these, the address that a connection came in by: of all names, that alone cannot be another's. `public`:
    paths that are there without the token, since no secret is behind them."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], token: str, public: Collection[str]) -> None:
        self._app, self._hosts, self._token, self._public = app, hosts, token.encode(), public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": [*message["headers"], *HEADERS]}
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, guarded)
        except RequestError as error:
            await error.response()(scope, receive, guarded)
        except ClientDisconnect:
            pass
        except Exception as error:
            say(error)
            if begun:
                raise  # uvicorn ends the connection: what was sent until now is not taken for the whole
            await RequestError(500, BUG).response()(scope, receive, guarded)
        return None

    def _check(self, scope: Scope) -> None:
        if scope["type"] != "http":
            raise RequestError(400, "this server speaks plain HTTP alone")
        found: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for name, value in scope["headers"]:
            if name in CHECKED:
                found[name].append(value)
        host = self._checked_host(scope, found[b"host"])
        if found[b"upgrade"]:
            raise RequestError(400, "this server changes to no other protocol (Upgrade)")
        _check_encoding(found[b"transfer-encoding"], scope["http_version"])
        if scope["method"] == "OPTIONS":
            raise RequestError(403, "no other site may ask here, so there is nothing to find out before (OPTIONS)")
        _check_origin(host, found[b"origin"], found[b"sec-fetch-site"])
        if scope["query_string"]:
            raise RequestError(400, "no address here has a query; the token belongs into the header Authorization")
        if scope["path"] not in self._public:
            self._check_token(found[b"authorization"])
            scope["state"][TRUSTED] = True
        if scope["method"] == "POST":
            _check_type(found[b"content-type"], found[b"content-encoding"])

    def _checked_host(self, scope: Scope, found: list[bytes]) -> str:
        """Against DNS rebinding: a page of evil.example whose name now means 127.0.0.1 still says evil.example."""
        if len(found) != 1:
            raise RequestError(400, f"a request names one Host, this one {len(found)}")
        name, (address, port) = found[0].decode("latin-1").lower(), scope["server"]
        if name not in self._hosts and name != f"{bracketed(address)}:{port}":
            raise RequestError(
                421, f"this server is {' or '.join(sorted(self._hosts))}, not the Host that was asked for"
            )
        return name

    def _check_token(self, found: list[bytes]) -> None:
        if len(found) != 1:
            raise RequestError(401, "the token is missing: one header `Authorization: Bearer TOKEN`")
        scheme, _, token = found[0].partition(b" ")
        # In a time that does not depend on where they differ.
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token, self._token):
            raise RequestError(401, "the token is wrong: it stands in the address that the server has printed")


def _check_origin(host: str, origins: list[bytes], sites: list[bytes]) -> None:
    """What browsers say of the page that asks: against pages of other sites that send what needs no permission."""
    if any(origin.decode("latin-1").lower() != f"http://{host}" for origin in origins):
        raise RequestError(403, "a page of another origin may not ask here")
    if any(site not in (b"same-origin", b"none") for site in sites):
        raise RequestError(403, "a page of another site may not ask here; open the printed address by itself")


def _check_encoding(found: list[bytes], version: str) -> None:
    """Proxies and servers do not agree on what else means."""
    if found and (found != [b"chunked"] or version != "1.1"):
        raise RequestError(400, "a body is sent as it is, or in chunks of HTTP/1.1 (Transfer-Encoding)")


def _check_type(kinds: list[bytes], encodings: list[bytes]) -> None:
    """A form of another site can send any text, but not as this type."""
    said = [kind.lower().replace(b" ", b"").replace(b'"', b"") for kind in kinds]
    if said not in ([b"application/json"], [b"application/json;charset=utf-8"]):
        raise RequestError(415, "a body is of the type application/json, in UTF-8 (Content-Type)")
    if any(one.lower() != b"identity" for one in encodings):
        raise RequestError(415, "a body is not compressed (Content-Encoding)")


def bracketed(address: str) -> str:
    """An address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address


def say(error: BaseException) -> None:
    """Which bug it was and where, once, on stderr; not its message, which can hold a part of a conversation."""
    if getattr(error, "__notes__", None):
        return
    error.add_note("said")
    frame = traceback.extract_tb(error.__traceback__)[-1]
    print(f"error: {type(error).__name__} in {frame.filename}:{frame.lineno}", file=sys.stderr, flush=True)
