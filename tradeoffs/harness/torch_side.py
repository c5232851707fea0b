"""The transformers runtime with what tasks ask: continuations in packed rows, and answers that end at a text."""

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from tradeoffs.common.batching import padded
from tradeoffs.evaluate.runtime import common_prefix
from tradeoffs.harness import onednn, packing
from tradeoffs.harness.asking import WORTH_SHARING, Asked, Ended, Ids, Said, runs
from tradeoffs.harness.growing import with_room
from tradeoffs.harness.packing import Row
from tradeoffs.models.forward import fits, logits_only_at
from tradeoffs.plumbing.errors import UserError
from tradeoffs.transformers_runtime import TransformersRuntime

# Tokens that go through at once: more are no faster, and in a packed row each node looks at all others.
ROW, GPU_ROW = 512, 2048
TASK_LOGITS = 32_000_000  # numbers held at once: 128 MB in float32, whatever the vocabulary
READ = 8  # rows of logits that a CPU's cache holds while they are read twice
PIECE = 1024  # tokens of a long sequence that go through at once
# How far apart packed rows and single sequences may be, nats per token: an arithmetic that is wrong is off by more.
ROUNDING, HALF_ROUNDING = 1e-3, 0.1
HELD = 0.25  # how much a token that is only in the cache counts beside one that goes through
LEAVING = 0.25  # the share of a batch's answers that ended, from which on the others go on without them


