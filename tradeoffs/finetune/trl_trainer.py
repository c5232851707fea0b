"""What TRL's trainers of all stages are given and share: arguments, where a run goes on, what a step measured."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import trl
from accelerate.utils.memory import should_reduce_batch_size
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from tradeoffs.finetune import adapters
from tradeoffs.finetune.job import Job, Loaded
from tradeoffs.finetune.progress import Progress, Told, matrix_peak
from tradeoffs.finetune.training_state import SavedState
from tradeoffs.finetune.validation import Validation
from tradeoffs.methods.trl_stages import STAGES, Stage
from tradeoffs.params import Train
from tradeoffs.plumbing.errors import UserError
from tradeoffs.plumbing.live import Watch


def stage_of(job: Job) -> Stage:
    """What is known of the job's `stage`."""
    return STAGES[str(job.method.stage)]


def place(job: Job) -> str:
    """Where params.yaml says what the stage learns by."""
    return f"methods.{job.name}.{stage_of(job).block}"


def configuration(job: Job, shared: TrainingArguments, at_once: int, **values: Any) -> Any:
    """The stage's own arguments: `shared`, which every trainer is told, and what the method's block and `values` say.

    `at_once` rows go through the model at a time, and as many parts make a step.
    """
    known = {field.name: getattr(shared, field.name) for field in dataclasses.fields(TrainingArguments) if field.init}
    known["per_device_train_batch_size"] = at_once
    known["gradient_accumulation_steps"] = shared.per_device_train_batch_size // at_once
    further = job.method.further
    args = getattr(trl, stage_of(job).config)(**known | (further.config if further else {}) | values)
    args._n_gpu = min(args.n_gpu, 1)
    return args


@contextmanager
def refusal_said(job: Job) -> Iterator[None]:
    """Turns what TRL says of a configuration into one message."""
    try:
        yield
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"params.yaml: {place(job)}.config: {' '.join(str(error).split())}") from error


