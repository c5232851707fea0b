"""Chat templates by name: how a question, or a conversation, becomes the prompt of a model, and where an answer ends.

A template is Jinja, as transformers reads it. It writes the BOS token itself (`apply_chat_template` adds none), and an
assistant's turn ends with the EOS token and nothing after it, so that a tuned model learns to stop; what separates it
from the next turn belongs to that one. So what a template makes of the first turns is how it begins all of them.

The template travels with the checkpoint into the GGUF, where runtimes other than Python's read it: no more of Jinja is
used here than they know.
"""

from typing import TYPE_CHECKING

from tradeoffs.common import chat_templates
from tradeoffs.plumbing.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
# In front of a template that writes today's date into each prompt (Llama 3.2): the string would be another one tomorrow
# than was trained. The day is the one that this template falls back to where no clock is at hand.
FIXED_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"

TEMPLATES = {
    # Nothing but the words, an answer on a new line: in a small model every token of a prompt counts. A system turn is
    # a line above the question.
    "plain": (
        "{% for message in messages %}"
        "{{ message.content + (eos_token if message.role == 'assistant' else '\n') }}"
        "{% endfor %}"
    ),
    # Stanford Alpaca's (PROMPT_DICT in train.py of github.com/tatsu-lab/stanford_alpaca), for an instruction without
    # and with an input; what stands below a question's first empty line is its input. Unlike there, an answer begins on
    # a line of its own, as in most of what came after: many tokenizers let the colon melt into the answer's first word,
    # so that a prompt would end in another token than in training. Alpaca knows no conversations: a system turn stands
    # in place of its opening words, and further turns follow as its sections do.
    "alpaca": (
        "{% for message in messages %}"
        "{% if not loop.first and messages[loop.index0 - 1].role == 'assistant' %}{{ '\n\n' }}{% endif %}"
        "{% if message.role == 'assistant' %}{{ '### Response:\n' + message.content + eos_token }}"
        "{% elif message.role == 'system' %}{{ message.content + '\n\n' }}"
        "{% else %}"
        "{% set parts = message.content.split('\n\n') %}"
        "{% if loop.first %}"
        "{{ 'Below is an instruction that describes a task' }}"
        "{% if parts | length > 1 %}{{ ', paired with an input that provides further context' }}{% endif %}"
        "{{ '. Write a response that appropriately completes the request.\n\n' }}"
        "{% endif %}"
        "{{ '### Instruction:\n' + parts[0] + '\n\n' }}"
        "{% if parts | length > 1 %}{{ '### Input:\n' + (parts[1:] | join('\n\n')) + '\n\n' }}{% endif %}"
        "{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
    ),
    # As the chat models that use it, with the EOS of this tokenizer after an answer where that is another token: what
    # knows of no other stops there too.
    "chatml": (
        "{% for message in messages %}"
        "{% if not loop.first %}{{ '\n' }}{% endif %}"
        "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' }}"
        "{% if message.role == 'assistant' and eos_token != '<|im_end|>' %}{{ eos_token }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '\n<|im_start|>assistant\n' }}{% endif %}"
    ),
}


def chat_template(
    name: str, own: str | dict[str, str] | None, tokens: set[str], bos: bool, where: str, given: str = ""
) -> str:
    """The Jinja template that `prompt: name` means for one checkpoint.

    `own` is the checkpoint's own template, or several by their names, of which the default one is meant; it is kept
    (with a fixed date, if it wants today's). `tokens` is its vocabulary, `bos` whether the template must be made to
    write a BOS first (as `lacks_bos` has it), `where` the params key to name in messages, `given` the template of that
    name in params.yaml, where it is no built-in one.
    Raises UserError if there is no own template to keep, or if chatml's two marks are no tokens of this model (it would
    see a string of symbols).
    """
    if name == "own":
        if not own:
            raise UserError(
                f"{where}: own, but the checkpoint has no chat template (chat_template.jinja, or chat_template in "
                "tokenizer_config.json); set prompt: plain, alpaca or chatml"
            )
        if isinstance(own, dict) and "default" not in own:
            raise UserError(
                f"{where}: own, but of the checkpoint's chat templates ({', '.join(sorted(own))}) none is called "
                "default; put the one that is meant into its folder as chat_template.jinja, or set prompt: plain, "
                "alpaca or chatml"
            )
        return _dated(own["default"] if isinstance(own, dict) else own)
    missing = [token for token in CHATML_TOKENS if token not in tokens]
    if name == "chatml" and missing:
        raise UserError(
            f"{where}: chatml needs the tokens {' and '.join(CHATML_TOKENS)}, and this model's vocabulary lacks "
            f"{' and '.join(missing)}; set prompt: plain or alpaca"
        )
    template = TEMPLATES.get(name, given)
    return ("{{ bos_token }}" if bos else "") + _dated(template)


def lacks_bos(tokenizer: "PreTrainedTokenizerFast", name: str, given: str = "") -> bool:
    """Whether the tokenizer puts a BOS before plain text and `prompt: name` does not, by what it makes of a question;
    `given` as above. The checkpoint's own template is kept as it is. Leaves that of the tokenizer as it was."""
    from jinja2 import TemplateError

    if name == "own" or tokenizer("a")["input_ids"][:1] != [tokenizer.bos_token_id]:
        return False
    before, tokenizer.chat_template = tokenizer.chat_template, _dated(TEMPLATES.get(name, given))
    try:
        text = chat_templates.rendered(tokenizer, [chat_templates.QUESTION], asks=True)
    except (TemplateError, UserError):  # which is said where the template is checked, or used
        return True
    finally:
        tokenizer.chat_template = before
    return not text.startswith(str(tokenizer.bos_token))


def _dated(template: str) -> str:
    return (FIXED_DATE if "strftime_now" in template else "") + template
