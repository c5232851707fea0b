"""Whether the weights of a checkpoint are those of the model that its config describes.

transformers fills what is missing with random numbers, anew at every load, leaves out what it did not expect, and only
prints a report. What it ties or ignores by its own rules is no fault, and its rules alone decide: which names it takes
for which, and what it makes of several tensors.
"""

import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tradeoffs.common.limits import limited
from tradeoffs.models import checkpoints
from tradeoffs.plumbing.errors import UserError

FLOATS = ("F64", "F32", "F16", "BF16")
MASKS = (".bias", ".masked_bias")  # of attention, which versions of old saved among the weights
SHOWN = 3  # names of tensors in a message
AT_ONCE = 1 << 24  # numbers that are looked at together
Headers = dict[str, tuple[str, list[int]]]

# Its table of names is said here in one sentence.
logging.getLogger("transformers.modeling_utils").addFilter(lambda record: "LOAD REPORT" not in record.getMessage())


def check(folder: Path, where: str) -> None:
    """Raises UserError unless the checkpoint holds each tensor of its model, of the right shape, and no other, and
    unless every number of them is finite."""
    checkpoints.check_architecture(folder, where)
    _check_generation(folder, where)
    check_names(folder, checkpoints.headers(folder), where)
    _check_finite(folder, where)


def check_names(folder: Path, headers: Headers, where: str) -> None:
    """Raises UserError unless tensors of these names, types and shapes are the model that `folder`'s config describes.

    That is found as from_pretrained finds it, with a model and tensors that hold no numbers.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    _check_layers(config, headers, where)
    kind: Any = AutoModelForCausalLM._model_mapping[type(config)]
    if kind.config_class is config.sub_configs.get("text_config"):  # of a model that sees too, the part that reads
        config = config.get_text_config()
    types = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    held = {
        name: torch.empty(shape, dtype=types.get(dtype, torch.int8), device="meta")
        for name, (dtype, shape) in headers.items()
    }
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        what = f"{where}: to build what config.json describes"
        model, info = limited(what, lambda: _loaded(kind, config, held))
    except UserError:
        raise
    except Exception as error:  # whatever the class of this model raises for values that it cannot be built with
        said = checkpoints.first_line(error)
        raise UserError(f"{where}: no model can be built of its config.json and weights: {said}") from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    require_all(info, headers, where)
    _check_types(model, headers, where)


def require_all(info: dict[str, Any], headers: Headers, where: str) -> None:
    """Raises UserError if transformers missed a tensor, did not expect one, or expected another shape of it.

    `info` is what from_pretrained says of a load, `headers` what the files hold.
    """
    unexpected = {name for name in info["unexpected_keys"] if not _is_mask(name, headers)}
    problems = [
        _named("lacks", info["missing_keys"], "which transformers would fill with random numbers"),
        _named("has", unexpected, "for which the model has no place"),
        _named("has", _shapes(info["mismatched_keys"]), ""),
    ]
    if found := "; ".join(problem for problem in problems if problem):
        raise UserError(
            f"{where}: the weights are not those of the model in config.json: it {found}. Take config.json and all "
            "weights from one place, as save_pretrained wrote them"
        )


def _named(verb: str, names: Iterable[str], why: str) -> str:
    known = sorted(names)
    if not known:
        return ""
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return f"{verb} {', '.join(known[:SHOWN])}{more}{', ' if why else ''}{why}"


def _shapes(mismatched: Iterable[tuple[str, Any, Any]]) -> list[str]:
    return [f"{name} of {list(there)} instead of {list(asked)}" for name, there, asked in mismatched]


def _loaded(kind: Any, config: Any, held: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return kind.from_pretrained(
        None,
        config=config,
        state_dict=held,
        dtype=config.dtype,
        device_map={"": "meta"},
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # or it raises without saying which
    )


def _check_layers(config: Any, headers: Headers, where: str) -> None:
    """Before they are built: a layer has a tensor at least."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if isinstance(layers, int) and layers > len(headers):
        raise UserError(
            f"{where}: config.json asks for {layers} layers, and the weights hold {len(headers)} tensors; take "
            "config.json and all weights from one place"
        )


def _check_types(model: Any, headers: Headers, where: str) -> None:
    """Raises UserError for a parameter that is held as anything but a floating-point number, and for one that is held
    twice, with and without the prefix that transformers adds or takes away."""
    prefix = f"{model.base_model_prefix}."
    parameters = {name for name, _ in model.named_parameters()}
    for name, (dtype, _) in headers.items():
        if dtype not in FLOATS and parameters & {name, prefix + name, name.removeprefix(prefix)}:
            raise UserError(
                f"{where}: {name} holds numbers of type {dtype}, not one of {', '.join(FLOATS)}; take the weights as "
                "they were before they were quantised"
            )
        if prefix + name in headers:
            raise UserError(
                f"{where}: the weights hold both {name} and {prefix}{name}, which are one tensor of the model; save "
                "the model again with save_pretrained"
            )


def _is_mask(key: str, headers: Headers) -> bool:
    """Whether a name is of a causal mask (1, 1, length, length), or of the number in its place, as GPT-2's and
    GPT-Neo's checkpoints have them, in which no model keeps its weights."""
    for name, (_, shape) in headers.items():
        if (key.endswith(name) or name.endswith(key)) and name.endswith(MASKS):
            return math.prod(shape) == 1 or (len(shape) == 4 and shape[:2] == [1, 1] and shape[2] == shape[3])
    return False


def _check_generation(folder: Path, where: str) -> None:
    """transformers reads it with the weights, and `tokenize` for what ends an answer."""
    from transformers import GenerationConfig

    if not (folder / "generation_config.json").is_file():
        return
    end = checkpoints.read_object(folder / "generation_config.json", where).get("eos_token_id")
    if not all(type(token) is int for token in (end if isinstance(end, list) else [end] if end is not None else [])):
        raise UserError(f"{where}: generation_config.json: eos_token_id is {end!r}; expected a token id, or a list")
    try:
        GenerationConfig.from_pretrained(folder)
    except Exception as error:  # it checks its values in many ways
        said = checkpoints.first_line(error)
        raise UserError(f"{where}: generation_config.json cannot be read: {said}; take it away or mend it") from error


def _check_finite(folder: Path, where: str) -> None:
    import torch
    from safetensors import safe_open

    for path in checkpoints.weight_files(folder):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                numbers = weights.get_tensor(name)
                if not numbers.is_floating_point() or name.endswith(MASKS[1]):
                    continue
                if not all(torch.isfinite(part).all() for part in numbers.flatten().split(AT_ONCE)):
                    raise UserError(
                        f"{where}: {name} in {path.name} holds numbers that are not finite (NaN or infinity); take "
                        "weights from before the training that broke them"
                    )
