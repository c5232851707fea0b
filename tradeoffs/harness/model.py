"""A runtime as the model that lm-evaluation-harness asks: its texts in, tokenised once here, its numbers out.

Tokenising, windows and what is cut are those of its own `hf` model, so that both give the same answers to a task, and
the ids are the same for transformers and for llama.cpp, which tokenises nothing for itself.
"""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any

from jinja2 import TemplateError
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedTokenizerBase

from tradeoffs.common import chat_templates
from tradeoffs.common.limits import limited
from tradeoffs.harness.asking import Asked, Continues, Ended, Said
from tradeoffs.plumbing.errors import UserError

MOST_NEW_TOKENS = 256  # of an answer, where a task names no number: that of the `hf` model
BEFORE = 2  # tokens, beside those of a text that ends an answer, in which it is looked for: it may be cut otherwise
GREEDY = ("do_sample", "temperature", "top_p", "top_k", "num_beams")  # what a greedy answer does not depend on


class RuntimeLM(TemplateLM):
    """`tokenizer` is the model's own, `stop_ids` end every answer. What the runtime has to say is said where this was
    made, also while what tasks print is not shown."""

    def __init__(self, runtime: Continues, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int]) -> None:
        super().__init__()
        self.runtime, self.tokenizer, self.stop_ids = runtime, tokenizer, stop_ids
        self._out = sys.stdout
        self._encoded: dict[tuple[str, bool | None], list[int]] = {}

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context."""
        found = self.tokenizer.bos_token_id
        found = self.tokenizer.eos_token_id if found is None else found
        if found is None:
            raise UserError(
                "this task asks for the likelihood of a text without anything before it, and the model's tokenizer has "
                "neither a token that begins nor one that ends a text; leave that task out"
            )
        return int(found)

    @property
    def max_length(self) -> int:
        return self.runtime.context

    @property
    def max_gen_toks(self) -> int:
        return MOST_NEW_TOKENS

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """A text that already begins with the token that begins one gets no second one."""
        if (string, add_special_tokens) not in self._encoded:
            special = add_special_tokens
            if special is None:
                special = not string.startswith(self._beginning())
            found = self.tokenizer.encode(string, add_special_tokens=special, verbose=False)
            self._encoded[string, add_special_tokens] = list(found)
        return self._encoded[string, add_special_tokens]

    def _beginning(self) -> str:
        if not hasattr(self, "_begins"):
            has = self.tokenizer.bos_token_id is not None or self.tokenizer.eos_token_id is not None
            # What no text begins with, where there is no such token.
            self._begins = str(self.tokenizer.decode(self.prefix_token_id)) if has else "\0"
        return self._begins

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        self._encoded.clear()  # texts are looked up while requests are made
        found = self._continued([Asked(tuple(before), tuple(ids)) for _, before, ids in requests])
        return [(one.log_likelihood, one.greedy) for one in found]

    def _continued(self, asked: list[Asked]) -> list[Said]:
        with redirect_stdout(self._out):
            return self.runtime.continuations(asked)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        asked: list[Asked] = []
        counts = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            mine = [Asked(tuple(before), tuple(ids)) for before, ids in map(make_disjoint_window, windows)]
            asked += mine
            counts.append(len(mine))
        said = iter(self._continued(asked))
        return [sum(next(said).log_likelihood for _ in range(count)) for count in counts]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        found: list[str] = [""] * len(requests)
        alike: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(index)
        for indices in alike.values():
            texts = self._answers([requests[index].args[0] for index in indices], requests[indices[0]].args[1])
            for index, text in zip(indices, texts, strict=True):
                found[index] = text
        return found

    def _answers(self, contexts: list[str], asked: dict[str, Any]) -> list[str]:
        settings: dict[str, Any] = dict(normalize_gen_kwargs(asked, self.max_gen_toks))
        if settings.get("do_sample") and settings.get("temperature", 1.0) != 0:
            raise UserError(
                f"a task asks for answers that are drawn (temperature {settings.get('temperature', 1.0)}), which no "
                "two runs agree on; answers are the most likely ones here: give a copy of the task in "
                "evaluate.harness.folder the generation_kwargs `do_sample: false`"
            )
        most = settings.pop("max_gen_toks")
        eos = self.tokenizer.decode(self.eot_token_id) if self.tokenizer.eos_token_id is not None else None
        until = handle_stop_sequences(settings.pop("until", None), eos=eos)
        if other := sorted(name for name in settings if name not in GREEDY):
            raise UserError(f"a task asks for answers with {', '.join(other)}, which is not known here; leave it out")
        room = self.max_length - most
        if room < 1:
            raise UserError(
                f"a task asks for answers of up to {most} tokens, and the model's context is {self.max_length}; give a "
                "copy of the task in evaluate.harness.folder a lower max_gen_toks, or leave it out"
            )
        prompts = [tuple(self.tok_encode(context)[-room:]) for context in contexts]
        self._encoded.clear()
        with redirect_stdout(self._out):
            answers = self.runtime.answers(prompts, most, self.stop_ids, self._ended(until))
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
        return [postprocess_generated_text(text, until, None) for text in texts]

    def _ended(self, until: list[str]) -> Ended:
        """Looks for each text among the last tokens alone; what stands behind it is cut off the whole answer later."""
        longest = max((len(self.tokenizer.encode(text, add_special_tokens=False)) for text in until if text), default=0)
        decode: Callable[[list[int]], str] = self.tokenizer.decode  # type: ignore[assignment]

        def ended(ids: list[int]) -> bool:
            last = decode(ids[-(longest + BEFORE) :])
            return any(text in last for text in until if text)

        return ended

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model's template writes it; where that knows no system's words, without them, as the
        `hf` model does."""
        try:
            return self._templated(chat_history, add_generation_prompt)
        except TemplateError as error:
            rest = [message for message in chat_history if message["role"] != "system"]
            if len(rest) == len(chat_history):
                raise UserError(f"the model's chat template refuses what a task asks: {error}") from error
            return self._templated(rest, add_generation_prompt)

    def _templated(self, messages: list[dict[str, str]], asks: bool) -> str:
        """`asks`: with the mark that asks for an answer; else the last message is one that is to go on."""

        def render() -> str:
            return str(
                self.tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=asks, continue_final_message=not asks
                )
            )

        return limited("the chat template", render, chat_templates.SECONDS, chat_templates.MEMORY)
