"""TRL's trainer by reward, made to ask prompts that are tokenised, with the tuned model as its reference."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import trl
from accelerate.utils import clear_environment
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast, TrainerControl, TrainerState, TrainingArguments

from tradeoffs.common.batching import MULTIPLE
from tradeoffs.finetune import trl_trainer
from tradeoffs.finetune.job import Job
from tradeoffs.finetune.trl_trainer import StageProgress, StageTrainer, refusal_said, stage_of
from tradeoffs.rewards.scoring import Scoring

ONCE_A_PART = ("kl", "entropy")  # of what a step measures; all else is measured once, when its answers are there


class Reading:
    """How generated ids become an answer: as evaluation reads them, up to the first of `stop_ids`."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: Sequence[int], pad_id: int):
        self.tokenizer, self.stop_ids, self.pad_id = tokenizer, list(stop_ids), pad_id

    def text(self, ids: Sequence[int]) -> str:
        end = next((at for at, token in enumerate(ids) if token in self.stop_ids), len(ids))
        return self.tokenizer.decode(list(ids[:end]), skip_special_tokens=True).strip()


def make(job: Job, model: Any, shared: TrainingArguments, at_once: int, scoring: Scoring, reading: Reading) -> Any:
    """TRL's trainer for the stage, a RewardTrainer too; `at_once` answers go through the model at a time, and as many
    parts make a step.

    Its rows hold `prompt` (token ids), `expected` and `question` (texts). Raises UserError with what TRL says where it
    refuses the configuration.
    """
    stage = stage_of(job)
    facts = {"measures": stage.measures, "block": stage.block, "reading": reading, "scoring": scoring}
    made = type(stage.trainer, (RewardTrainer, getattr(trl, stage.trainer)), facts)
    with refusal_said(job), trl_trainer.weights_kept(model):
        values = {"shuffle_dataset": False, "pad_to_multiple_of": MULTIPLE}
        args = trl_trainer.configuration(job, shared, at_once, **values)
        beta, args.beta = args.beta, 0.0  # or TRL would hang a second adapter, or a second model, beside this one
        args.reward_weights = list(scoring.weights.values())
        trainer = made(
            model,
            [_reward(name, scoring, reading) for name in scoring.functions],
            args,
            train_dataset=Dataset.from_list([{"prompt": [0]}]),  # the true one comes when it is known where to begin
            processing_class=_tokenizer(reading),
        )
    trainer.beta = args.beta = beta
    trainer.eos_token_ids = trainer.generation_config.eos_token_id = reading.stop_ids
    trainer.generation_config.pad_token_id = reading.pad_id
    if beta:
        trainer.ref_model = Reference(trainer)
    return trainer


def rehearse(job: Job, model: Any, scoring: Scoring) -> None:
    """A step's answers and their loss by a model of a few weights, so that what TRL refuses of the job's method is said
    before anything is trained and not in the middle. Leaves the random numbers as they were.

    `model` is the one that will be tuned; it is only looked at. Raises UserError.
    """
    trl_trainer.require_trained_output(job, model)
    tokenizer = Tokenizer(WordLevel({str(number): number for number in range(8)}))
    # Without the variables of a launcher: the group of processes that this began on the CPU would stay for the GPUs.
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), clear_environment():
        tiny = trl_trainer.few_weights()
        size = job.stage_budget.batch_size
        shared = TrainingArguments(folder, report_to="none", use_cpu=True, per_device_train_batch_size=size)
        nothing = Scoring({name: lambda *_: 0.0 for name in scoring.functions}, scoring.weights)
        trainer = make(job, tiny, shared, size, nothing, Reading(tokenizer, [2], 0))
        trainer.generation_config.max_new_tokens = 2
        with refusal_said(job):
            asked = [{"prompt": [1], "expected": "", "question": ""}] * size
            trainer.current_gradient_accumulation_steps = 1
            trainer.compute_loss(tiny.train(), trainer._prepare_inputs(asked))


