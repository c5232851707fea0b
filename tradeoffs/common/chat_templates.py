"""A chat template, which is a program in Jinja that came with a checkpoint, run within limits."""

from typing import TYPE_CHECKING

from tradeoffs.common.limits import limited
from tradeoffs.plumbing.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SECONDS, MEMORY = 10.0, 1 << 30
LONGEST = 1_000_000  # characters that may stand around a question and an answer of one letter
QUESTION, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


def rendered(tokenizer: "PreTrainedTokenizerFast", messages: list[dict], asks: bool = False) -> str:
    """What the tokenizer's template makes of a conversation; `asks`: with the mark that asks for an answer. Raises
    jinja2.TemplateError for whatever the template raises, and UserError where it takes too long or too much memory."""
    from jinja2 import TemplateError

    def render() -> str:
        try:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks))
        except (TemplateError, MemoryError):
            raise
        except Exception as error:  # whatever a program of somebody's raises
            raise TemplateError(f"{type(error).__name__}: {error}") from error

    return limited("the chat template", render, SECONDS, MEMORY)


def check(tokenizer: "PreTrainedTokenizerFast", where: str) -> None:
    """Raises UserError unless the tokenizer's template makes a text of a question, and of a question and its answer."""
    from jinja2 import TemplateError

    for messages, asking in (([QUESTION], True), ([QUESTION, ANSWER], False)):
        roles = " and ".join(message["role"] for message in messages)
        way_out = "set prompt: plain, alpaca or chatml, or mend the template"
        try:
            text = rendered(tokenizer, messages, asking)
            text.encode()
        except (TemplateError, UserError) as error:
            raise UserError(f"{where}: the chat template fails for a turn of {roles}: {error}; {way_out}") from error
        except UnicodeEncodeError as error:
            raise UserError(f"{where}: the chat template writes what is no text ({error}); {way_out}") from error
        if len(text) > LONGEST:
            raise UserError(f"{where}: the chat template makes {len(text):,} characters of one letter; {way_out}")
