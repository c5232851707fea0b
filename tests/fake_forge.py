"""GitHub and GitLab on loopback, as far as comments go: pages, refusals, what is too long.

    with FakeGitHub() as forge:
        ...  # with forge.environment(...)

Routes and fields are those of docs.github.com/rest (2022-11-28) and of docs.gitlab.com/api/notes.
"""

import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from loopback import Loopback

TOKEN, ME = "secret-token-of-the-job", 41898282
SHA = "c0ffee" + 34 * "0"


@dataclass
class Note:
    id: int
    body: str
    author: int
    kind: str = "User"
    system: bool = False


@dataclass
class Reply:
    status: int
    value: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class Forge(Loopback):
    """Holds the comments of one pull request. `asked` are the method, path and headers of each request, in order.

    `failing` are replies that are given before any other, in turn, each to the next request of its method; `longest`
    is the greatest length of a comment; `read_only` is a token that can write nothing.
    """

    per_page = 100  # at most

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.notes: list[Note] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.failing: list[tuple[str, Reply]] = []
        self.longest, self.read_only, self.next_id = 65_536, False, 1000
        self.after_create: Any = None  # is called once, after a comment was made: what another job does meanwhile

    @property
    def bodies(self) -> list[str]:
        return [note.body for note in self.notes]

    def add(self, body: str, author: int = 7, kind: str = "User", system: bool = False) -> Note:
        self.next_id += 1
        self.notes.append(Note(self.next_id, body, author, kind, system))
        return self.notes[-1]

    def count(self, method: str) -> int:
        return sum(asked == method for asked, _, _ in self.asked)

    def reply(self, method: str, path: str, query: dict[str, str], body: Any, headers: dict[str, str]) -> Reply:
        self.asked.append((method, path, headers))
        for place, (of, reply) in enumerate(self.failing):
            if of == method:
                del self.failing[place]
                return reply
        return self.answer(method, path, query, body, headers)

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, headers: dict[str, str]) -> Reply:
        raise NotImplementedError

    def _page(self, query: dict[str, str]) -> tuple[list[Note], int, bool]:
        size, page = min(int(query.get("per_page", 30)), self.per_page), int(query.get("page", 1))
        return self.notes[(page - 1) * size : page * size], page, page * size < len(self.notes)

    def _made(self, body: str, kind: str) -> Note:
        note = self.add(body, ME, kind)
        if self.after_create:
            then, self.after_create = self.after_create, None
            then()
        return note

    def _find(self, number: str) -> Note | None:
        return next((note for note in self.notes if note.id == int(number)), None)


class FakeGitHub(Forge):
    """Repository team/repo with pull request 12; the token is a job's own, or with `person` that of an account."""

    repository = "team/repo"

    def __init__(self, person: bool = False) -> None:
        super().__init__()
        self.person = person
        self.pulls = [pull(12)]

    def environment(self, folder: Path, event: dict[str, Any] | None = None) -> dict[str, str]:
        path = folder / "event.json"
        path.write_text(json.dumps(event or {"number": 12, "pull_request": {"number": 12}}))
        return {
            "GITHUB_API_URL": self.url,
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_REPOSITORY": self.repository,
            "GITHUB_EVENT_PATH": str(path),
            "GITHUB_TOKEN": TOKEN,
        }

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, headers: dict[str, str]) -> Reply:
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return Reply(401, {"message": "Bad credentials"})
        if path == "/user":
            mine = {"id": ME, "login": "us"}
            return (
                Reply(200, mine) if self.person else Reply(403, {"message": "Resource not accessible by integration"})
            )
        start = f"/repos/{self.repository}"
        if path == f"{start}/pulls":
            head = query["head"]
            return Reply(200, [one for one in self.pulls if one["head"]["label"] == head])
        if method != "GET" and self.read_only:
            return Reply(403, {"message": "Resource not accessible by integration"})
        if path == f"{start}/issues/12/comments" and method == "GET":
            notes, page, more = self._page(query)
            link = f'<{self.url}{path}?page={page + 1}>; rel="next", <{self.url}{path}?page=9>; rel="last"'
            return Reply(200, [self._shown(note) for note in notes], {"Link": link} if more else {})
        if method in ("POST", "PATCH") and len(body["body"]) > self.longest:
            error = {"resource": "IssueComment", "code": "unprocessable", "field": "data"}
            error["message"] = f"Body is too long (maximum is {self.longest} characters)"
            return Reply(422, {"message": "Validation Failed", "errors": [error]})
        if path == f"{start}/issues/12/comments" and method == "POST":
            return Reply(201, self._shown(self._made(body["body"], "User" if self.person else "Bot")))
        if (found := re.fullmatch(rf"{start}/issues/comments/(\d+)", path)) and (note := self._find(found[1])):
            if method == "DELETE":
                self.notes.remove(note)
                return Reply(204)
            note.body = body["body"]
            return Reply(200, self._shown(note))
        return Reply(404, {"message": "Not Found"})

    def _shown(self, note: Note) -> dict[str, Any]:
        return {"id": note.id, "body": note.body, "user": {"id": note.author, "type": note.kind}}


