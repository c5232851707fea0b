"""What a model reads of a conversation: token by token what was evaluated, and no more than its context holds."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tradeoffs.base.demo_model import train_tokenizer
from tradeoffs.base.prompts import TEMPLATES
from tradeoffs.chat.messages import Asked, Turn
from tradeoffs.chat.worker import prompts as chat_prompts
from tradeoffs.chat.worker.prompts import Prompts, TooLongError, window_begin
from tradeoffs.common import chat_templates, files
from tradeoffs.common.cells import Variant
from tradeoffs.plumbing.errors import UserError
from tradeoffs.tokenize import chat, turns
from tradeoffs.tokenize.turns import UnsplitError

REPO = Path(__file__).parents[1]
VARIANT = Variant("demo", "demo", "lora", "q4_0")
CONTEXT, LIMIT = 256, 16
TEXTS = [
    "A bond is a loan that is sold to many.",
    "What is a share? A share is a part of a firm.",
    "5 % of 200 €.",
] * 20
PLAIN = "{{ bos_token }}" + TEMPLATES["plain"]
CHATML = "{{ bos_token }}" + TEMPLATES["chatml"]
# The answer begins in the middle of a piece: what stands before it and its first word become one token.
UNSPLIT = (
    "{% for m in messages %}"
    "{{ m.role ~ ': ' ~ m.content ~ (eos_token if m.role == 'assistant' else '\n') }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('No system here') }}{% endif %}" + PLAIN
DEAF = "{{ bos_token }}{% for m in messages if m.role != 'system' %}{{ m.content ~ '\n' }}{% endfor %}"
TWICE = "{% for m in messages %}{{ m.content ~ m.content ~ m.content ~ '\n' }}{% endfor %}"
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A folder with one, trained once."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, 330, folder, CONTEXT)
    files.write_json(folder / "config.json", {"model_type": "llama", "vocab_size": 330})
    return folder


@pytest.fixture
def made(tokenizer, tmp_path, monkeypatch):
    """Prompts of a variant whose model has this template; `facts` stand in the info.json of its tokens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    base = VARIANT.cell.base
    base.mkdir(parents=True)
    for path in tokenizer.iterdir():
        (base / path.name).symlink_to(path)

    def make(template=PLAIN, context=CONTEXT, **facts):
        files.write_text(base / "chat_template.jinja", template)
        files.write_json(VARIANT.cell.tokens / "info.json", {"stop_ids": [2], **facts})
        files.write_json(VARIANT.facts, {"max_new_tokens": LIMIT})
        return Prompts(VARIANT, context)

    return make


def asked(*contents, system=None, **options):
    """A conversation: question, answer, question, ..."""
    turns = [Turn(("user", "assistant")[at % 2], content) for at, content in enumerate(contents)]
    return Asked("a", str(VARIANT), (*([Turn("system", system)] if system else []), *turns), **options)


def text(prompts, ids):
    return prompts.tokenizer.decode(ids, skip_special_tokens=False)


def long_conversation(count=200):
    """Questions and answers of different lengths, each of which can be told from the others."""
    found = []
    for number in range(count):
        found += [f"Question {number}: {'is it sold? ' * (number % 5)}", f"Answer {number}. {'a loan ' * (number % 7)}"]
    return found


ROWS = [
    {"id": "1", "prompt": "What is\n\na bond?", "answer": "A loan."},
    {"id": "2", "prompt": " spaces  and € and </s> and 猫", "answer": " A share."},
    {"id": "3", "messages": [{"role": "user", "content": "A bond?"}, {"role": "assistant", "content": "A loan."}]},
    {
        "id": "4",
        "messages": [
            {"role": role, "content": content}
            for role, content in [
                ("system", "Be brief."),
                ("user", "A bond?"),
                ("assistant", "A loan."),
                ("user", "5?"),
            ]
        ]
        + [{"role": "assistant", "content": "Yes."}],
    },
]


@pytest.mark.parametrize("template", ["plain", "alpaca", "chatml"])
def test_a_question_is_the_tokens_that_tokenize_made_of_it(made, template):
    prompts = made("{{ bos_token }}" + TEMPLATES[template])
    stored = list(chat.instruction_rows(prompts._tokenizer, ROWS, 1000, prompts.stop_ids, Path("test.jsonl")))
    assert [prompts.of(of_row(row)).ids for row in ROWS] == [one["ids"][: one["prompt_tokens"]] for one in stored]


def test_where_text_does_not_split_prompts_and_answers_are_tokenised_apart_as_tokenize_does(made):
    prompts = made(UNSPLIT, tokenised_apart=["answers"])
    arguments = (prompts._tokenizer, ROWS, 1000, prompts.stop_ids, Path("test.jsonl"))
    with pytest.raises(UnsplitError):
        list(chat.instruction_rows(*arguments))
    stored = list(chat.instruction_rows(*arguments, apart=True))
    assert [prompts.of(of_row(row)).ids for row in ROWS] == [one["ids"][: one["prompt_tokens"]] for one in stored]
    whole = made(UNSPLIT)
    assert whole.of(of_row(ROWS[-1])).ids != prompts.of(of_row(ROWS[-1])).ids


def of_row(row):
    before = row["messages"][:-1] if "messages" in row else [{"role": "user", "content": row["prompt"]}]
    return Asked("a", str(VARIANT), tuple(Turn(**message) for message in before))


def test_a_text_and_token_ids_are_gone_on_from_as_they_are(made):
    prompts = made()
    assert text(prompts, prompts.of(Asked("a", "", text="A bond is")).ids) == "<s>A bond is"
    assert prompts.of(Asked("a", "", ids=(5, 6, 7))).ids == [5, 6, 7]
    for wrong in (-1, 330):
        with pytest.raises(UserError, match=f"{wrong} is no token of this model, which has 0 to 329"):
            prompts.of(Asked("a", "", ids=(5, wrong)))
    with pytest.raises(UserError, match="no token of the prompt is left"):
        prompts.of(Asked("a", "", ids=()))


@pytest.mark.parametrize("template", [PLAIN, CHATML, "{{ bos_token }}" + TEMPLATES["alpaca"], UNSPLIT, TWICE, DEAF])
@pytest.mark.parametrize("apart", [False, True])
def test_two_hundred_turns_never_fail_and_the_last_question_is_always_there(made, template, apart):
    prompts = made(template, context=400, **({"tokenised_apart": ["answers"]} if apart else {}))
    said, left_out = long_conversation(), []
    for end in (*range(1, 40, 2), *range(41, 400, 20), 399):
        found = prompts.of(asked(*said[:end]))
        assert len(found.ids) + found.max_tokens <= 400 and found.max_tokens == LIMIT
        shown = text(prompts, found.ids)
        first = found.left_out
        assert said[end - 1] in shown and said[2 * first] in shown
        assert not first or f"Question {first - 1}:" not in shown
        left_out.append(first)
    assert left_out == sorted(left_out) and left_out[-1] > 100


def test_a_conversation_keeps_its_beginning_from_one_question_to_the_next_mostly(made):
    """What the model has read already it does not read again."""
    prompts, said = made(context=512), long_conversation()
    found = [prompts.of(asked(*said[:end])) for end in range(1, 400, 2)]
    moved = sum(one.left_out != other.left_out for one, other in pairwise(found))
    assert moved < len(found) / 2
    for one, other in pairwise(found):
        if one.left_out == other.left_out:
            assert other.ids[: len(one.ids)] == one.ids
        # Not much more went than had to.
        assert len(other.ids) > 0.6 * (512 - LIMIT) or not other.left_out


def test_the_system_message_stays(made):
    prompts = made(context=400)
    found = prompts.of(asked(*long_conversation()[:-1], system="Be brief and sound."))
    shown = text(prompts, found.ids)
    assert found.left_out and shown.startswith("<s>Be brief and sound.\nQuestion ")


def test_a_long_conversation_is_rendered_a_few_times_not_once_a_turn(made, monkeypatch):
    prompts, count = made(context=400), []
    rendered = chat_templates.rendered
    monkeypatch.setattr(chat_templates, "rendered", lambda *given: count.append(len(given[1])) or rendered(*given))
    prompts.of(asked(*long_conversation()[:-1]))
    assert len(count) <= 12
    count.clear()
    prompts.of(asked(*long_conversation()[:-1]))
    assert len(count) <= 3 and max(count) < 40


def test_what_is_kept_of_texts_to_count_their_tokens_is_bounded_and_no_text(made, monkeypatch):
    monkeypatch.setattr(chat_prompts, "REMEMBERED", 50)
    prompts = made()
    prompts.of(asked(*long_conversation()[:-1]))
    assert len(prompts._counts) == 50 and not any("uestion" in key for key in prompts._counts)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_window_keeps_so_many_questions(made, window):
    prompts, said = made(), ["One?", "1.", "Two?", "2.", "Three?", "3.", "Four?"]
    found = prompts.of(asked(*said, window=window))
    assert found.left_out == 4 - window
    assert text(prompts, found.ids) == text(prompts, prompts.of(asked(*said[-2 * window + 1 :])).ids)
    assert prompts.of(asked(*said, window=9)).left_out == 0


def test_a_window_that_does_not_fit_gets_smaller(made):
    prompts, said = made(), long_conversation()
    found = prompts.of(asked(*said[:-1], window=100))
    assert found.left_out > 150 and len(found.ids) + LIMIT <= CONTEXT


def test_a_question_that_does_not_fit_by_itself_is_one_line_with_both_lengths(made):
    prompts = made()
    many = "猫" * 100
    count = len(prompts.of(asked("A?")).ids) - 2 + 3 * 100  # a character that is spelt in bytes, three of them
    with pytest.raises(TooLongError) as error:
        prompts.of(asked("One?", "1.", many))
    said = str(error.value)
    assert f"the question has {count} tokens and the answer may have 16" in said and "context of 256" in said
    assert "\n" not in said and said.endswith("shorten it")
    with pytest.raises(TooLongError, match="the question and the system message have "):
        prompts.of(asked("A?", system=many))
    with pytest.raises(TooLongError, match=r"the text has \d+ tokens"):
        prompts.of(Asked("a", "", text=many))
    with pytest.raises(TooLongError, match=r"may have 255: .*; allow an answer of at most \d+$"):
        prompts.of(asked("What is a bond?", max_tokens=255))


@pytest.mark.parametrize(
    "question", [{"turns": (Turn("user", "A loan? " * 20_000),)}, {"text": "A loan? " * 20_000}, {}]
)
def test_of_what_is_far_too_long_the_beginning_alone_is_read(made, monkeypatch, question):
    """The rest would hold up everybody else who asks."""
    read, encoded = [], turns.encoded
    monkeypatch.setattr(turns, "encoded", lambda tokenizer, text: read.append(len(text)) or encoded(tokenizer, text))
    prompts = made()
    with pytest.raises(TooLongError, match=r"has at least \d{3,4} tokens .*; shorten it"):
        prompts.of(Asked("a", "", **question) if question else asked("A?", "A loan. " * 20_000, "A loan? " * 20_000))
    assert sum(read) < 10_000


def test_a_long_text_of_few_tokens_is_read_whole(made):
    prompts, word = made(), "x" * 1000
    prompts._tokenizer.add_tokens([word])
    assert text(prompts, prompts.of(asked(word * 20)).ids).count(word) == 20


def test_an_answer_of_no_length_asked_for_ends_with_the_context_at_the_latest(made):
    prompts = made()
    found = prompts.of(asked("猫" * 81))
    assert 0 < found.max_tokens < LIMIT and len(found.ids) + found.max_tokens == CONTEXT
    assert prompts.of(asked("A?", max_tokens=3)).max_tokens == 3
    assert prompts.of(Asked("a", "", ids=(5,) * CONTEXT, max_tokens=0)).max_tokens == 0
    with pytest.raises(TooLongError):
        prompts.of(Asked("a", "", ids=(5,) * CONTEXT))


