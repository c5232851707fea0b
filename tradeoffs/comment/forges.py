"""GitHub and GitLab, as a job of theirs knows them: which pull request it is about, and the comments there.

All is from the job's environment. A number of a pull request that comes with an artefact is one of those that the event
itself allows, or it is refused.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from tradeoffs.comment.api import Answer, Api, RefusedError
from tradeoffs.plumbing.errors import UserError

PAGE, MOST_PAGES = 100, 200  # comments of a page, and pages that are looked through


@dataclass(frozen=True)
class Comment:
    """A comment of this job's own account."""

    id: int
    body: str


class NothingToPostError(Exception):
    """There is nothing to post to, and nothing is wrong: the pull request was closed, or has a newer commit."""


class Forge(Protocol):
    """Where comments are posted. All raise UserError if the platform says no, with what to do."""

    where: str  # the pull request, in words

    def mine(self) -> list[Comment]: ...  # own comments, the oldest first
    def create(self, body: str) -> None: ...
    def update(self, number: int, body: str) -> None: ...
    def delete(self, number: int) -> None: ...  # also one that is gone already


class TooLongError(Exception):
    """The platform does not take a comment of this length."""


class GitHub:
    """Of a job for `pull_request`, or for the `workflow_run` that follows one.

    `number` is the pull request that an artefact claims to be about. Raises UserError if the environment is of no such
    job or the event does not allow the number, NothingToPostError if no open pull request has the commit of the event.
    """

    def __init__(self, number: int | None = None) -> None:
        token = _needed("GITHUB_TOKEN", "as `env: {GITHUB_TOKEN: ${{ github.token }}}` of the step").strip()
        self._repository = _needed("GITHUB_REPOSITORY", "GitHub's jobs have it")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self._repository, re.ASCII):
            raise UserError(f"GITHUB_REPOSITORY: {self._repository!r} is no OWNER/NAME")
        headers = {"Authorization": f"Bearer {token}", "X-GitHub-Api-Version": "2022-11-28"}
        self._api = Api(os.environ.get("GITHUB_API_URL") or "https://api.github.com", headers, token)
        found = self._candidates()
        if number is not None and number not in found:
            raise UserError(
                f"pull request {number}: the event is not about it, but about {', '.join(map(str, sorted(found)))}; "
                "nothing is posted"
            )
        if number is None and len(found) > 1:
            raise UserError(
                f"pull requests {', '.join(map(str, sorted(found)))} have this commit; say which, by --pull-request"
            )
        self.number = found.pop() if number is None else number
        self.where = f"pull request {self.number} of {self._repository}"

    def _candidates(self) -> set[int]:
        """Numbers of the pull requests that the event is about, as GitHub itself says."""
        event = _event()
        if "workflow_run" not in event:
            one = event.get("pull_request") or {}
            if type(one.get("number")) is not int:
                raise UserError("GITHUB_EVENT_PATH: no event of a pull request; `on: pull_request` gives one")
            return {one["number"]}
        run = event["workflow_run"]
        if run.get("event") != "pull_request":
            raise NothingToPostError(f"the run was for {run.get('event')}, not for a pull request")
        # workflow_run.pull_requests is empty for forks, and the commit is not in this repository: GitHub is asked for
        # the open pull requests of that branch. All of these come from the event, which a fork cannot write.
        sha, branch, head = run["head_sha"], run["head_branch"], (run.get("head_repository") or {})
        owner = (head.get("owner") or {}).get("login", "")
        query = {"state": "open", "head": f"{owner}:{branch}"}
        found = {
            one["number"]
            for one in self._pages("/pulls", self._allowed, **query)
            if one["head"]["sha"] == sha and ((one["head"]["repo"] or {}).get("full_name") == head.get("full_name"))
        }
        if not found:
            raise NothingToPostError(f"no open pull request has {sha[:7]} as its head: closed, or pushed to since")
        return found

    def mine(self) -> list[Comment]:
        own = self._account()
        listed = self._pages(f"/issues/{self.number}/comments", self._allowed)
        return sorted((_comment(one) for one in listed if own(one["user"] or {})), key=lambda one: one.id)

    def _account(self) -> Any:
        """Whether a comment's author is who the token is of. A job's own token may not ask who it is: it is a bot."""
        try:
            me = self._api.ask("GET", "/user").value["id"]
        except RefusedError as refused:
            if refused.status not in (403, 404):
                raise self._allowed(refused) from None
            return lambda author: author.get("type") == "Bot"
        return lambda author: author.get("id") == me

    def create(self, body: str) -> None:
        self._write("POST", f"/issues/{self.number}/comments", body)

    def update(self, number: int, body: str) -> None:
        self._write("PATCH", f"/issues/comments/{number}", body)

    def delete(self, number: int) -> None:
        _unless_gone(self._api, f"/repos/{self._repository}/issues/comments/{number}", self._allowed)

    def _write(self, method: str, path: str, body: str) -> None:
        try:
            self._api.ask(method, f"/repos/{self._repository}{path}", {"body": body})
        except RefusedError as refused:
            if refused.status == 422 and "long" in refused.said.lower():
                raise TooLongError from None
            raise self._allowed(refused) from None

    def _pages(self, path: str, explained: Any, **query: str) -> Iterator[dict]:
        def more(answer: Answer) -> bool:
            return 'rel="next"' in answer.headers.get("Link", "")

        return _pages(self._api, f"/repos/{self._repository}{path}", more, explained, **query)

    def _allowed(self, refused: RefusedError) -> UserError:
        """What to do about a refusal."""
        hint = {
            401: "the token is not valid (any more)",
            403: "the job's token may not: of a pull request from a fork it can only read, and what posts there is the "
            "second workflow (.github/workflows/comment.yml); else the job needs `permissions: pull-requests: write`",
            404: "there is no such pull request or comment, or the token cannot see the repository",
        }
        return UserError(f"{refused}; {hint.get(refused.status, 'nothing more was posted')}")


