"""Which files a run writes: what is committed together, and what a merge need not merge, since it is made again."""

import os
from pathlib import PurePosixPath

PARAMS, README, LOCK, ARTIFACTS = "params.yaml", "README.md", "dvc.lock", "models/dvc.yaml"
OUTPUTS = ("plots", "report")  # of which all is one output: DVC removes what else lies there
FOLDERS = ("metrics", *OUTPUTS)
MADE = (LOCK, ARTIFACTS, *FOLDERS)  # nobody writes in them; of README.md this is true of the block alone
RESULTS = (*MADE, README)
# What people write, or bring, that a run reads; `data/raw` and `models/raw` hold the .dvc files of what DVC tracks.
INPUTS = (PARAMS, "dvc.yaml", "stages", "tradeoffs", "data/raw", "models/raw", "rewards", "examples/tasks")
COMMITTED = (PARAMS, *RESULTS)  # what `dvc exp run` and `make run` change in Git's files


def is_made(path: str) -> bool:
    """Whether a path, from the folder of dvc.yaml on, is made by a run and by nothing else."""
    clean = PurePosixPath(os.path.normpath(path))
    return str(clean) in MADE or clean.parts[0] in FOLDERS
