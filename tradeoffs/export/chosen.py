"""What is exported: the artefact of a variant, and what this commit knows of it, checked against dvc.lock."""

import csv
import hashlib
import json
import math
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tradeoffs import metrics, params
from tradeoffs.common import cells, files
from tradeoffs.common.cells import COST, SCORES, TRAINED, Cell, Variant
from tradeoffs.formats import trained_only
from tradeoffs.formats.names import QUANTS
from tradeoffs.plumbing.errors import UserError, near
from tradeoffs.results import decision, tasks
from tradeoffs.results.decision import Guard
from tradeoffs.results.results import Results
from tradeoffs.revisions import WORKSPACE, Revision

SUMMARY, DECISION = Path("metrics/summary.csv"), Path("metrics/decision.json")
ROUNDED = 1e-5  # a part of a number: the summary has six significant digits
NAMES = ("variant", "model", "dataset", "method", "format")  # columns of the summary that are no numbers
HOSTS = ("github.com", "gitlab.com", "codeberg.org", "bitbucket.org", "huggingface.co")  # where origin may be named
Form = Literal["adapter", "full", "merged", "gguf"]


@dataclass(frozen=True)
class Chosen:
    """A variant of the run list whose files are those that dvc.lock names, and that were evaluated."""

    variant: Variant
    cfg: params.Params
    lock: dict[str, str]  # hash of every output, by its path

    @property
    def cell(self) -> Cell:
        return self.variant.cell

    @property
    def model(self) -> params.Model:
        return self.cfg.models[self.variant.model]

    @property
    def dataset(self) -> params.Dataset:
        return self.cfg.datasets[self.variant.dataset]

    @property
    def method(self) -> params.Method:
        return self.cfg.methods[self.variant.method]

    @property
    def form(self) -> Form:
        if self.variant.format in QUANTS:
            return "gguf"
        if self.variant.format != TRAINED:
            return "merged"
        return "adapter" if self.method.peft else "full"

    @property
    def path(self) -> Path:
        """The artefact: a folder, or the file of a GGUF."""
        if self.form == "gguf":
            return self.variant.gguf
        return self.cell.merged if self.form == "merged" else self.training.weights

    @property
    def training(self) -> cells.Training:
        return self.cell.training(self.cfg.run.seeds[0])

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What made the artefact, as it stands beside it."""
        return files.read_facts(self.path.with_suffix(".json") if self.form == "gguf" else self.path / "run_info.json")

    @cached_property
    def base(self) -> dict[str, Any]:
        """What is known of the model that was tuned."""
        return files.read_facts(self.cell.base / "run_info.json")

    @cached_property
    def tokens(self) -> dict[str, Any]:
        """What `tokenize` found: the kind of data, the ids that end an answer, the context."""
        return files.read_facts(self.cell.tokens / "info.json")

    def numbers(self, variant: Variant | None = None) -> dict[str, float]:
        """Its row of metrics/summary.csv, or that of another variant; nothing where it has none."""
        with SUMMARY.open(encoding="utf-8", newline="") as file:
            rows = {row["variant"]: row for row in csv.DictReader(file)}
        found = rows.get(str(variant or self.variant), {})
        return {key: float(value) for key, value in found.items() if value and key not in NAMES}

    @cached_property
    def decision(self) -> dict[str, Any]:
        """The entry of metrics/decision.json of its model and data set."""
        found: dict[str, Any] = files.read_json(DECISION)[str(self.variant.pair)]
        return found

    @cached_property
    def compared(self) -> list[Variant]:
        """Itself and all that its guards hold it to, or are measured of."""
        base = self.variant.pair.cell("base").variant(TRAINED)
        best = Variant.parse(self.decision["best"])
        wanted = [self.variant, self.cell.variant(TRAINED), *([base] if "base" in self.cfg.run.methods else []), best]
        return list(dict.fromkeys(wanted))

    @cached_property
    def results(self) -> Results:
        """What these measured, by the draws of the decision."""
        cfg = self.cfg
        return Results(cfg.run, cfg.seed, cfg.evaluate.bootstrap, cfg.decide, only=self.compared)

    @cached_property
    def guards(self) -> list[Guard]:
        """What `decide.guards` says of it; metrics/decision.json has that of a few variants alone."""
        return decision.guards(self.results, self.variant, Variant.parse(self.decision["best"]))

    @cached_property
    def items(self) -> list[dict[str, Any]]:
        """What it was asked of the test set: id, prompt and expected answer of each item, and what it answered
        (`generated`); of a text an item is a document, of multiple choice alone a question, and the others are None.
        None where nothing but tasks is asked, which are not of the data set."""
        texts = ("prompt", "answer", "generated")
        rows = files.read_table(self.variant.items, ["split", "item", "document", *texts])
        asked = "mmlu" if self.dataset.kind == "questions" else "test"
        return [
            {"item": row["document"] or row["item"], **{name: row[name] for name in texts}}
            for row in rows
            if row["split"] == asked
        ]

    @cached_property
    def tasks(self) -> dict[str, int]:
        """How many items each task or group that stands for itself asked it; by its name."""
        results = self.results  # first: to read them registers what tasks measure
        counts = {
            task: [results.count(self.variant, one.name) for one in some if results.has(self.variant, one.name)]
            for task, some in tasks.of_pair().items()
        }
        return {task: max(found) for task, found in counts.items() if found}

    @cached_property
    def example(self) -> dict[str, str] | None:
        """The first of the items with an answer. None for a text, and for data that are not there for others to read:
        a file of the user's."""
        if not (self.dataset.hub or self.dataset.generate):
            return None
        return next((item for item in self.items if item.get("prompt") and item.get("generated") is not None), None)


