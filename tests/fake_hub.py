"""A model hub on loopback: repositories of local folders under the hub's own routes, for the real client libraries.

    with FakeHub() as hub:
        commit = hub.publish("cais/mmlu", folder, kind="dataset")
        ...  # a process with HF_ENDPOINT=hub.url

The clients read HF_ENDPOINT when they are imported, so they run in a process of their own; `environment` is its
environment. It takes commits too, to what belongs to OWNER, who is known by TOKEN.
"""

import base64
import hashlib
import json
import os
import re
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import forked
import yaml
from loopback import Loopback

REPO = Path(__file__).parents[1]
TOKEN, STRANGER = "hf_letmein", "hf_stranger"  # opens what is private or gated; is known and opens nothing
OWNER = "team"  # whose TOKEN is
Kind = Literal["dataset", "model"]
Access = Literal["public", "private", "gated"]
API = re.compile(
    r"/api/(?P<kind>datasets|models)/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree|paths-info)/(?P<rest>.+))?"
)
WRITE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>preupload|commit)/(?P<revision>.+)")
BATCH = re.compile(r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
LICENCES = ("apache-2.0", "mit", "gemma", "other")  # of a card; the hub has a longer list
FILE = re.compile(r"/(?P<kind>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
LARGE = (".safetensors", ".bin", ".parquet", ".gguf", ".model")  # what the hub keeps in Git's large file storage


@dataclass
class Repository:
    kind: Kind
    access: Access
    branches: dict[str, str] = field(default_factory=dict)  # name -> commit
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # commit -> files by path


class FakeHub(Loopback):
    """Serves what is published to it; `requests` are the methods and paths that it was asked, in order.

    To all without TOKEN a private repository looks as if it were not there. A token that it does not know is refused.
    `ranges` are path and Range header of every request for a part of a file. What goes wrong on the way: `cuts` are the
    bytes of its answer after which a file's next download is cut off, one number per download ("reset": by a reset
    instead of an end that comes too early); `silent` is how many of a file's next downloads are begun and left without
    a byte until the client goes away; `broken` is the status that all requests for a path that begins so get.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[tuple[str, str]] = []
        self.cuts: dict[str, list[int]] = {}
        self.reset = False
        self.silent: dict[str, int] = {}
        self.broken: dict[str, int] = {}
        self.messages: list[str] = []  # of the commits that were pushed
        self.meanwhile: dict[str, bytes] = {}  # what somebody else commits before the next push, if anything
        self._large: dict[str, bytes] = {}  # uploaded, by SHA-256
        self._repositories: dict[tuple[Kind, str], Repository] = {}

    def publish(
        self, repo: str, folder: Path, kind: Kind = "dataset", access: Access = "public", branch: str = "main"
    ) -> str:
        """Makes the files of `folder` the newest commit of a branch; the commit. Earlier ones stay."""
        held = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        found = self._repositories.setdefault((kind, repo), Repository(kind, access))
        found.access = access
        return self._commit(found, repo, held, branch)

    def held(self, repo: str, branch: str = "main") -> tuple[Access, dict[str, bytes]]:
        """Who may read a model, and the files of its newest commit."""
        found = self._repositories["model", repo]
        return found.access, found.commits[found.branches[branch]]

    def _commit(self, found: Repository, repo: str, held: dict[str, bytes], branch: str) -> str:
        listed = sorted((path, hashlib.sha256(content).hexdigest()) for path, content in held.items())
        commit = hashlib.sha1(json.dumps([repo, listed]).encode()).hexdigest()
        found.commits[commit] = held
        found.branches[branch] = commit
        return commit

    def write(self, command: str, path: str, body: bytes, token: str | None) -> "Answer | None":
        """What the hub says to a request that changes something; None to any other."""
        if command == "PUT":
            self._large[path.rpartition("/")[2]] = body
            return Answer.json({})
        if command != "POST":
            return None
        if path == "/api/validate-yaml":
            return self._validated(json.loads(body)["content"])
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization'] or OWNER}/{asked['name']}"
            if (refused := self._refused(repo, token)) is not None:
                return refused
            if ("model", repo) in self._repositories:
                return Answer.error(409, None)
            private = asked.get("private") or asked.get("visibility") == "private"
            made = self._repositories["model", repo] = Repository("model", "private" if private else "public")
            self._commit(made, repo, {".gitattributes": b""}, "main")
            return Answer.json({"url": f"{self.url}/{repo}"})
        if match := BATCH.fullmatch(path):
            objects = [
                one | {"actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._refused(match["repo"], token) or Answer.json({"transfer": "basic", "objects": objects})
        if match := WRITE.fullmatch(path):
            if (refused := self._refused(match["repo"], token)) is not None:
                return refused
            if match["what"] == "commit":
                return self._pushed(match["repo"], [json.loads(line) for line in body.splitlines()])
            wanted = [one["path"] for one in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(LARGE) else "regular" for name in wanted}
            rows = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            return Answer.json({"files": rows})
        return None

    def _refused(self, repo: str, token: str | None) -> "Answer | None":
        if token == TOKEN and repo.startswith(f"{OWNER}/"):
            return None
        return Answer.error(403 if token in (TOKEN, STRANGER) else 401, None)

    def _validated(self, card: str) -> "Answer":
        """As the hub does, it takes no licence that it does not know."""
        licence = (_front_matter(card.encode()) or {}).get("license")
        if licence in (None, *LICENCES):
            return Answer.json({"errors": [], "warnings": []})
        told = {"errors": [{"message": f'"license" must be one of {LICENCES}'}], "warnings": []}
        return Answer(400, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _pushed(self, repo: str, operations: list[dict[str, Any]]) -> "Answer":
        found = self._repositories["model", repo]
        if self.meanwhile:
            self._commit(found, repo, self.meanwhile, "main")
        held = dict(self.held(repo)[1])
        parent = operations[0]["value"].get("parentCommit")
        if parent not in (None, found.branches["main"]):
            return Answer.error(412, None)
        for one in operations:
            value = one["value"]
            if one["key"] == "header":
                self.messages.append(value["summary"])
            elif one["key"] == "file":
                held[value["path"]] = base64.b64decode(value["content"])
            elif one["key"] == "lfsFile":
                held[value["path"]] = self._large[value["oid"]]
            else:
                assert one["key"] == "deletedFile"
                del held[value["path"]]
        commit = self._commit(found, repo, held, "main")
        return Answer.json({"commitUrl": f"{self.url}/{repo}/commit/{commit}", "commitOid": commit})

    def forget(self, repo: str, commit: str, kind: Kind = "dataset") -> None:
        """Takes a commit away, as when its author has rewritten the history."""
        found = self._repositories[kind, repo]
        del found.commits[commit]
        found.branches = {name: held for name, held in found.branches.items() if held != commit}

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """This process's environment without what its user set for the hub, pointed here; downloads go to `home`."""
        own = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        return own | {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"} | more

    def ask(
        self, client: str, where: str, requests: Sequence[Any], home: Path, **more: str
    ) -> tuple[list[dict[str, Any]], str]:
        """What `client` gives for each request, and all that it printed: a Python program that is called with `where`
        and the requests as JSON, and whose last line is a list as JSON."""
        words = ["-c", client, where, json.dumps(requests)]
        environment = self.environment(home, **more)
        done = forked.python(*words, cwd=REPO, env=environment, libraries=forked.HUB)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr

    def answer(self, path: str, query: dict[str, list[str]], asked: list[str], token: str | None) -> "Answer":
        """What the hub says to a request; `asked` are the paths in the body of one for paths-info."""
        for start, status in self.broken.items():
            if path.startswith(start):
                return Answer.error(status, None)
        if token not in (None, TOKEN, STRANGER):
            return Answer.error(401, None, {"X-Error-Message": "Invalid credentials in Authorization header"})
        if match := API.fullmatch(path):
            kind: Kind = "dataset" if match["kind"] == "datasets" else "model"
            revision, _, inside = (match["rest"] or "main").partition("/")
            found = self._find(kind, match["repo"], unquote(revision), token, listing=match["what"] is None)
            if isinstance(found, Answer):
                return found
            commit, held = found
            if match["what"] == "tree":
                within = f"{inside.rstrip('/')}/" if inside else ""
                entries = list(_tree(held, within, query.get("recursive", ["false"])[0].lower() in ("true", "1")))
                return Answer.json(entries) if entries or not within else Answer.error(404, "EntryNotFound")
            if match["what"] == "paths-info":
                return Answer.json([entry for name in asked for entry in _entries(held, name.strip("/"))])
            siblings: list[dict[str, Any]] = [{"rfilename": name} for name in sorted(held)]
            for one in siblings if "blobs" in query else ():
                (entry,) = _entries(held, one["rfilename"])
                large = {"lfs": entry["lfs"] | {"sha256": entry["lfs"]["oid"]}} if "lfs" in entry else {}
                one |= {"size": entry["size"], "blobId": entry["oid"], **large}
            private = self._repositories[kind, match["repo"]].access == "private"
            facts = {"id": match["repo"], "sha": commit, "siblings": siblings, "tags": [], "private": private}
            facts |= {"cardData": card} if (card := _front_matter(held.get("README.md", b""))) else {}
            return Answer.json(facts | {"gated": False, "disabled": False, "downloads": 0, "likes": 0})
        if match := FILE.fullmatch(path):
            kind = "dataset" if match["kind"] else "model"
            found = self._find(kind, match["repo"], unquote(match["revision"]), token)
            if isinstance(found, Answer):
                return found
            commit, held = found
            headers = {"X-Repo-Commit": commit}
            if match["path"] not in held:
                return Answer.error(404, "EntryNotFound", headers)
            content = held[match["path"]]
            large = match["path"].endswith(LARGE)
            etag = hashlib.sha256(content).hexdigest() if large else _oid(content)
            headers |= {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
            if large:
                headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
            return Answer(200, content, headers | {"Content-Type": "application/octet-stream"})
        return Answer.error(404, None)

    def _find(
        self, kind: Kind, repo: str, revision: str, token: str | None, listing: bool = False
    ) -> "tuple[str, dict[str, bytes]] | Answer":
        """Commit and files; `listing` is what the hub tells of a gated repository to anyone."""
        found = self._repositories.get((kind, repo))
        if found is None or (found.access == "private" and token != TOKEN):
            return Answer.error(404 if token else 401, "RepoNotFound")
        if found.access == "gated" and token != TOKEN and not listing:
            return Answer.error(403 if token else 401, "GatedRepo")
        commit = found.branches.get(revision, revision)
        return (commit, found.commits[commit]) if commit in found.commits else Answer.error(404, "RevisionNotFound")


def error(found: dict[str, Any]) -> str:
    """The message of a request that failed, as the clients of FakeHub.ask give it."""
    assert set(found) == {"error"}, found
    return found["error"]


@dataclass(frozen=True)
class Answer:
    status: int
    content: bytes
    headers: dict[str, str]

    @classmethod
    def json(cls, value: Any) -> "Answer":
        return cls(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    @classmethod
    def error(cls, status: int, code: str | None, headers: dict[str, str] | None = None) -> "Answer":
        more = {"X-Error-Code": code} if code else {}
        content = json.dumps({"error": code or "Not Found"}).encode()
        return cls(status, content, (headers or {}) | more | {"Content-Type": "application/json"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    of: FakeHub

    def do_GET(self) -> None:
        self._reply()

    def do_HEAD(self) -> None:
        self._reply()

    def do_POST(self) -> None:
        self._reply()

    def do_PUT(self) -> None:
        self._reply()

    def _reply(self) -> None:
        parts = urlsplit(self.path)
        self.of.requests.append((self.command, unquote(parts.path)))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        authorization = self.headers.get("Authorization")
        token = authorization.removeprefix("Bearer ") if authorization else None
        answer = self.of.write(self.command, parts.path, body, token)
        answer = answer or self.of.answer(parts.path, parse_qs(parts.query), _asked_paths(body), token)
        status, content, headers = answer.status, answer.content, dict(answer.headers)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted:
            self.of.ranges.append((unquote(parts.path), wanted[0]))
        if wanted and status == 200:
            first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
            if first >= len(content):
                status, headers["Content-Range"], content = 416, f"bytes */{len(content)}", b""
            else:
                status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{len(content)}"
                content = content[first : last + 1]
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        name = unquote(parts.path).rsplit("/", 1)[-1]
        # Not the first bytes of a file of weights, which are asked for to know how large the model is.
        whole = not (wanted and wanted[1] == "0")
        if whole and self.of.silent.get(name):
            self.of.silent[name] -= 1
            self.rfile.read(1)  # nothing, once the connection is closed
            self.close_connection = True
            return
        cut = self.of.cuts[name].pop(0) if whole and self.of.cuts.get(name) else None
        with suppress(ConnectionError):  # of a client that did not wait
            self.wfile.write(content if cut is None else content[:cut])
            self.wfile.flush()
        if cut is not None:
            self.close_connection = True
            if self.of.reset:  # a socket that is closed with this option sends a reset instead of an end
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, *_: object) -> None:
        pass


def _front_matter(card: bytes) -> dict[str, Any] | None:
    """The metadata of a card."""
    found = re.match(rb"---\n(.*?)\n---\n", card, re.DOTALL)
    return yaml.safe_load(found[1]) if found else None


def _asked_paths(body: bytes) -> list[str]:
    """The `paths` of a body, which the clients send as a form or as JSON."""
    if body.startswith(b"{"):
        return json.loads(body).get("paths", [])
    return parse_qs(body.decode("utf-8", "replace")).get("paths", [])


def _tree(held: dict[str, bytes], within: str, recursive: bool) -> Iterator[dict[str, Any]]:
    """Entries below a folder (its name with a slash at the end, or nothing); of all levels if `recursive`."""
    below = [name for name in sorted(held) if name.startswith(within)]
    folders = {str(parent) for name in below for parent in Path(name).parents if str(parent) != "."}
    for name in sorted({*below, *(folder for folder in folders if folder.startswith(within))}):
        if recursive or "/" not in name.removeprefix(within):
            yield from _entries(held, name)


def _entries(held: dict[str, bytes], name: str) -> Iterator[dict[str, Any]]:
    """One entry for a file or a folder, none for what is not there."""
    if name in held:
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(held[name]), "oid": _oid(held[name])}
        if name.endswith(LARGE):
            oid = hashlib.sha256(held[name]).hexdigest()
            entry["lfs"] = {"oid": oid, "size": len(held[name]), "pointerSize": 130}
        yield entry
    elif any(other.startswith(f"{name}/") for other in held):
        yield {"type": "directory", "path": name, "size": 0, "oid": hashlib.sha1(name.encode()).hexdigest()}


def _oid(content: bytes) -> str:
    """Git's id of a blob, which the hub uses as ETag."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
