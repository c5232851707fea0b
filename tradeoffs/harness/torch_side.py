"""The transformers runtime with what tasks ask: continuations in packed rows, and answers that end at a text."""

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import DynamicCache

from tradeoffs.common.batching import padded
from tradeoffs.evaluate.runtime import common_prefix
from tradeoffs.harness import packing
from tradeoffs.harness.asking import WORTH_SHARING, Asked, Ended, Ids, Said, runs
from tradeoffs.harness.packing import Row
from tradeoffs.models.forward import fits, logits_only_at
from tradeoffs.plumbing.errors import UserError
from tradeoffs.transformers_runtime import LOGITS, TransformersRuntime

ROW, GPU_ROW = 512, 2048  # nodes of a packed row: longer ones are no faster, and each node looks at all others
PIECE = 1024  # tokens of a long sequence that go through at once
# How far apart packed rows and single sequences may be, nats per token: an arithmetic that is wrong is off by more.
ROUNDING, HALF_ROUNDING = 1e-3, 0.1
LEAVING = 0.25  # the share of a batch's answers that ended, from which on the others go on without them


class TorchTasks(TransformersRuntime):
    """Sequences go through in packed rows where the model allows it, which is tried once; else one by one."""

    _packs: bool | None = None

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
        if self._whole_rows:  # what its own generation knows of the prompt's beginning is known nowhere else
            return self.generate(ids, most, stop_ids)
        shared = common_prefix(ids) if len(ids) > 1 else 0
        shared = shared if shared >= WORTH_SHARING else 0
        prefix = self._cache(1)
        self._take_in(prompts[0][:shared], prefix)
        found: list[list[int]] = [[] for _ in prompts]

        def work(batch: list[int]) -> None:
            for index in batch:
                found[index].clear()  # of a batch that did not fit
            rests = [ids[index][shared:] for index in batch]
            self._answer(rests, prefix, shared, most, set(stop_ids), ended, [found[index] for index in batch])

        self._in_batches([len(prompt) + most for prompt in ids], work, "answers")
        return found

    def _continued(self, asked: Sequence[Asked], row: int) -> list[Said]:
        """In rows of at most so many nodes; 0: one sequence each."""
        windows = [one.window(self.context) for one in asked]
        sequences, predict = [ids for ids, _ in windows], [count for _, count in windows]
        free = [0 if self._whole_rows else len(ids) - count for ids, count in windows]
        found: list[Said] = [None] * len(asked)  # type: ignore[list-item]
        most = max(1, LOGITS // self.vocabulary)
        with tqdm(total=len(asked), desc="likelihoods", leave=False, disable=len(asked) < ROW) as bar:
            for shared, run in runs(sequences, free, row):
                prefix = self._cache(1)
                self._take_in(sequences[run[0]][:shared], prefix)
                waiting = [run]
                while waiting:
                    some = waiting.pop()
                    for packed in packing.rows(sequences, predict, shared, some, row, most):
                        if fits(partial(self._read, packed, asked, prefix, shared, found)):
                            bar.update(len(packed.asked))
                        else:
                            waiting += self._halves(packed, sequences)
        return found

    def _halves(self, row: Row, sequences: Sequence[Ids]) -> list[list[int]]:
        """The sequences of a row that did not fit the memory, as two. Raises UserError if there is one alone."""
        members = [index for index, _ in row.asked]
        if len(members) == 1:
            length = len(sequences[members[0]])
            raise UserError(f"out of memory on {self.device} with one sequence of {length} tokens alone")
        return [members[len(members) // 2 :], members[: len(members) // 2]]

    def _read(self, row: Row, asked: Sequence[Asked], prefix: DynamicCache, shared: int, found: list[Said]) -> None:
        """Fills `found` for the sequences of a row, which follows the `shared` ids in `prefix`."""
        order = np.array(sorted(row.wanted))
        at = np.concatenate([np.searchsorted(order, nodes) for _, nodes in row.asked])
        true = np.concatenate([asked[index].continuation for index, _ in row.asked]).astype(np.int64)
        logprob, first = np.zeros(len(at)), np.zeros(len(at), bool)
        done = 0
        for logits in self._logits(row, prefix, shared):
            mine = np.flatnonzero((done <= at) & (at < done + len(logits)))
            rows, columns = (torch.from_numpy(some[mine]).to(self.on) for some in (at - done, true))
            logits = logits.float()
            said = logits[rows, columns] - logits.logsumexp(-1)[rows]
            logprob[mine] = said.cpu().numpy()
            first[mine] = (logits.argmax(-1)[rows] == columns).cpu().numpy()
            done += len(logits)
        ends = np.cumsum([len(nodes) for _, nodes in row.asked])[:-1]
        for (index, _), some, best in zip(row.asked, np.split(logprob, ends), np.split(first, ends), strict=True):
            found[index] = Said(float(some.sum()), bool(best.all()))

    def _logits(self, row: Row, prefix: DynamicCache, shared: int) -> Iterator[Tensor]:
        """Logits at the wanted nodes of a row, in their order; (some of them, vocabulary) at a time."""
        cache = copy.deepcopy(prefix)
        if row.branches:
            yield self._branching(row, cache, self.virtual + shared)
            return
        # One sequence: what it sees is what comes before, so it can go through piece by piece.
        few = len(row.wanted) * self.vocabulary <= LOGITS and len(row.tokens) <= PIECE
        step = len(row.tokens) if few or self._whole_rows else min(PIECE, max(1, LOGITS // self.vocabulary))
        for start in range(0, len(row.tokens), step):
            ids = row.tokens[start : start + step]
            wanted = [place for place in range(len(ids)) if start + place in row.wanted]
            logits = self._forward(torch.tensor([ids]), cache, wanted)
            if wanted:
                yield logits

    def _branching(self, row: Row, cache: DynamicCache, before: int) -> Tensor:
        nodes = len(row.tokens)
        width = padded(nodes)
        seen = np.eye(width, dtype=bool)  # what pads the row sees itself, and is seen by nothing
        seen[:nodes, :nodes] = row.seen()
        mask = torch.zeros(width, before + width, dtype=self.model.dtype)
        mask[:, before:].masked_fill_(torch.from_numpy(~seen), torch.finfo(mask.dtype).min)
        ids = torch.full((1, width), self.pad_id)
        ids[0, :nodes] = torch.tensor(row.tokens)
        places = torch.full((1, width), before)
        places[0, :nodes] += torch.tensor(row.depths)
        return self._forward(ids, cache, sorted(row.wanted), attention_mask=mask[None, None], position_ids=places)

    def _forward(self, ids: Tensor, cache: DynamicCache, wanted: Sequence[int], **more: Tensor) -> Tensor:
        """Logits at the `wanted` places of one row of ids (1, length), by which the cache grows."""
        at = torch.zeros_like(ids, dtype=torch.bool)
        at[0, list(wanted)] = True
        inputs: dict[str, Any] = {name: value.to(self.on) for name, value in more.items()}
        with logits_only_at(self.model, at.to(self.on)):
            return self.model(input_ids=ids.to(self.on), past_key_values=cache, use_cache=True, **inputs).logits

    def _take_in(self, ids: Ids, cache: DynamicCache) -> None:
        """Puts ids into a cache of one sequence; no logits are wanted of them."""
        for start in range(0, len(ids), PIECE):
            self._forward(torch.tensor([ids[start : start + PIECE]]), cache, [])

    def _tried(self) -> bool:
        """Whether the model understands packed rows: attention that looks at all before it, by a mask that is given."""
        config = self.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if self._whole_rows or kinds != {"full_attention"} or getattr(config, "sliding_window", None):
            return False
        if getattr(config, "_attn_implementation", "") not in ("sdpa", "eager"):
            return False
        some = [17 * (place + 1) % self.vocabulary for place in range(10)]
        few = min(4, self.context - 2)
        asked = [Asked(tuple(some[:few]), tuple(some[at : at + 2])) for at in (4, 6, 8)]
        packed, single = (self._continued(asked, row) for row in (ROW, 0))
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
        seen = torch.nn.functional.pad(mask, (self.virtual + shared, 0), value=1)
        cache, places = copy.deepcopy(prefix), (seen.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        cache.batch_repeat_interleave(len(rests))
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
            seen = torch.nn.functional.pad(seen, (0, 1), value=1)
            ids, places = tokens[:, None], seen.sum(1, keepdim=True) - 1