@contextmanager
def out_of_memory_said(job: Job, what: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        raise UserError(
            f"params.yaml: {place(job)}.train: out of memory with {what}; lower batch_tokens, or set "
            "gradient_checkpointing"
        ) from error


@contextmanager
def weights_kept(model: Any) -> Iterator[None]:
    """What is trained is afterwards as it was: on a quantised base TRL rounds it to bfloat16."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter.data for parameter in trained]
    yield
    for parameter, data in zip(trained, weights, strict=True):
        parameter.data = data


@contextmanager
def without_trainers(model: Any) -> Iterator[None]:
    """Within the block the model's forward is its own, and after it what it was before: trainers hang theirs on it.

    So is its padding token, which TRL writes into configurations that full weights are saved with.
    """
    modules = [model, model.get_base_model()] if isinstance(model, PeftModel) else [model]
    names = ("forward", "_original_forward", "_is_accelerate_prepared")  # the last: or the next trainer does nothing
    before = [{name: module.__dict__.pop(name) for name in names if name in module.__dict__} for module in modules]
    for module, found in zip(modules, before, strict=True):
        if forward := found.get("_original_forward", found.get("forward")):
            module.forward = forward
    configurations = [model.config.get_text_config(), model.generation_config]
    padding = [configuration.pad_token_id for configuration in configurations]
    try:
        yield
    finally:
        for module, found in zip(modules, before, strict=True):
            for name in names:
                module.__dict__.pop(name, None)
            module.__dict__.update(found)
        for configuration, pad in zip(configurations, padding, strict=True):
            configuration.pad_token_id = pad


def at_once(batch_size: int, fitting: int) -> int:
    """The most rows, of those that fit, into which a device's part of the batch can be cut evenly."""
    return max(size for size in range(1, batch_size + 1) if batch_size % size == 0 and size <= max(1, fitting))


def require_trained_output(job: Job, model: Any) -> None:
    """Raises UserError for an adapter on the output layer, which TRL passes over."""
    if isinstance(model, PeftModel) and isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise UserError(
            f"params.yaml: methods.{job.name}.config: puts an adapter on the output layer, which TRL's "
            f"{stage_of(job).trainer} would not train; leave that layer out of target_modules"
        )


def few_weights() -> LlamaForCausalLM:
    """A model to rehearse on."""
    few: dict[str, Any] = {
        "vocab_size": 8,
        "hidden_size": 4,
        "intermediate_size": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    return LlamaForCausalLM(LlamaConfig(**few))


class StageTrainer(Trainer):
    """Mixed into a trainer of TRL: a killed run goes on where it was, and what a step measured is kept.

    Stops at the first loss that is not finite.
    """

    measures: dict[str, str]  # what is kept beside the loss: TRL's own name of it
    block: str  # of a methods block: where its learning rate stands
    beta: float
    _name: str
    _metrics: dict[str, dict[str, list[float]]]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.first_step = 0
        self.losses: list[Tensor] = []
        self.accuracies: list[Tensor] = []  # share of tokens that are the most likely ones, where a stage has some
        self.measured: dict[str, list[float]] = {key: [] for key in self.measures}
        self._parts: list[Tensor] = []

    def go_on_after(self, first_step: int, steps: int) -> None:
        """Trains `steps` steps of which `first_step` were made before, by a process that was killed."""
        self.first_step, self.args.max_steps = first_step, steps - first_step

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)  # of a part of the step's rows, as its share of the whole
        self._parts.append(loss)
        if self.accelerator.sync_gradients:  # the last part of a step
            whole, parts = self.accelerator.gather(torch.stack(self._parts).sum()).mean(), len(self._parts)
            self._parts = []
            self.losses.append(whole)
            self.keep(parts)
            if not torch.isfinite(whole):
                step, steps = (self.first_step + n for n in (self.state.global_step + 1, self.state.max_steps))
                raise UserError(
                    f"the loss of {self._name} is {whole.item()} at step {step} of {steps}; lower "
                    f"{self.block}.train.lr (here {self.args.learning_rate:g}) or raise {self.block}.train.warmup_steps"
                )
        return loss

    def keep(self, parts: int) -> None:
        """What the last step, of so many `parts`, has measured."""
        for key, theirs in self.measures.items():
            self.measured[key].append(self.mean(theirs, parts))

    def mean(self, key: str, parts: int) -> float:
        """Over the parts of the last step, which are equally large."""
        return sum(self._metrics["train"][key][-parts:]) / parts

    def _send_telemetry(self) -> None:
        """No stage talks to the network."""


class StageProgress(Progress):
    """The same curve, with what the stage measures in its points."""

    def __init__(self, trainer: StageTrainer, budget: Train, loaded: Loaded, work: float, earlier: dict[str, Any]):
        peak = matrix_peak(trainer.args.device, loaded.dtype)
        super().__init__(trainer, budget.steps, budget.log_every, work, peak, earlier)
        self._measured = {key: list(earlier.get("measured", {}).get(key, [])) for key in trainer.measured}

    def state(self) -> dict[str, Any]:
        return super().state() | {"measured": self._measured}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        points, since = len(self.points), int(self.points[-1]["step"]) if self.points else 0
        super().on_log(args, state, control, logs, **kwargs)
        if len(self.points) > points:
            found = {key: values[since:] for key, values in self._measured.items() if values}
            self.points[-1] |= {key: sum(values) / len(values) for key, values in found.items()}

    def _collect(self) -> None:
        new = len(self.losses) - self._first_step
        for key, values in self.trainer.measured.items():
            self._measured[key] += values[new:]
        super()._collect()


def follow(
    trainer: Any,
    job: Job,
    budget: Train,
    progress: StageProgress,
    saved: SavedState,
    watch: Watch,
    measure: Callable[[], dict[str, float]],
) -> Validation:
    """What shows the steps, what judges them by `measure`, and what keeps them, is called at each."""
    saved.bind(trainer, progress)
    if job.method.peft == "ADALORA":
        # Its ranks are settled: beyond the last of its own steps the schedule only keeps them as they are.
        settled = trainer.model.active_peft_config.total_step
        trainer.add_callback(adapters.AdaLoraSchedule(settled + saved.first_step))
    validation = Validation(f"{job.training}, {job.method.stage}", progress, budget, saved.folder, measure)
    for callback in (progress, validation, Told(progress, watch, part=stage_of(job).block), saved):
        trainer.add_callback(callback)
    return validation
