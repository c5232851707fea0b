"""What one field of params.yaml alone cannot tell: names that have no block, keys that mean nothing together."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from tradeoffs.common.columns import FIELD
from tradeoffs.formats.names import AUTO
from tradeoffs.methods import peft_facts, trl_stages
from tradeoffs.methods.trl_stages import STAGES
from tradeoffs.params import asked_alone, deciding, layers, peft_values, prompts, tasks
from tradeoffs.params.reading import read
from tradeoffs.params.schema import (
    Columns,
    Dataset,
    Evaluate,
    Launch,
    Method,
    Model,
    Params,
    Reward,
    Run,
)
from tradeoffs.plumbing.errors import near
from tradeoffs.rewards import names as rewards

NAME = re.compile(r"[A-Za-z0-9_]+")
MOST_NAME = 60  # three of them and a format name a file, and file systems take 255 characters


def problems_across(params: Params, problems: Sequence[str]) -> Iterator[str]:
    """What one field alone cannot tell, as `where: what is wrong`; of what has no problem of its own among `problems`.

    Sections and blocks of `params` that do not fit are None.
    """

    def sound(where: str) -> bool:
        return not any(problem.startswith((f"{where}.", f"{where}:", f"{where}[")) for problem in problems)

    wrong = set[str]()  # blocks of the catalogues, by what is found here

    for field in fields(Run):
        if params.run and sound(f"run.{field.name}"):
            catalogue = getattr(params, field.name, None)
            yield from _run_checks(field.name, getattr(params.run, field.name), catalogue)
    if params.launch and sound("launch"):
        yield from _launch_checks(params.launch)
    if params.evaluate:
        yield from _evaluate_checks(params.evaluate, sound)
    if params.decide and sound("decide"):
        yield from deciding.decide_checks(params.decide, params.evaluate.tasks if params.evaluate else [])
    yield from prompts.template_checks(params.templates or {})
    yield from prompts.prompt_checks(params.models or {}, params.templates or {})
    for axis in ("models", "datasets", "methods"):
        for name, entry in (getattr(params, axis) or {}).items():
            where = f"{axis}.{name}"
            if not NAME.fullmatch(name):
                yield f"{where}: a name holds letters, digits and _ only ('-' separates the parts of a variant)"
            elif len(name) > MOST_NAME:
                yield f"{where}: a name of {len(name)} characters; it is part of names of files, so {MOST_NAME} at most"
            if entry and sound(where):
                found = list(CHECKS[axis](where, entry))
                wrong |= {where} if found else set()
                yield from found
    if params.run and all(sound(f"run.{axis}") for axis in ("datasets", "methods")):
        yield from asked_alone.run_checks(params, sound)
        yield from _pair_checks(params, sound)

    def whole(where: str) -> bool:
        return sound(where) and where not in wrong

    for problem in layers.of_models(params, whole):
        wrong.add(".".join(problem.split(".", 2)[:2]))
        yield problem
    if params.run and params.train and all(map(sound, ("train", "run.models", "run.datasets", "run.methods"))):
        # Of several cells each says the same.
        yield from dict.fromkeys(layers.of_cells(params, whole))


def _launch_checks(launch: Launch) -> Iterator[str]:
    """`train` begins a command line of the shell, as a recipe of a Makefile does: what it says is run."""
    if not launch.train.strip():
        yield "launch.train: is empty; says how the training script is started, e.g. python -m"
    if len(launch.train.splitlines()) > 1:
        yield "launch.train: must be one line, which the training script's name is put after"
    yield from _twice("launch.report_to", launch.report_to)


def _evaluate_checks(evaluate: Evaluate, sound: Callable[[str], bool]) -> Iterator[str]:
    if sound("evaluate.tasks"):
        yield from _twice("evaluate.tasks", evaluate.tasks)
        yield from tasks.task_checks(evaluate.tasks)
    if evaluate.cost and sound("evaluate.cost.batch_sizes"):
        yield from _twice("evaluate.cost.batch_sizes", evaluate.cost.batch_sizes)


def _pair_checks(params: Params, sound: Callable[[str], bool]) -> Iterator[str]:
    """A method with a stage needs a data set that has what it learns from."""
    for name in params.run.methods:
        method = (params.methods or {}).get(name)
        if not method or not method.stage or not sound(f"methods.{name}.stage"):
            continue
        stage = STAGES[method.stage]
        for other in params.run.datasets:
            dataset = (params.datasets or {}).get(other)
            if dataset and sound(f"datasets.{other}.kind") and dataset.kind not in (stage.kind, asked_alone.ALONE):
                yield (
                    f"run.methods: {name!r} (stage: {method.stage}) learns from a data set of kind {stage.kind}, and "
                    f"{other!r} in run.datasets is of kind {dataset.kind}; take one of the two out"
                )


def _run_checks(axis: str, wanted: Sequence[str], catalogue: Mapping[str, Any] | None) -> Iterator[str]:
    for name in wanted:
        if catalogue is not None and name not in catalogue:
            yield f"run.{axis}: {no_block(name, axis, catalogue)}"
    if not wanted and axis in ("models", "datasets", "methods", "seeds", "devices"):
        yield f"run.{axis}: must name at least one entry"
    if axis == "devices" and AUTO in wanted and len(wanted) > 1:
        others = " and ".join(repr(name) for name in wanted if name != AUTO)
        yield f"run.devices: {AUTO!r} stands alone, as on a machine it is one of the others; leave out it or {others}"
    yield from _twice(f"run.{axis}", wanted)


def _twice(where: str, entries: Sequence[Any]) -> Iterator[str]:
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
    if made and (made.hidden_size // made.heads) % 2:
        yield f"{where}.generate.heads: leaves each {made.hidden_size // made.heads} wide; rotary positions take pairs"
    if made and made.heads % made.kv_heads:
        yield f"{where}.generate.heads: {made.heads} is no multiple of kv_heads ({made.kv_heads})"
    yield from layers.train_problems(f"{where}.train", model.train)
    yield from layers.tokenize_problems(f"{where}.tokenize", model.tokenize)
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


def _dataset_checks(where: str, dataset: Dataset) -> Iterator[str]:
    if dataset.kind == asked_alone.ALONE:
        yield from asked_alone.entry_checks(where, dataset)
    else:
        yield from _example_checks(where, dataset)
    if dataset.mmlu and (dataset.mmlu.path is None) == (dataset.mmlu.hub is None):
        yield f"{where}.mmlu: needs exactly one of path (a folder of MMLU's own files) and hub (e.g. cais/mmlu)"
    if dataset.mmlu and dataset.mmlu.revision is not None and dataset.mmlu.hub is None:
        yield f"{where}.mmlu.revision: means nothing without hub"
    yield from _twice(f"{where}.mmlu.subjects", (dataset.mmlu and dataset.mmlu.subjects) or ())
    prompts = [prompt.strip() for prompt in dataset.prompts or ()]
    yield from _twice(f"{where}.prompts", prompts)
    yield from (f"{where}.prompts: one is empty" for prompt in prompts if not prompt)


def _example_checks(where: str, dataset: Dataset) -> Iterator[str]:
    """Where examples are from, and what is made of them."""
    yield from asked_alone.missing_checks(where, dataset)
    yield from _source_checks(where, dataset)
    yield from _split_checks(where, dataset)
    if (dataset.path or dataset.hub) and not dataset.columns and not (dataset.path or "").endswith(".txt"):
        yield f"{where}.columns: missing; says which column holds what, e.g. {{instruction: question, answer: answer}}"
    yield from _column_checks(where, dataset)
    yield from layers.train_problems(f"{where}.train", dataset.train)
    if dataset.kind != "text" and dataset.path and dataset.path.endswith(".txt"):
        yield f"{where}.kind: a .txt file has no columns; it can only be of kind text"
    if dataset.kind != "instruction" and dataset.generate:
        yield f"{where}.kind: what is generated are questions and answers; it can only be of kind instruction"
    if dataset.answer_pattern is not None:
        yield from _pattern_checks(f"{where}.answer_pattern", dataset)


def _pattern_checks(where: str, dataset: Dataset) -> Iterator[str]:
    """One group, which holds what exact match compares."""
    pattern = str(dataset.answer_pattern)
    if dataset.kind == "text":
        yield f"{where}: means nothing for kind text, where nothing is answered; leave it out"
        return
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        yield f"{where}: no regular expression: {error}; is {pattern!r}"
        return
    if groups != 1:
        yield (
            f"{where}: needs exactly one group, (...), which holds what exact match compares, and has {groups}; "
            f"(?:...) is a group that holds nothing; is {pattern!r}"
        )


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
        elif set("{}") & set(FIELD.sub("", value)):
            yield f"{where}.columns.{field.name}: braces hold a column's name, as {{title}}; is {value!r}"
        elif field.name == "messages" and FIELD.search(value):
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
        wrong = list(peft_facts.problems(where, method))
        yield from wrong or peft_values.problems(f"{where}.config", method)
    if method.merge and not method.load:
        yield f"{where}.merge: means something only where load quantises the base; leave merge out"
    if not method.trains and (method.config or method.load or method.train):
        yield f"{where}: trains nothing (neither full nor peft), so config, load and train mean nothing here"
    if where == "methods.base" and method.trains:
        yield f"{where}: is the untouched model that all others are compared with; give this method another name"
    yield from layers.train_problems(f"{where}.train", method.train)
    yield from _stage_checks(where, method)


def _stage_checks(where: str, method: Method) -> Iterator[str]:
    wanted = STAGES[method.stage].block if method.stage else None
    for name, stage in ((stage.block, name) for name, stage in STAGES.items()):
        if name != wanted and getattr(method, name):
            yield f"{where}.{name}: means something with `stage` only (e.g. stage: {stage}); leave it out"
    if method.stage is None or wanted is None:
        return
    if not method.trains:
        yield f"{where}.stage: {method.stage} goes on with a tuned model; say how it is tuned (peft, or full: true)"
    further = getattr(method, wanted)
    if further is None:
        functions = "functions, " if wanted == "reward" else ""
        yield f"{where}.{wanted}: missing; holds {functions}config (of TRL's trainer) and train (its own budget)"
        return
    where = f"{where}.{wanted}"
    wrong = list(trl_stages.problems(f"{where}.config", method.stage, further.config))
    kinds = {} if wrong else trl_stages.fields(STAGES[method.stage])
    for key, kind in kinds.items():
        if key in further.config:
            read(kind, further.config[key], f"{where}.config.{key}", wrong)
    yield from wrong
    yield from layers.train_problems(f"{where}.train", further.train)
    if method.reward:
        yield from _reward_checks(where, method.reward)


def _reward_checks(where: str, reward: Reward) -> Iterator[str]:
    if not reward.functions:
        yield f"{where}.functions: names no reward; there are {', '.join(rewards.NAMES)}, and files as rewards/own.py"
    for name in reward.functions:
        for problem in rewards.problems(name):
            yield f"{where}.functions.{name}: {problem}"
    if "max_completion_length" in reward.config and not reward.config["max_completion_length"]:
        yield f"{where}.config.max_completion_length: must be a number of tokens; an answer has to end somewhere"
    for key, meant in (("answer_pattern", "the data set's own is used"), ("code", "the files are read by themselves")):
        if getattr(reward, key) is not None:
            yield f"{where}.{key}: is filled in by the pipeline ({meant}); leave it out"


CHECKS: dict[str, Callable[[str, Any], Iterator[str]]] = {
    "models": _model_checks,
    "datasets": _dataset_checks,
    "methods": _method_checks,
}


def no_block(name: str, axis: str, catalogue: Mapping[str, Any]) -> str:
    """What is said of a name that its catalogue does not have."""
    return f"{name!r} has no block under {axis}{near(name, catalogue)}"
