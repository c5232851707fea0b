"""To the hub: one commit into a repository that is this model's own, and nothing that a licence forbids."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tradeoffs.common import files
from tradeoffs.common.texts import harmless
from tradeoffs.export import licences
from tradeoffs.export.licences import Source
from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources import hub

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

RECORD = "provenance.json"
MAKER = "tradeoffs.export"
MOST_NAMED = 5
NAME = re.compile(r"(?!(datasets|spaces|models|buckets)/)[A-Za-z0-9]([\w.-]*\w)?/\w([\w.-]*\w)?", re.ASCII | re.I)


def require_name(repo: str) -> None:
    if not NAME.fullmatch(repo) or ".." in repo or "--" in repo or len(repo) > 96 or repo.endswith(".git"):
        raise UserError(
            f"--push {repo}: no name of a repository of the hub; expected USER/NAME (letters, digits, - _ .)"
        )


def looked_up(found: list[Source]) -> list[Source]:
    """The sources with the licence that their own cards state, where params.yaml states none."""
    return [replace(one, licence=_stated(one)) if one.hub and not one.licence else one for one in found]


def require_allowed(found: list[Source], accepted: bool) -> None:
    """Raises UserError for a licence that does not plainly allow to publish, unless that was `accepted`."""
    lines = list(licences.unclear(found))
    if lines and not accepted:
        raise UserError(
            "\n  ".join(
                [
                    "nothing was pushed: not all of what it is made of may plainly be passed on:",
                    *lines,
                    "read their terms; if they allow what you are about to do, add --accept-licence (a licence that is "
                    "only missing: `licence:` of the entry in params.yaml)",
                ]
            )
        )


def push(folder: Path, repo: str, public: bool, title: str) -> str:
    """Uploads `folder` as one commit; its address. A new repository is private, unless `public`.

    Raises UserError without a token, for a repository of somebody else's, one that this command did not make, and one
    that anybody can read where `public` was not asked for.
    """
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    if huggingface_hub.get_token() is None:
        raise UserError(f"--push {repo}: no token for {hub.place()} here; {hub.LOG_IN}")
    api = huggingface_hub.HfApi()
    try:
        there = _existing(api, repo, public)
        if there is None:
            api.create_repo(repo, private=not public, repo_type="model")
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=f"{title}, by {MAKER}",
            parent_commit=there,
            delete_patterns="*" if there else None,
        )
        return str(done.commit_url)
    except ValueError as error:  # how huggingface_hub says that the hub does not take a card
        raise UserError(
            f"--push {repo}: {hub.place()} does not take the card: {' '.join(str(error).split())}; a licence that it "
            "knows is given by --licence"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UserError(
                f"--push {repo}: {hub.place()} does not let the account of this token write there ({status}); name a "
                "repository of your own (USER/NAME, your user or an organisation that you may write to), or take a "
                "token with the right to write"
            ) from error
        if status == 412:
            raise UserError(
                f"--push {repo}: somebody else wrote there meanwhile, and no commit was made; push again"
            ) from error
        said = error.server_message or type(error).__name__
        raise UserError(f"--push {repo}: {hub.place()} answered {status}: {said}") from error
    except (httpx.TransportError, ConnectionError) as error:
        raise UserError(
            f"--push {repo}: {hub.place()} cannot be reached ({type(error).__name__}), and no commit was made; "
            "check the network and HF_ENDPOINT"
        ) from error


def _existing(api: "HfApi", repo: str, public: bool) -> str | None:
    """The newest commit of the repository, if it is there and may be written anew."""
    from huggingface_hub import errors

    try:
        info = api.model_info(repo, files_metadata=True)
    except errors.RepositoryNotFoundError:
        return None
    names = {one.rfilename for one in info.siblings or ()} - {".gitattributes"}
    if names and RECORD not in names:
        raise UserError(
            f"--push {repo}: exists, and was not made by this command (it holds {', '.join(sorted(names)[:3])}, and no "
            f"{RECORD}); name another repository"
        )
    if names:
        record = Path(api.hf_hub_download(repo, RECORD, revision=info.sha))
        try:
            held = json.loads(record.read_text(encoding="utf-8"))
            maker, made = held.get("made_by"), dict(held.get("files"))
        except (ValueError, TypeError, AttributeError):
            maker, made = None, {}
        if maker != MAKER:
            raise UserError(f"--push {repo}: exists, and was not made by this command; name another repository")
        _require_as_made(api, repo, info, made)
    if not info.private and not public:
        raise UserError(f"--push {repo}: exists and is public; add --public if all are to read it, or name another")
    if info.private and public:
        raise UserError(
            f"--push {repo}: exists and is private; leave --public out, or make it public on its page first"
        )
    return str(info.sha)


def _require_as_made(api: "HfApi", repo: str, info: "ModelInfo", made: dict[str, str]) -> None:
    """Raises UserError for files that were added or changed since: a push would take them away."""
    other = []
    for one in info.siblings or ():
        name = one.rfilename
        if name in (RECORD, ".gitattributes"):
            continue
        if name in made:
            large = one.lfs.sha256 if one.lfs else None  # what is not large is read
            if (large or files.sha256(api.hf_hub_download(repo, name, revision=info.sha))) == made[name]:
                continue
        other.append(name)
    if other:
        named = ", ".join(harmless(name) for name in sorted(other)[:MOST_NAMED])
        more = f" and {len(other) - MOST_NAMED} more" if len(other) > MOST_NAMED else ""
        raise UserError(
            f"--push {repo}: holds what this command did not write, or what was changed since, and it would be lost: "
            f"{named}{more}; keep it elsewhere and delete it there, or name another repository"
        )


def _stated(source: Source) -> str | None:
    """The licence in the card of a repository of the hub."""
    import huggingface_hub

    kind = "model" if source.kind == "model" else "dataset"
    with hub.explained(str(source.hub), source.revision, kind, f"{kind}s.{source.name}"):  # type: ignore[arg-type]
        api = huggingface_hub.HfApi()
        ask = api.model_info if kind == "model" else api.dataset_info
        card = ask(str(source.hub), revision=source.revision).card_data
        found = card.get("license") if card else None
    return str(found) if found else None
