"""A chat template, which is a program in Jinja that came with a checkpoint, run within limits."""

from typing import TYPE_CHECKING, Any

from tradeoffs.common.limits import limited
from tradeoffs.plumbing.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SECONDS, MEMORY = 10.0, 1 << 30
LONGEST = 1_000_000  # characters that may stand around a question and an answer of one letter
QUESTION, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


def ids(tokenizer: "PreTrainedTokenizerFast", messages: list[dict], add_generation_prompt: bool = False) -> list[int]:
    """A conversation as token ids. Raises jinja2.TemplateError for whatever the template raises, and UserError where it
    takes too long or too much memory."""
    return list(_rendered(tokenizer, messages, tokenize=True, add_generation_prompt=add_generation_prompt))


def check(tokenizer: "PreTrainedTokenizerFast", where: str) -> None:
    """Raises UserError unless the tokenizer's template makes a text of a question, and of a question and its answer."""
    from jinja2 import TemplateError

    for messages, asking in (([QUESTION], True), ([QUESTION, ANSWER], False)):
        roles = " and ".join(message["role"] for message in messages)
        way_out = "set prompt: plain, alpaca or chatml, or mend the template"
        try:
            text = _rendered(tokenizer, messages, tokenize=False, add_generation_prompt=asking)
            text.encode()
        except (TemplateError, UserError) as error:
            raise UserError(f"{where}: the chat template fails for a turn of {roles}: {error}; {way_out}") from error
        except UnicodeEncodeError as error:
            raise UserError(f"{where}: the chat template writes what is no text ({error}); {way_out}") from error
        if len(text) > LONGEST:
            raise UserError(f"{where}: the chat template makes {len(text):,} characters of one letter; {way_out}")


def _rendered(tokenizer: Any, messages: list[dict], **options: Any) -> Any:
    from jinja2 import TemplateError

    def render() -> Any:
        try:
            return tokenizer.apply_chat_template(messages, return_dict=False, **options)
        except (TemplateError, MemoryError):
            raise
        except Exception as error:  # whatever a program of somebody's raises
            raise TemplateError(f"{type(error).__name__}: {error}") from error

    return limited("the chat template", render, SECONDS, MEMORY)