def choose(name: str) -> Chosen:
    """The variant of this name. Raises UserError if it is none of the run list, if there is no such artefact, or if
    what lies here is not what dvc.lock says was evaluated."""
    cfg = params.load_all()
    listed = cells.variants(cfg.run)
    if name not in map(str, listed):
        known = near(name, listed)
        raise UserError(f"{name}: no variant of the run list in params.yaml{known}; add what it is made of, and run")
    chosen = Chosen(Variant.parse(name), cfg, Revision(WORKSPACE).outputs)
    if chosen.form == "full" and not chosen.method.trains:
        others = [*cfg.run.precisions, *cfg.run.quants]
        raise UserError(
            f"{name}: {chosen.variant.method} trains nothing, so nothing is there as trained; export another format of "
            f"it ({', '.join(str(chosen.cell.variant(form)) for form in others) or 'none in the run list'})"
        )
    if found := trained_only.absent(chosen.variant.facts):
        raise UserError(
            f"{name}: there is none, its method exists {trained_only.sentence(*found)}; export "
            f"{chosen.cell.variant(TRAINED)}"
        )
    _require_as_locked(chosen)
    _require_evaluated(chosen)
    _require_reported(chosen)
    return chosen


def _require_as_locked(chosen: Chosen) -> None:
    """Raises UserError unless every file that is exported, or that its numbers are read from, is what dvc.lock says."""
    _require_locked(chosen, [SUMMARY, DECISION])
    wanted = [chosen.path, chosen.cell.base, chosen.cell.tokens]
    if chosen.form == "gguf":
        wanted.append(chosen.path.with_suffix(".json"))
    wanted += [SCORES, COST, cells.prepared(chosen.variant.dataset)]
    wanted += [path for variant in chosen.compared for path in (variant.items, variant.facts)]
    asked = tuple(f"{variant.tasks(chosen.cfg.run.seeds)}/" for variant in chosen.compared)
    wanted += [Path(path) for path in chosen.lock if path.startswith(asked)]
    for cell in dict.fromkeys(variant.cell for variant in chosen.compared):
        wanted += [cell.training(seed).facts for seed in chosen.cfg.run.seeds]
        wanted += [cell.seeds] if len(chosen.cfg.run.seeds) > 1 else []
    missing = [path for path in wanted if not path.exists()]
    if missing:
        names = " ".join(str(path) for path in missing)
        raise UserError(f"{missing[0]}: missing; `dvc pull {names}` brings it from the remote, or `make run` makes it")
    _require_locked(chosen, wanted)


