"""Multiple-choice questions from a data set of the hub that is laid out as cais/mmlu: one configuration per subject."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tradeoffs.plumbing.errors import UserError
from tradeoffs.prepare.mmlu_files import check_subjects
from tradeoffs.sources import hub

MIXTURES = ("all", "auxiliary_train")  # configurations of cais/mmlu that are no subject


def read(repo: str, revision: str | None, subjects: list[str] | None, where: str) -> tuple[list[dict[str, Any]], str]:
    """The rows of tradeoffs.prepare.mmlu_files.read from the hub, and the commit that they are of.

    Without `revision` it is the newest commit of main. What was downloaded once is not asked for again, as with all
    data sets of the `datasets` library; HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they mean there.
    Raises UserError, with `where` (the params key), if the hub does not give the data or they are not as expected.
    """
    commit = hub.resolve(repo, revision, "dataset", where)
    with hub.explained(repo, revision, "dataset", where):
        card = hub.card(repo, commit)
        known = sorted(_configs(card, repo, where) - set(MIXTURES)) if card else []
        if not known:
            raise UserError(
                f"{where}.hub: {repo} has no configurations in its README.md; a data set of MMLU's kind has one per "
                "subject, as cais/mmlu"
            )
        check_subjects(subjects, known, repo, where)
        found = [
            row
            for subject in tqdm(subjects or known, desc=repo, leave=False)
            for row in _subject(repo, commit, subject, where)
        ]
    return found, commit


def _configs(card: Path, repo: str, where: str) -> set[str]:
    """Names of the configurations in a data set's README.md. Raises UserError where that is not made as expected."""
    import huggingface_hub

    try:
        configs = huggingface_hub.DatasetCard.load(card).data.to_dict().get("configs") or []
        names = {config["config_name"] for config in configs}
    except Exception as error:  # of YAML that is none, or whose values are of other types
        raise UserError(
            f"{where}.hub: README.md of {repo} cannot be read ({type(error).__name__}); expected YAML first, "
            "with a list of configs, each with its config_name"
        ) from error
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise UserError(f"{where}.hub: README.md of {repo}: config_name must be text, is {wrong[0]!r}")
    return names


def _subject(repo: str, commit: str, subject: str, where: str) -> Iterator[dict[str, Any]]:
    builder = hub.builder(repo, subject, commit, where)
    builder.download_and_prepare()
    splits: Any = builder.as_dataset()
    for split in ("dev", "test"):
        if split not in splits:
            raise UserError(
                f"{where}.subjects: {subject} of {repo} has no split {split} (there are: {', '.join(splits)}); every "
                "MMLU subject has worked examples in dev and questions in test"
            )
        if not len(splits[split]):
            raise UserError(f"{where}.subjects: {subject} of {repo} has no question in {split}")
        for number, row in enumerate(splits[split], 1):
            yield {"subject": subject, "split": split, **_question(row, f"{repo} {subject}, {split} row {number}")}


def _question(row: dict[str, Any], where: str) -> dict[str, Any]:
    choices, answer = row.get("choices"), row.get("answer")
    if (
        not isinstance(row.get("question"), str)
        or not isinstance(choices, list)
        or len(choices) != 4
        or not all(isinstance(choice, str) for choice in choices)
        or type(answer) is not int
        or answer not in range(4)
    ):
        found = {key: row[key] for key in ("question", "choices", "answer") if key in row}
        raise UserError(
            f"{where}: expected question (a text), choices (four texts) and answer (0 to 3), has {str(found)[:200]}"
        )
    return {"question": row["question"], "choices": choices, "answer": answer}
