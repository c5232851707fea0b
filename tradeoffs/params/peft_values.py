"""What the fields of PEFT's configurations may hold: their types, from the installed PEFT's source, and bounds.

PEFT itself checks few of them, and what it does not check trains nothing (`lora_alpha: 0`), the wrong way round
(`lora_alpha: -16`), or ends in a traceback hours later.
"""

import ast
import typing
from collections.abc import Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from tradeoffs.methods import peft_facts
from tradeoffs.params.fields import Range
from tradeoffs.params.schema import Method

LARGEST = 2**20  # of a whole number: no layer is that wide
_WIDE = "no layer is that wide"
MOST_PARAMETERS = LARGEST**2
PATTERNS = ("rank_pattern", "alpha_pattern")
RANKS_OF_THEIR_OWN = ("ADALORA", "OSF")  # which ranks are left, and which part stays as it is
_SHARE = Range(0, 1)
_ABOVE_0 = Range(0, 10**6, above=True, why="far beyond what makes sense")
# By the ends of their names. What multiplies the change of the weights: at 0 nothing is trained.
FACTORS = ("alpha", "scaling", "delora_lambda", "d_initial", "init_scale", "_bound", "_std")
SHARES = ("_dropout", "beta1", "beta2", "asa_importance_beta", "asa_uncertainty_beta", "sparsity", "sparse_rate")
SEEDS = ("seed", "prng_key")
# 0 and below mean something to these alone, mostly that another field says it.
MAY_BE_0 = (
    *("r", "oft_block_size", "boft_block_size", "boft_block_num", "hybrid_r", "tinit", "tfinal", "depth"),
    *("init_warmup", "num_frozen_tokens"),
)
R_MAY_BE_0 = ("OFT", "GRALORA")
COUNTS = ("n_frequency", "theta_d_length")  # of parameters in all of a layer, or a model
FREE = ("decompose_factor", "layers_to_transform", "token_indices", "trainable_token_indices", "label_mask_value")


class _Names(dict[str, Any]):
    """What an annotation can name; a class of PEFT's own may hold anything."""

    def __missing__(self, name: str) -> Any:
        return Any


_KNOWN = {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union")}
_BUILTINS = {kind.__name__: kind for kind in (int, float, str, bool, list, dict, tuple, set)}


def problems(where: str, method: Method) -> Iterator[str]:
    """`where.key: what is wrong` of the values in a config whose keys all are PEFT's."""
    kind = str(method.peft)
    for key, value in (method.config or {}).items():
        if kind == "ADALORA" and key in ("tinit", "tfinal") and isinstance(value, float) and 0 < value < 1:
            continue  # a share of the steps
        if not _fits(value, wanted := _type(kind, key)):
            yield f"{where}.{key}: must be {_said(wanted)}, is {value!r}"
        else:
            yield from _bounds(kind, where, key, value)
            yield from _pattern_problems(kind, f"{where}.{key}", key, value)
    yield from _layer_problems(where, method.config or {})


def adalora_problems(where: str, method: Method, steps: int) -> Iterator[str]:
    """The ranks are moved between tinit and the last tfinal steps, so there must be some left between."""
    config = method.config or {}
    first, last = (int(value * steps) if 0 < value < 1 else value for value in _phases(config))
    if first >= steps - last:
        yield (
            f"{where}: tinit ({first}) and tfinal ({last}) leave none of the {steps} steps in which AdaLoRA moves its "
            "ranks; lower them, or raise train.steps"
        )


def _layer_problems(where: str, config: dict[str, Any]) -> Iterator[str]:
    """Which layers: by their numbers, where modules are listed by name."""
    for key in ("layers_to_transform", "layers_pattern"):
        if config.get(key) is not None and isinstance(config.get("target_modules"), str):
            yield f"{where}.{key}: means something only where target_modules is a list of names; leave it out"
    layers = config.get("layers_to_transform")
    numbers = layers if isinstance(layers, list) else [layers]
    if not all(number is None or (type(number) is int and 0 <= number < LARGEST) for number in numbers):
        yield f"{where}.layers_to_transform: must be numbers of layers, from 0; is {layers!r}"


def _pattern_problems(kind: str, where: str, key: str, value: Any) -> Iterator[str]:
    """Of the ranks and factors of single modules, by their names: each is as `r`, or `lora_alpha`, of all."""
    if not isinstance(value, dict) or key not in PATTERNS or (key == "rank_pattern" and kind in RANKS_OF_THEIR_OWN):
        return
    for name, one in value.items():
        place = f"{where}.{name}"
        whole = key == "rank_pattern"
        if not _fits(one, int if whole else float):
            yield f"{place}: must be {_said(int if whole else float)}, is {one!r}"
        elif one not in (wanted := Range(1, LARGEST, why=_WIDE) if whole else _ABOVE_0):
            yield f"{place}: must be {wanted.asked_of(one)}, is {one}"


def _phases(config: dict[str, Any]) -> tuple[float, float]:
    return config.get("tinit") or 0, config.get("tfinal") or 0


def _is_whole(kind: Any) -> bool:
    """Whether a field holds whole numbers, and no others."""
    return kind is int or (
        get_origin(kind) in (Union, UnionType) and int in get_args(kind) and float not in get_args(kind)
    )


def _bounds(kind: str, where: str, key: str, value: Any) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or key in FREE:
        return
    wanted: Range | None = None
    if key.endswith(SEEDS):
        wanted = Range(0, 2**32 - 1)
    elif key.endswith(FACTORS):
        wanted = _ABOVE_0
    elif key.endswith(SHARES):
        wanted = _SHARE
    elif isinstance(value, int) and _is_whole(_type(kind, key)):
        zero = key in MAY_BE_0 and (key != "r" or kind in R_MAY_BE_0)
        wanted = Range(0 if zero else 1, MOST_PARAMETERS if key in COUNTS else LARGEST, why=_WIDE)
    if wanted and (value not in wanted or (key.endswith("_dropout") and value == 1)):
        what = "at least 0 and below 1" if key.endswith("_dropout") else wanted.asked_of(value)
        yield f"{where}.{key}: must be {what}, is {value}"


@cache
def _type(kind: str, key: str) -> Any:
    """The type of a field; Any where PEFT's source says it by names of its own."""
    node = peft_facts.annotations(kind)[key].annotation
    source = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)
    # Types alone, and from the installed package's own source.
    return eval(source, {"__builtins__": {}}, _Names(_KNOWN | _BUILTINS))


def _fits(value: Any, kind: Any) -> bool:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in args)
    if origin is Literal:
        return isinstance(value, str) and (value in args or any("[" in str(one) for one in args))
    if origin is dict or kind is dict:
        return isinstance(value, dict) and all(_fits(one, args[1]) for one in value.values() if args)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(args) and all(map(_fits, value, args))
    if origin in (list, set) or kind in (list, set):
        return isinstance(value, list) and all(_fits(one, args[0]) for one in value if args)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, NoneType if kind is None else kind) and (kind is bool or not isinstance(value, bool))


def _said(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "empty"}
    if get_origin(kind) in (Union, UnionType):
        # Sorted: `typing` keeps one of the two orders that it has seen.
        return " or ".join(sorted({_said(one) for one in get_args(kind) if one is not NoneType}))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) in (list, set, tuple):
        return f"a list ({', '.join(_said(one) for one in get_args(kind))} each)"
    return names.get(kind, "a block" if get_origin(kind) is dict or kind is dict else str(kind))
