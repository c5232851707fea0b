"""transformers' Trainer with one thing changed: what an optimiser step computes, and on how many tokens at a time.

A step gets its whole batch of examples. It goes through the model in parts of similar length that fit the memory,
logits are computed only where a token is scored, and the loss is the mean over the scored tokens of the whole step.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from tradeoffs.common.batching import halved, length_batches, padded
from tradeoffs.finetune import batches, processes
from tradeoffs.finetune.batches import Example
from tradeoffs.models.forward import fits, logits_only_at
from tradeoffs.plumbing.errors import UserError


class StepTrainer(Trainer):
    """`batch_tokens` bounds what goes through the model at once, padding included; halved where memory runs out.

    With `packed` there is no padding: the examples of a part stand in one row, for attention of variable length. Stops
    at the first loss that is not finite.
    """

    def __init__(
        self, model: PreTrainedModel | PeftModel, *, pad_id: int, batch_tokens: int, packed: bool, **kwargs: Any
    ):
        super().__init__(model=model, data_collator=lambda examples: {"examples": examples}, **kwargs)
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        self.pad_id, self.batch_tokens, self.packed, self.first_step = pad_id, batch_tokens, packed, 0
        self.losses: list[Tensor] = []  # mean cross-entropy per scored token of each step, without a method's penalty
        self.accuracies: list[Tensor] = []  # share of the step's scored tokens that are the most likely ones
        self.tokens = 0  # real ones that went through the model, no padding; of all processes
        self._inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        self._virtual_tokens = virtual_tokens(model)
        self._observe_loss()

    def go_on_after(self, first_step: int, steps: int) -> None:
        """Trains `steps` steps of which `first_step` were made before, by a process that was killed."""
        self.first_step, self.args.max_steps = first_step, steps - first_step

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        examples: list[Example] = inputs["examples"]
        scored = self._over_processes(torch.tensor(_scored(examples)))
        lengths = [padded(len(ids)) for ids, _ in examples]
        while True:
            parts = length_batches(lengths, self.batch_tokens)
            self._loss, self._correct = torch.zeros(()), torch.zeros(())
            if fits(partial(self._accumulate_all, model, [[examples[i] for i in part] for part in parts], scored)):
                break
            if self.args.world_size > 1:  # the others would go on alone
                raise UserError(
                    f"out of memory with {self.batch_tokens} tokens at a time on each of {self.args.world_size} "
                    "devices; lower train.batch_tokens, or set train.gradient_checkpointing"
                )
            largest = max(parts, key=len)
            if len(largest) == 1:
                longest = max(len(ids) for ids, _ in examples)
                raise UserError(
                    f"out of memory with one example of {longest} tokens alone; lower tokenize.max_length, or set "
                    "train.gradient_checkpointing"
                )
            self.batch_tokens = halved(largest, lengths)
            print(f"out of memory: {self.batch_tokens} tokens at a time from here on; the batch stays what it was")
            model.zero_grad()
            torch.manual_seed(torch.initial_seed())  # the step begins anew, with the same random numbers
        tokens = torch.tensor(float(sum(len(ids) for ids, _ in examples)), dtype=torch.float64)
        loss, right = self._loss.double(), self._correct.double()
        loss, right, tokens = self._over_processes(torch.stack([loss, right, tokens.to(loss.device)])).unbind()
        self._loss = loss.float()
        self.losses.append(self._loss)
        self.accuracies.append((right / scored.to(right.device)).float())
        self.tokens += int(tokens)
        if not torch.isfinite(self._loss):
            step = self.first_step + self.state.global_step + 1
            saved = sorted(Path(str(self.args.output_dir)).glob("step-*"))
            kept = f"; the state after step {int(saved[-1].name[5:])} is kept in {saved[-1]}" if saved else ""
            raise UserError(
                f"the training loss is {self._loss.item()} at step {step} of {self.first_step + self.state.max_steps}; "
                f"lower train.lr (here {self.args.learning_rate:g}) or raise train.warmup_steps{kept}"
            )
        return self._loss

    def _accumulate_all(self, model: torch.nn.Module, parts: list[list[Example]], scored: Tensor) -> None:
        """Forward and backward over all parts of a step."""
        model.train()
        for number, part in enumerate(parts):
            self._accumulate(model, part, scored, len(parts), last=number == len(parts) - 1)

    def loss_on(self, examples: list[Example]) -> float:
        """Mean cross-entropy per scored token, in nats, of examples that are not trained on; without dropout.

        Every process gets the same number, and must ask for it.
        """
        model: Any = self.model
        model.eval()
        scored = torch.tensor(_scored(examples))
        self._loss, self._correct = torch.zeros(()), torch.zeros(())
        parts = length_batches([padded(len(ids)) for ids, _ in examples], self.batch_tokens)
        # Processes share the parts, but where each holds a piece of the weights they go through the model together.
        shared = not processes.sharded()
        mine = parts[self.args.process_index :: self.args.world_size] if shared else parts
        with torch.no_grad(), self.accelerator.autocast():  # after a resumed end no training has set that up
            for part in mine:
                self._forward(model, [examples[i] for i in part], scored)
        return (self._over_processes(self._loss) if shared else self._loss).item()

    def _accumulate(self, model: Any, part: list[Example], scored: Tensor, parts: int, last: bool) -> None:
        wait = nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync()  # DDP: gradients travel once
        with wait, _shared_penalty(self.model, parts * self.args.world_size):
            # DDP divides the gradients by the number of processes.
            self.accelerator.backward(self._forward(model, part, scored) * self.args.world_size)

    def _forward(self, model: Any, part: list[Example], scored: Tensor) -> Tensor:
        """The part's share of the mean loss over `scored` tokens."""
        batch = batches.pack(part) if self.packed else batches.collate(part, self.pad_id)
        batch = {key: value.to(self.args.device) for key, value in batch.items()}
        labels = batch["labels"]
        # The positions that predict a scored token.
        wanted = torch.zeros_like(labels, dtype=torch.bool)
        wanted[:, :-1] = labels[:, 1:] != batches.IGNORED
        with self.compute_loss_context_manager(), logits_only_at(self._inner, wanted, self._virtual_tokens):
            return model(
                **batch,
                shift_labels=labels[:, 1:][wanted[:, :-1]],  # the model's own loss then takes the rows as they are
                num_items_in_batch=scored.to(self.args.device),
                use_cache=False,
            ).loss

    def _observe_loss(self) -> None:
        """Adds up loss and right tokens where the model computes them: AdaLoRA adds its penalty afterwards."""
        cross_entropy = self._inner.loss_function

        def observed(logits: Tensor, labels: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            loss = cross_entropy(logits, labels, *args, **kwargs)
            self._loss = self._loss.to(loss.device) + loss.detach().float()
            right = (logits.detach().argmax(-1) == kwargs["shift_labels"]).sum()
            self._correct = self._correct.to(loss.device) + right
            return loss

        self._inner.loss_function = observed

    def _over_processes(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.args.world_size > 1:
            value = value.to(self.args.device)
            torch.distributed.all_reduce(value)
        return value


def _scored(examples: list[Example]) -> int:
    """How many tokens of the examples are labels."""
    return sum(int(scored[1:].sum()) for _, scored in examples)


@contextmanager
def _shared_penalty(model: Any, parts: int) -> Iterator[None]:
    """AdaLoRA adds its penalty to the loss of every forward: each of a step's parts, in all processes, has a share."""
    config: Any = model.active_peft_config if isinstance(model, PeftModel) else None
    weight = getattr(config, "orth_reg_weight", None)
    if weight is None:
        yield
        return
    config.orth_reg_weight = weight / parts
    try:
        yield
    finally:
        config.orth_reg_weight = weight


def virtual_tokens(model: Any) -> int:
    """How many embeddings prompt tuning puts in front of a sequence; 0 for all other methods."""
    config = model.active_peft_config if isinstance(model, PeftModel) else None
    return getattr(config, "num_virtual_tokens", None) or 0
