"""A model of the hub: what its repository holds, and whether that can be a starting checkpoint.

Only what is read here is fetched: safetensors weights, config, tokenizer, chat template, licence. Never pickles, never
code.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tradeoffs.models import checkpoints
from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources import hub

if TYPE_CHECKING:  # to import it takes a second, and only models of the hub need it
    from huggingface_hub.hf_api import RepoFile

SHARED = ("config.json", checkpoints.INDEX, *checkpoints.COMPANIONS)


@dataclass(frozen=True)
class Source:
    """A repository at a commit, with all but its weights in the cache. `folder` is its snapshot there."""

    repo: str
    commit: str
    where: str
    folder: Path
    small: list[str]
    weights: dict[str, int]  # size in bytes by name

    @property
    def storage(self) -> Path:
        """What the cache holds of the repository: blobs by their hash, and snapshots of links to them."""
        return self.folder.parents[1]

    @property
    def missing(self) -> list[str]:
        """Weights that are not in the cache yet."""
        return [name for name in self.weights if not (self.folder / name).exists()]


def find(repo: str, revision: str, where: str) -> Source:
    """Resolves the revision, checks that the repository holds a model of the kind that is read here, and fetches
    everything but its weights into HF_HOME's cache.

    `where` is the params key of the model ("models.gpt2"). What is in the cache already is not asked for again, so a
    commit that was fetched once needs no network. Raises UserError if the hub does not give it, or if it holds no
    safetensors weights, no tokenizer, or an architecture that needs code of its own.
    """
    import huggingface_hub

    commit = hub.resolve(repo, revision, "model", where)
    with hub.explained(repo, revision, "model", where):
        sizes = _sizes(repo, commit)
        _check_names(repo, set(sizes), where)
        small = [name for name in sizes if any(Path(name).match(pattern) for pattern in SHARED)]
        with _quiet():
            folder = Path(huggingface_hub.snapshot_download(repo, revision=commit, allow_patterns=small))
        checkpoints.check_architecture(folder, f"{where}.hub: {repo}")
        names = [path.name for path in checkpoints.weight_files(folder)]
        lost = [name for name in names if name not in sizes]
        if lost:
            raise UserError(
                f"{where}.hub: {repo} lacks {', '.join(lost)}, which {checkpoints.INDEX} names; take another revision"
            )
        return Source(repo, commit, where, folder, small, {name: sizes[name] for name in names})


def _sizes(repo: str, commit: str) -> dict[str, int]:
    """Bytes of every file at the root of the repository, by name; from the cache where it has the list."""
    import huggingface_hub
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    listed: Iterator[RepoFile]
    try:
        listed = iter(huggingface_hub.get_cached_repo_tree(repo, revision=commit))
    except CachedRepoTreeNotFoundError:
        tree = huggingface_hub.HfApi().list_repo_tree
        try:
            return {entry.path: entry.size for entry in tree(repo, revision=commit) if hasattr(entry, "size")}
        except (httpx.TransportError, OfflineModeIsEnabled):
            # Another program left no list of the files, but maybe the files: then what is there is what there is.
            folder = Path(huggingface_hub.snapshot_download(repo, revision=commit, local_files_only=True))
            return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    return {entry.path: entry.size for entry in listed if "/" not in entry.path}


def _check_names(repo: str, names: set[str], where: str) -> None:
    """Raises UserError, with the way out, unless the files are those of a model in safetensors with a tokenizer."""
    there = f"there: {', '.join(sorted(names)) or 'nothing'}"
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")))
    if "adapter_config.json" in names and "config.json" not in names:
        raise UserError(
            f"{where}.hub: {repo} is an adapter, not a model ({there}); merge it into its base with PEFT, save "
            "the model with save_pretrained, and give that folder as `path`"
        )
    if not names & {"model.safetensors", checkpoints.INDEX}:
        reason = (
            f"only pickles ({', '.join(pickles[:3])}), which can run code when they are read" if pickles else "none"
        )
        raise UserError(
            f"{where}.hub: {repo} has no safetensors weights, {reason} ({there}); look for a revision that has them "
            "(its page lists pull requests, as refs/pr/1), or load it where you trust it, save it with save_pretrained "
            "and give that folder as `path`"
        )
    if "config.json" not in names:
        raise UserError(f"{where}.hub: {repo} has no config.json ({there}); it is no model of transformers")
    if not names & set(checkpoints.TOKENIZERS):
        raise UserError(
            f"{where}.hub: {repo} has neither {' nor '.join(checkpoints.TOKENIZERS)} ({there}); save it with its "
            "tokenizer into one folder with save_pretrained, and give that folder as `path`"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars for small files and for what is here already."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
