"""What stands behind which address."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tradeoffs.chat import page, votes
from tradeoffs.chat.engine import Engine
from tradeoffs.chat.server import asks, bodies
from tradeoffs.chat.server.errors import RequestError
from tradeoffs.chat.server.guard import BUG, Guard, say
from tradeoffs.chat.server.streams import Answers
from tradeoffs.chat.variants import Talker
from tradeoffs.plumbing.errors import UserError, near

PUBLIC = ("/health", "/favicon.ico", *page.FILES)  # without the token: no secret is behind them


def made(
    engine: Engine, known: Mapping[str, Talker], picked: Sequence[str], hosts: Collection[str], token: str
) -> ASGIApp:
    """Everything that is served, of the variants that are `known`. `picked`: those that were named at the start, in
    that order."""
    served = _Served(engine, known, picked)
    routes = [
        Route("/health", _health),
        Route("/favicon.ico", _nothing),
        Route("/v1/models", served.models),
        Route("/v1/models/{variant}", served.model),
        Route("/v1/chat/completions", served.chat, methods=["POST"]),
        Route("/v1/completions", served.completion, methods=["POST"]),
        Route("/votes", _count_votes, methods=["GET"]),
        Route("/votes", served.vote, methods=["POST"]),
        *(Route(path, _file(*found)) for path, found in page.FILES.items()),
    ]
    handlers: Any = {RequestError: _refused, HTTPException: _no_such, Exception: _bug}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, hosts, token, PUBLIC)


class _Served:
    def __init__(self, engine: Engine, known: Mapping[str, Talker], picked: Sequence[str]) -> None:
        self._engine, self._known, self._picked = engine, known, picked
        self._since = int(time.time())
        self._contexts = {name: talker.context for name, talker in known.items()}  # files are read once

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._entry(name) for name in self._known]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["variant"]
        if name not in self._known:
            raise RequestError(
                404, f"no variant of the run list{near(name[:200], self._known)}", "model", "model_not_found"
            )
        return JSONResponse(self._entry(name))

    async def chat(self, request: Request) -> Answers:
        return Answers(self._engine, asks.chat(await bodies.read(request), self._known))

    async def completion(self, request: Request) -> Answers:
        return Answers(self._engine, asks.completion(await bodies.read(request), self._known))

    async def vote(self, request: Request) -> Response:
        vote = await bodies.read(request)
        try:
            await asyncio.to_thread(votes.record, vote, self._known)
        except UserError as error:
            raise RequestError(400, str(error)) from error
        return JSONResponse({"status": "kept"}, 201)

    def _entry(self, name: str) -> dict[str, Any]:
        talker, state = self._known[name], self._engine.states().get(name)
        ready = state.ready if state else None
        facts = {
            "runtime": talker.runtime,
            "label": talker.label,
            "text": talker.text,
            "recommended": talker.recommended,
            "picked": self._picked.index(name) + 1 if name in self._picked else None,
            "loaded": ready is not None,
            "context": ready.context if ready else self._contexts[name],
            "numbers": talker.numbers,
            "metric": talker.metric,
            "cost": talker.cost,
        }
        return {"id": name, "object": "model", "created": self._since, "owned_by": "llm-tradeoffs", "tradeoffs": facts}


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _nothing(request: Request) -> Response:
    return Response(status_code=204)


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def found(request: Request) -> Response:
        return Response((page.FOLDER / name).read_bytes(), media_type=kind)

    return found


async def _count_votes(request: Request) -> Response:
    try:
        return JSONResponse(await asyncio.to_thread(votes.summary))
    except UserError as error:
        raise RequestError(500, str(error)) from error


async def _refused(request: Request, error: RequestError) -> Response:
    return error.response()


async def _no_such(request: Request, error: HTTPException) -> Response:
    if error.status_code == 405:
        response = RequestError(405, f"not by {request.method}").response()
        response.headers.update(error.headers or {})
        return response
    return RequestError(error.status_code, "no such address").response()


async def _bug(request: Request, error: Exception) -> Response:
    if not isinstance(error, ClientDisconnect):  # nobody is there to read this
        say(error)
    return RequestError(500, BUG).response()
