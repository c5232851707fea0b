"""A methods block of params.yaml as a PEFT adapter on a model: any PEFT type, checked before anything is loaded."""

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, prepare_model_for_kbit_training
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.pytorch_utils import Conv1D

from tradeoffs.methods import peft_facts
from tradeoffs.params import Method, Train
from tradeoffs.plumbing.errors import UserError, near

CONV1D = "GPT-2's own kind of linear layer (Conv1D)"
# Found by trying the ready methods with PEFT 0.21.
ON_CONV1D = ("LORA", "ADALORA", "FOURIERFT", "GRALORA", "HIRA", "IA3", "RANDLORA", "VBLORA", "VERA", "WAVEFT")
INITIAL = "initial_adapter"  # attribute of a model that begins with a part of its base: the adapter before training


def configuration(name: str, method: Method, steps: int) -> PeftConfig:
    """PEFT's configuration for `methods.{name}`. Raises UserError for what PEFT, or the type, cannot do.

    AdaLoRA's `total_step` is the number of training steps, and its `tinit` and `tfinal` may be shares of it (0.1).
    """
    where = f"methods.{name}"
    if problems := list(peft_facts.problems(where, method)):
        raise UserError("\n  ".join(["params.yaml:", *problems]))
    config_class = {kind.value: known for kind, known in PEFT_TYPE_TO_CONFIG_MAPPING.items()}[str(method.peft)]
    values: dict[str, Any] = dict(method.config or {})
    if method.peft == "ADALORA":
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
    layers = _layers(model)
    modules = [path for path, _ in model.named_modules()]
    for wanted in getattr(config, "modules_to_save", None) or ():  # PEFT passes over what is not there
        if not any(path.endswith(wanted) for path in modules):
            known = {path.rsplit(".", 1)[-1] for path in modules} - {""}
            raise UserError(
                f"params.yaml: methods.{name}.config.modules_to_save: no module {wanted}{near(wanted, sorted(known))}"
            )
    if getattr(config, peft_facts.INIT, None) == "olora" and any(isinstance(m, Conv1D) for m in model.modules()):
        raise UserError(
            f"params.yaml: methods.{name}.config: PEFT's olora mixes up rows and columns of {CONV1D}; pissa works there"
        )
    try:
        adapted = get_peft_model(model, config)
    except (ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise UserError(f"params.yaml: methods.{name}.config: {error}. {layers}") from error
    if not any(parameter.requires_grad and parameter.numel() for parameter in adapted.parameters()):
        raise UserError(f"params.yaml: methods.{name}.config: leaves nothing to train. {layers}")
    for parameter in adapted.parameters():
        if parameter.requires_grad:  # PEFT leaves copies of weights (norms, embeddings) in the base's bfloat16
            parameter.data = parameter.data.float()
    if peft_facts.changes_base(vars(config)):
        initial = {key: value.clone() for key, value in get_peft_model_state_dict(adapted).items()}
        object.__setattr__(adapted, INITIAL, initial)  # for save_adapter
    return adapted


def optimizer(model: PeftModel, method: Method, budget: Train) -> torch.optim.Optimizer | None:
    """LoRA+'s AdamW (Hayou et al. 2024): `loraplus_lr_ratio` times the learning rate for B. None: the trainer's own."""
    if method.loraplus_lr_ratio is None:
        return None
    made = create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=budget.lr,
        loraplus_lr_ratio=method.loraplus_lr_ratio,
        loraplus_weight_decay=budget.weight_decay,
        fused=True,
    )
    made.param_groups = [group for group in made.param_groups if group["params"]]  # most models lack some
    return made


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Writes the adapter that goes onto the original base, as safetensors, and its configuration.

    PiSSA and OLoRA train on a base that lacks what they begin with: they become a LoRA of twice the rank, the trained
    matrices minus the initial ones.
    """
    with TemporaryDirectory() as scratch, warnings.catch_warnings():
        begun = getattr(model, INITIAL, None)
        if begun:
            initial = Path(scratch, "initial")
            initial.mkdir()
            save_file({key: value.contiguous() for key, value in begun.items()}, initial / "adapter_model.safetensors")
        # AdaLoRA may leave a matrix no rank at all; PEFT takes that for a save that lost something.
        warnings.filterwarnings("ignore", message=r".*LoRA tensor\(s\) have invalid shape")
        # The embeddings never change size here, so they are never part of an adapter that does not train them.
        model.save_pretrained(
            str(folder),
            save_embedding_layers=False,
            path_initial_model_for_weight_conversion=f"{scratch}/initial" if begun else None,
        )
    (folder / "README.md").unlink()  # an empty model card
    # PEFT writes its sets in an order that differs from process to process.
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key, value in vars(model.active_peft_config).items():
        if isinstance(value, set):
            config[key] = sorted(value)
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


class AdaLoraSchedule(TrainerCallback):
    """Lets AdaLoRA move its rank budget after every optimiser step; without it the ranks stay where they began."""

    def __init__(self, first_step: int = 0):
        self.first_step = first_step  # of a run that goes on after an earlier one

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        # Called after the step and before zero_grad: the importance of a rank is measured on its gradients. The
        # trainer counts the step only afterwards, and the last one must be total_step.
        model.base_model.update_and_allocate(self.first_step + state.global_step + 1)


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


def _layers(model: torch.nn.Module) -> str:
    """The names and sizes that a configuration can aim at, each once; of norms the names."""
    sizes, norms, conv1d = dict[str, None](), dict[str, None](), False
    for path, layer in model.named_modules():
        name = path.rsplit(".", 1)[-1]
        if isinstance(layer, torch.nn.Linear):
            sizes[f"{name} {layer.in_features}x{layer.out_features}"] = None
        elif isinstance(layer, Conv1D):
            sizes[f"{name} {layer.nx}x{layer.nf}"] = None
            conv1d = True
        elif "norm" in type(layer).__name__.lower():
            norms[name] = None
    found = f"Linear layers of this model (in x out): {', '.join(sizes)}; its norms: {', '.join(norms)}"
    return f"{found}. All but lm_head are {CONV1D}; types that take them: {', '.join(ON_CONV1D)}" if conv1d else found
