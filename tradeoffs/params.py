"""params.yaml, read strictly: the schema as frozen dataclasses, every problem reported at once, no defaults.

A stage names what it uses in READS and gets just that:

    READS = ("train", "methods.{method}", "seed")
    cfg = params.load(READS, method="lora")      # cfg.train, cfg.method, cfg.seed

The whole file is checked each time, so a typo anywhere stops the first stage and not the sixth hour.
A field of type `X | None` may be left out; all others must be there.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from tradeoffs import peft_facts, trl_stages
from tradeoffs.errors import UserError, near
from tradeoffs.formats import PRECISIONS, QUANTS
from tradeoffs.live import LOGGERS
from tradeoffs.trl_stages import STAGES

PATH = Path("params.yaml")
NAME = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both inclusive; `above` excludes the lower one."""

    low: float
    high: float = float("inf")
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return low if self.high == float("inf") else f"{low} and at most {self.high:g}"


Count = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
PositiveFloat = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Prompt = Literal["own", "chatml", "plain", "alpaca"]
Load = Literal["none", "int8", "nf4", "fp4"]
# Of transformers, those that need nothing but the number of steps and of warm-up steps.
Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
]
MergeOnto = Literal["trained_base", "original_base"]


@dataclass(frozen=True)
class Run:
    models: list[str]
    datasets: list[str]
    methods: list[str]
    precisions: list[Literal[tuple(PRECISIONS)]]  # type: ignore[valid-type]
    quants: list[Literal[tuple(QUANTS)]]  # type: ignore[valid-type]


@dataclass(frozen=True)
class Launch:
    train: str
    report_to: list[Literal[tuple(LOGGERS)]]  # type: ignore[valid-type]


@dataclass(frozen=True)
class Tokenize:
    max_length: Positive
    window: Annotated[int, Range(2)]


@dataclass(frozen=True)
class Train:
    steps: Positive
    batch_size: Positive
    lr: PositiveFloat
    schedule: Schedule
    warmup_steps: Count
    weight_decay: NonNegative
    max_grad_norm: NonNegative
    batch_tokens: Positive | Literal["auto"]
    gradient_checkpointing: bool
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"]
    compile: bool
    seed: Count
    log_every: Positive
    save_every: Positive


@dataclass(frozen=True)
class Merge:
    onto: MergeOnto


@dataclass(frozen=True)
class Splits:
    test: Positive
    seen: Positive
    general: Count


@dataclass(frozen=True)
class Mmlu:
    shots: Count
    questions: Positive


@dataclass(frozen=True)
class Cost:
    latency_prompts: Positive
    prefill_tokens: Positive
    decode_tokens: Positive
    batch_sizes: list[Annotated[int, Range(2, 64)]]
    repetitions: Positive


@dataclass(frozen=True)
class Evaluate:
    splits: Splits
    prompts: list[str]
    max_new_tokens: Positive
    batch_tokens: Positive | Literal["auto"]
    kld_top_k: Positive
    kld_tail_samples: Annotated[int, Range(2)]
    reference_dtype: Literal["float32", "bfloat16", "float16"]
    mmlu: Mmlu
    cost: Cost
    embedding: str
    bootstrap: Annotated[int, Range(20)]


@dataclass(frozen=True)
class GeneratedModel:
    hidden_size: Positive
    intermediate_size: Positive
    layers: Positive
    heads: Positive
    kv_heads: Positive
    context: Positive
    vocabulary: Annotated[int, Range(300)]
    sentences: Positive
    batch_tokens: Positive
    lr: PositiveFloat


@dataclass(frozen=True)
class GeneralText:
    path: str
    column: str | None = None


@dataclass(frozen=True)
class Model:
    prompt: Prompt
    generate: GeneratedModel | None = None
    path: str | None = None
    hub: str | None = None
    revision: str | None = None
    licence: str | None = None
    gated: bool | None = None
    general: GeneralText | None = None


@dataclass(frozen=True)
class GeneratedDataset:
    questions: Positive
    topics: Positive
    topic_questions: Positive


@dataclass(frozen=True)
class MmluSource:
    path: str | None = None
    hub: str | None = None
    revision: str | None = None
    subjects: list[str] | None = None


@dataclass(frozen=True)
class Columns:
    instruction: str | None = None
    input: str | None = None
    answer: str | None = None
    text: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    messages: str | None = None


@dataclass(frozen=True)
class HubSplits:
    train: str
    test: str | None = None