class GitLab:
    """Of a job in a merge request's pipeline. Raises UserError if the environment is of no such job."""

    def __init__(self, number: int | None = None) -> None:
        if number is not None:
            raise UserError("--pull-request is for GitHub's workflow_run; GitLab's jobs know their merge request")
        token, job = (os.environ.get(name, "").strip() for name in ("GITLAB_TOKEN", "CI_JOB_TOKEN"))
        if not (token or job):
            raise UserError(
                "GITLAB_TOKEN is not set: a project access token with the scope `api`, as a masked variable"
            )
        self._job = not token
        root = _needed("CI_API_V4_URL", "GitLab's jobs have it")
        self._api = Api(root, {"PRIVATE-TOKEN": token} if token else {"JOB-TOKEN": job}, token or job)
        iid = _needed("CI_MERGE_REQUEST_IID", "pipelines of merge requests have it: `if: $CI_MERGE_REQUEST_IID`")
        # The merge request belongs to the project that it is for, also where the pipeline runs in a fork.
        project = os.environ.get("CI_MERGE_REQUEST_PROJECT_ID") or _needed("CI_PROJECT_ID", "GitLab's jobs have it")
        self._path = f"/projects/{quote(project, safe='')}/merge_requests/{quote(iid, safe='')}/notes"
        self.where = f"merge request {iid} of project {project}"

    def mine(self) -> list[Comment]:
        try:  # a job's token is of who started the pipeline
            asked = self._api.ask("GET", "/job" if self._job else "/user").value
        except RefusedError as refused:
            raise self._allowed(refused) from None
        me = asked["user"]["id"] if self._job else asked["id"]

        def more(answer: Answer) -> bool:
            return bool(answer.headers.get("X-Next-Page", "").strip())

        listed = _pages(self._api, self._path, more, self._allowed, sort="asc", order_by="created_at")
        own = (_comment(one) for one in listed if not one.get("system") and one["author"]["id"] == me)
        return sorted(own, key=lambda one: one.id)

    def create(self, body: str) -> None:
        self._write("POST", self._path, body)

    def update(self, number: int, body: str) -> None:
        self._write("PUT", f"{self._path}/{number}", body)

    def delete(self, number: int) -> None:
        _unless_gone(self._api, f"{self._path}/{number}", self._allowed)

    def _write(self, method: str, path: str, body: str) -> None:
        try:
            self._api.ask(method, path, {"body": body})
        except RefusedError as refused:
            if refused.status == 413 or (refused.status in (400, 422) and "long" in refused.said.lower()):
                raise TooLongError from None
            raise self._allowed(refused) from None

    def _allowed(self, refused: RefusedError) -> UserError:
        token = (
            "GitLab does not let a job's own token write comments; set GITLAB_TOKEN"
            if self._job
            else "GITLAB_TOKEN may not, or is not valid (any more): it has to be"
        )
        hint = {
            **dict.fromkeys(
                (401, 403),
                f"{token}: a project access token with the scope `api`, as a masked variable of the project that the "
                "merge request is for. A fork's pipeline has none: fetch its comment.md and post it by --body, or read "
                "its code before you run it in that project, where it gets this token",
            ),
            404: "there is no such merge request or comment, or the token cannot see the project",
        }
        return UserError(f"{refused}; {hint.get(refused.status, 'nothing more was posted')}")


FORGES: Mapping[str, Any] = {"github": GitHub, "gitlab": GitLab}


def _comment(found: dict) -> Comment:
    return Comment(found["id"], found["body"] or "")


def _pages(api: Api, path: str, more: Any, explained: Any, **query: str) -> Iterator[dict]:
    """What is on all pages of a list. Raises UserError if it is refused, or there is no end of pages."""
    for page in range(1, MOST_PAGES + 1):
        try:
            answer = api.ask("GET", path, None, per_page=PAGE, page=page, **query)
        except RefusedError as refused:
            raise explained(refused) from None
        yield from answer.value
        if not more(answer):
            return
    raise UserError(
        f"{path}: more than {MOST_PAGES * PAGE:,} comments, so an earlier one cannot be found; nothing posted"
    )


def _unless_gone(api: Api, path: str, explained: Any) -> None:
    try:
        api.ask("DELETE", path)
    except RefusedError as refused:
        if refused.status != 404:  # another job was faster
            raise explained(refused) from None


def _needed(name: str, hint: str) -> str:
    if not (found := os.environ.get(name, "").strip()):
        raise UserError(f"{name} is not set: {hint}")
    return found


def _event() -> dict[str, Any]:
    path = Path(_needed("GITHUB_EVENT_PATH", "GitHub's jobs have it"))
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"GITHUB_EVENT_PATH: {path} cannot be read as JSON: {error}") from error
    return found if isinstance(found, dict) else {}
