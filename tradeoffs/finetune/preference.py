"""What follows supervised tuning where a methods block has a `stage`: TRL's trainer, on pairs of answers.

Direct preference optimisation (DPO, Rafailov et al. 2023, arXiv 2305.18290) makes the chosen answer of a pair more
likely than the rejected one, as measured against a reference. The reference is the model as supervised tuning left it.
Its log-probabilities are computed once, before the first step, and kept: so there is neither a second model nor a
second adapter in memory, and adapters of any PEFT type, quantised bases and full weights all go the same way.
"""

import dataclasses
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import trl
from accelerate.utils import clear_environment
from accelerate.utils.memory import should_reduce_batch_size
from datasets import Dataset
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from tqdm import tqdm
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    get_scheduler,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl.trainer.dpo_trainer import DataCollatorForPreference

from tradeoffs.common import files
from tradeoffs.common.batching import length_batches
from tradeoffs.finetune import adapters, batches
from tradeoffs.finetune.progress import Progress, Told, matrix_peak
from tradeoffs.finetune.training_state import SavedState, saving
from tradeoffs.methods.trl_stages import STAGES, Stage
from tradeoffs.params import Method, Train
from tradeoffs.plumbing.errors import UserError
from tradeoffs.plumbing.live import NOBODY, Watch

Pair = dict[str, Any]  # a row of pairs.parquet
REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")  # TRL's names of what a row knows of the reference