class TorchTasks(TransformersRuntime):
    """Sequences go through in packed rows where the model allows it, which is tried once; else one by one."""

    _packs: bool | None = None

    def __init__(self, model: PreTrainedModel, batch_tokens: int | Literal["auto"], pad_id: int):
        super().__init__(model, batch_tokens, pad_id)
        if self.on.type == "cpu":
            onednn.reorder(self.model)

    @torch.inference_mode()
    def continuations(self, asked: Sequence[Asked]) -> list[Said]:
        """See `Continues.continuations`. Raises UserError where memory does not suffice for a sequence alone."""
        if self._packs is None:
            self._packs = self._tried()
            if not self._packs:
                print("note: this model does not take packed rows: its tasks are asked one sequence at a time")
        return self._continued(asked, (GPU_ROW if self.on.type == "cuda" else ROW) if self._packs else 0)

    @torch.inference_mode()
    def answers(self, prompts: Sequence[Ids], most: int, stop_ids: Sequence[int], ended: Ended) -> list[list[int]]:
        """See `Continues.answers`."""
        ids = [np.asarray(prompt, np.int32) for prompt in prompts]
        prefix = self._cache(1)
        # Their own generation alone knows of a prompt's beginning, or of what is kept in place of keys and values.
        if self._whole_rows or not all(isinstance(layer, DynamicLayer) for layer in prefix.layers):
            return self.generate(ids, most, stop_ids)
        shared = common_prefix(ids) if len(ids) > 1 else 0
        shared = shared if shared >= WORTH_SHARING else 0
        self._take_in(prompts[0][:shared], prefix)
        found: list[list[int]] = [[] for _ in prompts]

        def work(batch: list[int]) -> None:
            for index in batch:
                found[index].clear()  # of a batch that did not fit
            rests = [ids[index][shared:] for index in batch]
            self._answer(rests, prefix, shared, most, set(stop_ids), ended, [found[index] for index in batch])

        self._in_batches([len(prompt) - shared + most + int(HELD * shared) for prompt in ids], work, "answers")
        return found

    def _continued(self, asked: Sequence[Asked], row: int) -> list[Said]:
        """In rows of at most so many nodes; 0: one sequence each."""
        windows = [one.window(self.context) for one in asked]
        sequences, predict = [ids for ids, _ in windows], [count for _, count in windows]
        free = [0 if self._whole_rows else len(ids) - count for ids, count in windows]
        found: list[Said] = [None] * len(asked)  # type: ignore[list-item]
        most = max(1, TASK_LOGITS // self.vocabulary)
        with tqdm(total=len(asked), desc="likelihoods", leave=False, disable=len(asked) < ROW) as bar:
            for shared, run in runs(sequences, free, row):
                prefix = self._cache(1)
                self._take_in(sequences[run[0]][:shared], prefix)

                while run:
                    for rows in packing.batches(packing.trees(sequences, predict, shared, run, row, most), row, most):
                        if not fits(partial(self._read, rows, asked, prefix, shared, found)):
                            row = self._halved(rows, shared)
                            break
                        bar.update(sum(len(one.asked) for one in rows))
                    run = [index for index in run if found[index] is None]
        return found

    def _halved(self, rows: Sequence[Row], shared: int) -> int:
        """How many tokens go through at once where these rows did not fit the memory.

        Raises UserError if they are one sequence alone.
        """
        longest = max(len(row.tokens) for row in rows)
        if sum(len(row.asked) for row in rows) == 1:
            raise UserError(f"out of memory on {self.device} with one sequence of {shared + longest} tokens alone")
        return len(rows) * longest // 2

    def _read(
        self, rows: Sequence[Row], asked: Sequence[Asked], prefix: DynamicCache, shared: int, found: list[Said]
    ) -> None:
        """Fills `found` for the sequences of some rows, which follow the `shared` ids in `prefix`."""
        members = [index for row in rows for index, _ in row.asked]
        nodes: list[np.ndarray] = []  # of each sequence, by their places among all wanted ones
        before = 0
        for row in rows:
            order = np.array(sorted(row.wanted))
            nodes += [before + np.searchsorted(order, mine) for _, mine in row.asked]
            before += len(order)
        at, true = np.concatenate(nodes), np.concatenate([asked[index].continuation for index in members])
        logprob, first = np.zeros(len(at)), np.zeros(len(at), bool)
        done = 0
        for logits in self._logits(rows, prefix, shared):
            mine = np.flatnonzero((done <= at) & (at < done + len(logits)))
            places, columns = (torch.from_numpy(some[mine].astype(np.int64)).to(self.on) for some in (at - done, true))
            total, best = _totals(logits)
            logprob[mine] = (logits[places, columns].float() - total[places]).cpu().numpy()
            first[mine] = (best[places] == columns).cpu().numpy()
            done += len(logits)
        ends = np.cumsum([len(mine) for mine in nodes])[:-1]
        for index, some, greedy in zip(members, np.split(logprob, ends), np.split(first, ends), strict=True):
            found[index] = Said(float(some.sum()), bool(greedy.all()))

    def _logits(self, rows: Sequence[Row], prefix: DynamicCache, shared: int) -> Iterator[Tensor]:
        """Logits at the wanted nodes of rows, in their order; (some of them, vocabulary) at a time."""
        cache = copy.deepcopy(prefix)
        if len(rows) > 1 or rows[0].branches:
            yield self._branching(rows, cache, self.virtual + shared)
            return
        # One sequence: what it sees is what comes before, so it can go through piece by piece.
        (row,) = rows
        few = len(row.wanted) * self.vocabulary <= TASK_LOGITS and len(row.tokens) <= PIECE
        step = len(row.tokens) if few or self._whole_rows else min(PIECE, max(1, TASK_LOGITS // self.vocabulary))
        for start in range(0, len(row.tokens), step):
            ids = torch.tensor([row.tokens[start : start + step]])
            wanted = torch.tensor([[start + place in row.wanted for place in range(ids.shape[1])]])
            logits = self._forward(ids, cache, wanted)
            if wanted.any():
                yield logits

    def _branching(self, rows: Sequence[Row], cache: DynamicCache, before: int) -> Tensor:
        width = max(padded(len(row.tokens)) for row in rows)
        ids = torch.full((len(rows), width), self.pad_id)
        places = torch.full_like(ids, before)
        wanted = torch.zeros_like(ids, dtype=torch.bool)
        # What pads a row sees itself, and is seen by nothing.
        seen = np.tile(np.eye(width, dtype=bool), (len(rows), 1, 1))
        for number, row in enumerate(rows):
            nodes = len(row.tokens)
            ids[number, :nodes] = torch.tensor(row.tokens)
            places[number, :nodes] += torch.tensor(row.depths)
            wanted[number, sorted(row.wanted)] = True
            seen[number, :nodes, :nodes] = row.seen()
        mask = torch.zeros(len(rows), 1, width, before + width, dtype=self.model.dtype)
        mask[..., before:].masked_fill_(torch.from_numpy(~seen)[:, None], torch.finfo(mask.dtype).min)
        cache.batch_repeat_interleave(len(rows))
        return self._forward(ids, cache, wanted, attention_mask=mask, position_ids=places)

    def _forward(self, ids: Tensor, cache: DynamicCache, wanted: Tensor, **more: Tensor) -> Tensor:
        """Logits at the `wanted` places of ids, both (rows, length), by which the cache grows."""
        inputs: dict[str, Any] = {name: value.to(self.on) for name, value in more.items()}
        with logits_only_at(self.model, wanted.to(self.on)):
            return self.model(input_ids=ids.to(self.on), past_key_values=cache, use_cache=True, **inputs).logits

    def _take_in(self, ids: Ids, cache: DynamicCache) -> None:
        """Puts ids into a cache of one sequence; no logits are wanted of them."""
        for start in range(0, len(ids), PIECE):
            some = torch.tensor([ids[start : start + PIECE]])
            self._forward(some, cache, torch.zeros_like(some, dtype=torch.bool))

    def _tried(self) -> bool:
        """Whether the model understands packed rows: attention that looks at all before it, by a mask that is given."""
        config = self.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        kinds |= {"local"} & set(getattr(config, "attention_layers", None) or ())  # GPT-Neo's own words for a window
        if self._whole_rows or kinds != {"full_attention"} or getattr(config, "sliding_window", None):
            return False
        if getattr(config, "_attn_implementation", "") not in ("sdpa", "eager"):
            return False
        some = [17 * (place + 1) % self.vocabulary for place in range(10)]
        few = min(4, self.context - 2)
        asked = [Asked(tuple(some[:few]), tuple(some[at : at + 2])) for at in (4, 6, 8)]
        single = self._continued(asked, 0)
        try:
            packed = self._continued(asked, ROW)
        except (
            ValueError,
            TypeError,
            IndexError,
            RuntimeError,
        ):  # of a model's own code, which makes of masks what it likes
            return False
        allowed = 2 * (ROUNDING if self.model.dtype == torch.float32 else HALF_ROUNDING)
        apart = max(abs(a.log_likelihood - b.log_likelihood) for a, b in zip(packed, single, strict=True))
        return apart <= allowed

    def _answer(
        self,
        rests: Sequence[np.ndarray],
        prefix: DynamicCache,
        shared: int,
        most: int,
        stop_ids: set[int],
        ended: Ended,
        found: list[list[int]],
    ) -> None:
        """Greedy answers of a batch, whose prompts go on with `rests` after what is in `prefix`."""
        ids, mask = self._pad(rests, left=True)
        seen = pad(mask, (self.virtual + shared, 0), value=1)
        cache, places = copy.deepcopy(prefix), (seen.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        cache.batch_repeat_interleave(len(rests))
        cache = with_room(cache)
        open_ = list(range(len(rests)))  # which answer each row of the batch is
        over: set[int] = set()
        while True:
            out = self.model(
                input_ids=ids,
                attention_mask=seen,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            tokens = out.logits[:, -1].argmax(-1)
            for index, token in zip(open_, tokens.tolist(), strict=True):
                if index in over:
                    continue
                if token in stop_ids:
                    over.add(index)
                    continue
                found[index].append(token)
                if len(found[index]) == most or ended(found[index]):
                    over.add(index)
            kept = [row for row, index in enumerate(open_) if index not in over]
            if not kept:
                return
            if len(open_) - len(kept) >= LEAVING * len(open_):
                rows = torch.tensor(kept, device=self.on)
                cache.batch_select_indices(rows)
                tokens, seen, open_ = tokens[rows], seen[rows], [open_[row] for row in kept]
            seen = pad(seen, (0, 1), value=1)
            ids, places = tokens[:, None], seen.sum(1, keepdim=True) - 1


def _totals(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows (n, vocabulary): the logarithm of the sum of their exponentials, and their most likely tokens; (n,)."""
    totals, tokens = [], []
    for some in logits.split(READ if logits.device.type == "cpu" else len(logits)):
        highest, best = some.float().max(-1)
        # A library's cross-entropy reads a row in one go: it is the total less the logit of the token it is given.
        totals.append(highest + cross_entropy(some.float(), best, reduction="none"))
        tokens.append(best)
    return torch.cat(totals), torch.cat(tokens)