def _require_locked(chosen: Chosen, wanted: Sequence[Path]) -> None:
    for path in wanted:
        if str(path) not in chosen.lock:
            raise UserError(f"dvc.lock does not hold {path}: it was not made by the run that is here; run `make run`")
        if not path.exists() or digest(path) != chosen.lock[str(path)]:
            raise UserError(
                f"{path}: not what dvc.lock says (changed after the run, or only half there), so no number of this run "
                "is its own; run `make run`, or `git checkout` and `dvc checkout` what was committed"
            )


def _require_evaluated(chosen: Chosen) -> None:
    """Raises UserError if a step took another version of what is exported than the one that dvc.lock has now."""
    items, trained = str(chosen.variant.items), [str(chosen.path.parent)] if chosen.form in ("adapter", "full") else []
    evaluated = {str(chosen.path), str(chosen.cell.tokens), *trained}
    for name, entry in Revision(WORKSPACE).lock.items():
        makes = {out["path"] for out in entry.get("outs") or ()}
        for dep in entry.get("deps") or () if items in makes else ():
            path = str(dep["path"])
            if path in evaluated and _locked(path, chosen.lock) != dep.get("md5"):
                raise UserError(
                    f"{path}: step {name} measured another version of it, so the numbers are not its own; run "
                    "`make run` (or `dvc checkout`, if some of it is not here)"
                )


def _require_reported(chosen: Chosen) -> None:
    """Raises UserError if the summary has other numbers of what is exported, or of what that is held to, than the items
    and costs that lie here: it was made of others.

    By the numbers, since the summary is made of the items of all variants: what others were asked, and which others the
    run list has by now, is no matter of this one.
    """
    results = chosen.results
    for variant in chosen.compared:
        row = chosen.numbers(variant)
        found = {n: float(results.values(variant, n)[0]) for n in metrics.names("quality") if results.has(variant, n)}
        found |= results.cost[variant]
        for name, value in found.items():
            if math.isfinite(value) and not math.isclose(row.get(name, math.nan), value, rel_tol=ROUNDED):
                raise UserError(
                    f"{SUMMARY}: {name} of {variant} is not what was measured by now, so the summary is of another "
                    "run; run `make run`"
                )


def _locked(path: str, lock: dict[str, str]) -> str:
    """The hash of an output, or of a folder of outputs, of which not all may be here."""
    if path in lock:
        return lock[path]
    inside = {out: md5 for out, md5 in lock.items() if out.startswith(f"{path}/")}
    if any(md5.endswith(".dir") for md5 in inside.values()):  # what is in them, only the disk tells
        return digest(Path(path))
    return _folder_hash({out.removeprefix(f"{path}/"): md5 for out, md5 in inside.items()})


def digest(path: Path) -> str:
    """The hash that DVC has of a file or a folder: MD5, of a folder that of its list of files, with `.dir` behind."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    return _folder_hash({file.relative_to(path).as_posix(): digest(file) for file in _files(path)})


def _folder_hash(held: dict[str, str]) -> str:
    listed = [{"md5": md5, "relpath": name} for name, md5 in sorted(held.items())]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


def _files(folder: Path) -> Sequence[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def commit() -> tuple[str | None, bool]:
    """The commit that is checked out, and whether what the numbers come from is committed in it; None: no commit."""
    sha = _git("rev-parse", "--verify", "--quiet", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return sha or None, bool(sha) and not changed


def repository() -> str | None:
    """The address of the repository's origin, without what signs in; None if it is on no host that is public."""
    url = _git("remote", "get-url", "origin")
    found = re.fullmatch(r"(?:(?:https|ssh|git)://)?(?:[^/@\s]*@)?([\w.-]+)[:/]+([\w./~-]+)", url, re.ASCII)
    return f"https://{found[1]}/{found[2]}" if found and found[1] in HOSTS else None


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
