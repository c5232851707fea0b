"""What a params.yaml that was accepted must be, by rules that know nothing of the code that accepted it."""

import re
import shlex
import warnings
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import yaml

from benchmarks.assets import ROOT
from tradeoffs.params import Params
from tradeoffs.plumbing.errors import UserError

NAME = r"[A-Za-z0-9_]{1,60}"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# By place: least and most of a number, `!` before a whole one; words; a type. `?` at the end of a place: it may be
# missing or empty. `*` is any name.
TABLE: dict[str, Any] = {
    **dict.fromkeys(("run.models[]", "run.datasets[]", "run.methods[]"), str),
    "run.precisions[]": "bf16 int8 nf4",
    "run.quants[]": str,
    **dict.fromkeys(("run.seeds[]", "seed"), "!0 4294967295"),
    "launch.train": str,
    "launch.gpus": "!1 1024",
    "launch.report_to[]": "dvclive wandb tensorboard mlflow",
    **dict.fromkeys(("tokenize.max_length", "evaluate.max_new_tokens"), "!1 16777216"),
    "tokenize.window": "!2 16777216",
    "merge.onto": "trained_base original_base",
    **{f"evaluate.splits.{key}": "!1 1000000000" for key in ("test", "seen")},
    **dict.fromkeys(("evaluate.splits.general", "evaluate.copying"), "!0 1000000000"),
    "evaluate.batch_tokens": "auto !1 16777216",
    "evaluate.kld_top_k": "!1 1048576",
    "evaluate.kld_tail_samples": "!2 1048576",
    "evaluate.reference_dtype": "float32 bfloat16 float16",
    "evaluate.mmlu.shots": "!0 1000",
    "evaluate.mmlu.questions": "!1 1000000000",
    "evaluate.cost.rounds": "!2 1000",
    **{f"evaluate.cost.{key}": "!1 1000000000" for key in ("latency_prompts", "scored_sequences")},
    **{f"evaluate.cost.{key}": "!1 16777216" for key in ("prefill_tokens", "decode_tokens")},
    "evaluate.cost.batch_sizes[]": "!2 64",
    "evaluate.cost.repetitions": "!1 1000",
    "evaluate.embedding": str,
    "evaluate.bootstrap": "!20 1000000",
    "decide.metric": str,
    "decide.cost": "size_mb decode_tokens_per_second model_memory_mb",
    "decide.margins.*": ">0 1000000",
    "decide.guards.*": "base best",
    "templates.*?": str,
    "models.*.prompt": "own chatml plain alpaca",  # none of the user's own: the real params.yaml has no template
    **{f"models.*.generate.{key}": "!1 1048576" for key in ("hidden_size", "intermediate_size", "heads", "kv_heads")},
    "models.*.generate.layers": "!1 1000",
    "models.*.generate.vocabulary": "!300 1048576",
    "models.*.generate.sentences": "!1 1000000000",
    **{f"models.*.generate.{key}": "!1 16777216" for key in ("context", "batch_tokens")},
    "models.*.generate.lr": ">0 1000000",
    **{f"models.*.{key}?": str for key in ("path", "hub", "revision", "licence", "general.column")},
    "models.*.general.path": str,
    "models.*.gated?": bool,
    "datasets.*.kind": "instruction chat preference text",
    **dict.fromkeys(("datasets.*.near_duplicate", "datasets.*.test_share?"), ">0 1"),
    **{f"datasets.*.{key}": "!1 1000000000" for key in ("seen", "valid", "rows?", "max_characters?")},
    **{f"datasets.*.generate.{key}": "!1 1000000000" for key in ("questions", "topics", "topic_questions")},
    **{f"datasets.*.{key}?": str for key in ("path", "test_path", "hub", "config", "revision", "licence")},
    "datasets.*.splits.train": str,
    **{f"datasets.*.{key}?": str for key in ("splits.test", "answer_pattern", "prompts[]", "columns.*")},
    **{f"datasets.*.mmlu.{key}?": str for key in ("path", "hub", "revision", "subjects[]")},
    **dict.fromkeys(("methods.*.full?", "methods.*.double_quant?"), bool),
    **dict.fromkeys(("methods.*.peft?", "methods.*.stage?"), str),
    "methods.*.load?": "none int8 nf4 fp4",
    "methods.*.compute_dtype?": "auto bfloat16 float16 float32",
    "methods.*.merge?": "trained_base original_base",
    "methods.*.loraplus_lr_ratio?": "1 1000000",
}
BUDGET = {
    "steps": "!1 100000000",
    "batch_size": "!1 1000000",
    "lr": ">0 1000000",
    "schedule": "linear cosine cosine_with_restarts polynomial constant constant_with_warmup inverse_sqrt",
    "warmup_steps": "!0 1000000000",
    **dict.fromkeys(("weight_decay", "max_grad_norm"), "0 1000000"),
    "batch_tokens": "auto !1 16777216",
    **dict.fromkeys(("gradient_checkpointing", "compile"), bool),
    "attention": "auto sdpa eager flash_attention_2",
    **dict.fromkeys(("log_every", "save_every"), "!1 1000000000"),
    **dict.fromkeys(("valid_every", "patience"), "!0 1000000000"),
    "keep": "last best",
}
TABLE |= {f"train.{key}": kind for key, kind in BUDGET.items()}
for _where in ("train", "preference.train"):
    TABLE |= {f"methods.*.{_where}.{key}?": kind for key, kind in BUDGET.items()}
