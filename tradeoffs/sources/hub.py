"""What models, data sets and MMLU share of the hub: a revision becomes a commit, and what fails is one message."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from tradeoffs import params
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.plumbing.lacking import lacking

Kind = Literal["model", "dataset"]
WORDS = {"model": "model", "dataset": "data set"}
LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


def resolve(repo: str, revision: str | None, kind: Kind, where: str) -> str:
    """The commit (40 hex digits) that `revision` of the repository `repo` ("owner/name") stands for today.

    `revision` is a branch, a tag, a commit, or None for main; a full commit is given back without asking anybody, so
    whether the hub still has it shows when its files are asked for (under `explained`). Without a network, or with
    HF_HUB_OFFLINE, it is what the branch was when it was last asked for. `where` is the params key of the entry
    ("models.gpt2", "datasets.alpaca", "datasets.x.mmlu") and begins the message of the UserError that `explained`
    makes of everything that can go wrong.
    """
    import huggingface_hub

    with explained(repo, revision, kind, where):
        return huggingface_hub.resolve_revision(repo, repo_type=kind, revision=revision).resolved


def card(repo: str, commit: str) -> Path | None:
    """README.md of a data set, in HF_HOME's cache; None if it has none. Under `explained`.

    Also for what it raises: of what the hub answers, `datasets` tells only that there is no such data set.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(repo, "README.md", repo_type="dataset", revision=commit))
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return None


def builder(repo: str, config: str | None, commit: str, where: str) -> Any:
    """What `datasets` reads a configuration of a data set with, at this commit. Under `explained`.

    Raises UserError, with `where` (the params key), if the hub does not answer and the disk holds another commit.
    """
    import datasets

    datasets.disable_progress_bars()  # of every file, between the lines of the stage
    # hf:// keeps it from reading a local folder of this name instead.
    found = datasets.load_dataset_builder(f"hf://datasets/{repo}", config, revision=commit)
    if found.hash != commit:  # it takes any that it finds on the disk when the hub does not answer
        raise UserError(
            f"{where}.revision: {f'{config} of ' if config else ''}{repo} could not be downloaded at commit {commit}, "
            f"and the newest on this disk is that of {found.hash}; go online once (without HF_HUB_OFFLINE), or set "
            f"revision: {found.hash}"
        )
    return found


def note_unpinned(repo: str, revision: str | None, commit: str, where: str) -> None:
    """Says which commit was read, and how to keep it, unless `revision` is that commit already."""
    if revision != commit:
        entry = ".".join(where.split(".")[:2])
        print(
            f"warning: {where}.revision: {revision or 'main'} of {repo} is commit {commit} today and may be another "
            f"tomorrow; to keep it, run `python -m tradeoffs.pin {entry}` or set revision: {commit}"
        )


def place() -> str:
    """The address of the hub in use, without what a URL may hold of a login."""
    from huggingface_hub import constants

    endpoint = urlsplit(constants.ENDPOINT)
    return f"{endpoint.scheme}://{endpoint.hostname}{f':{endpoint.port}' if endpoint.port else ''}"


@contextmanager
def explained(repo: str, revision: str | None, kind: Kind, where: str) -> Iterator[None]:
    """Turns what the hub's libraries raise in its block into a UserError; none of it holds what a request was signed
    with. The message names `<where>.hub` or `<where>.revision`, what was expected and what to do.

    Around anything that asks the hub, also while rows are streamed: with explained(...): for row in stream: ...
    """
    import huggingface_hub
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import httpx

    page = f"{place()}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    try:
        yield
    except errors.GatedRepoError as error:
        whose = "the account of your token has no access" if huggingface_hub.get_token() else "there is no token here"
        raise UserError(
            f"{where}.hub: {repo} is gated, and {whose}: accept its terms on {page} (some are granted after hours), "
            f"then {LOG_IN}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{where}.hub: no {WORDS[kind]} {repo!r} on {place()}{_near_in_catalogue(repo, kind)}; check the name "
            f"(owner/name), or if it is private, {LOG_IN}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{where}.revision: {repo} has no revision {revision!r}, or no longer; give a branch, a tag or a commit of "
            f"40 hex digits ({page}/commits/main lists them)"
        ) from error
    except errors.HFValidationError as error:
        raise UserError(
            f"{where}.hub: {repo!r} is no name of a {WORDS[kind]}; expected owner/name{_near_in_catalogue(repo, kind)}"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.RevisionResolutionError) as error:
        raise UserError(f"{where}.hub: {_unanswered(repo, error)}") from error
    except (httpx.HTTPError, ConnectionError) as error:
        raise UserError(f"{where}.hub: {_unanswered(repo, error)}") from error
    except Exception as error:
        full = error.__cause__ if type(error).__module__.startswith("datasets.") else error
        if isinstance(full, OSError) and full.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{where}.hub: no room left on the disk ({full.strerror}) while {repo} was fetched into "
                f"{constants.HF_HOME} and copied from there; what was downloaded stays: make room (`hf cache ls`, "
                "`dvc gc --workspace`) and run again, and it goes on"
            ) from error
        # What `datasets` raises is known by its module, since to import it takes a second.
        if isinstance(full, OSError) and full.errno and lacking(full):  # this machine's, no fault of the repository's
            raise full from error
        # pyarrow raises an OSError, too, of a file that is damaged.
        of_datasets = isinstance(error, (ValueError, OSError))
        of_datasets |= type(error).__module__.startswith(("datasets.", "pyarrow."))
        if kind != "dataset" or not of_datasets:
            raise
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{where}.hub: {repo} cannot be read: {first}") from error


def _unanswered(repo: str, error: BaseException) -> str:
    """What to say where the hub gave no answer, or one that it may not give again."""
    from huggingface_hub import errors, is_offline_mode

    if is_offline_mode():
        return (
            f"{repo} is not on this disk, or not whole, and HF_HUB_OFFLINE keeps it from being downloaded; run "
            "once without it (HF_HOME says where downloads lie)"
        )
    # The libraries look on the disk when the hub does not answer, and then raise that it is not there either.
    known: BaseException | None = error
    while known and not isinstance(known, errors.HfHubHTTPError):
        known = known.__cause__
    if isinstance(known, errors.HfHubHTTPError):
        status = known.response.status_code
        refused = f"refused the token ({status}); {LOG_IN}" if status in (401, 403) else f"answered {status}; try again"
        return f"{repo}: {place()} {refused}"
    reason = type(error.__cause__ or error).__name__
    return f"{place()} cannot be reached ({reason}) and {repo} is not on this disk; check the network and HF_ENDPOINT"


def _near_in_catalogue(repo: str, kind: Kind) -> str:
    """` (did you mean X?)` where the catalogue of params.yaml has another one of a similar name."""
    hint = near(repo, {name for name in _catalogue(kind) if name != repo})
    return hint if "did you mean" in hint else ""


def _catalogue(kind: Kind) -> Iterator[str]:
    try:
        everything = params.load_all()
    except UserError:  # called from elsewhere than a stage, which has read the file
        return
    datasets = everything.datasets.values()
    named = everything.models.values() if kind == "model" else [s for d in datasets for s in (d, d.mmlu) if s]
    yield from (source.hub for source in named if source.hub)
