"""The prompt formats say what was published, several turns included; what is asked is how what was trained begins."""

import pytest
from jinja2 import Environment

from tradeoffs.base.prompts import TEMPLATES, chat_template

SYSTEM = {"role": "system", "content": "Be brief."}
ASK, ANSWER = {"role": "user", "content": "Name a bond."}, {"role": "assistant", "content": "A loan."}
WITH_INPUT = {"role": "user", "content": "Fix the grammar.\n\nHe go.\n\nShe go."}
# PROMPT_DICT of Stanford Alpaca's train.py, the answer on a line of its own.
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)


def rendered(name: str, *messages: dict[str, str], asks: bool = False, eos: str = "</s>") -> str:
    # The settings of transformers and of llama-cpp-python.
    template = Environment(trim_blocks=True, lstrip_blocks=True).from_string(TEMPLATES[name])
    return template.render(messages=messages, add_generation_prompt=asks, eos_token=eos)


def test_alpaca_is_stanfords_format_without_and_with_an_input():
    assert rendered("alpaca", ASK, asks=True) == ALPACA.format(instruction="Name a bond.")
    assert rendered("alpaca", ASK, ANSWER) == ALPACA.format(instruction="Name a bond.") + "A loan.</s>"
    asked = ALPACA_INPUT.format(instruction="Fix the grammar.", input="He go.\n\nShe go.")
    assert rendered("alpaca", WITH_INPUT, asks=True) == asked


def test_alpacas_opening_words_give_way_to_a_system_turn_and_further_turns_are_further_sections():
    assert rendered("alpaca", SYSTEM, ASK, ANSWER, WITH_INPUT, asks=True) == (
        "Be brief.\n\n### Instruction:\nName a bond.\n\n### Response:\nA loan.</s>"
        "\n\n### Instruction:\nFix the grammar.\n\n### Input:\nHe go.\n\nShe go.\n\n### Response:\n"
    )


def test_plain_is_nothing_but_the_words():
    assert rendered("plain", SYSTEM, ASK, ANSWER, ASK, asks=True) == (
        "Be brief.\nName a bond.\nA loan.</s>Name a bond.\n"
    )


def test_chatml_marks_every_turn():
    assert rendered("chatml", SYSTEM, ASK, ANSWER, ASK, asks=True, eos="<|im_end|>") == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nName a bond.<|im_end|>\n"
        "<|im_start|>assistant\nA loan.<|im_end|>\n<|im_start|>user\nName a bond.<|im_end|>\n<|im_start|>assistant\n"
    )
    # Where another token ends a text, it stands after an answer as well.
    assert rendered("chatml", ASK, ANSWER).endswith("A loan.<|im_end|></s>")


@pytest.mark.parametrize("name", sorted(TEMPLATES))
@pytest.mark.parametrize("system", [[], [SYSTEM]])
def test_every_answer_begins_where_its_prompt_ends_and_later_turns_change_nothing_before_them(name, system):
    turns = [*system, ASK, ANSWER, WITH_INPUT, ANSWER]
    whole = rendered(name, *turns)
    for count in range(len(system) + 1, len(turns), 2):
        asked, answered = rendered(name, *turns[:count], asks=True), rendered(name, *turns[: count + 1])
        assert answered.startswith(asked + "A loan.") and whole.startswith(answered)
        assert answered.endswith("</s>")


def test_a_template_that_asks_for_todays_date_gets_the_same_day_every_day():
    # As Llama 3.2 does it.
    own = (
        "{%- if strftime_now is defined %}\n    {%- set today = strftime_now('%d %b %Y') %}\n{%- endif %}\n"
        "{{- today }}: {{ ask }}"
    )
    template = Environment(trim_blocks=True, lstrip_blocks=True)
    template.globals["strftime_now"] = lambda format: "today"
    kept = chat_template("own", own, set(), True, "models.mine.prompt")
    assert template.from_string(own).render(ask="Why?") == "today: Why?"
    assert template.from_string(kept).render(ask="Why?") == "26 Jul 2024: Why?"