def pull(number: int, owner: str = "stranger", branch: str = "better", sha: str = SHA) -> dict[str, Any]:
    head = {"sha": sha, "label": f"{owner}:{branch}", "repo": {"full_name": f"{owner}/repo"}}
    return {"number": number, "state": "open", "head": head}


def workflow_run(owner: str = "stranger", branch: str = "better", sha: str = SHA) -> dict[str, Any]:
    """The event of a workflow that follows that of a pull request; of a fork it names no pull request."""
    repository = {"full_name": f"{owner}/repo", "owner": {"login": owner}}
    run = {"event": "pull_request", "head_sha": sha, "head_branch": branch, "head_repository": repository}
    return {"action": "completed", "workflow_run": run | {"pull_requests": []}}


class FakeGitLab(Forge):
    """Project 5 with merge request 12; with `job` the token is a job's own, which by default writes nothing."""

    def __init__(self, job: bool = False) -> None:
        super().__init__()
        self.job, self.longest = job, 1_000_000

    def environment(self) -> dict[str, str]:
        where = {"CI_API_V4_URL": self.url + "/api/v4", "CI_PROJECT_ID": "99", "CI_MERGE_REQUEST_PROJECT_ID": "5"}
        return where | {"CI_MERGE_REQUEST_IID": "12", "CI_JOB_TOKEN" if self.job else "GITLAB_TOKEN": TOKEN}

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, headers: dict[str, str]) -> Reply:
        if headers.get("job-token" if self.job else "private-token") != TOKEN:
            return Reply(401, {"message": "401 Unauthorized"})
        path = path.removeprefix("/api/v4")
        if path == ("/job" if self.job else "/user"):
            return Reply(200, {"id": 1, "user": {"id": ME}} if self.job else {"id": ME})
        notes = "/projects/5/merge_requests/12/notes"
        if method != "GET" and self.read_only:
            return Reply(403, {"message": "403 Forbidden"})
        if path == notes and method == "GET":
            some, page, more = self._page(query)
            return Reply(200, [self._shown(note) for note in some], {"X-Next-Page": str(page + 1) if more else ""})
        if method in ("POST", "PUT") and len(body["body"]) > self.longest:
            return Reply(400, {"message": f"400 Bad request - Note is too long (maximum is {self.longest} characters)"})
        if path == notes and method == "POST":
            return Reply(201, self._shown(self._made(body["body"], "Bot")))
        if (found := re.fullmatch(rf"{notes}/(\d+)", path)) and (note := self._find(found[1])):
            if method == "DELETE":
                self.notes.remove(note)
                return Reply(204)
            note.body = body["body"]
            return Reply(200, self._shown(note))
        return Reply(404, {"message": "404 Not found"})

    def _shown(self, note: Note) -> dict[str, Any]:
        return {"id": note.id, "body": note.body, "author": {"id": note.author}, "system": note.system}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits for the client's acknowledgement of its headers
    of: Forge

    def _reply(self) -> None:
        parts = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.of.reply(self.command, unquote(parts.path), query, json.loads(content or "null"), headers)
        sent = b"" if reply.value is None else json.dumps(reply.value).encode()
        self.send_response(reply.status)
        for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _reply  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass
