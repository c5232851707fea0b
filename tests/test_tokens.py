"""What is scored is the answer and its end, in the checkpoint's template; what does not fit is refused."""

import re
from pathlib import Path

import pytest

from tradeoffs.base.demo_model import train_tokenizer
from tradeoffs.base.prompts import TEMPLATES
from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError
from tradeoffs.tokenize import chat, questions, tables, windows
from tradeoffs.tokenize.tables import TOKENS
from tradeoffs.tokenize.turns import UnsplitError

CONTEXT, STOPS = 512, [2]  # </s>
SOURCE, WHERE = Path("data/prepared/x/train.jsonl"), "datasets.mine.prompts"
TEXTS = ["What is the interest on 200 at 5%? It is 10.", "A bond is a loan.", "Answer: A B C D\n\nAnswer: B"] * 30


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer(TEXTS, 330, tmp_path_factory.mktemp("tokenizer"), CONTEXT)


@pytest.fixture(scope="module")
def mixed_tokenizer(tmp_path_factory):
    """Of the letters after 'Answer:' it has seen B only, so that it writes B in one token and the others in two."""
    return train_tokenizer(["Answer: B"] * 200 + TEXTS[:2], 310, tmp_path_factory.mktemp("mixed"), CONTEXT)


@pytest.fixture(params=sorted(TEMPLATES))
def templated(tokenizer, request):
    tokenizer.chat_template = TEMPLATES[request.param]
    return tokenizer


def example(prompt="What is a bond?", answer="A loan — really."):
    return {"id": "1", "prompt": prompt, "answer": answer}


def documents(tokenizer, *texts):
    return windows.documents(tokenizer, [{"id": f"d{n}", "text": text} for n, text in enumerate(texts)], "train")


def test_only_the_answer_and_its_end_are_scored(templated):
    (row,) = chat.instruction_rows(templated, [example()], CONTEXT, STOPS, SOURCE)
    scored = [token for token, counts in zip(row["ids"], row["scored"], strict=True) if counts]
    assert scored == row["ids"][row["prompt_tokens"] :]
    assert scored[-1] == templated.eos_token_id
    assert templated.decode(scored, skip_special_tokens=True).strip() == "A loan — really."
    assert row["bytes"] == len("A loan — really.".encode())


def test_the_prompt_part_is_what_generation_starts_from(templated):
    (row,) = chat.instruction_rows(templated, [example()], CONTEXT, STOPS, SOURCE)
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
        list(chat.instruction_rows(templated, examples, 200, STOPS, SOURCE))


MELTING = "{% for m in messages %}{{ m.content + (eos_token if m.role == 'assistant' else '') }}{% endfor %}"


def test_where_text_does_not_split_prompt_and_answer_can_be_tokenised_apart(tokenizer):
    tokenizer.chat_template = MELTING
    examples = [example("Is it 200?", "\nYes."), example("What is the int", "erest on 200 at 5%?")]
    with pytest.raises(UnsplitError, match=r"train\.jsonl line 2: 'What is the int\|erest on 200 at 5%\?</s>'$"):
        list(chat.instruction_rows(tokenizer, examples, CONTEXT, STOPS, SOURCE))
    for row, one in zip(
        chat.instruction_rows(tokenizer, examples, CONTEXT, STOPS, SOURCE, apart=True), examples, strict=True
    ):
        prompt, answer = row["ids"][: row["prompt_tokens"]], row["ids"][row["prompt_tokens"] :]
        assert prompt == tokenizer(one["prompt"], add_special_tokens=False)["input_ids"]
        assert answer == [*tokenizer(one["answer"], add_special_tokens=False)["input_ids"], 2]
        assert row["scored"] == [False] * len(prompt) + [True] * len(answer)