@dataclass(frozen=True)
class Dataset:
    kind: Literal["instruction", "chat", "preference", "text"]
    near_duplicate: Annotated[float, Range(0, 1, above=True)]
    seen: Positive
    valid: Positive
    test_share: Annotated[float, Range(0, 1, above=True)] | None = None
    generate: GeneratedDataset | None = None
    path: str | None = None
    test_path: str | None = None
    hub: str | None = None
    config: str | None = None
    revision: str | None = None
    splits: HubSplits | None = None
    licence: str | None = None
    rows: Positive | None = None
    max_characters: Positive | None = None
    columns: Columns | None = None
    mmlu: MmluSource | None = None


@dataclass(frozen=True)
class Preference:
    config: dict[str, Any]
    train: dict[str, Any] | None = None


@dataclass(frozen=True)
class Method:
    full: bool | None = None
    peft: str | None = None
    config: dict[str, Any] | None = None
    load: Load | None = None
    double_quant: bool | None = None
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] | None = None
    loraplus_lr_ratio: Annotated[float, Range(1)] | None = None
    merge: MergeOnto | None = None
    train: dict[str, Any] | None = None
    stage: Literal[tuple(STAGES)] | None = None  # type: ignore[valid-type]
    preference: Preference | None = None

    def __post_init__(self) -> None:
        if self.load == "none":  # the same as no `load`
            object.__setattr__(self, "load", None)

    @property
    def trains(self) -> bool:
        return self.full is True or self.peft is not None

    def budget(self, shared: Train) -> Train:
        """The shared training section with this method's own values on top."""
        return replace(shared, **(self.train or {}))

    def preference_budget(self, shared: Train) -> Train:
        """The same for what follows supervised tuning: `budget` with the values of `preference.train` on top."""
        return replace(self.budget(shared), **((self.preference and self.preference.train) or {}))


@dataclass(frozen=True)
class Params:
    run: Run
    seed: Count
    launch: Launch
    tokenize: Tokenize
    train: Train
    merge: Merge
    evaluate: Evaluate
    models: dict[str, Model]
    datasets: dict[str, Dataset]
    methods: dict[str, Method]


class _Loader(yaml.SafeLoader):
    """SafeLoader that also reads `2e-05` as a number.

    YAML 1.1, which PyYAML follows, asks for a dot in a float; YAML 1.2, JSON and `dvc exp run -S train.lr=2e-5` do not.
    """


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load(reads: tuple[str, ...], **names: str) -> SimpleNamespace:
    """What a stage declared in READS, by the last part of each name: `train` -> .train, `models.{model}` -> .model.

    Raises UserError with every problem of the file, or if a name (`method="lora"`) has no block in its catalogue.
    """
    everything = load_all()
    found = {}
    for read in reads:
        value: Any = everything
        key = read.rsplit(".", 1)[-1].strip("{}")
        for part in read.split("."):
            if part.startswith("{"):
                catalogue, part = read.split(".")[0], names[part.strip("{}")]
                if part not in value:
                    raise UserError(f"{PATH}: {_no_block(part, catalogue, value)}")
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        found[key] = value
    return SimpleNamespace(**found)


def load_all(path: Path | None = None) -> Params:
    """The whole file. Raises UserError that lists every problem in it."""
    path = path or PATH
    if not path.is_file():
        raise UserError(f"{path}: not found in {Path.cwd()}; run from the folder that holds dvc.yaml")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}:" if mark else ""
        raise UserError(f"{path}:{place} not valid YAML: {getattr(error, 'problem', error)}") from error
    problems: list[str] = []
    params = _read(Params, raw, "", problems)
    problems += _cross_checks(params, problems) if params else []
    if problems:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        raise UserError("\n  ".join([f"{path}: {count}", *problems]))
    return params


