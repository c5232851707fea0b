"""TRL's trainer of a `stage`, made to train on rows that are tokenised and against a reference that is known."""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import trl
from accelerate.utils import clear_environment
from datasets import Dataset
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl.trainer.dpo_trainer import DataCollatorForPreference

from tradeoffs.finetune.job import Job
from tradeoffs.finetune.progress import Progress
from tradeoffs.finetune.validation import LOSS
from tradeoffs.methods.trl_stages import STAGES, Stage
from tradeoffs.plumbing.errors import UserError

REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")  # TRL's names of what a row knows of the reference


def stage_of(job: Job) -> Stage:
    """What is known of the job's `stage`."""
    return STAGES[str(job.method.stage)]


def make(job: Job, model: Any, shared: TrainingArguments, at_once: int, pad_id: int) -> Any:
    """TRL's trainer for the stage, a PairTrainer too; `at_once` pairs go through the model at a time, and as many parts
    make a step.

    `shared` is what every trainer is told. Raises UserError with what TRL says where it refuses the configuration.
    """
    stage = stage_of(job)
    made = type(stage.trainer, (PairTrainer, getattr(trl, stage.trainer)), {"measures": stage.measures})
    known = {field.name: getattr(shared, field.name) for field in dataclasses.fields(TrainingArguments) if field.init}
    known["per_device_train_batch_size"] = at_once
    known["gradient_accumulation_steps"] = shared.per_device_train_batch_size // at_once
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter.data for parameter in trained]
    with _refusal_said(job):
        args = getattr(trl, stage.config)(**known, **(job.method.preference.config if job.method.preference else {}))
        args._n_gpu = min(args.n_gpu, 1)
        trainer = made(
            model,
            _Known(model.config),
            args,
            data_collator=DataCollatorForPreference(pad_token_id=pad_id),
            train_dataset=Dataset.from_list([{"prompt_ids": [0]}]),  # the true one comes when the reference is known
            # TRL asks for a tokenizer, to tokenise what is tokenised here.
            processing_class=PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"_": 0})), pad_token="_"),
        )
    for parameter, data in zip(trained, weights, strict=True):
        parameter.data = data  # on a quantised base TRL rounds them to bfloat16
    trainer.precompute_ref_logps = True
    return trainer


def rehearse(job: Job, model: Any) -> None:
    """One loss on a model of a few weights, so that what TRL refuses of the job's method is said before anything is
    trained and not in the middle. Leaves the random numbers as they were.

    `model` is the one that will be tuned; it is only looked at. Raises UserError.
    """
    if isinstance(model, PeftModel) and isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise UserError(
            f"params.yaml: methods.{job.name}.config: puts an adapter on the output layer, which TRL's "
            f"{stage_of(job).trainer} would not train; leave that layer out of target_modules"
        )
    few: dict[str, Any] = {
        "vocab_size": 8,
        "hidden_size": 4,
        "intermediate_size": 4,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    pair = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3], **dict.fromkeys(REFERENCE, 0.0)}
    # Without the variables of a launcher: the group of processes that this began on the CPU would stay for the GPUs.
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), clear_environment():
        tiny = LlamaForCausalLM(LlamaConfig(**few))
        shared = TrainingArguments(folder, report_to="none", use_cpu=True, per_device_train_batch_size=1)
        trainer = make(job, tiny, shared, at_once=1, pad_id=0)
        with _refusal_said(job):
            trainer.compute_loss(tiny, trainer.data_collator([pair]))


class PairTrainer(Trainer):
    """Mixed into a trainer of TRL: its rows are tokenised and its reference known, and it keeps what a step measured.

    Stops at the first loss that is not finite.
    """

    measures: dict[str, str]  # what is kept beside the loss: TRL's own name of it
    beta: float
    _name: str
    _metrics: dict[str, dict[str, list[float]]]
    _total_train_tokens: int

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.first_step = 0
        self.losses: list[Tensor] = []
        self.accuracies: list[Tensor] = []  # share of the chosen answers' tokens that are the most likely ones
        self.measured: dict[str, list[float]] = {key: [] for key in self.measures}
        self._parts: list[Tensor] = []

    @property
    def tokens(self) -> int:
        """Real ones that went through the model, no padding; of all processes."""
        return self._total_train_tokens

    def go_on_after(self, first_step: int, steps: int) -> None:
        """Trains `steps` steps of which `first_step` were made before, by a process that was killed."""
        self.first_step, self.args.max_steps = first_step, steps - first_step

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)  # of a part of the step's pairs, divided by the number of parts
        self._parts.append(loss)
        if self.accelerator.sync_gradients:  # the last part of a step
            whole, parts = self.accelerator.gather(torch.stack(self._parts).sum()).mean(), len(self._parts)
            self._parts = []
            self.losses.append(whole)
            self.accuracies.append(torch.tensor(self._mean("mean_token_accuracy", parts)))
            for key, theirs in self.measures.items():
                self.measured[key].append(self._mean(theirs, parts))
            if not torch.isfinite(whole):
                step, steps = (self.first_step + n for n in (self.state.global_step + 1, self.state.max_steps))
                raise UserError(
                    f"the loss of {self._name} is {whole.item()} at step {step} of {steps}; lower preference.train.lr "
                    f"(here {self.args.learning_rate:g}) or raise preference.train.warmup_steps"
                )
        return loss

    def loss_on(self, pairs: Sequence[dict[str, Any]], parts: Sequence[Sequence[int]]) -> dict[str, float]:
        """`valid_loss`, and `valid_` of what the stage measures: means over pairs that are not trained on.

        They go through the model in `parts`, by their places; by every process, each of which gets the same.
        """
        model: Any = self.model
        model.eval()
        sizes, losses = [len(part) for part in parts], []
        with torch.no_grad(), self.compute_loss_context_manager():
            for part in parts:
                batch = self._prepare_inputs(self.data_collator([pairs[index] for index in part]))
                loss: Any = self.compute_loss(model, batch)
                losses.append(loss.item())
        found = {LOSS: losses} | {f"valid_{key}": self._metrics["eval"][name] for key, name in self.measures.items()}
        means = {
            key: sum(v * n for v, n in zip(values, sizes, strict=True)) / sum(sizes) for key, values in found.items()
        }
        self._metrics["eval"].clear()  # or TRL would add them to what it logs
        return means

    def _mean(self, key: str, parts: int) -> float:
        """Over the parts of the last step, which are equally large."""
        return sum(self._metrics["train"][key][-parts:]) / parts

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        """No stage talks to the network."""


class PairProgress(Progress):
    """The same curve, with what the stage measures in its points; `token_accuracy` is that of the chosen answers."""

    def __init__(self, trainer: PairTrainer, *args: Any):
        super().__init__(trainer, *args)
        earlier: dict[str, Any] = args[-1]
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
            means = {key: sum(values[since:]) / len(values[since:]) for key, values in self._measured.items()}
            self.points[-1] |= means

    def _collect(self) -> None:
        new = len(self.losses) - self._first_step
        for key, values in self.trainer.measured.items():
            self._measured[key] += values[new:]
        super()._collect()


class _Known(torch.nn.Module):
    """Stands where TRL wants a reference model, which it then does not make; it is never asked."""

    def __init__(self, config: Any):
        super().__init__()
        self.config = config

    def forward(self) -> None: ...


@contextmanager
def _refusal_said(job: Job) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"params.yaml: methods.{job.name}.preference.config: {' '.join(str(error).split())}") from error