LIBRARIES_OWN = re.compile(rf"methods\.{NAME}\.(preference\.)?config(\..*|\[.*)?")
EMPTY = re.compile(
    rf"methods\.{NAME}(\.(preference\.)?(config|train))?|evaluate\.cost\.batch_sizes|run\.(precisions|quants)"
    rf"|launch\.report_to|datasets\.{NAME}\.(prompts|mmlu\.subjects|columns)|decide\.guards|templates"
)
PATTERNS = {
    re.compile(re.escape(place.rstrip("?")).replace(r"\*", NAME).replace(r"\[\]", r"\[\d+\]")): place for place in TABLE
}


def wrongs(path: Path, found: Params) -> Iterator[str]:
    """What is wrong with a file that was accepted as `found`."""
    from dvc.utils.serialize import load_yaml

    raw = load_yaml(str(path))
    yield from _unlike(raw, found)
    yield from _off_the_table(raw)
    yield from _names(raw)
    yield from _resolved(path, raw)
    yield from _trained(raw, found)
    yield from _made_here(raw)


def _unlike(raw: Any, found: Any, where: str = "") -> Iterator[str]:
    """What the stages would get is another value than DVC reads: `found` holds the same as `raw`, but for what is
    None where nothing stands, and whole numbers where it asks for any."""
    if hasattr(found, "__dataclass_fields__"):
        values = dict(vars(found))
        if where.startswith("methods.") and isinstance(raw, dict) and raw.get("load") == "none":
            values["load"] = "none"
        raw = {} if raw is None else raw
        for key in {*values, *raw}:
            yield from _unlike(raw.get(key), values.get(key, "nothing"), f"{where}.{key}".lstrip("."))
    elif isinstance(found, dict) and isinstance(raw or {}, Mapping):
        for key in {*found, *(raw or {})}:
            yield from _unlike((raw or {}).get(key), found.get(key, "nothing"), f"{where}.{key}")
    elif isinstance(found, list) and isinstance(raw, list) and len(found) == len(raw):
        for index, (one, other) in enumerate(zip(raw, found, strict=True)):
            yield from _unlike(one, other, f"{where}[{index}]")
    elif raw != found or (type(raw) is not type(found) and not (type(raw) is int and type(found) is float)):
        yield f"{where}: DVC reads {raw!r}, the stages {found!r}"[:300]


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            yield from _leaves(entry, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list) and value:
        for index, entry in enumerate(value):
            yield from _leaves(entry, f"{where}[{index}]")
    else:
        yield where, value


def _off_the_table(raw: Any) -> Iterator[str]:
    there = set()
    for where, value in _leaves(raw):
        if LIBRARIES_OWN.fullmatch(where) or (value in (None, {}, []) and EMPTY.fullmatch(where)):
            continue
        place = next((place for pattern, place in PATTERNS.items() if pattern.fullmatch(where)), None)
        if place is None:
            if value is not None:  # left empty, as a block that may be missing
                yield f"{where}: nothing may stand here, and {value!r} does"[:300]
            continue
        there.add(where)
        if value is None and not _optional(place):
            yield f"{where}: is empty"
        elif value is not None and not _fits(TABLE[place], value):
            yield f"{where}: {value!r} is none of {TABLE[place]}"[:300]
    for place in TABLE:
        if "*" not in place and "[]" not in place and not place.endswith("?") and place not in there:
            yield f"{place}: is missing"


def _optional(place: str) -> bool:
    return place.endswith("?")


def _fits(kind: Any, value: Any) -> bool:
    if isinstance(kind, type):
        return type(value) is kind and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", str(value))
    if isinstance(value, str):
        return value in kind.split() and not value[0].isdigit()
    least, most = kind.split()[-2:]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not re.fullmatch(r"[!>]*[\d.]+", least):
        return False
    if least.startswith("!") and not isinstance(value, int):
        return False
    low = float(least.lstrip("!>"))
    return (value > low if least.startswith(">") else value >= low) and value <= float(most)


