"""Two sides to be held against each other: commits with the code that scored them, and items that no file holds."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import fake_commits
import numpy as np
import quick_yaml

from tradeoffs import metrics
from tradeoffs.common.cells import Variant
from tradeoffs.gate import definitions, hashes
from tradeoffs.gate.pairing import Pairing
from tradeoffs.gate.quality import Quality, finished
from tradeoffs.gate.rows import Row
from tradeoffs.results.results import Results
from tradeoffs.revisions import WORKSPACE, Revision

REPO = Path(__file__).parents[1]
VARIANT = Variant("demo", "demo", "lora", "q4_0")
CODE = (*definitions.CODE, "tradeoffs/common")


def add_code() -> None:
    """The code that scores, in the working directory, as it is in this project."""
    for name in CODE:
        if (REPO / name).is_dir():
            shutil.copytree(REPO / name, name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, name)


def commit(message: str = "A run") -> str:
    """What lies in data/ with the code that scored it."""
    fake_commits.commit(message)
    lock = quick_yaml.load(Path("dvc.lock").read_text())
    side = Revision(WORKSPACE)
    deps = [{"path": path, "hash": "md5", "md5": hashes.digest(side, path)} for path in CODE]
    lock["stages"]["score"]["deps"] = deps
    Path("dvc.lock").write_text(quick_yaml.dump(lock))
    fake_commits.git("add", "-A")
    fake_commits.git("commit", "-q", "--amend", "-m", message)
    return fake_commits.git("rev-parse", "HEAD")


class Side:
    """A revision that exists in memory alone, as far as a gate asks: settings, and a dvc.lock that names one code."""

    def __init__(self, name: str, **evaluate: object):
        self.name, self.sha = name, None
        self.params = {"seed": 42, "evaluate": {"bootstrap": 200, **evaluate}, "decide": {}}
        self.code, self.outputs = "c0de", {}

    @property
    def lock(self) -> dict:
        return {"score": {"deps": [{"path": path, "md5": self.code} for path in definitions.CODE]}}

    def text(self, path: str) -> None:
        return None


def measured(columns: dict[Variant, dict[str, np.ndarray]], resamples: int, seed: int, draws: dict) -> Results:
    """Results of these items alone, without any file; `draws` are shared, so that what is made often is made once."""
    found = Results.__new__(Results)
    trained = {variant.cell: {"train_seconds": 1.0} for variant in columns}
    rest = {
        "run": SimpleNamespace(seeds=[42], devices=["auto"]),
        "columns": columns,
        "variants": list(columns),
        "facts": {variant: {"shapes": "one", "runtime": "llama.cpp"} for variant in columns},
        "training": {cell: row | {"made": seed} for cell, row in trained.items()},
        "prepared": {variant.dataset: {} for variant in columns},
        "cost": {variant: {} for variant in columns},
        "costs": SimpleNamespace(machine={"hardware": {}, "devices": {}}, intervals={}),
        "_further": {variant.cell: [] for variant in columns},
        "_seed": 42,
        "_resamples": resamples,
        "_draws": draws,
        "_sums": {},
        "_values": {},
    }
    for name, value in rest.items():
        setattr(found, name, value)
    return found


def rows(
    before: dict[str, np.ndarray],
    after: dict[str, np.ndarray],
    margins: dict[str, float],
    sides: tuple[Side, Side] | None = None,
    draws: dict | None = None,
    resamples: int = 200,
) -> dict[str, Row]:
    """What a gate says of one variant with these items, by the names of the metrics."""
    base, head = sides or (Side("base"), Side("head"))
    draws = {} if draws is None else draws
    old, new = (measured({VARIANT: columns}, resamples, seed, draws) for seed, columns in enumerate((before, after)))
    quality = Quality(Pairing(base, head, old, new), margins, set())
    [found] = finished([quality.rows(VARIANT, VARIANT)])
    return {row.name: row for row in found}


def items(count: int, choices: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Test, general and multiple-choice items of a middling model, with every column that a metric is made of."""
    luck = np.random.default_rng(seed)
    split = np.array(["test"] * count + ["general"] * count + ["mmlu"] * choices, object)
    size, test = len(split), np.arange(2 * count + choices) < count
    tokens = np.random.default_rng(0).integers(4, 20, size).astype(float)  # the same items whatever the model
    found = {
        "split": split,
        "item": np.array([f"{name}{number}" for number, name in enumerate(split)], object),
        "subject": np.array(["rates" if name == "mmlu" else None for name in split], object),
        "prompt": np.array([f"Question {n}?" if one else None for n, one in enumerate(test)], object),
        "answer": np.array([f"Answer {n}." if one else None for n, one in enumerate(test)], object),
        "generated": np.array([f"Answer {n}." if one else None for n, one in enumerate(test)], object),
        "tokens": tokens,
        "bytes": 4 * tokens,
        "log_likelihood": -tokens * luck.uniform(0.4, 1.6, size),
        "correct_tokens": np.floor(tokens * luck.uniform(0.4, 0.9, size)),
        "kld": tokens * luck.uniform(0.005, 0.02, size),
        "same_top": np.floor(tokens * luck.uniform(0.8, 1.0, size)),
        "correct_option": np.where(split == "mmlu", 1.0, np.nan),
        "correct": np.where(split == "mmlu", (luck.random(size) < 0.6).astype(float), np.nan),
        "answer_tokens": np.where(test, 12.0, np.nan),
        "items": np.ones(size),
    }
    for metric in metrics.scored():
        for place, column in enumerate(c for c in metric.columns if c != "items"):
            value = (luck.random(size) < 0.7).astype(float) if metric.right_or_wrong else luck.uniform(0.3, 1.0, size)
            if metric.many:  # the counts that BLEU is made of: two lengths, matches, and how many there could be
                value = np.full(size, 8.0) if place < 2 or place > 5 else luck.integers(3, 7, size).astype(float)
            found[column] = np.where(test, value, np.nan)
    for column in ("kld", "same_top"):
        found[column][~test] = np.nan
    return found
