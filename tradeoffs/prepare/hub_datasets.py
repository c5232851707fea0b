"""Rows of a data set of the hub, by the `datasets` library: streamed where only some are wanted, else kept on disk."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tradeoffs import params
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.sources import hub, readers
from tradeoffs.sources.readers import Row


@dataclass(frozen=True)
class Splits:
    rows: dict[str, Iterator[Row]]  # train, and test where the entry names one
    facts: dict[str, Any]  # what info.json says about the source


def open_splits(wanted: params.Dataset, where: str) -> Splits:
    """The rows of the splits that `wanted.splits` names, at the commit that `revision` stands for, in their order.

    With `rows` only the parts of the files that hold the first rows are asked for, and nothing of them is kept on the
    disk; without it, or with HF_HUB_OFFLINE, the whole configuration is downloaded once, as with all data sets of the
    `datasets` library. HF_ENDPOINT, HF_HOME and HF_TOKEN mean what they mean there. No code of a data set is run.
    Raises UserError, with `where` (the params key), if the hub does not give the data, or has no such configuration or
    split, here or while the rows are iterated.
    """
    from huggingface_hub import is_offline_mode

    repo, revision, names = str(wanted.hub), wanted.revision, wanted.splits or params.HubSplits("train")
    streamed = wanted.rows is not None and not is_offline_mode()
    try:
        commit = hub.resolve(repo, revision, "dataset", where)
        with hub.explained(repo, revision, "dataset", where):
            builder = _builder(repo, wanted.config, commit, where)
            found = _streamed(builder, wanted.columns) if streamed else _whole(builder, where)
    except UserError as error:
        if wanted.rows is None or streamed:
            raise
        raise UserError(
            f"{error}. What is streamed, because of `rows`, is never kept: prepare it with a network, or get what was "
            "prepared by dvc pull"
        ) from error
    hub.note_unpinned(repo, revision, commit, where)
    asked = {"train": names.train} | ({"test": names.test} if names.test else {})
    for key, name in asked.items():
        if name not in found:
            raise UserError(f"{where}.splits.{key}: {repo} has no split {name!r}{near(name, found)}")
    rows = {key: _rows(found[name], repo, name, revision, where) for key, name in asked.items()}
    return Splits(rows, {"source": repo, "config": builder.config.name, "commit": commit, "splits": asked})


def _streamed(builder: Any, columns: params.Columns | None) -> dict[str, Any]:
    """All splits, of which nothing is downloaded but what is iterated.

    Parquet files are read here, a row group at a time and no column that is not mapped: `datasets` reads them ahead in
    threads, at least 32 MB, and a process that ends while they do is aborted now and then (github.com/apache/arrow,
    issue 45214).
    """
    if type(builder).__module__ != "datasets.packaged_modules.parquet.parquet":
        return builder.as_streaming_dataset()
    return {
        str(split): ParquetRows(list(paths), builder.info.features, readers.used(columns))
        for split, paths in builder.config.data_files.items()
    }


class ParquetRows:
    """The rows of Parquet files on the hub (hf://...), in their order; with `features` as `datasets` knows them."""

    def __init__(self, paths: list[str], features: Any, columns: set[str]):
        self.paths, self.features, self.columns = paths, features, columns

    def __iter__(self) -> Iterator[dict[str, Any]]:
        import datasets
        import huggingface_hub
        import pyarrow.parquet as pq

        hub_files = huggingface_hub.HfFileSystem()
        for path in self.paths:
            with hub_files.open(path) as file, pq.ParquetFile(file, pre_buffer=False) as table:
                self.features = self.features or datasets.Features.from_arrow_schema(table.schema_arrow)
                there = set(table.schema_arrow.names)
                if twice := [name for name in self.columns if table.schema_arrow.names.count(name) > 1]:
                    raise UserError(f"{path}: {twice[0]!r} is there more than once; map another column")
                # All, where one is missing: the message about it lists them.
                wanted = sorted(self.columns) if self.columns <= there else None
                for group in range(table.num_row_groups):
                    yield from table.read_row_group(group, columns=wanted, use_threads=False).to_pylist()


def _whole(builder: Any, where: str) -> Any:
    """All splits, from the disk, where they are put first if they are not there."""
    try:
        builder.download_and_prepare()
    except OSError as error:
        if "disk space" not in str(error):
            raise
        raise UserError(f"{where}.rows: without it the data set is downloaded whole, and: {error}") from error
    return builder.as_dataset()


def _builder(repo: str, config: str | None, commit: str, where: str) -> Any:
    """What `datasets` reads the configuration with."""
    import datasets
    from huggingface_hub import is_offline_mode

    if not is_offline_mode():
        hub.card(repo, commit)
    try:
        return hub.builder(repo, config, commit, where)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise UserError(
            f"{where}.hub: {repo} is made by a script of its own, which is never run; take a copy of it that is "
            "Parquet, JSON or CSV files (often in the revision refs/convert/parquet of the same data set)"
        ) from error
    except ValueError as error:
        known = datasets.get_dataset_config_names(f"hf://datasets/{repo}", revision=commit)
        if config in known or (config is None and len(known) < 2):
            raise
        asked = f"has no configuration {config!r}" if config else "has several configurations, and none is named"
        raise UserError(f"{where}.config: {repo} {asked}{near(config, known)}") from error


def _rows(found: Any, repo: str, split: str, revision: str | None, where: str) -> Iterator[Row]:
    """The rows of one split; what is a class is given by its name, not by its number."""
    import datasets

    with hub.explained(repo, revision, "dataset", where):
        for number, row in enumerate(found, 1):
            for name in row:
                kind = (found.features or {}).get(name)
                if isinstance(kind, datasets.ClassLabel):  # -1: not said
                    row[name] = None if row[name] is None or row[name] < 0 else kind.int2str(row[name])
            yield f"{repo}: {split}, row {number}", row