def test_of_a_conversation_tokenised_apart_every_answer_is_scored_and_follows_what_was_asked(tokenizer):
    tokenizer.chat_template = MELTING
    talk = conversation("What is the int", "erest on 200 at 5%?", "Is it 200?", "Yes.", system="Answer: B")
    (row,) = chat.instruction_rows(tokenizer, [talk], CONTEXT, STOPS, SOURCE, apart=True)

    def alone(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    pieces = [("Answer: BWhat is the int", 0), ("erest on 200 at 5%?</s>", 1), ("Is it 200?", 0), ("Yes.</s>", 1)]
    # An answer's end splits off what follows it.
    assert row["ids"] == [token for text, _ in pieces for token in alone(text)]
    assert row["scored"] == [bool(scored) for text, scored in pieces for _ in alone(text)]
    assert row["prompt_tokens"] == len(row["ids"]) - len(alone("Yes.</s>"))


def test_a_prompt_that_ends_in_a_space_is_told_to_lose_it(tokenizer):
    tokenizer.chat_template = MELTING.replace("else ''", "else ' '")
    with pytest.raises(UnsplitError, match=r"the prompt ends in a space, .*: take it out of the template"):
        list(chat.instruction_rows(tokenizer, [example("A bond is", "a loan.")], CONTEXT, STOPS, SOURCE))


@pytest.mark.parametrize(
    ("asks", "answers", "fits"),
    [
        ("A: ", "A:", "the prompt ends in a space, which is not there once the answer follows: take it out of what"),
        ("A:\n", "A:", "the prompt ends in a line break, which is not there"),
        (
            "[bot]",
            "[assistant]",
            r"asks with 'What is a bond\?\[\|bot\]', and answers with 'What is a bond\?\[\|assistant\]A loan",
        ),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_a_template_that_asks_in_another_way_than_it_answers_is_told_what_would_fit(
    tokenizer, asks, answers, fits, apart
):
    tokenizer.chat_template = (
        f"{{% for m in messages %}}{{{{ {answers!r} + m.content + eos_token if m.role == 'assistant' else "
        f"m.content }}}}{{% endfor %}}{{% if add_generation_prompt %}}{{{{ {asks!r} }}}}{{% endif %}}"
    )
    with pytest.raises(UserError, match=r"line 1: the prompt template does not fit: it asks with") as refused:
        list(chat.instruction_rows(tokenizer, [example()], CONTEXT, STOPS, SOURCE, apart))
    assert re.search(fits, str(refused.value))


def test_a_template_that_fails_is_one_message_whatever_it_raises(tokenizer):
    tokenizer.chat_template = "{{ messages[0].content + 5 }}"
    with pytest.raises(UserError, match="line 1: the model's chat template refuses a conversation of user, assistant"):
        list(chat.instruction_rows(tokenizer, [example()], CONTEXT, STOPS, SOURCE))


def test_a_template_that_never_ends_an_answer_is_refused(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ m.content + '\n' }}{% endfor %}"
    with pytest.raises(UserError, match="line 1: the prompt template puts no end-of-sequence token after an answer"):
        list(chat.instruction_rows(tokenizer, [example()], CONTEXT, STOPS, SOURCE))


def test_the_token_that_a_template_ends_an_answer_with_is_a_stop_token(tokenizer, tmp_path):
    tokenizer.chat_template = "{% for m in messages %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    stops = chat.stop_ids(tokenizer, tmp_path)
    assert stops == sorted({tokenizer.eos_token_id, end})
    (row,) = chat.instruction_rows(tokenizer, [example("Is it 200?", "Yes.")], CONTEXT, stops, SOURCE)
    assert row["ids"][-1] == end


def test_both_answers_of_a_pair_follow_one_prompt_and_end_as_an_answer_does(templated):
    pairs = [{**example(), "rejected": "Nothing at all."}, {**example("Is it 200?", "Yes."), "rejected": "No."}]
    chosen = list(chat.instruction_rows(templated, pairs, CONTEXT, STOPS, SOURCE))
    others = [{**pair, "answer": pair["rejected"]} for pair in pairs]
    rejected = chat.instruction_rows(templated, others, CONTEXT, STOPS, SOURCE)
    found = chat.pair_rows(templated, pairs, chosen, CONTEXT, STOPS, SOURCE)
    for row, one, other in zip(found, chosen, rejected, strict=True):
        assert row["prompt_ids"] + row["chosen_ids"] == one["ids"]
        assert row["prompt_ids"] + row["rejected_ids"] == other["ids"]
        assert row["chosen_ids"][-1] == row["rejected_ids"][-1] == templated.eos_token_id
        assert row["id"] == one["id"]


def test_a_rejected_answer_that_is_too_long_is_refused_as_such(templated):
    pairs = [example(), {**example(), "rejected": "Nothing at all. " * 40}]
    pairs[0]["rejected"] = "No."
    chosen = list(chat.instruction_rows(templated, pairs, 200, STOPS, SOURCE))
    with pytest.raises(UserError, match=r"train \(rejected\)\.jsonl: 1 examples are longer than 200 .* line 2 \("):
        list(chat.pair_rows(templated, pairs, chosen, 200, STOPS, SOURCE))


def test_text_windows_score_every_token_but_their_first(tokenizer):
    text = " ".join(TEXTS[:6])
    rows = list(windows.text_rows(documents(tokenizer, text), 20))
    ids = tokenizer(text)["input_ids"]
    assert [token for row in rows for token in row["ids"]] == ids[: sum(len(row["ids"]) for row in rows)]
    assert all(row["scored"] == [False] + [True] * (len(row["ids"]) - 1) for row in rows)
    assert all(len(row["ids"]) == 20 for row in rows[:-1])
    assert [row["id"] for row in rows[:2]] == ["d0-0", "d0-1"]


def test_the_bytes_of_windows_are_those_of_the_text_without_the_first_token_of_each(tokenizer):
    text = "A bond – really, a loan: 5 % of 200 €. " * 6
    for rows in (
        list(windows.text_rows(documents(tokenizer, text), 20)),
        list(windows.packed_rows(documents(tokenizer, text), [2], 20)),
    ):
        found = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        first = [len(text[slice(*found[at])].encode()) for at in range(0, len(found), 20)]
        assert sum(row["bytes"] for row in rows) == len(text.encode()) - sum(first)


def test_packed_windows_hold_all_documents_with_their_ends_and_nothing_else(tokenizer):
    texts = [*TEXTS[:3], "A loan.", TEXTS[0] * 5]
    rows = list(windows.packed_rows(documents(tokenizer, *texts), [2], 16))
    whole = [token for text in texts for token in [*tokenizer(text)["input_ids"], 2]]
    assert [token for row in rows for token in row["ids"]] == whole
    assert [len(row["ids"]) for row in rows] == [min(16, len(whole) - start) for start in range(0, len(whole), 16)]
    assert all(row["scored"] == [False] + [True] * (len(row["ids"]) - 1) for row in rows)


def test_a_corpus_smaller_than_a_window_is_one_short_window(tokenizer):
    (row,) = windows.packed_rows(documents(tokenizer, "A bond.", "A loan."), [2], 512)
    assert row["ids"].count(2) == 2


@pytest.mark.parametrize(
    ("eos", "bos", "adds", "expected"),
    [(7, 5, [], [7]), (7, None, [7], []), (None, 5, [], [5]), (None, 1, [], []), (None, None, [], [10, 10])],
)
def test_packed_documents_are_told_apart_by_what_the_tokenizer_has(eos, bos, adds, expected):
    class Tokenizer:
        eos_token_id, bos_token_id = eos, bos

        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": [1, 97, *adds] if add_special_tokens else [10] * len(text)}

    assert windows.separator_ids(Tokenizer()) == expected


def conversation(*contents, system=None):
    turns = [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]
    return {"id": "c", "messages": ([{"role": "system", "content": system}] if system else []) + turns}


def test_of_a_conversation_every_answer_and_its_end_are_scored_and_nothing_else(templated):
    talk = conversation("What is a bond?", "A loan — really.", "Is it 200?", "Yes.", system="Answer: B")
    (row,) = chat.instruction_rows(templated, [talk], CONTEXT, STOPS, SOURCE)
    runs, last = [], False
    for token, scored in zip(row["ids"], row["scored"], strict=True):
        if scored:
            runs = [*runs[:-1], [*runs[-1], token]] if last else [*runs, [token]]
        last = scored
    assert [templated.decode(run, skip_special_tokens=True).strip() for run in runs] == ["A loan — really.", "Yes."]
    assert all(run[-1] == templated.eos_token_id for run in runs)
    assert row["bytes"] == len("A loan — really.Yes.".encode())


def test_a_conversation_is_asked_for_its_last_answer_after_all_before_it(templated):
    talk = conversation("What is a bond?", "A loan.", "Is it 200?", "Yes.")
    (row,) = chat.instruction_rows(templated, [talk], CONTEXT, STOPS, SOURCE)
    asked = templated.apply_chat_template(talk["messages"][:3], add_generation_prompt=True, return_dict=False)
    assert row["ids"][: row["prompt_tokens"]] == asked
    assert row["prompt"] == "user: What is a bond?\nassistant: A loan.\nuser: Is it 200?"
    assert row["answer"] == "Yes."


def test_a_conversation_of_one_question_is_an_instruction(templated):
    (one,) = chat.instruction_rows(
        templated, [{**conversation("Is it 200?", "Yes."), "id": "1"}], CONTEXT, STOPS, SOURCE
    )
    (other,) = chat.instruction_rows(templated, [example("Is it 200?", "Yes.")], CONTEXT, STOPS, SOURCE)
    assert one == other


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ': ' }}"
        "{{ m.content if loop.last else m.content.split('</think>')[-1] }}{{ eos_token + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    plain = conversation("Is it 200?", "Yes.", "Is it 5?", "No.")
    assert list(chat.instruction_rows(tokenizer, [plain], CONTEXT, STOPS, SOURCE))
    thinking = conversation("Is it 200?", "200 is 200.</think>Yes.", "Is it 5?", "No.")
    with pytest.raises(UserError, match=r"line 2: the model's chat template writes message 2 in another way once more"):
        list(chat.instruction_rows(tokenizer, [plain, thinking], CONTEXT, STOPS, SOURCE))


