"""What is scored is the answer and its end, in the checkpoint's template; what does not fit is refused."""

from pathlib import Path

import pytest

from tradeoffs import tokens
from tradeoffs.demo_model import train_tokenizer
from tradeoffs.errors import UserError
from tradeoffs.prompts import TEMPLATES

CONTEXT, STOPS = 512, [2]  # </s>
SOURCE = Path("data/prepared/x/train.jsonl")
TEXTS = ["What is the interest on 200 at 5%? It is 10.", "A bond is a loan.", "Answer: A B C D\n\nAnswer: B"] * 30


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer(TEXTS, 330, tmp_path_factory.mktemp("tokenizer"), CONTEXT)


@pytest.fixture(params=sorted(TEMPLATES))
def templated(tokenizer, request):
    tokenizer.chat_template = TEMPLATES[request.param]
    return tokenizer


def example(prompt="What is a bond?", answer="A loan — really."):
    return {"id": "1", "prompt": prompt, "answer": answer}


def test_only_the_answer_and_its_end_are_scored(templated):
    (row,) = tokens.instruction_rows(templated, [example()], CONTEXT, STOPS, SOURCE)
    scored = [token for token, counts in zip(row["ids"], row["scored"], strict=True) if counts]
    assert scored == row["ids"][row["prompt_tokens"] :]
    assert scored[-1] == templated.eos_token_id
    assert templated.decode(scored, skip_special_tokens=True).strip() == "A loan — really."
    assert row["bytes"] == len("A loan — really.".encode())


def test_the_prompt_part_is_what_generation_starts_from(templated):
    (row,) = tokens.instruction_rows(templated, [example()], CONTEXT, STOPS, SOURCE)
    asked = templated.apply_chat_template(
        [{"role": "user", "content": "What is a bond?"}], add_generation_prompt=True, return_dict=False
    )
    assert row["ids"][: row["prompt_tokens"]] == asked
    assert asked.count(templated.bos_token_id) <= 1


def test_an_example_longer_than_allowed_is_refused_with_its_line(templated):
    examples = [example(), example(prompt="What is a bond? " * 40)]
    with pytest.raises(
        UserError, match=r"data/prepared/x/train\.jsonl: 1 examples are longer than 200 tokens .* line 2 \("
    ):
        tokens.instruction_rows(templated, examples, 200, STOPS, SOURCE)


def test_a_template_that_melts_prompt_and_answer_is_refused(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content + (eos_token if m.role == 'assistant' else '') }}{% endfor %}"
    )
    with pytest.raises(UserError, match="line 2: the prompt template does not fit the model's tokenizer"):
        examples = [example("Is it 200?", "\nYes."), example("What is the int", "erest on 200 at 5%?")]
        tokens.instruction_rows(tokenizer, examples, CONTEXT, STOPS, SOURCE)


def test_a_template_that_never_ends_an_answer_is_refused(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ m.content + '\n' }}{% endfor %}"
    with pytest.raises(UserError, match="line 1: the prompt template puts no end-of-sequence token after an answer"):
        tokens.instruction_rows(tokenizer, [example()], CONTEXT, STOPS, SOURCE)


def test_the_token_that_a_template_ends_an_answer_with_is_a_stop_token(tokenizer, tmp_path):
    tokenizer.chat_template = "{% for m in messages %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    stops = tokens.stop_ids(tokenizer, tmp_path)
    assert stops == sorted({tokenizer.eos_token_id, end})
    (row,) = tokens.instruction_rows(tokenizer, [example("Is it 200?", "Yes.")], CONTEXT, stops, SOURCE)
    assert row["ids"][-1] == end


def test_text_windows_score_every_token_but_their_first(tokenizer):
    text = " ".join(TEXTS[:6])
    rows = tokens.text_rows(tokenizer, [{"id": "d", "text": text}], 20)
    ids = tokenizer(text)["input_ids"]
    assert [token for row in rows for token in row["ids"]] == ids[: sum(len(row["ids"]) for row in rows)]
    assert all(row["scored"] == [False] + [True] * (len(row["ids"]) - 1) for row in rows)
    assert all(len(row["ids"]) == 20 for row in rows[:-1])
    assert [row["id"] for row in rows[:2]] == ["d-0", "d-1"]


def question(number, split="test", text="Which is a loan?"):
    return {
        "id": f"q{number}",
        "subject": "personal_finance",
        "split": split,
        "question": text,
        "choices": ["A bond", "A share", "A fee", "A tax"],
        "answer": number % 4,
    }


def test_the_few_shot_prompt_is_the_original_one():
    prompt = tokens.mmlu_prompt("personal_finance", [question(1, "dev")], question(2))
    block = "Which is a loan?\nA. A bond\nB. A share\nC. A fee\nD. A tax\nAnswer:"
    header = "The following are multiple choice questions (with answers) about personal finance.\n\n"
    assert prompt == f"{header}{block} B\n\n{block}"


def test_the_option_ids_are_the_letters_after_the_prompt(tokenizer):
    (row,) = tokens.mmlu_rows(tokenizer, [question(1, "dev"), question(2)], shots=1, limit=5, context=CONTEXT)
    prompt = tokens.mmlu_prompt("personal_finance", [question(1, "dev")], question(2))
    for letter, option in zip("ABCD", row["options"], strict=True):
        assert [*row["ids"], option] == tokenizer(f"{prompt} {letter}")["input_ids"]
    assert row["answer"] == 2


def test_examples_are_left_out_until_the_prompt_fits(tokenizer):
    asked = [question(1, "dev", "Which is a loan? " * 6), question(2)]
    (full,) = tokens.mmlu_rows(tokenizer, asked, shots=1, limit=5, context=CONTEXT)
    (short,) = tokens.mmlu_rows(tokenizer, asked, shots=1, limit=5, context=len(full["ids"]))
    assert len(short["ids"]) < len(full["ids"])
    assert short["ids"][-10:] == full["ids"][-10:]


def test_too_few_examples_for_the_shots_are_named(tokenizer):
    with pytest.raises(UserError, match=r"evaluate\.mmlu\.shots: 5 asked for, personal_finance has 1 examples"):
        tokens.mmlu_rows(tokenizer, [question(1, "dev"), question(2)], shots=5, limit=5, context=CONTEXT)