def _read(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    """`value` as `kind`; what does not fit is added to `problems` as `where: what is wrong`."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        number = _read(args[0], value, where, problems)
        if isinstance(number, (int, float)) and number not in args[1]:
            problems.append(f"{where}: must be {args[1]}, is {number}")
        return number
    if origin in (UnionType, Union):
        if value is None and NoneType in args:
            return None
        kinds = [a for a in args if a is not NoneType]
        if len(kinds) == 1:
            return _read(kinds[0], value, where, problems)
        words = [word for a in kinds if get_origin(a) is Literal for word in get_args(a)]
        if value in words:
            return value
        if words and isinstance(value, str):
            problems.append(f"{where}: must be a whole number or {' or '.join(words)}, is {value!r}")
            return value
        return _read(kinds[0], value, where, problems)
    if origin is Literal:
        if value not in args:
            problems.append(f"{where}: unknown value {value!r}{near(value, args)}")
        return value
    if origin is list:
        if not isinstance(value, list):
            problems.append(f"{where}: must be a list, is {_describe(value)}")
            return []
        return [_read(args[0], entry, f"{where}[{index}]", problems) for index, entry in enumerate(value)]
    if origin is dict or is_dataclass(kind):
        if value is None and origin is dict:
            value = {}
        if not isinstance(value, dict):
            problems.append(f"{where or PATH}: must be a block of keys, is {_describe(value)}")
            return {}
        if origin is dict:
            return {k: _read(args[1], v, f"{where}.{k}", problems) for k, v in value.items()}
        return _read_block(kind, value, where, problems)
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        expected = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind]
        problems.append(f"{where}: must be {expected}, is {_describe(value)}")
    return value


def _read_block(kind: Any, value: dict, where: str, problems: list[str]) -> Any:
    hints = get_type_hints(kind, include_extras=True)
    prefix = f"{where}." if where else ""
    unknown = {key: near(key, hints) for key in value if key not in hints}
    problems += [f"{prefix}{key}: unknown key{hint}" for key, hint in unknown.items()]
    found = {}
    for name, hint in hints.items():
        if name in value:
            found[name] = _read(hint, value[name], prefix + name, problems)
        elif NoneType not in get_args(hint) and f" (did you mean {name}?)" not in unknown.values():
            problems.append(f"{prefix}{name}: missing")
    try:
        return kind(**found)
    except TypeError:  # a required field is missing: already among the problems
        return None


def _cross_checks(params: Params, problems: list[str]) -> list[str]:
    """What one field alone cannot tell, as `where: what is wrong`; of blocks that have no problem of their own."""

    def sound(where: str) -> bool:
        return not any(problem.startswith((f"{where}.", f"{where}:", f"{where}[")) for problem in problems)

    checks: list[str] = []
    for field in fields(Run):
        if params.run and sound(f"run.{field.name}"):
            catalogue = getattr(params, field.name, None)
            checks += _run_checks(field.name, getattr(params.run, field.name), catalogue)
    if params.launch and sound("launch.report_to"):
        checks += _twice("launch.report_to", params.launch.report_to)
    if params.evaluate and sound("evaluate.prompts"):
        checks += _twice("evaluate.prompts", [prompt.strip() for prompt in params.evaluate.prompts])
        checks += ["evaluate.prompts: one is empty" for prompt in params.evaluate.prompts if not prompt.strip()]
    if params.evaluate and sound("evaluate.cost.batch_sizes"):
        checks += _twice("evaluate.cost.batch_sizes", params.evaluate.cost.batch_sizes)
    for axis in ("models", "datasets", "methods"):
        for name, entry in (getattr(params, axis) or {}).items():
            where = f"{axis}.{name}"
            if not NAME.fullmatch(str(name)):
                checks.append(
                    f"{where}: a name holds letters, digits and _ only ('-' separates the parts of a variant)"
                )
            if entry and sound(where):
                checks += CHECKS[axis](where, entry)
    if params.run and all(sound(f"run.{axis}") for axis in ("datasets", "methods")):
        checks += _pair_checks(params)
    return checks


def _pair_checks(params: Params) -> Iterator[str]:
    """A method that learns from pairs needs a data set that has them."""
    for name in params.run.methods:
        method = (params.methods or {}).get(name)
        if method is None or method.stage is None:
            continue
        stage = STAGES[method.stage]
        for other in params.run.datasets:
            dataset = (params.datasets or {}).get(other)
            if dataset and dataset.kind != stage.kind:
                yield (
                    f"run.methods: {name!r} (stage: {method.stage}) learns from a data set of kind {stage.kind}, and "
                    f"{other!r} in run.datasets is of kind {dataset.kind}; take one of the two out"
                )


def _run_checks(axis: str, wanted: list[str], catalogue: dict | None) -> Iterator[str]:
    for name in wanted:
        if catalogue is not None and name not in catalogue:
            yield f"run.{axis}: {_no_block(name, axis, catalogue)}"
    if not wanted and axis in ("models", "datasets", "methods"):
        yield f"run.{axis}: must name at least one entry"
    yield from _twice(f"run.{axis}", wanted)


def _twice(where: str, entries: list) -> Iterator[str]:
    for entry in sorted({e for e in entries if entries.count(e) > 1}):
        yield f"{where}: {entry!r} stands twice"


def _source_checks(where: str, entry: Model | Dataset) -> Iterator[str]:
    sources = [s for s in ("generate", "path", "hub") if getattr(entry, s) is not None]
    if len(sources) != 1:
        yield f"{where}: needs exactly one of generate, path, hub (has {' and '.join(sources) or 'none'})"
    if entry.hub is not None and entry.revision is None:
        yield f"{where}.revision: missing; hub needs it (a commit of 40 hex digits, or a branch or tag, as main)"
    if entry.hub is None and entry.revision is not None:
        yield f"{where}.revision: means nothing without hub; leave it out"


def _model_checks(where: str, model: Model) -> Iterator[str]:
    yield from _source_checks(where, model)
    if model.gated is not None and model.hub is None:
        yield f"{where}.gated: means nothing without hub; leave it out"
    made = model.generate
    if made and made.hidden_size % made.heads:
        yield f"{where}.generate.hidden_size: {made.hidden_size} is no multiple of heads ({made.heads})"
    if made and made.heads % made.kv_heads:
        yield f"{where}.generate.heads: {made.heads} is no multiple of kv_heads ({made.kv_heads})"
    if model.general and not model.general.column and not model.general.path.endswith(".txt"):
        yield f"{where}.general.column: missing; says which column of {model.general.path} holds the text"


# By kind: the columns that a data set must map, and all that mean something to it.
NEEDED_COLUMNS = {
    "instruction": ("instruction", "answer"),
    "chat": ("messages",),
    "preference": ("instruction", "chosen", "rejected"),
    "text": ("text",),
}
KNOWN_COLUMNS = {
    kind: (*needed, "input") if "instruction" in needed else needed for kind, needed in NEEDED_COLUMNS.items()
}
TEMPLATE_FIELD = re.compile(r"\{([^{}]+)\}")  # of a column that is put together: "{title}: {abstract}"


def _dataset_checks(where: str, dataset: Dataset) -> Iterator[str]:
    yield from _source_checks(where, dataset)
    yield from _split_checks(where, dataset)
    if (dataset.path or dataset.hub) and not dataset.columns and not (dataset.path or "").endswith(".txt"):
        yield f"{where}.columns: missing; says which column holds what, e.g. {{instruction: question, answer: answer}}"
    yield from _column_checks(where, dataset)
    if dataset.mmlu and (dataset.mmlu.path is None) == (dataset.mmlu.hub is None):
        yield f"{where}.mmlu: needs exactly one of path (a folder of MMLU's own files) and hub (e.g. cais/mmlu)"
    if dataset.mmlu and dataset.mmlu.revision is not None and dataset.mmlu.hub is None:
        yield f"{where}.mmlu.revision: means nothing without hub"
    if dataset.kind != "text" and dataset.path and dataset.path.endswith(".txt"):
        yield f"{where}.kind: a .txt file has no columns; it can only be of kind text"
    if dataset.kind != "instruction" and dataset.generate:
        yield f"{where}.kind: what is generated are questions and answers; it can only be of kind instruction"


def _split_checks(where: str, dataset: Dataset) -> Iterator[str]:
    """Where the test examples are from is said exactly once; keys of another source mean nothing."""
    if dataset.hub and dataset.splits is None:
        yield f"{where}.splits: missing; says which split of {dataset.hub} is trained on, e.g. {{train: train}}"
    for key in ("config", "splits"):
        if getattr(dataset, key) is not None and not dataset.hub:
            yield f"{where}.{key}: means nothing without hub; leave it out"
    if dataset.test_path and not dataset.path:
        yield f"{where}.test_path: means nothing without path; leave it out"
    if dataset.generate:
        for key in ("rows", "max_characters"):
            if getattr(dataset, key) is not None:
                yield f"{where}.{key}: means nothing for what is generated; leave it out"
    splits = dataset.splits
    own = "test_path" if dataset.test_path else "splits.test" if splits and splits.test else None
    if dataset.test_share is None and own is None:
        other = "" if dataset.generate else f"; or give {'splits.test' if dataset.hub else 'test_path'}"
        yield f"{where}.test_share: missing; says which share of the rows is never trained on{other}"
    if dataset.test_share is not None and own:
        yield f"{where}.test_share: means nothing beside {own}, which holds the test examples; leave one of them out"
    if splits and splits.train == splits.test:
        yield f"{where}.splits: train and test are the same split, {splits.train!r}; give test_share instead of test"


def _column_checks(where: str, dataset: Dataset) -> Iterator[str]:
    columns = dataset.columns or Columns()
    known = KNOWN_COLUMNS[dataset.kind]
    for name in NEEDED_COLUMNS[dataset.kind] if dataset.columns else ():
        if getattr(columns, name) is None:
            yield f"{where}.columns.{name}: missing; kind {dataset.kind} needs it"
    for field in fields(Columns):
        value = getattr(columns, field.name)
        if value is None:
            continue
        if field.name not in known:
            yield f"{where}.columns.{field.name}: means nothing for kind {dataset.kind} (columns: {', '.join(known)})"
        elif set("{}") & set(TEMPLATE_FIELD.sub("", value)):
            yield f"{where}.columns.{field.name}: braces hold a column's name, as {{title}}; is {value!r}"
        elif field.name == "messages" and TEMPLATE_FIELD.search(value):
            yield f"{where}.columns.messages: must be one column, which holds the turns; is {value!r}"


def _method_checks(where: str, method: Method) -> Iterator[str]:
    if method.full and method.peft:
        yield f"{where}: has both full and peft; a method trains either all weights or an adapter"
    if method.full and method.load:
        yield f"{where}.load: full fine-tuning cannot train {method.load} weights; leave load out"
    if method.peft and method.config is None:
        yield f"{where}.config: missing; the fields of PEFT's configuration for {method.peft}"
    four_bit = method.load in ("nf4", "fp4")
    if four_bit and method.double_quant is None:
        yield f"{where}.double_quant: missing; {method.load} needs it (true: its scales are quantised too)"
    if method.double_quant is not None and not four_bit:
        yield f"{where}.double_quant: means something with load: nf4 or fp4 only; leave it out"
    if method.compute_dtype and not method.trains:
        yield f"{where}.compute_dtype: this method trains nothing; leave it out"
    if method.loraplus_lr_ratio and method.peft != "LORA":
        yield f"{where}.loraplus_lr_ratio: is the optimiser of LORA's two matrices (LoRA+); leave it out"
    if method.peft:
        yield from peft_facts.problems(where, method)
    if method.merge and not method.load:
        yield f"{where}.merge: means something only where load quantises the base; leave merge out"
    if not method.trains and (method.config or method.load or method.train):
        yield f"{where}: trains nothing (neither full nor peft), so config, load and train mean nothing here"
    if where == "methods.base" and method.trains:
        yield f"{where}: is the untouched model that all others are compared with; give this method another name"
    yield from _train_checks(f"{where}.train", method.train)
    yield from _stage_checks(where, method)


def _train_checks(where: str, values: dict[str, Any] | None) -> Iterator[str]:
    hints = get_type_hints(Train, include_extras=True)
    problems: list[str] = []
    for key, value in (values or {}).items():
        if key in hints:
            _read(hints[key], value, f"{where}.{key}", problems)
        else:
            problems.append(f"{where}.{key}: unknown key{near(key, hints)}")
    yield from problems


def _stage_checks(where: str, method: Method) -> Iterator[str]:
    if method.stage is None:
        if method.preference:
            yield f"{where}.preference: means something with `stage` only (e.g. stage: dpo); leave it out"
        return
    if not method.trains:
        yield f"{where}.stage: {method.stage} goes on with a tuned model; say how it is tuned (peft, or full: true)"
    if method.preference is None:
        yield f"{where}.preference: missing; holds config (of TRL's trainer) and train (its own budget)"
        return
    config = method.preference.config
    wrong = list(trl_stages.problems(f"{where}.preference.config", method.stage, config))
    kinds = {} if wrong else trl_stages.fields(STAGES[method.stage])
    for key, kind in kinds.items():
        if key in config:
            _read(kind, config[key], f"{where}.preference.config.{key}", wrong)
    yield from wrong
    yield from _train_checks(f"{where}.preference.train", method.preference.train)


CHECKS: dict[str, Callable[[str, Any], Iterator[str]]] = {
    "models": _model_checks,
    "datasets": _dataset_checks,
    "methods": _method_checks,
}


def _no_block(name: str, axis: str, catalogue: dict) -> str:
    return f"{name!r} has no block under {axis}{near(name, catalogue)}"


def _describe(value: Any) -> str:
    return (
        "empty"
        if value is None
        else f"{value!r}"
        if isinstance(value, (str, int, float))
        else f"a {type(value).__name__}"
    )
