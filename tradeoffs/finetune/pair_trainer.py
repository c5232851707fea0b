"""TRL's trainer on pairs of answers, made to train on rows that are tokenised and against a reference that is known."""

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
import trl
from accelerate.utils import clear_environment
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, TrainingArguments
from trl.trainer.dpo_trainer import DataCollatorForPreference

from tradeoffs.finetune import trl_trainer
from tradeoffs.finetune.job import Job
from tradeoffs.finetune.trl_trainer import StageTrainer, refusal_said, stage_of
from tradeoffs.finetune.validation import LOSS

REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")  # TRL's names of what a row knows of the reference


def make(job: Job, model: Any, shared: TrainingArguments, at_once: int, pad_id: int) -> Any:
    """TRL's trainer for the stage, a PairTrainer too; `at_once` pairs go through the model at a time, and as many parts
    make a step.

    `shared` is what every trainer is told. Raises UserError with what TRL says where it refuses the configuration.
    """
    stage = stage_of(job)
    facts = {"measures": stage.measures, "block": stage.block}
    made = type(stage.trainer, (PairTrainer, getattr(trl, stage.trainer)), facts)
    with refusal_said(job), trl_trainer.weights_kept(model):
        trainer = made(
            model,
            _Known(model.config),
            trl_trainer.configuration(job, shared, at_once),
            data_collator=DataCollatorForPreference(pad_token_id=pad_id),
            train_dataset=Dataset.from_list([{"prompt_ids": [0]}]),  # the true one comes when the reference is known
            # TRL asks for a tokenizer, to tokenise what is tokenised here.
            processing_class=PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"_": 0})), pad_token="_"),
        )
    trainer.precompute_ref_logps = True
    return trainer


def rehearse(job: Job, model: Any) -> None:
    """One loss on a model of a few weights, so that what TRL refuses of the job's method is said before anything is
    trained and not in the middle. Leaves the random numbers as they were.

    `model` is the one that will be tuned; it is only looked at. Raises UserError.
    """
    trl_trainer.require_trained_output(job, model)
    pair = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3], **dict.fromkeys(REFERENCE, 0.0)}
    # Without the variables of a launcher: the group of processes that this began on the CPU would stay for the GPUs.
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), clear_environment():
        tiny = trl_trainer.few_weights()
        shared = TrainingArguments(folder, report_to="none", use_cpu=True, per_device_train_batch_size=1)
        trainer = make(job, tiny, shared, at_once=1, pad_id=0)
        with refusal_said(job):
            trainer.compute_loss(tiny, trainer.data_collator([pair]))


class PairTrainer(StageTrainer):
    """Mixed into a trainer of TRL: its rows are tokenised, and its reference is known."""

    _total_train_tokens: int

    @property
    def tokens(self) -> int:
        """Real ones that went through the model, no padding; of all processes."""
        return self._total_train_tokens

    def keep(self, parts: int) -> None:
        super().keep(parts)
        self.accuracies.append(torch.tensor(self.mean("mean_token_accuracy", parts)))  # of the chosen answers

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

    def _prepare_dataset(self, dataset: Any, *args: Any) -> Any:
        return dataset


class _Known(torch.nn.Module):
    """Stands where TRL wants a reference model, which it then does not make; it is never asked."""

    def __init__(self, config: Any):
        super().__init__()
        self.config = config

    def forward(self) -> None: ...
