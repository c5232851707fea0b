"""A methods block of params.yaml as a PEFT adapter on a model: any PEFT type, checked before anything is loaded."""

import dataclasses
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from transformers import PreTrainedModel, TrainerCallback

from tradeoffs.errors import UserError, near
from tradeoffs.params import Method


def configuration(name: str, method: Method, steps: int) -> PeftConfig:
    """PEFT's configuration for `methods.{name}`. Raises UserError for a type or field that PEFT does not have.

    AdaLoRA's `total_step` is the number of training steps, and its `tinit` and `tfinal` may be shares of it (0.1).
    """
    where = f"methods.{name}"
    types = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if method.peft not in types:
        raise UserError(f"params.yaml: {where}.peft: unknown type {method.peft!r}{near(method.peft, types)}")
    config_class = types[method.peft]
    values: dict[str, Any] = dict(method.config or {})
    fields = {field.name for field in dataclasses.fields(config_class)}
    unknown = [f"{where}.config.{key}: unknown key{near(key, fields)}" for key in values if key not in fields]
    if unknown:
        raise UserError("\n  ".join([f"params.yaml: {config_class.__name__} of PEFT does not have", *unknown]))
    if method.peft == "ADALORA":
        if "total_step" in values:
            raise UserError(f"params.yaml: {where}.config.total_step: is always train.steps; leave it out")
        values |= {key: int(values[key] * steps) for key in ("tinit", "tfinal") if 0 < values.get(key, 1) < 1}
        values["total_step"] = steps
    try:
        return config_class(task_type="CAUSAL_LM", **values)
    except (ValueError, TypeError) as error:
        raise UserError(f"params.yaml: {where}.config: {error}") from error


def add_adapter(model: PreTrainedModel, config: PeftConfig, name: str) -> PeftModel:
    """`model` with a fresh float32 adapter, the only part that trains.

    Raises UserError, with the layers the model has, when the configuration does not fit it: no such target module, a
    VB-LoRA `vector_length` that does not divide a layer's size, nothing left to train.
    """
    if getattr(model, "quantization_method", None):
        # No gradient checkpointing: it trades time for memory, and what is trained here is small.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    layers = _linear_layers(model)
    try:
        adapted = get_peft_model(model, config)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"params.yaml: methods.{name}.config: {error}. {layers}") from error
    if not any(parameter.requires_grad for parameter in adapted.parameters()):
        raise UserError(f"params.yaml: methods.{name}.config: leaves nothing to train. {layers}")
    return adapted


class AdaLoraSchedule(TrainerCallback):
    """Lets AdaLoRA move its rank budget after every optimiser step; without it the ranks stay where they began."""

    def on_optimizer_step(self, args, state, control, model, **kwargs):
        # Called after the step and before zero_grad: the importance of a rank is measured on its gradients. The
        # trainer counts the step only afterwards, and the last one must be total_step.
        model.base_model.update_and_allocate(state.global_step + 1)


def adalora_ranks(model: PeftModel) -> dict[str, int]:
    """The rank budget (`target_r` times matrices) and the ranks that are left. Raises UserError if they differ."""
    config = model.active_peft_config
    matrices = sum(".lora_E." in name for name, _ in model.named_parameters())
    budget = config.target_r * matrices
    kept = sum(sum(pattern) for pattern in (config.rank_pattern or {}).values())
    alive = sum(int((weights != 0).sum()) for name, weights in model.named_parameters() if ".lora_E." in name)
    if not kept == alive == budget:
        raise UserError(
            f"AdaLoRA ended with {kept} ranks chosen and {alive} in use where target_r {config.target_r} times "
            f"{matrices} matrices makes {budget}; give it more steps between tinit ({config.tinit}) and "
            f"total_step - tfinal ({config.total_step - config.tfinal})"
        )
    return {"adalora_rank_budget": budget, "adalora_rank_final": alive}


def _linear_layers(model: torch.nn.Module) -> str:
    """The names and sizes that a configuration can aim at, each once."""
    sizes = {
        f"{path.rsplit('.', 1)[-1]} {layer.in_features}x{layer.out_features}": None
        for path, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
    return f"Linear layers of this model (in x out): {', '.join(sizes)}"
