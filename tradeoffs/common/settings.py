"""What a step is made with: the settings that all share, with those of its data set, its model and its method on top.

From the least to the most particular, so that the last one that says something of a value decides:

    train  <  datasets.<d>.train  <  models.<m>.train  <  methods.<x>.train  <  models.<m>.methods.<x>.train
    tokenize  <  models.<m>.tokenize
    methods.<x>.config  <  models.<m>.methods.<x>.config

The stage `settings` writes what that comes to, as parts of a params.yaml, to a file for each step that reads some; a
step depends on its file, so that a value makes only those steps anew whose own settings it moves. It reads params.yaml
itself (`params.load_settings`).
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradeoffs.common import cells
from tradeoffs.common.cells import Cell

if TYPE_CHECKING:
    from tradeoffs.params import Method, Params, Reward, Tokenize, Train

Layer = tuple[str, Mapping[str, Any]]  # where in params.yaml, and what it says
DIGITS = 12  # of a learning rate: 0.005 times 0.4 is 0.002
# What is said of a model or a data set, and changes nothing in what is made of it.
SAID = {"licence", "notes"}
UNLAYERED: dict[str, Any] = {"train": None, "tokenize": None, "methods": None}


def over(shared: "Train", values: Mapping[str, Any]) -> "Train":
    """`shared` with a block's values on top: `lr_factor` multiplies the rate that was, where the block has no `lr`;
    `steps` takes the place of `epochs` that were."""
    given = dict(values)
    factor = given.pop("lr_factor", None)
    if factor and "lr" not in given:
        given["lr"] = float(f"{shared.lr * factor:.{DIGITS}g}")
    if "steps" in given:
        given.setdefault("epochs", None)
    return replace(shared, **given)


def lasting(train: "Train", examples: int) -> "Train":
    """With the steps that its `epochs`, if it has any, come to: passes over so many examples, the last step whole."""
    if train.epochs is None:
        return train
    return replace(train, steps=math.ceil(train.epochs * examples / train.batch_size))


def layers(cfg: "Params", cell: Cell) -> Iterator[Layer]:
    """The blocks that lie over the section `train` for a cell, the last on top."""
    for axis, name in (("datasets", cell.dataset), ("models", cell.model), ("methods", cell.method)):
        yield f"{axis}.{name}.train", getattr(getattr(cfg, axis).get(name), "train", None) or {}
    yield f"models.{cell.model}.methods.{cell.method}.train", _own(cfg, cell, "train")


def budget(cfg: "Params", cell: Cell) -> "Train":
    """Of a cell's supervised tuning."""
    found = cfg.train
    for _, values in layers(cfg, cell):
        found = over(found, values)
    return found


def of_method(cfg: "Params", cell: Cell) -> "Method":
    """A cell's block of methods, with its model's values of `config`, and without `train`, which is in the budget; that
    of a further stage is whole."""
    block = cfg.methods[cell.method]
    own = _own(cfg, cell, "config")
    found = replace(block, train=None, config={**(block.config or {}), **own} if own else block.config)
    if block.preference:
        further = over(budget(cfg, cell), block.preference.train or {})
        found = replace(found, preference=replace(block.preference, train=values_of(further)))
    if block.reward:
        found = replace(found, reward=_reward(cfg, cell, block.reward))
    return found


def _reward(cfg: "Params", cell: Cell, block: "Reward") -> "Reward":
    """With all that decides what an answer earns: the data set's pattern of answers, and the texts of the files."""
    further = over(budget(cfg, cell), block.train or {})
    pattern = getattr(cfg.datasets.get(cell.dataset), "answer_pattern", None)
    files = [Path(name) for name in block.functions if name.startswith("rewards/")]
    # One that is not there, or no text, is among the problems of params.yaml; so is one elsewhere.
    code = {str(path): path.read_text(encoding="utf-8", errors="replace") for path in files if path.is_file()}
    return replace(block, train=values_of(further), answer_pattern=pattern, code=code or None)


def tokenize(cfg: "Params", model: str) -> "Tokenize":
    return replace(cfg.tokenize, **(getattr(cfg.models.get(model), "tokenize", None) or {}))