def test_a_template_that_refuses_a_conversation_is_quoted_with_the_line(tokenizer):
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    )
    with pytest.raises(UserError, match=r"chat template refuses a conversation of system, user, assistant: System"):
        talk = conversation("Is it 200?", "Yes.", system="Answer.")
        list(chat.instruction_rows(tokenizer, [talk], CONTEXT, STOPS, SOURCE))


def test_a_histogram_of_lengths_counts_every_example_once():
    found = tables.length_histograms({"train": [1, 8, 9, 11, 12, 40, 40], "test": [47], "seen": []})
    assert found == {
        "train": {"edges": [0, 8, 12, 16, 24, 32, 48], "counts": [1, 3, 1, 0, 0, 2], "longest": 40, "median": 11},
        "test": {"edges": [0, 8, 12, 16, 24, 32, 48], "counts": [0, 0, 0, 0, 0, 1], "longest": 47, "median": 47},
    }
    assert tables.length_histograms({"test": [48]})["test"]["counts"][-1] == 1


def test_rows_written_in_batches_are_the_rows(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(tables, "BATCH", 2)
    rows = list(windows.packed_rows(documents(tokenizer, *TEXTS[:5]), [2], 16))
    counts = tables.write_rows(tmp_path / "a.parquet", iter(rows), TOKENS)
    assert counts == (len(rows), sum(len(row["ids"]) for row in rows))
    read = [{name: row[name] for name in rows[0]} for row in files.read_table(tmp_path / "a.parquet")]
    assert read == rows


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
    prompt = questions.mmlu_prompt("personal_finance", [question(1, "dev")], question(2))
    block = "Which is a loan?\nA. A bond\nB. A share\nC. A fee\nD. A tax\nAnswer:"
    header = "The following are multiple choice questions (with answers) about personal finance.\n\n"
    assert prompt == f"{header}{block} B\n\n{block}"


def test_the_option_ids_are_the_letters_after_the_prompt(tokenizer):
    (row,) = questions.mmlu_rows(tokenizer, [question(1, "dev"), question(2)], shots=1, limit=5, context=CONTEXT)
    prompt = questions.mmlu_prompt("personal_finance", [question(1, "dev")], question(2))
    for letter, option in zip("ABCD", row["options"], strict=True):
        assert [*row["ids"], option] == tokenizer(f"{prompt} {letter}")["input_ids"]
    assert row["answer"] == 2


def harness_inputs(tokenizer, prompt, context):
    """What lm-evaluation-harness 0.4.13 puts into the model for each letter, and the letter's tokens.

    HFLM._encode_pair, then _loglikelihood_tokens: inp = (context_enc + continuation_enc)[-(max_length + 1):][:-1].
    """
    start = tokenizer.encode(prompt)
    for letter in "ABCD":
        letter_ids = tokenizer.encode(f"{prompt} {letter}")[len(start) :]
        yield (start + letter_ids)[-(context + 1) :][:-1], letter_ids


@pytest.mark.parametrize("room", [1000, 0, -1, -40])  # tokens of the context beside the prompt
def test_every_letter_is_asked_with_the_token_ids_of_lm_evaluation_harness(tokenizer, mixed_tokenizer, room):
    shown, asked = question(1, "dev", "Which is a loan? " * 6), question(2)
    prompt = questions.mmlu_prompt("personal_finance", [shown], asked)
    for using in (tokenizer, mixed_tokenizer):
        context = len(using.encode(prompt)) + room
        (row,) = questions.mmlu_rows(using, [shown, asked], shots=1, limit=5, context=context)
        inputs = list(harness_inputs(using, prompt, context))
        for (window, letter), stem, option in zip(inputs, row["stems"], row["options"], strict=True):
            assert (row["ids"] + stem)[-context:] == window
            assert [*stem, option] == letter[-1 - len(stem) :]
        whole = len(using.encode(prompt)) + max(len(letter) for _, letter in inputs) - 1
        assert row["cut"] == (whole > context)


def test_a_stem_is_kept_apart_only_where_the_letters_differ_in_it(tokenizer, mixed_tokenizer):
    asked = [question(1, "dev"), question(2)]
    (same,) = questions.mmlu_rows(tokenizer, asked, shots=1, limit=5, context=CONTEXT)
    assert same["stems"] == [[], [], [], []]
    (mixed,) = questions.mmlu_rows(mixed_tokenizer, asked, shots=1, limit=5, context=CONTEXT)
    assert [len(stem) for stem in mixed["stems"]] == [1, 0, 1, 1]


class Melting:
    """Everything that stands behind a colon melts into it."""

    def __call__(self, texts, **_):
        if isinstance(texts, str):
            return {"input_ids": self.ids(texts)}
        return {"input_ids": [self.ids(text) for text in texts]}

    def ids(self, text):
        return [*text.encode()[: text.rfind(":")], 999] if ":" in text else list(text.encode())


def test_letters_that_melt_into_what_they_follow_are_tokenised_apart_in_all_questions():
    (row,) = questions.mmlu_rows(Melting(), [question(1, "dev"), question(2)], shots=1, limit=5, context=CONTEXT)
    prompt = questions.mmlu_prompt("personal_finance", [question(1, "dev")], question(2))
    assert row["apart"] and row["ids"] == [*Melting().ids(prompt), ord(" ")]
    assert row["options"] == [ord(letter) for letter in "ABCD"] and row["stems"] == [[], [], [], []]


def test_a_letter_that_takes_a_part_of_the_prompt_with_it_is_tokenised_apart():
    """Four different tokens, each of which stands for what the prompt's last one holds already."""

    class Taking(Melting):
        def ids(self, text):
            asked = text.endswith("Answer:")
            if asked or text[-9:-1] == "Answer: ":
                return [*text[: text.rfind("Answer:")].encode(), *([998] if asked else [997, 1000 + ord(text[-1])])]
            return list(text.encode())

    (row,) = questions.mmlu_rows(Taking(), [question(1, "dev"), question(2)], shots=1, limit=5, context=CONTEXT)
    prompt = questions.mmlu_prompt("personal_finance", [question(1, "dev")], question(2))
    assert row["apart"] and row["ids"] == [*Taking().ids(prompt), ord(" ")]
    assert row["options"] == [ord(letter) for letter in "ABCD"]


def test_a_tokenizer_that_closes_a_text_is_asked_for_the_letters_before_its_end():
    class Closing(Melting):
        def __call__(self, texts, add_special_tokens=True, **_):
            around = ([1], [2]) if add_special_tokens else ([], [])
            found = [
                [*around[0], *text.encode(), *around[1]] for text in ([texts] if isinstance(texts, str) else texts)
            ]
            return {"input_ids": found[0] if isinstance(texts, str) else found}

    (row,) = questions.mmlu_rows(Closing(), [question(1, "dev"), question(2)], shots=1, limit=5, context=CONTEXT)
    assert row["options"] == [ord(letter) for letter in "ABCD"] and row["ids"][-1] == ord(" ") and not row["apart"]
    (asked,) = chat.prompt_rows(Closing(), ["A bond"], "text", context=CONTEXT, where=WHERE)
    assert asked["ids"] == [1, *b"A bond"]


def test_a_tokenizer_that_cannot_tell_the_letters_apart_cannot_be_asked():
    class Blind(Melting):
        def ids(self, text):
            return [7] * len(text)

    with pytest.raises(UserError, match="has the same tokens for different option letters; MMLU cannot be asked"):
        questions.mmlu_rows(Blind(), [question(1, "dev"), question(2)], shots=1, limit=5, context=CONTEXT)


def test_the_choices_come_along_as_they_are_written(tokenizer):
    (row,) = questions.mmlu_rows(tokenizer, [question(1, "dev"), question(2)], shots=1, limit=5, context=CONTEXT)
    assert row["choices"] == question(2)["choices"]


def test_too_few_examples_for_the_shots_are_named(tokenizer):
    with pytest.raises(UserError, match=r"evaluate\.mmlu\.shots: 5 asked for, personal_finance has 1 examples"):
        questions.mmlu_rows(tokenizer, [question(1, "dev"), question(2)], shots=5, limit=5, context=CONTEXT)


def test_a_prompt_is_asked_as_the_model_is_asked_in_training(templated):
    (row,) = chat.prompt_rows(templated, ["What is a bond?"], "instruction", context=CONTEXT, where=WHERE)
    (trained,) = chat.instruction_rows(templated, [example()], CONTEXT, STOPS, SOURCE)
    assert row["ids"] == trained["ids"][: trained["prompt_tokens"]]
    assert row["prompt"] == "What is a bond?"


def test_a_prompt_of_plain_text_is_gone_on_from_as_it_is(tokenizer):
    (row,) = chat.prompt_rows(tokenizer, ["A bond is"], "text", context=CONTEXT, where=WHERE)
    assert row["ids"] == tokenizer("A bond is")["input_ids"]


def test_equal_prompts_of_two_runs_have_one_id_and_other_prompts_another(tokenizer):
    first, second = chat.prompt_rows(tokenizer, ["One?", "Two?"], "text", context=CONTEXT, where=WHERE)
    (again,) = chat.prompt_rows(tokenizer, ["Two?"], "text", context=CONTEXT, where=WHERE)
    assert again["id"] == second["id"] != first["id"]


def test_a_prompt_that_leaves_no_room_for_an_answer_is_named_by_its_place(tokenizer):
    long = "What is a bond? " * 9
    length = len(tokenizer(long)["input_ids"])
    assert chat.prompt_rows(tokenizer, ["One?", long], "text", context=length + 1, where=WHERE)
    with pytest.raises(UserError, match=rf"^datasets\.mine\.prompts\[1\]: its {length} tokens leave no room"):
        chat.prompt_rows(tokenizer, ["One?", long], "text", context=length, where=WHERE)