def _names(raw: Any) -> Iterator[str]:
    for axis in ("models", "datasets", "methods"):
        for name in raw["run"][axis]:
            if name not in raw[axis]:
                yield f"run.{axis}: {name!r} has no block"
        for name in raw[axis]:
            if not re.fullmatch(NAME, name):
                yield f"{axis}: {name!r} is no name"
    for axis, names in raw["run"].items():
        if len(set(names)) < len(names):
            yield f"run.{axis}: one stands twice"
    if not raw["launch"]["train"].split() or len(raw["launch"]["train"].splitlines()) > 1:
        yield "launch.train: starts nothing"


def _resolved(path: Path, raw: Any) -> Iterator[str]:
    """DVC's own resolver gives each step the words meant and no others, and outputs in the folder of its stage."""
    from dvc.fs import LocalFileSystem
    from dvc.parsing import DataResolver

    spec = yaml.load((ROOT / "dvc.yaml").read_text(encoding="utf-8"), Loader=LOADER)
    repo: Any = SimpleNamespace(fs=LocalFileSystem(), config={})
    made = DataResolver(repo, str(path.parent), {"stages": spec["stages"]}).resolve()["stages"]
    count = 0
    for stage, definition in spec["stages"].items():
        axes = {axis: raw["run"][of[2:-1].removeprefix("run.")] for axis, of in definition.get("matrix", {}).items()}
        for values in product(*axes.values()):
            count += 1
            item = dict(zip(axes, values, strict=True))
            step = made["@".join([stage, *["-".join(map(str, values))] * bool(values)])]
            start = shlex.split(raw["launch"]["train"] if stage == "finetune" else "python -m")
            words = [
                *start,
                f"stages.{stage}",
                *(word for axis, value in item.items() for word in (f"--{axis}", str(value))),
            ]
            if shlex.split(step["cmd"]) != words:
                yield f"{stage}: the command is {step['cmd']!r}"[:300]
            for template, out in zip(definition.get("outs", []), step.get("outs", []), strict=True):
                if isinstance(out, str) and not _inside(out, template):
                    yield f"{stage}: writes {out!r}"[:300]
    if count != len(made):
        yield f"{len(made)} steps of {count}"


def _inside(out: str, template: str) -> bool:
    """Whether it is the template with a plain name in each place of one."""
    fixed = re.split(r"\$\{[^}]*\}", template)
    return bool(re.fullmatch(NAME.join(map(re.escape, fixed)), out))


def _trained(raw: Any, found: Params) -> Iterator[str]:
    """Budgets in which the learning rate is reached, and configurations that PEFT, TRL and transformers take."""
    from transformers import TrainingArguments

    from tradeoffs.finetune import adapters

    for name in raw["run"]["methods"]:
        block = raw["methods"][name] or {}
        budget = raw["train"] | (block.get("train") or {})
        budgets = [budget, budget | ((block.get("preference") or {}).get("train") or {})]
        for one in budgets:
            if one["warmup_steps"] > one["steps"]:
                yield f"methods.{name}: warms up for longer than it trains"
            with TemporaryDirectory() as folder:
                TrainingArguments(
                    folder, max_steps=one["steps"], learning_rate=one["lr"], lr_scheduler_type=one["schedule"],
                    warmup_steps=one["warmup_steps"], weight_decay=one["weight_decay"],
                    max_grad_norm=one["max_grad_norm"], per_device_train_batch_size=one["batch_size"],
                    seed=raw["run"]["seeds"][0], report_to="none", use_cpu=True,
                )  # fmt: skip
        if block.get("peft"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    config = adapters.configuration(name, found.methods[name], budget["steps"])
            except UserError:  # by PEFT, of fields among each other: said in words before a model is loaded
                continue
            for key, value in (block.get("config") or {}).items():
                for one in value.values() if isinstance(value, dict) else [value]:
                    if re.search("alpha|scaling", key) and isinstance(one, (int, float)) and not one > 0:
                        yield f"methods.{name}.config.{key}: trains nothing"
                    if key == "rank_pattern" and block["peft"] == "LORA" and not (type(one) is int and one > 0):
                        yield f"methods.{name}.config.{key}: no rank"
                if key.endswith("dropout") and not 0 <= value < 1:
                    yield f"methods.{name}.config.{key}: no probability"
            assert config


def _made_here(raw: Any) -> Iterator[str]:
    """Llama's shapes."""
    for name, block in raw["models"].items():
        made = block.get("generate")
        if not made:
            continue
        wide, rest = divmod(made["hidden_size"], made["heads"])
        if rest or wide % 2 or made["heads"] % made["kv_heads"]:
            yield f"models.{name}.generate: no Llama has such heads"