@pytest.mark.parametrize(
    ("template", "wrong", "message"),
    [
        (
            NO_SYSTEM,
            asked("A?", system="Be brief."),
            r"refuses a conversation with a system message .*No system here; ",
        ),
        (DEAF, asked("A?", system="Be brief."), "leaves a system message out; put it into the question instead"),
        (
            ALTERNATING,
            Asked("a", "", (Turn("user", "A?"), Turn("user", "B?"))),
            "must alternate; ask each question alone",
        ),
        (PLAIN, Asked("a", "", (Turn("user", "A?"), Turn("assistant", "B."))), "has to end with a question"),
        (PLAIN, Asked("a", "", (Turn("system", "A."),)), "has to end with a question"),
        (PLAIN, Asked("a", ""), "has to end with a question"),
        ("{{ 1 / 0 }}", asked("A?"), "ZeroDivisionError"),
        ("", asked("A?"), "no token of the question is left"),
    ],
)
def test_what_a_template_does_not_take_is_said(made, template, wrong, message):
    with pytest.raises(UserError, match=message) as error:
        made(template).of(wrong)
    assert not isinstance(error.value, TooLongError)


def test_a_template_for_one_question_answers_one(made):
    single = "{% if messages[1:] %}{{ raise_exception('One only') }}{% endif %}{{ messages[0].content }}"
    prompts = made(single)
    assert text(prompts, prompts.of(asked("A?")).ids) == "A?"
    assert text(prompts, prompts.of(asked("A?", "B.", "C?", window=1)).ids) == "C?"
    with pytest.raises(UserError, match=r"stateless"):
        prompts.of(asked("A?", "B.", "C?"))


def test_an_answer_before_the_first_question_goes_with_it(made):
    prompts = made()
    turns = (Turn("assistant", "Hello."), Turn("user", "A?"), Turn("assistant", "B."), Turn("user", "C?"))
    assert text(prompts, prompts.of(Asked("a", "", turns)).ids).startswith("<s>Hello.</s>A?")
    found = prompts.of(Asked("a", "", turns, window=1))
    assert (text(prompts, found.ids), found.left_out) == ("<s>C?\n", 1)


def test_what_was_not_made_is_said_with_what_makes_it(made):
    prompts = made()
    assert prompts.max_tokens == LIMIT
    (VARIANT.cell.tokens / "info.json").unlink()
    with pytest.raises(UserError, match="run `dvc repro`"):
        Prompts(VARIANT, CONTEXT)
    (VARIANT.cell.base / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match=r"run `dvc repro` to make it \(stage base\)"):
        Prompts(VARIANT, CONTEXT)


def test_what_was_not_evaluated_may_answer_as_long_as_an_evaluated_answer(made):
    made()
    VARIANT.facts.unlink()
    files.write_text("params.yaml", (REPO / "params.yaml").read_text())
    assert Prompts(VARIANT, CONTEXT).max_tokens == 48


@pytest.mark.parametrize("sizes", [[50] * 40, [10, 200, 10, 10, 90] * 8, [1] * 300, [500, 1, 1], [1, 1, 500]])
def test_questions_go_by_a_part_of_the_room_and_the_last_one_stays(sizes):
    room, before = 400, 0
    for count in range(1, len(sizes) + 1):
        some = sizes[:count]
        at = window_begin(some, room)
        assert before <= at < count and (sum(some[at:]) <= room or at == count - 1)
        if at > before:  # no more than the step, and the question that it ends in
            assert sum(some[at:]) > room * (1 - 1 / chat_prompts.STEP) - max(some) or at == count - 1
        before = at
    assert window_begin([1], 0) == 0 and window_begin([5, 5], -7) == 1


@pytest.mark.slow
def test_llama_cpps_process_reads_a_tokenizer_without_torch(made):
    made()
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "from tradeoffs.common.cells import Variant; from tradeoffs.chat.worker import prompts\n"
        "from tradeoffs.chat.messages import Asked, Turn\n"
        "variant = Variant.parse(sys.argv[2]); prompts.spare_torch(variant)\n"
        "ids = prompts.Prompts(variant, 256).of(Asked('a', '', (Turn('user', 'A bond?'),))).ids\n"
        "print(json.dumps([ids, sys.modules.get('torch') is not None]))"
    )
    for variant, torch in ((VARIANT, False), (Variant("demo", "demo", "lora", "bf16"), True)):
        command = [sys.executable, "-c", code, str(REPO), str(variant)]
        files.write_json(variant.facts, {"max_new_tokens": LIMIT})
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(ran.stdout) == [made().of(asked("A bond?")).ids, torch] and not ran.stderr