def resolved(cfg: "Params", *, model: str = "", dataset: str = "", method: str = "") -> "Params":
    """`cfg` as a step of these reads it: with what is theirs in the sections that all share, and without it in their
    blocks. Raises KeyError if the catalogue of methods has no such one."""
    if model:
        blocks = {name: replace(block, **UNLAYERED) for name, block in cfg.models.items()}
        found = replace(cfg, tokenize=tokenize(cfg, model), models=blocks)
    else:
        found = cfg
    found = replace(found, datasets={name: replace(block, train=None) for name, block in cfg.datasets.items()})
    if method:
        cell = Cell(model, dataset, method)
        found = replace(found, train=budget(cfg, cell), methods=cfg.methods | {method: of_method(cfg, cell)})
    return found


def _own(cfg: "Params", cell: Cell, what: str) -> Mapping[str, Any]:
    """What a model says of a method."""
    said = (getattr(cfg.models.get(cell.model), "methods", None) or {}).get(cell.method)
    return getattr(said, what, None) or {}


def values_of(block: Any) -> dict[str, Any]:
    """A block as it would stand in params.yaml; a budget in epochs without the steps that they take the place of."""
    found = {key: value for key, value in asdict(block).items() if value is not None}
    return {key: value for key, value in found.items() if key != "steps" or "epochs" not in found}


# --- the files


def parts(cfg: "Params") -> Iterator[tuple[Path, dict[str, Any]]]:
    """For each step of the run list that depends on a file of settings, that file and what it holds."""
    run = cfg.run
    for name in run.models:
        model = resolved(cfg, model=name).models[name]
        templates = {model.prompt: cfg.templates[model.prompt]} if model.prompt in cfg.templates else {}
        yield cells.settings("models", name), {"models": {name: _shaping(model)}, "templates": templates}
    for name in run.datasets:
        dataset = replace(resolved(cfg).datasets[name], prompts=None)
        yield cells.settings("datasets", name), {"datasets": {name: _shaping(dataset)}}
    for pair in cells.pairs(run):
        dataset = cfg.datasets[pair.dataset]
        asked = {"kind": dataset.kind, "prompts": dataset.prompts}
        lengths = asdict(tokenize(cfg, pair.model))
        yield cells.settings("pairs", pair), {"tokenize": lengths, "datasets": {pair.dataset: asked}}
    for cell in cells.cells(run):
        block = of_method(cfg, cell)
        train = {"train": values_of(budget(cfg, cell))} if block.trains else {}
        yield cells.settings("cells", cell), train | {"methods": {cell.method: values_of(block)}}
    yield cells.NOTES, {axis: _notes(cfg, axis) for axis in ("models", "datasets")}


def file(model: str = "", dataset: str = "", method: str = "") -> Path:
    """That a step of these depends on."""
    if method:
        return cells.settings("cells", Cell(model, dataset, method))
    if model and dataset:
        return cells.settings("pairs", cells.Pair(model, dataset))
    return cells.settings("models", model) if model else cells.settings("datasets", dataset)


def moved(cfg: "Params", root: Path = Path()) -> list[Path]:
    """The files that are not there, or hold something else than `cfg` says now."""
    found = [(root / path, text(part)) for path, part in parts(cfg)]
    return [path for path, said in found if not path.is_file() or path.read_text(encoding="utf-8") != said]


def listed(cfg: "Params") -> dict[str, dict[str, Any]]:
    """What `dvc params diff` shows of every cell of the run list that trains something."""
    found = {}
    for cell in cells.cells(cfg.run):
        block = of_method(cfg, cell)
        if block.trains:
            lengths = {"tokenize": asdict(tokenize(cfg, cell.model))}
            found[str(cell)] = values_of(budget(cfg, cell)) | lengths | {"config": block.config or {}}
    return found


def text(part: dict[str, Any]) -> str:
    """What a file of settings holds: no digit is lost, as of a metric's."""
    return json.dumps(part, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _notes(cfg: "Params", axis: str) -> dict[str, dict[str, str]]:
    """For whoever reads the report: of what the run list names, what its entry has to say."""
    blocks = {name: getattr(cfg, axis).get(name) for name in getattr(cfg.run, axis)}
    return {name: {"notes": block.notes} for name, block in blocks.items() if block and block.notes}


def _shaping(block: Any) -> dict[str, Any]:
    return {key: value for key, value in values_of(block).items() if key not in SAID}
