"""What a pull request changes, for its reviewers: verdict, parameters, what moved beyond noise, answers that flipped.

    python -m tradeoffs.comment --base origin/main                           what is in the folder, as Markdown
    python -m tradeoffs.comment --base origin/main --head BRANCH --out comment.md
    python -m tradeoffs.comment --base origin/main --post github             in a job of GitHub; or gitlab
    python -m tradeoffs.comment --body comment.md --post github              one that another job has made

Exit code 0: the comment is made, and posted if asked; whether the change is good enough is `python -m tradeoffs.gate`'s
to say. 1: it is not, and why. The token is read from GITHUB_TOKEN or GITLAB_TOKEN (CI_JOB_TOKEN where that may write).
"""

import json
import os
import subprocess
from argparse import ArgumentParser
from pathlib import Path

from tradeoffs.comment import pictures, posting
from tradeoffs.comment.forges import FORGES, NothingToPostError
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError

LARGEST = 1_000_000  # bytes of a comment that another job has made


def made(base: str, head: str, policy: Path | None, name: str) -> str:
    """The comment about two commits. Raises UserError if there is no such commit or policy."""
    # What compares is imported here: who only posts needs none of it.
    from tradeoffs.comment.comparing import compared
    from tradeoffs.comment.writing import comment
    from tradeoffs.revisions import WORKSPACE, Revision

    if base == WORKSPACE:
        raise UserError(f"--base {WORKSPACE}: the base is a commit, branch or tag; the folder can be --head")
    old, new = Revision(base), Revision(head)
    return comment(posting.marker(name or folder(), base), old, new, compared(old, new, policy))


def folder() -> str:
    """Where in its repository this project lies: several of one repository have a comment each."""
    words = ["git", "rev-parse", "--show-prefix"]
    found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip().strip("/")
    return found or "."


def given(path: Path) -> str:
    """A comment that another job has made, which may be anybody's text. Raises UserError if it is no comment."""
    try:
        with open(path, "rb", opener=_no_link) as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise UserError(f"{path}: more than {LARGEST // 1_000_000} MB; no comment is as long")
        body = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a comment: {error}") from error
    first = posting.marker_of(body)
    note = posting.FORKED if _of_a_fork() else ""
    return f"{first}\n{note}{posting.defanged(body, pictures.address())[len(first) :].lstrip()}"


def _no_link(path: str, flags: int) -> int:
    """What an artefact holds may be a link to a file of this machine."""
    return os.open(path, flags | os.O_NOFOLLOW)


def _of_a_fork() -> bool:
    """Whether the event of this job says that the comment was made by a fork's."""
    try:
        event = json.loads(Path(os.environ.get("GITHUB_EVENT_PATH", "")).read_text(encoding="utf-8"))
        repository = event["workflow_run"]["head_repository"]["full_name"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(repository != os.environ.get("GITHUB_REPOSITORY"))


def main(
    base: str,
    head: str,
    policy: Path | None,
    name: str,
    out: Path | None,
    body: Path | None,
    post: str,
    number: int | None,
) -> None:
    if bool(base) == bool(body):
        raise UserError("one of --base (what to compare with) and --body (a comment that was made before) is needed")
    text = given(body) if body else made(base, head, policy, name)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    if post:
        try:
            print(posting.post(FORGES[post](number), text))
        except NothingToPostError as nothing:
            print(f"nothing is posted: {nothing}")
    elif not out:
        print(text, end="")


def options() -> ArgumentParser:
    found = cli.parser()
    found.add_argument("--base", default="", metavar="REV", help="what to compare with: origin/main, a tag, a commit")
    found.add_argument(
        "--head", default="WORKSPACE", metavar="REV", help="what is reviewed (default: the folder, WORKSPACE)"
    )
    found.add_argument("--policy", type=Path, metavar="FILE", help="what decides (default: gate.yaml, if it is there)")
    found.add_argument("--name", default="", help="by which it is found again (default: the project's folder)")
    found.add_argument("--out", type=Path, metavar="FILE", help="write it there")
    found.add_argument("--body", type=Path, metavar="FILE", help="post what --out wrote in another job")
    found.add_argument("--post", choices=[*FORGES], default="", help="put it under the pull request of this job")
    found.add_argument(
        "--pull-request",
        dest="number",
        type=cli.count,
        metavar="N",
        help="of a workflow_run, if several have its commit",
    )
    return found


if __name__ == "__main__":
    cli.command(main, options())
