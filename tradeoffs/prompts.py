"""Chat templates by name: how a question becomes the prompt of a model, and where its answer ends.

A template is Jinja, as transformers reads it. It writes the BOS token itself (`apply_chat_template` adds none), and the
assistant's turn ends with the EOS token and nothing after it, so that a tuned model learns to stop.
"""

from tradeoffs.errors import UserError

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")

TEMPLATES = {
    # Nothing but the words, the answer on a new line: in a small model every token of a prompt counts.
    "plain": (
        "{% for message in messages %}"
        "{{ message.content + (eos_token if message.role == 'assistant' else '\n') }}"
        "{% endfor %}"
    ),
    "alpaca": (
        "{{ 'Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n' }}"
        "{% for message in messages %}"
        "{% if message.role == 'assistant' %}{{ '### Response:\n' + message.content + eos_token }}"
        "{% else %}{{ '### Instruction:\n' + message.content + '\n\n' }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
    ),
    "chatml": (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' }}"
        "{% if message.role != 'assistant' %}{{ '\n' }}"
        "{% elif eos_token != '<|im_end|>' %}{{ eos_token }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
}


def chat_template(name: str, own: str | None, tokens: set[str], bos: bool, where: str) -> str:
    """The Jinja template that `prompt: name` means for one checkpoint.

    `own` is the checkpoint's own template, `tokens` its vocabulary, `bos` whether its tokenizer puts a BOS before plain
    text (then the template does the same), `where` the params key to name in messages. Raises UserError if there is no
    own template to keep, or if chatml's two marks are no tokens of this model (it would see a string of symbols).
    """
    if name == "own":
        if not own:
            raise UserError(
                f"{where}: own, but the checkpoint has no chat template (chat_template.jinja, or chat_template in "
                "tokenizer_config.json); set prompt: plain, alpaca or chatml"
            )
        return own
    missing = [token for token in CHATML_TOKENS if token not in tokens]
    if name == "chatml" and missing:
        raise UserError(
            f"{where}: chatml needs the tokens {' and '.join(CHATML_TOKENS)}, and this model's vocabulary lacks "
            f"{' and '.join(missing)}; set prompt: plain or alpaca"
        )
    return ("{{ bos_token }}" if bos else "") + TEMPLATES[name]