def tune(
    model: Any,
    tokens: Path,
    name: str,
    method: Method,
    budget: Train,
    shared: TrainingArguments,
    batch_tokens: int,
    work: float,
    watch: Watch = NOBODY,
) -> dict[str, Any]:
    """Goes on with the tuned `model`, in place, on the pairs of the folder `tokens`, as `methods.{name}` says.

    `budget` is the method's preference_budget, and `shared` what every trainer is told for it; its output_dir keeps
    what a killed run had done, from where the next one goes on and ends with the same weights. At most `batch_tokens`
    tokens, padding included, go through the model at once, each for `work` floating-point operations.

    Returns this stage's part of the row of data/training. `preference_loss` is TRL's loss, the mean over the last tenth
    of the steps; `preference_seconds` the loop alone; `reward_margins`, per test pair in the order of pairs.parquet,
    the reward of the chosen answer minus that of the rejected one; `valid_reward_accuracy` the share of validation
    pairs whose margin is above 0; `preference_curve` the points. An answer's reward is beta times the log-probability
    that it has gained over the reference, summed over its tokens, in nats. Raises UserError when there are no pairs,
    when TRL refuses the configuration, when memory does not suffice, and when the loss is no longer a number.
    """
    pairs = files.read_table(tokens / "pairs.parquet")
    train, valid, test = ([pair for pair in pairs if pair["split"] == part] for part in ("train", "valid", "test"))
    if not (train and valid and test):
        raise UserError(
            f"{tokens / 'pairs.parquet'}: has no pairs; stage {method.stage} learns from a data set of kind "
            f"{_stage(method).kind}"
        )
    order = batches.schedule([_length(pair) for pair in train], budget.batch_size, budget.steps, shared.seed)
    train = train[: max(order) + 1]  # a budget of less than one pass takes the first ones only
    longest = max(_length(pair) for pair in pairs)
    at_once = _at_once(shared.per_device_train_batch_size, batch_tokens // longest)
    scratch = Path(shared.output_dir)  # type: ignore[arg-type]

    with _without_trainers(model), _out_of_memory_said(name, at_once, longest):
        pad_id = files.read_json(tokens / "info.json")["pad_id"]
        trainer = _trainer(model, name, method, shared, at_once, pad_id)
        known = _reference(trainer, [*train, *valid, *test], batch_tokens, scratch / "reference.safetensors")
        trainer.optimizer = adapters.optimizer(model, method, budget)  # None: the Trainer's own
        optimizer = trainer.create_optimizer()
        trainer.lr_scheduler = get_scheduler(budget.schedule, optimizer, budget.warmup_steps, budget.steps)
        saved = SavedState(scratch, budget.save_every)
        earlier = saved.restore(model, optimizer, trainer.lr_scheduler)
        if saved.first_step:
            print(f"{name}: {method.stage} was cut short; going on after step {saved.first_step} of {budget.steps}")
        trainer.go_on_after(saved.first_step, budget.steps)
        rows = [
            pair | dict(zip(REFERENCE, found.tolist(), strict=True)) for pair, found in zip(train, known, strict=False)
        ]
        trainer.train_dataset = Dataset.from_list(rows).select(order[saved.first_step * budget.batch_size :])
        dtype = torch.bfloat16 if shared.bf16 else torch.float16 if shared.fp16 else torch.float32
        peak = matrix_peak(shared.device, dtype)
        progress = PairProgress(trainer, budget.steps, budget.log_every, work, peak, earlier)
        saved.bind(trainer, progress)
        if method.peft == "ADALORA":
            # Its ranks are settled: beyond the last of its own steps the schedule only keeps them as they are.
            trainer.add_callback(adapters.AdaLoraSchedule(model.active_peft_config.total_step + saved.first_step))
        trainer.add_callback(progress)
        trainer.add_callback(Told(progress, watch, part="preference"))
        trainer.add_callback(saved)
        trainer.train()
        gained = _log_probabilities(trainer, [*valid, *test], batch_tokens) - known[len(train) :]
        margins = (trainer.beta * (gained[:, 0] - gained[:, 1])).tolist()

    found = progress.state()
    last = found["losses"][-math.ceil(budget.steps / 10) :]
    return {
        "preference_loss": sum(last) / len(last),
        "preference_seconds": found["seconds"],
        "valid_reward_accuracy": sum(margin > 0 for margin in margins[: len(valid)]) / len(valid),
        "reward_margins": margins[len(valid) :],
        "preference_curve": found["points"],
    }


def rehearse(name: str, method: Method, model: Any) -> None:
    """One loss on a model of a few weights, so that what TRL refuses of `methods.{name}` is said before anything is
    trained and not in the middle. Leaves the random numbers as they were.

    `model` is the one that will be tuned; it is only looked at. Raises UserError.
    """
    if isinstance(model, PeftModel) and isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise UserError(
            f"params.yaml: methods.{name}.config: puts an adapter on the output layer, which TRL's "
            f"{_stage(method).trainer} would not train; leave that layer out of target_modules"
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
        trainer = _trainer(tiny, name, method, shared, at_once=1, pad_id=0)
        with _refusal_said(name):
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

    def on_log(self, args, state, control, logs=None, **kwargs):
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


def _trainer(model: Any, name: str, method: Method, shared: TrainingArguments, at_once: int, pad_id: int) -> Any:
    """TRL's trainer for the stage; `at_once` pairs go through the model at a time, and as many parts make a step."""
    stage = _stage(method)
    made = type(stage.trainer, (PairTrainer, getattr(trl, stage.trainer)), {"measures": stage.measures})
    known = {field.name: getattr(shared, field.name) for field in dataclasses.fields(TrainingArguments) if field.init}
    known["per_device_train_batch_size"] = at_once
    known["gradient_accumulation_steps"] = shared.per_device_train_batch_size // at_once
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [parameter.data for parameter in trained]
    with _refusal_said(name):
        args = getattr(trl, stage.config)(**known, **(method.preference.config if method.preference else {}))
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


def _reference(trainer: Any, pairs: Sequence[Pair], batch_tokens: int, path: Path) -> Tensor:
    """Log-probabilities by the model before the first step; from `path`, if an earlier run has left them there."""
    if not path.is_file():
        found = _log_probabilities(trainer, pairs, batch_tokens)
        if trainer.args.process_index > 0:
            return found
        with saving(path), files.new_file(path) as target:
            save_file({"reference": found}, target)
    return load_file(path)["reference"]


def _log_probabilities(trainer: Any, pairs: Sequence[Pair], batch_tokens: int) -> Tensor:
    """Of the chosen and of the rejected answer given the prompt, summed over tokens, in nats; float32 (pairs, 2)."""
    args, found = trainer.args, torch.zeros(len(pairs), 2)
    trainer.model.eval()
    parts = length_batches([_length(pair) for pair in pairs], batch_tokens)[args.process_index :: args.world_size]
    for part in tqdm(parts, desc="log-probabilities", leave=False, disable=args.process_index != 0):
        batch = trainer.data_collator([pairs[i] for i in part])
        sums = trainer.compute_ref_log_probs(
            trainer.model, {key: value.to(args.device) for key, value in batch.items()}
        )
        found[part] = torch.stack(sums, dim=1).float().cpu()
    if args.world_size > 1:
        found = found.to(args.device)
        torch.distributed.all_reduce(found)
    return found.cpu()


@contextmanager
def _without_trainers(model: Any) -> Iterator[None]:
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


@contextmanager
def _refusal_said(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UserError(f"params.yaml: methods.{name}.preference.config: {' '.join(str(error).split())}") from error


@contextmanager
def _out_of_memory_said(name: str, at_once: int, longest: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        raise UserError(
            f"params.yaml: methods.{name}.preference.train: out of memory with {at_once} pairs of up to {longest} "
            "tokens at a time; lower batch_tokens, or set gradient_checkpointing"
        ) from error


def _at_once(batch_size: int, fitting: int) -> int:
    """The most pairs, of those that fit, into which a device's part of the batch can be cut evenly."""
    return max(size for size in range(1, batch_size + 1) if batch_size % size == 0 and size <= max(1, fitting))


def _length(pair: Pair) -> int:
    """Of both answers with their prompt, padded to the longer one."""
    return 2 * (len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"])))


def _stage(method: Method) -> Stage:
    return STAGES[str(method.stage)]