class RewardTrainer(StageTrainer):
    """Mixed into a trainer of TRL: prompts are tokenised, answers are drawn without dropout, and log-probabilities are
    computed where the tokens will stand in evaluation."""

    reading: Reading
    scoring: Scoring
    apart = False  # whether some answer earned more than another to the same question, in a step of this process

    @property
    def tokens(self) -> int:
        """Real ones that were asked and answered, no padding; of all processes."""
        return int(self.state.num_input_tokens_seen)

    def keep(self, parts: int) -> None:
        """Of answers that serve for several steps, each step has what was measured when they were drawn."""
        for key, theirs in self.measures.items():
            found = self._metrics["train"].get(theirs, [])[-(parts if theirs in ONCE_A_PART else 1) :]
            # TRL has NaN where no function says anything of any answer.
            known = [value for value in found if not math.isnan(value)] or self.measured[key][-1:]
            self.measured[key] += [sum(known) / len(known)] if known else []
        if self._metrics["train"]["frac_reward_zero_std"][-1] < 1:
            self.apart = True
        self.accuracies.append(torch.zeros(()))  # no tokens are given here that could be the most likely ones

    def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return prompts, None, {}

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = self.model
        with answering(model), self.accelerator.autocast():
            return super()._generate_single_turn(*args, **kwargs)  # type: ignore[misc]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Of the last `logits_to_keep` tokens of each row; shape (rows, logits_to_keep).

        TRL pads prompts on the left, and its own forward counts that padding as positions. Here each row begins at the
        first position, as in evaluation; and since nothing looks to the right, attention needs no mask.
        """
        found: list[tuple[Tensor, Tensor, Tensor | None]] = []
        for part in torch.arange(len(input_ids), device=input_ids.device).split(batch_size or len(input_ids)):
            ids, labels, at = _from_the_left(input_ids[part], attention_mask[part], logits_to_keep)
            more = {"output_router_logits": True} if compute_aux_loss else {}
            with self.accelerator.autocast():
                out = model(input_ids=ids, labels=labels, fused_lm_head=True, **more)
            at = at + out.log_probs.shape[1] - (ids.shape[1] - 1)  # behind what prompt tuning puts in front
            aux = out.aux_loss if compute_aux_loss else None
            found.append((out.log_probs.gather(1, at), out.entropy.gather(1, at), aux))
        logps, entropies, aux_losses = zip(*found, strict=True)
        return (
            torch.cat(logps),
            torch.cat(entropies) if compute_entropy else None,
            torch.stack(aux_losses).mean() if compute_aux_loss else None,
        )


class Reference:
    """The model as it was when this was made, asked as a model is: the policy, with the weights that it had then.

    So every kind of adapter, and all weights, need one copy of what is trained and nothing else.
    """

    def __init__(self, trainer: RewardTrainer):
        self._trainer = trainer
        self.weights = [parameter.detach().clone() for parameter in self._trained()]

    def __call__(self, **inputs: Any) -> Any:
        model: Any = self._trainer.model
        trained = self._trained()
        now = [parameter.data for parameter in trained]
        for parameter, then in zip(trained, self.weights, strict=True):
            parameter.data = then
        try:
            with torch.no_grad(), answering(model):
                return model(**inputs)
        finally:
            for parameter, data in zip(trained, now, strict=True):
                parameter.data = data

    def _trained(self) -> list[torch.nn.Parameter]:
        model: Any = self._trainer.model
        return [parameter for parameter in model.parameters() if parameter.requires_grad]


class RewardProgress(StageProgress):
    """The same curve; without the accuracy of given tokens, which there are none of."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().on_log(args, state, control, logs, **kwargs)
        if self.points:
            self.points[-1].pop("token_accuracy", None)


@contextmanager
def answering(model: Any) -> Iterator[None]:
    """Within the block the model is without dropout, as who uses it will have it."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _from_the_left(ids: Tensor, mask: Tensor, answers: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows whose prompt, padded on the left, ends where the `answers` last columns begin, moved to the first position.

    Gives their ids, the labels (-100 but for those columns), and where each of those columns is now in the
    log-probabilities, which have one position less than the ids.
    """
    rows, width = ids.shape
    positions = torch.arange(width, device=ids.device).expand(rows, width)
    prompts = mask[:, : width - answers].sum(1, keepdim=True)
    padding = width - answers - prompts
    moved = ids.gather(1, (positions + padding) % width)
    answered = (positions >= prompts) & (positions < prompts + answers)
    at = prompts - 1 + torch.arange(answers, device=ids.device)
    return moved, moved.masked_fill(~answered, -100), at


def _reward(name: str, scoring: Scoring, reading: Reading) -> Any:
    """A function of the scoring as TRL asks it."""

    def of(completion_ids: list[list[int]], expected: list[str], question: list[str], **_: Any) -> list[float | None]:
        answers = map(reading.text, completion_ids)
        return [scoring.one(name, *row) for row in zip(answers, expected, question, strict=True)]

    of.__name__ = name
    return of


def _tokenizer(reading: Reading) -> PreTrainedTokenizerFast:
    """TRL asks for one, for the ids that fill rows and end answers; and reads answers by it, which `reading` does."""
    made = PreTrainedTokenizerFast(tokenizer_object=reading.tokenizer)
    made.pad_token = reading.tokenizer.id_to_token(reading.pad_id)
    made.eos_token = reading.tokenizer.id_to_token(reading.stop_ids[0])
    return made
