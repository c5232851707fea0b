"""What may follow supervised tuning in a methods block (`stage`): one row for each trainer of TRL. And what a setting
of a method is chosen by, which the stage that a training ends with decides.

params.yaml is checked by it before any work, and importing TRL takes seconds: so its source is read, not run.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from tradeoffs.plumbing.errors import near

_REFERENCE = "the reference is the model after supervised tuning, always, and asked once beforehand"
_ROWS = "the stage tokenize has made the rows"
_MODEL = "the model is there already"
_SAMPLING = "answers are drawn by transformers in the trainer's own process, once for each step"
_SHOWN = "launch.report_to says who is told of a training"
_TUNED = "the reference is the model after supervised tuning, always"
_VLLM = (
    *("use_vllm", "vllm_mode", "vllm_model_impl", "vllm_enable_sleep_mode", "vllm_structured_outputs_regex"),
    *("vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port"),
    *("vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size"),
    *("vllm_importance_sampling_correction", "vllm_importance_sampling_mode", "vllm_importance_sampling_cap"),
    *("vllm_importance_sampling_clip_max", "vllm_importance_sampling_clip_min"),
)
_ADAPTIVE = ("use_adaptive_entropy", "entropy_coef_min", "entropy_coef_max", "entropy_coef_delta", "entropy_target")


@dataclass(frozen=True)
class Measure:
    """A number of a training's row of data/training, on rows that nothing trained on and no report is of."""

    name: str
    label: str
    better: Literal["lower", "higher"]


SUPERVISED = Measure("valid_loss", "valid loss", "lower")  # what tuning without a further stage is chosen by


@dataclass(frozen=True)
class Stage:
    """`trainer` and `config` are classes of TRL, the latter in trl/trainer/<source>.py."""

    trainer: str
    config: str
    source: str
    kind: str  # of dataset that it learns from
    block: str  # of a method, beside `stage`: what it learns by
    decided: dict[str, str]  # fields of `config` that are no choice here, and why
    measures: dict[str, str]  # what a point of the curve holds beside the loss: the trainer's own name of it
    chosen_by: Measure  # a setting: the loss of supervised tuning rises with what these stages are for


STAGES = {
    "dpo": Stage(
        trainer="DPOTrainer",
        config="DPOConfig",
        source="dpo_config",
        kind="preference",
        block="preference",
        decided={
            "learning_rate": "set preference.train.lr",
            **dict.fromkeys(("model_init_kwargs", "trust_remote_code"), _MODEL),
            **dict.fromkeys(("dataset_num_proc", "max_length", "truncation_mode", "padding_free"), _ROWS),
            **dict.fromkeys(("pad_to_multiple_of", "pad_token"), _ROWS),
            **dict.fromkeys(("precompute_ref_log_probs", "precompute_ref_batch_size"), _REFERENCE),
            **dict.fromkeys(("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"), _REFERENCE),
        },
        measures={"reward_accuracy": "rewards/accuracies", "reward_margin": "rewards/margins"},
        chosen_by=Measure("valid_reward_accuracy", "valid reward accuracy", "higher"),
    ),
    "grpo": Stage(
        trainer="GRPOTrainer",
        config="GRPOConfig",
        source="grpo_config",
        kind="instruction",
        block="reward",
        decided={
            "learning_rate": "set reward.train.lr",
            "reward_weights": "reward.functions has a weight for each",
            **dict.fromkeys(("model_init_kwargs", "trust_remote_code", "cast_lm_head_to_fp32"), _MODEL),
            **dict.fromkeys(("remove_unused_columns", "shuffle_dataset", "pad_to_multiple_of"), _ROWS),
            "chat_template_kwargs": _ROWS,
            **dict.fromkeys(("generation_batch_size", "steps_per_generation", "num_generations_eval"), _SAMPLING),
            **dict.fromkeys(("ds3_gather_for_generation", "generation_kwargs", "cache_implementation"), _SAMPLING),
            **dict.fromkeys(("use_transformers_continuous_batching", "use_transformers_paged"), _SAMPLING),
            **dict.fromkeys(("transformers_continuous_batching_config", "max_tool_calling_iterations"), _SAMPLING),
            **dict.fromkeys(_VLLM, _SAMPLING),
            **dict.fromkeys(("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"), _TUNED),
            **dict.fromkeys(("log_completions", "log_multimodal", "log_unique_prompts"), _SHOWN),
            **dict.fromkeys(("num_completions_to_print", "log_completions_hub_repo"), _SHOWN),
            **dict.fromkeys(_ADAPTIVE, "a run that goes on after a kill could not know its state"),
        },
        measures={
            "reward": "reward",
            "reward_spread": "reward_std",
            "kl": "kl",
            "entropy": "entropy",
            "answer_tokens": "completions/mean_length",
            "cut_off": "completions/clipped_ratio",
        },
        chosen_by=Measure("valid_reward", "valid reward", "higher"),
    ),
}


def chosen_by(stage: str | None) -> Measure:
    """What a setting of a method with this `stage`, or with none, is chosen by."""
    return STAGES[stage].chosen_by if stage else SUPERVISED


def fields(stage: Stage) -> dict[str, Any]:
    """The fields of the stage's configuration that a methods block may set, with their types."""
    own = _annotations("trl", f"trainer/{stage.source}.py", stage.config)
    # Of builtins alone, and from the installed package's own source.
    return {name: eval(kind, {"Any": Any}) for name, kind in own.items() if name not in stage.decided}


def problems(where: str, name: str, config: dict[str, Any]) -> Iterator[str]:
    """`where.key: what is wrong` for each key of `config` that cannot be set for `stage: name`."""
    stage = STAGES[name]
    if find_spec("trl") is None:
        yield f"{where}: stage {name} needs the package trl, which is not installed; run make again"
        return
    for key in config:
        if key in stage.decided:
            yield f"{where}.{key}: is no choice here ({stage.decided[key]}); leave it out"
        elif key in fields(stage):
            continue
        elif key in _annotations("transformers", "training_args.py", "TrainingArguments"):
            yield f"{where}.{key}: is decided by the pipeline; what can be chosen of training is in {stage.block}.train"
        else:
            yield f"{where}.{key}: {stage.config} of TRL has no such field{near(key, fields(stage))}"


@cache
def _annotations(package: str, path: str, name: str) -> dict[str, str]:
    """The annotated fields in the body of a class, as they are written in an installed package's source."""
    spec = find_spec(package)
    folder = spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else ""
    tree = ast.parse((Path(folder) / path).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return {
        node.target.id: ast.unparse(node.annotation)
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
