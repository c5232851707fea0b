"""Multiple-choice questions from a data set of the hub that is laid out as cais/mmlu: one configuration per subject."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from tradeoffs.errors import UserError
from tradeoffs.records import check_subjects

MIXTURES = ("all", "auxiliary_train")  # configurations of cais/mmlu that are no subject


def read(hub: str, revision: str | None, subjects: list[str] | None, where: str) -> tuple[list[dict[str, Any]], str]:
    """The rows of tradeoffs.records.read_mmlu from the hub, and the commit that they are of.

    Without `revision` it is the newest commit of main. What was downloaded once is not asked for again, as with all
    data sets of the `datasets` library; HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they mean there.
    Raises UserError, with `where` (the params key), if the hub does not give the data or they are not as expected.
    """
    import datasets
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    datasets.disable_progress_bars()  # of every small file; the subjects have one
    with _explained(hub, revision, where):
        try:
            card = huggingface_hub.hf_hub_download(hub, "README.md", repo_type="dataset", revision=revision)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError as error:
            raise UserError(f"{where}.hub: {hub} {_NO_SUBJECTS}") from error
        commit = Path(card).parent.name
        configs = huggingface_hub.DatasetCard.load(card).data.to_dict().get("configs") or []
        known = sorted(config["config_name"] for config in configs if config["config_name"] not in MIXTURES)
        if not known:
            raise UserError(f"{where}.hub: {hub} {_NO_SUBJECTS}")
        check_subjects(subjects, known, hub, where)
        found = [
            row
            for subject in tqdm(subjects or known, desc=hub, leave=False)
            for row in _subject(hub, commit, subject, where)
        ]
    return found, commit


_NO_SUBJECTS = "has no configurations in its README.md; a data set of MMLU's kind has one per subject, as cais/mmlu"


def _subject(hub: str, commit: str, subject: str, where: str) -> Iterator[dict[str, Any]]:
    import datasets

    # hf:// keeps it from reading a local folder of this name instead.
    builder = datasets.load_dataset_builder(f"hf://datasets/{hub}", subject, revision=commit)
    if builder.hash != commit:  # it takes any that it finds on the disk when the hub does not answer
        raise UserError(
            f"{where}.revision: {subject} of {hub} could not be downloaded at commit {commit}, and the newest on this "
            f"disk is that of {builder.hash}; go online once (without HF_HUB_OFFLINE), or set revision: {builder.hash}"
        )
    builder.download_and_prepare()
    splits: Any = builder.as_dataset()
    for split in ("dev", "test"):
        if split not in splits:
            raise UserError(
                f"{where}.subjects: {subject} of {hub} has no split {split} (there are: {', '.join(splits)}); every "
                "MMLU subject has worked examples in dev and questions in test"
            )
        for number, row in enumerate(splits[split], 1):
            yield {"subject": subject, "split": split, **_question(row, f"{hub} {subject}, {split} row {number}")}


def _question(row: dict[str, Any], where: str) -> dict[str, Any]:
    choices, answer = row.get("choices"), row.get("answer")
    if (
        not isinstance(row.get("question"), str)
        or not isinstance(choices, list)
        or len(choices) != 4
        or not all(isinstance(choice, str) for choice in choices)
        or answer not in range(4)
    ):
        found = {key: row[key] for key in ("question", "choices", "answer") if key in row}
        raise UserError(
            f"{where}: expected question (a text), choices (four texts) and answer (0 to 3), has {str(found)[:200]}"
        )
    return {"question": row["question"], "choices": choices, "answer": answer}


@contextmanager
def _explained(hub: str, revision: str | None, where: str) -> Iterator[None]:
    """Turns what the hub's libraries raise into one message; none of it holds what a request was signed with."""
    import datasets
    from huggingface_hub import constants, errors, is_offline_mode
    from huggingface_hub.utils import httpx

    endpoint = urlsplit(constants.ENDPOINT)
    place = f"{endpoint.scheme}://{endpoint.hostname}{f':{endpoint.port}' if endpoint.port else ''}"
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"{where}.hub: {hub} is gated: accept its terms on {place}/datasets/{hub}, then {log_in}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{where}.hub: no data set {hub!r} on {place}; check the name (owner/name), or if it is private, {log_in}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{where}.revision: {hub} has no revision {revision!r}; give a branch, a tag or a commit of 40 hex digits"
        ) from error
    except errors.HFValidationError as error:
        raise UserError(f"{where}.hub: {hub!r} is no name of a data set; expected owner/name, as cais/mmlu") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        refused = f"refused the token ({status}); {log_in}" if status in (401, 403) else f"answered {status}; try again"
        raise UserError(f"{where}.hub: {hub}: {place} {refused}") from error
    except (errors.LocalEntryNotFoundError, httpx.HTTPError, ConnectionError) as error:
        if is_offline_mode():
            raise UserError(
                f"{where}.hub: {hub} is not on this disk, and HF_HUB_OFFLINE keeps it from being downloaded; run once "
                "without it (HF_HOME says where downloads lie)"
            ) from error
        raise UserError(
            f"{where}.hub: {place} cannot be reached ({type(error).__name__}) and {hub} is not on this disk; check the "
            "network and HF_ENDPOINT, or download MMLU's files and give their folder as `path`"
        ) from error
    except (datasets.exceptions.DatasetsError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{where}.hub: {hub} cannot be read: {first}") from error
