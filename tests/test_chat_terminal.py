"""`python -m tradeoffs.chat`: lines in, answers out; two side by side, commands, Ctrl-C, pipes, files."""

import asyncio
import codecs
import fcntl
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import hostile
import pytest

from tradeoffs.chat import __main__ as command
from tradeoffs.chat import variants
from tradeoffs.chat.messages import Begun, Ended, Failed, Queued, Ready, Said, Turn
from tradeoffs.chat.terminal import asking, chat, commands, conversation, options, reading, showing
from tradeoffs.chat.terminal.chat import INTERRUPTED, Chat
from tradeoffs.chat.terminal.conversation import Answer, Exchange, Settings, Side
from tradeoffs.chat.terminal.showing import Lines, Screen
from tradeoffs.chat.variants import Talker
from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]
A, B = "demo-demo-full-q8_0", "demo-demo-lora-q4_0"
BASE, STORIES = "demo-demo-base-bf16", "demo-stories-full-q8_0"  # both complete: untuned; of a plain text
LONG = "w " * 300


def talker(name):
    label = "completion" if name in (BASE, STORIES) else "chat"
    numbers = {"test_f1": 0.8, "size_mb": 2.0}
    return Talker(Variant.parse(name), "llama.cpp", label, name == A, numbers, "test_f1", "size_mb", name == STORIES)


TALKERS = {name: talker(name) for name in (A, B, BASE, STORIES)}


class Model:
    """An engine whose models say what stands in `says` by question, else the question itself; `log` is what was asked
    and what became of it. A question of `refuses` has no answer; one that begins with `wait` has no end, unless it is
    left, and one with `stop` presses Ctrl-C in its middle, so many times as it says."""

    def __init__(self, says=(), refuses=(), unloadable=()):
        self.says, self.refuses, self.unloadable = dict(says), refuses, unloadable
        self.asked, self.log, self.closed, self._left, self._count = [], [], False, {}, 0

    async def model(self, variant):
        if variant in self.unloadable:
            raise UserError(f"{variant}: cannot be loaded")
        ready = Ready("llama.cpp", "cpu", 512, 8, 48, 0.5, 90.0)
        return SimpleNamespace(ready=SimpleNamespace(result=lambda: ready))

    async def ask(self, asked):
        self._count += 1
        name, question = str(self._count), asked.text if asked.text is not None else asked.turns[-1].content
        self.asked.append(asked)
        self.log.append(f"begin {asked.variant} {question}")
        left = self._left[name] = asyncio.Event()
        try:
            yield Queued(name, 1)
            if question in self.refuses:
                yield Failed(name, "too_long", "the question has 600 tokens")
                return
            yield Begun(name, 10, 4, max(sum(turn.role == "user" for turn in asked.turns) - 3, 0))
            answer, reason = self.says.get(question, question), "stop"
            parts = answer if isinstance(answer, list) else [answer[:3], answer[3:]]
            for at, part in enumerate(parts, 1):
                await asyncio.sleep(0)
                yield Said(name, part, at)
                if question.startswith("stop"):
                    for _ in range(int(question.split()[1])):
                        os.kill(os.getpid(), signal.SIGINT)
                        await asyncio.sleep(0)
                    await left.wait()
                    parts, reason = parts[:at], "left"
                    break
            yield Ended(name, reason, "".join(parts), 10, 4, len(parts), 0.0, 0.25, 0.75, 91.0)
        finally:
            self.log.append(f"end {asked.variant} {question}")

    def leave(self, name):
        self._left[name].set()

    async def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(variants, "known", lambda: TALKERS)


def screen(interactive=True):
    out = io.StringIO()
    return Screen(out, out if interactive else io.StringIO(), interactive), out


def chat_of(model, *names, shown=None, **settings):
    return Chat(
        [TALKERS[name] for name in names], Settings(**settings), lambda: model, shown or screen()[0], commands.execute
    )


def talk(model, lines, *names, interactive=True, **settings):
    """What is seen, the exit code, and the chat."""
    shown, out = screen(interactive)
    chat = chat_of(model, *(names or [A]), shown=shown, **settings)
    code = chat.run(lines)
    assert model.closed
    return out.getvalue(), code, chat


def said(asked):
    return [(turn.role, turn.content) for turn in asked.turns]


# --- what is asked


def test_a_question_stands_after_those_before_it_with_the_system_message_first():
    model = Model({"One?": "1.", "Two?": "2."})
    talk(model, ["One?", "", "Two?"], system="Be brief.", max_tokens=7, temperature=0.5, top_p=0.9, seed=3, window=4)
    first, second = model.asked
    assert said(first) == [("system", "Be brief."), ("user", "One?")]
    assert said(second) == [*said(first), ("assistant", "1."), ("user", "Two?")]
    for one in model.asked:
        assert (one.max_tokens, one.temperature, one.top_p, one.seed, one.window) == (7, 0.5, 0.9, 3, 4)


def test_it_is_greedy_unless_asked_otherwise():
    talk(model := Model(), ["One?"])
    assert (model.asked[0].temperature, model.asked[0].max_tokens, model.asked[0].window) == (0, None, None)


def test_stateless_asks_each_question_alone():
    talk(model := Model(), ["One?", "Two?"], system="Be brief.", window=1)
    assert said(model.asked[1]) == [("system", "Be brief."), ("user", "Two?")]


def test_what_completes_a_text_gets_it_as_it_is_and_others_on_demand():
    talk(model := Model(), ["One", "Two", "/text off", "Three"], STORIES)
    assert [one.text for one in model.asked] == ["One", "Two", None]
    assert not model.asked[1].turns
    talk(model := Model(), ["One", "/text", "Two"], A)
    assert [one.text for one in model.asked] == [None, "Two"]


def test_a_base_is_asked_as_it_was_evaluated_each_question_alone():
    talk(model := Model(), ["One?", "Two?"], BASE)
    assert [said(one) for one in model.asked] == [[("user", "One?")], [("user", "Two?")]]


def test_two_slashes_ask_a_question_that_begins_with_one():
    talk(model := Model(), ["//help me", "///"])
    assert [one.turns[-1].content for one in model.asked] == ["/help me", "//"]


def test_each_of_two_has_a_conversation_of_its_own():
    class Two(Model):
        async def ask(self, asked):
            self.says["One?"] = asked.variant
            async for event in Model.ask(self, asked):
                yield event

    talk(model := Two(), ["One?", "Two?"], A, B)
    assert [said(one)[1] for one in model.asked[2:]] == [("assistant", A), ("assistant", B)]


def test_of_two_the_second_is_asked_when_the_first_has_ended_or_both_together():
    talk(model := Model(), ["One?"], A, B)
    assert model.log == [f"begin {A} One?", f"end {A} One?", f"begin {B} One?", f"end {B} One?"]
    out, _, chat = talk(model := Model(), ["One?"], A, B, together=True)
    assert sorted(model.log[:2]) == [f"begin {A} One?", f"begin {B} One?"]
    assert out.index("A  One?") < out.index("B  One?") and len(chat.sides[1].turns) == 2


# --- what is seen


def test_a_pipe_gets_answers_alone_and_a_terminal_what_they_cost():
    out, code, _ = talk(Model({"One?": "1.", "Two?": "2 lines\nof it"}), ["One?", "Two?"], interactive=False)
    assert (out, code) == ("1.\n2 lines\nof it\n", 0)
    out, _, _ = talk(Model({"One?": "1."}), ["One?"])
    assert "1.\n" in out and "first token 250 ms · 4 tokens/s · 2 tokens · 91 MB\n" in out


def test_json_is_one_line_per_answer_with_all_that_is_known_of_it(capsys):
    model = Model({"One?": "1. \x1b[31m"}, refuses=["Two?"])
    code = chat_of(model, A, B, shown=Lines()).run(["One?", "Two?", "/window 3"])
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [row["variant"] for row in rows] == [A, B, A, B] and code == 1
    assert rows[0] == {
        **{
            "variant": A,
            "question": "One?",
            "answer": "1. \x1b[31m",
            "reason": "stop",
            "tokens": 2,
            "prompt_tokens": 10,
        },
        **{"cached_tokens": 4, "left_out": 0, "seconds_waited": 0.0, "seconds_to_first_token": 0.25, "seconds": 0.75},
        **{"tokens_per_second": 4.0, "memory_mb": 91.0},
    }
    assert rows[2]["reason"] == "failed" and rows[2]["error"] == "the question has 600 tokens"
    assert "the last 3 questions" in captured.err and "\x1b" not in captured.out


def test_what_was_left_out_is_said():
    out, _, _ = talk(Model(), ["1", "2", "3", "4", "5"])
    assert out.count("1 question left out, the oldest, with their answers") == 1
    assert "2 questions left out" in out


def test_a_full_context_and_an_answer_that_was_cut_are_said():
    side = Side(TALKERS[A], context=512)
    answer = Answer("x", "length", 48, 400, 0, 0, 0.0, 0.1, 0.5, 90.0)
    assert showing.costs(side, answer)[-2:] == ["cut at its longest", "context 448 of 512 tokens"]
    assert len(showing.costs(side, Answer("x", "stop", 4, 40, 0, 0, 0.0, 0.1, 0.5, 90.0))) == 4


@pytest.mark.parametrize("text", hostile.EVERY)
@pytest.mark.parametrize("names", [(A,), (A, B)])
def test_nothing_that_a_model_says_is_obeyed_by_the_terminal(text, names):
    pieces = [text[at : at + 3] for at in range(0, len(text), 3)]
    out, _, _ = talk(Model({"One?": pieces}), ["One?", "/cost"], *names)
    assert not hostile.harm(out.replace("\n", ""))


def test_a_line_end_in_two_pieces_is_one():
    out, _, _ = talk(Model({"One?": ["a\r", "\nb\r", "c\r"]}), ["One?"], interactive=False)
    assert out == "a\nb\\rc\\r\n"


def test_the_further_lines_of_one_of_two_stand_below_its_first():
    out, _, _ = talk(Model({"One?": "first\nB  second"}), ["One?"], A, B)
    assert "A  first\n   B  second\n" in out


@pytest.mark.parametrize(
    ("ours", "theirs", "seen"),
    [
        ("damage, low", "damage, low", "the same answer"),
        ("damage, low", "delay, low", "differ: [-damage-]{+delay+}, low"),
        ('{"day": "Friday"}', '{"day": "Monday"}', 'differ: {"day": "[-Friday-]{+Monday+}"}'),
        ("a b c d e f", "a b c d e f g", "differ: a b c d e f{+ g+}"),
        ("this one", "entirely something else", "the answers differ"),
        ("a loan for buying a house", "a general rise in prices", "the answers differ"),
        ("w " * 3000, "w " * 3001 + "x", "the answers differ"),
        ("\x1b[2J a b c", "a b c", "\\x1b"),
    ],
)
def test_where_two_answers_differ_is_marked(ours, theirs, seen):
    class Two(Model):
        async def ask(self, asked):
            self.says["One?"] = ours if asked.variant == A else theirs
            async for event in Model.ask(self, asked):
                yield event

    out, _, _ = talk(Two(), ["One?"], A, B)
    assert seen in out and "\x1b" not in out


def test_colours_are_for_terminals_that_want_them(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in talk(Model(), ["One?"])[0]
    assert "\x1b" not in talk(Model(), ["One?"], interactive=False)[0]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in talk(Model(), ["One?"])[0]
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in talk(Model(), ["One?"])[0]


@pytest.mark.parametrize("columns", ["30", "1", "100000"])
def test_notes_keep_to_the_width_of_the_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    out, _, _ = talk(Model({"One?": "1."}), ["One?", "/help", "/system " + "word " * 30], A, B)
    words = max(len(word) for word in out.split())
    assert max(map(len, out.splitlines())) <= max(int(columns), 20) + words


# --- what goes wrong


def test_a_question_without_an_answer_is_said_and_the_next_one_asked():
    model = Model(refuses=["Two?"])
    out, code, chat = talk(model, ["One?", "Two?", "Three?"])
    assert f"MB\n{A}: no answer: the question has 600 tokens\nThree?" in out and code == 0
    assert [turn.content for turn in chat.sides[0].turns[::2]] == ["One?", "Three?"]
    assert talk(Model(refuses=["Two?"]), ["One?", "Two?"], interactive=False)[1] == 1


def test_an_unknown_command_gets_the_near_one_and_asks_nothing():
    out, code, _ = talk(model := Model(), ["/rest", "/nothing-like-it", "/"], interactive=True)
    assert "/rest: no command (did you mean /reset?); type // for a question" in out and "(there are: /help, " in out
    assert not model.asked and code == 0
    assert talk(Model(), ["/rest"], interactive=False)[1] == 1


def test_a_line_that_is_no_text_is_not_asked():
    out, _, chat = talk(model := Model(), ["a \udcff b", "/system \udcff"])
    assert out.count("no text in UTF-8") == 2 and not model.asked and chat.settings.system is None


def test_a_variant_that_cannot_be_loaded_ends_the_chat_or_leaves_it_as_it_was():
    with pytest.raises(UserError, match="cannot be loaded"):
        talk(Model(unloadable=[A]), ["One?"])
    out, _, chat = talk(model := Model(unloadable=[B]), ["One?", f"/variant {B}", "Two?"])
    assert (
        "cannot be loaded" in out and [one.variant for one in model.asked] == [A, A] and len(chat.sides[0].turns) == 4
    )


@pytest.mark.parametrize(("interactive", "code", "asked"), [(True, 0, 2), (False, INTERRUPTED, 1)])
def test_ctrl_c_ends_the_answer_and_through_a_pipe_the_chat(interactive, code, asked):
    out, found, chat = talk(model := Model(), ["stop 1 " + LONG, "Two?"], interactive=interactive)
    assert found == code and len(model.asked) == asked
    assert chat.sides[0].turns[1] == Turn("assistant", "sto")  # what it had said
    assert not interactive or "stopped" in out


def test_ctrl_c_twice_ends_the_chat_and_the_second_of_two_is_not_asked():
    _, code, _ = talk(model := Model(), ["stop 2 " + LONG, "Two?"], A, B)
    assert code == INTERRUPTED and len(model.asked) == 1
    _, code, _ = talk(model := Model(), ["stop 1 " + LONG, "Two?"], A, B)
    assert code == 0 and [one.variant for one in model.asked] == [A, A, B]


def test_ctrl_c_ends_what_does_not_listen(monkeypatch):
    monkeypatch.setattr(Model, "leave", lambda self, name: None)
    monkeypatch.setattr(asking, "PATIENCE", 0.01)
    _, code, chat = talk(model := Model(), ["stop 1 " + LONG, "Two?"])
    assert code == 0 and model.log[1].startswith("end") and chat.sides[0].answers[0].reason == "left"


def test_ctrl_c_while_a_model_loads_ends_the_chat():
    class Slow(Model):
        async def model(self, variant):
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()

    assert talk(Slow(), ["One?"])[1] == INTERRUPTED


def test_what_takes_more_than_a_moment_is_said_and_gone_again(monkeypatch):
    class Slow(Model):
        async def model(self, variant):
            await asyncio.sleep(0.05)
            return await Model.model(self, variant)

    monkeypatch.setattr(chat, "MOMENT", 0.0)
    monkeypatch.setenv("COLUMNS", "60")
    out, _, _ = talk(Slow(), [])
    assert out.startswith(f"\rloading {A} ...") and out.endswith("\r" + " " * 59 + "\r")
    assert talk(Slow(), [], interactive=False)[0] == ""


# --- commands


def test_settings_change_from_the_next_question_on():
    lines = [
        "One?",
        "/system Be brief.",
        "/window 2",
        "Two?",
        "/stateless",
        "Three?",
        "/stateless off",
        "/system -",
        "Four?",
    ]
    out, _, _ = talk(model := Model(), lines)
    assert [one.window for one in model.asked] == [None, 2, 1, None]
    assert [said(one)[0] for one in model.asked] == [
        ("user", "One?"),
        ("system", "Be brief."),
        ("system", "Be brief."),
        ("user", "One?"),
    ]
    assert "system message: Be brief." in out and "no system message" in out and "the last 2 questions" in out


@pytest.mark.parametrize(
    "wrong",
    [
        "/window 0",
        "/window " + "9" * 4301,
        "/window two",
        "/stateless maybe",
        "/text maybe",
        "/save",
        "/load",
        "/save .",
    ],
)
def test_what_a_command_cannot_take_is_said_with_what_it_can(wrong):
    out, _, _ = talk(Model(), [wrong])
    assert "expected" in out


def test_reset_forgets_and_quit_leaves():
    talk(model := Model(), ["One?", "/reset", "Two?", "/quit", "Three?"])
    assert [said(one) for one in model.asked] == [[("user", "One?")], [("user", "Two?")]]


def test_others_go_on_with_the_conversation(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    lines = ["One?", f"/variant {B}", "Two?", f"/variant {B} {A}", "Three?", "/variant demo-demo-full-q8", "/variant"]
    out, _, chat = talk(model := Model(), lines, A)
    assert [one.variant for one in model.asked] == [A, B, B, A]
    assert [len(one.turns) for one in model.asked] == [1, 3, 5, 5]
    assert f"did you mean {A}?" in out and [side.name for side in chat.sides] == [B, A]
    listed = out.splitlines()[-4:]
    assert [line[:2] for line in listed] == ["B ", "A ", "  ", "  "] and "recommended" in listed[0]
    assert "completion, untuned" in listed[2] and "completion, of plain text" in listed[3]


def test_what_each_costs_is_what_was_measured_and_what_was_seen():
    out, _, _ = talk(Model(), ["One?", "Two?", "/cost"], A, B)
    rows = {line.split("  ")[0]: line.split("  ", 1)[1].split() for line in out.splitlines() if ": " in line}
    assert rows["measured: test f1"] == ["0.8", "0.8"] and rows["measured: weights"] == ["2", "MB", "2", "MB"]
    assert rows["here: tokens written"] == ["4", "4"] and rows["here: speed, mean"][:2] == ["4", "tokens/s"]


def test_help_names_every_command():
    out, _, _ = talk(Model(), ["/help"])
    assert all(name in out for name in commands.COMMANDS)
    issue = "/help /reset /system /window /stateless /save /load /variant /cost /quit"
    assert set(issue.split()) <= set(commands.COMMANDS)


def test_tab_completes_commands_variants_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat.jsonl").touch()
    (tmp_path / "folder").mkdir()
    assert "/reset" in commands.completed("") and "/save " in commands.completed("")
    assert list(commands.completed("/variant ")) == list(TALKERS)
    assert commands.completed("/load ") == ["chat.jsonl", "folder/"] and commands.completed("What ") == []


# --- files


def test_a_saved_chat_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    talk(
        Model({"One?": "1 €\n\x1b."}),
        ["/system Be brief.", "One?", "/save chats/x.jsonl", "Two?", "/save chats/x.jsonl"],
        A,
        B,
    )
    rows = files.read_jsonl("chats/x.jsonl")
    assert [row["variant"] for row in rows] == [A, B]
    assert rows[0]["messages"][:3] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1 €\n\x1b.", "variant": A},
    ]
    out, _, chat = talk(model := Model(), ["/load chats/x.jsonl", "Three?", "/save chats/x.jsonl"], A, B)
    assert len(model.asked[1].turns) == 6 and chat.settings.system == "Be brief."
    assert "loaded chats/x.jsonl: 2 questions and 2 questions, a system message" in out
    assert [path.name for path in Path("chats").iterdir()] == ["x.jsonl"]
    assert Path("chats/x.jsonl").stat().st_mode & 0o777 == 0o600  # it holds what people typed


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\r"])
def test_what_was_saved_is_loaded_whatever_ends_a_line_elsewhere(tmp_path, end):
    talk(Model({"One?": f"1.{end}2."}), ["One?", f"/save {tmp_path}/x.jsonl"])
    _, _, chat = talk(Model(), [f"/load {tmp_path}/x.jsonl"])
    assert chat.sides[0].exchanges == [Exchange("One?", f"1.{end}2.", A)]


def test_a_file_says_who_gave_each_answer_and_so_does_what_goes_on_with_it(tmp_path):
    path = tmp_path / "x.jsonl"
    talk(Model({"One?": "1.", "Two?": "2."}), ["One?", f"/variant {B}", "Two?", f"/save {path}"], A)
    (row,) = files.read_jsonl(path)
    assert (row["variant"], [one.get("variant") for one in row["messages"]]) == (B, [None, A, None, B])
    out, _, chat = talk(Model(), [f"/load {path}"], B)
    assert [one.variant for one in chat.sides[0].exchanges] == [A, B]
    assert f"{B} goes on after answers of {A}\n" in out
    out, _, _ = talk(Model(), [f"/load {path}"], A)
    assert f"{A} goes on after answers of {B}\n" in out


@pytest.mark.parametrize(("names", "placed"), [([A, B], [A, B]), ([B, A], [B, A]), ([BASE, A], [B, A])])
def test_each_variant_goes_on_with_its_own_conversation(tmp_path, names, placed):
    sides = [Side(TALKERS[name], [Exchange("One?", f"of {name}", name)]) for name in (A, B)]
    conversation.save(tmp_path / "x.jsonl", sides, None)
    out, _, chat = talk(Model(), [f"/load {tmp_path}/x.jsonl"], *names)
    assert [side.exchanges for side in chat.sides] == [[Exchange("One?", f"of {name}", name)] for name in placed]
    assert (f"{BASE} goes on after answers of {B}" in out) is (BASE in names)
    assert out.count("goes on after") == (BASE in names)


def test_a_file_that_is_not_of_this_chat_is_left_alone(tmp_path):
    (tmp_path / "mine.jsonl").write_text("mine")
    out, _, _ = talk(Model(), ["One?", f"/save {tmp_path}/mine.jsonl"])
    assert "is there already, and not from this chat" in " ".join(out.split())
    assert (tmp_path / "mine.jsonl").read_text() == "mine"


def test_a_chat_that_cannot_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.jsonl"
    side = Side(TALKERS[A], [Exchange("One?", "1.")])
    conversation.save(path, [side], None)
    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        conversation.save(path, [side, Side(TALKERS[B], [Exchange("\ud800", "1.")])], None)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="cannot be written: File exists"):
        conversation.save(path / "y.jsonl", [side], None)


def test_one_conversation_is_loaded_for_two(tmp_path):
    row = {"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "1."}]}
    files.write_jsonl(tmp_path / "x.jsonl", [row])
    assert conversation.load(tmp_path / "x.jsonl", [A, B]) == (None, [[Exchange("One?", "1.")]] * 2)


def message(role, content="a"):
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds 0 conversations, and 1 can be loaded"),
        (b'{"messages": []}\n' * 2, "holds 2 conversations, and 1 can be loaded"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b"{", "line 1: no JSON"),
        (b"[" * 100_000, "line 1: no JSON"),
        (b"[]", "expected an object with"),
        (b'{"messages": {}}', "expected an object with"),
        ([message("tool")], "message 1: expected a role (system, user, assistant) and a content"),
        ([message("user", None)], "message 1: expected a role"),
        (["text"], "message 1: expected a role"),
        ([message("user"), message("assistant") | {"variant": 1}], "message 2: its variant is no name"),
        ([message("user"), message("user")], "expected questions (user), each with its answer"),
        ([message("user")], "expected questions (user), each with its answer"),
        ([message("assistant"), message("user")], "expected questions (user), each with its answer"),
        ([message("user"), message("system")], "expected questions (user), each with its answer"),
        ([message("user", "\ud800"), message("assistant")], "message 1: its content holds halves of characters"),
    ],
)
def test_what_is_no_saved_chat_is_said_and_changes_nothing(tmp_path, content, problem):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps({"messages": content}).encode())
    out, _, chat = talk(Model(), ["One?", f"/load {path}"])
    assert problem in " ".join(out.split()) and len(chat.sides[0].turns) == 2


def test_what_cannot_be_read_is_said(tmp_path):
    out, _, _ = talk(Model(), [f"/load {tmp_path}/none.jsonl"])
    assert "cannot be read: No such file" in " ".join(out.split())
    big = tmp_path / "big.jsonl"
    with big.open("wb") as file:
        file.truncate(conversation.LONGEST + 1)
    with pytest.raises(UserError, match="larger than 64 MB"):
        conversation.load(big, [A])
    os.mkfifo(tmp_path / "fifo")  # nobody writes to it
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(UserError, match="no regular file"):
            conversation.load(path, [A])


@pytest.mark.parametrize(("name", "problem"), [(".", "expected a file"), ("none/x", "No such file or directory")])
def test_a_history_that_cannot_be_kept_is_said(tmp_path, monkeypatch, name, problem):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"--history {name}: {problem}"):
        reading.edited(commands.completed, Path(name))


# --- the command line


def test_a_pipe_has_lines_that_go_on_after_a_backslash():
    assert list(reading.piped(io.StringIO("one\\\ntwo\n\nthree\r\nfour\\"))) == ["one\ntwo", "", "three", "four"]
    stream = io.TextIOWrapper(io.BytesIO(b"a\xff\n"), encoding="utf-8")
    assert list(reading.piped(stream)) == ["a\udcff"]


def run(arguments, monkeypatch, stdin="One?\n", model=None):
    monkeypatch.setattr("tradeoffs.chat.engine.Engine", lambda *given: model or Model())
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    given = vars(options.parser().parse_args(arguments))
    command.main(**given)


def test_without_a_name_the_recommended_one_answers_and_it_is_said(monkeypatch, capsys):
    run([], monkeypatch)
    captured = capsys.readouterr()
    assert captured.out == "One?\n" and captured.err == f"{A}, which is recommended\n"


def test_options_are_how_it_asks(monkeypatch, capsys):
    arguments = [
        B,
        "--system",
        "Be brief.",
        "--temperature",
        "0.7",
        "--top-p",
        "0.9",
        "--seed",
        "3",
        "--max-tokens",
        "9",
    ]
    run([*arguments, "--stateless", "--json"], monkeypatch, model=(model := Model()))
    (one,) = model.asked
    assert said(one) == [("system", "Be brief."), ("user", "One?")]
    assert (one.variant, one.temperature, one.top_p, one.seed, one.max_tokens, one.window) == (B, 0.7, 0.9, 3, 9, 1)
    assert json.loads(capsys.readouterr().out)["answer"] == "One?"


def test_a_pipe_in_which_one_has_no_answer_ends_with_1(monkeypatch):
    with pytest.raises(SystemExit) as error:
        run([A], monkeypatch, model=Model(refuses=["One?"]))
    assert error.value.code == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["demo-demo-full-q8"], f"no variant of the run list (did you mean {A}?)"),
        ([A, B, A], "3 variants: in the terminal one answers, or two"),
        (["--stateless", "--window", "2"], "--stateless is a window of one question"),
        (["--seed", "1"], "give a --temperature above 0"),
        (["--top-p", "0.5"], "give a --temperature above 0"),
        (["--port", "80"], "--port: for a server; add --serve"),
        (["--serve", "--json"], "--json: for a chat in the terminal"),
        (["--serve", "--system", "x"], "--system: for a chat in the terminal"),
    ],
)
def test_what_does_not_go_together_is_said(arguments, problem, monkeypatch):
    with pytest.raises(UserError) as error:
        run(arguments, monkeypatch)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        *("--window=0", "--temperature=-1", "--temperature=nan", "--temperature=hot", "--top-p=0", "--top-p=1.1"),
        *("--seed=-1", "--max-tokens=0", "--port=65536", "--max-memory=0"),
    ],
)
def test_what_is_no_value_of_an_option_is_refused(wrong, capsys):
    with pytest.raises(SystemExit) as error:
        options.parser().parse_args([wrong])
    assert error.value.code == 2 and wrong.split("=")[0] in capsys.readouterr().err


def test_serve_hands_over_to_the_server(monkeypatch):
    serving, found = ModuleType("tradeoffs.chat.server.serving"), []
    serving.serve = lambda *given: found.append(given)
    monkeypatch.setitem(sys.modules, "tradeoffs.chat.server", ModuleType("tradeoffs.chat.server"))
    monkeypatch.setitem(sys.modules, "tradeoffs.chat.server.serving", serving)
    run(
        ["--serve", A, B, BASE, "--host", "0.0.0.0", "--port", "8000", "--token-file", "t", "--max-memory", "900"],
        monkeypatch,
    )
    run(["--serve"], monkeypatch)
    assert found[0] == ([TALKERS[A], TALKERS[B], TALKERS[BASE]], "0.0.0.0", 8000, Path("t"), 900)
    assert found[1] == ([TALKERS[A]], "127.0.0.1", 0, None, None)


# --- in a terminal

SCRIPT = f"""
import sys
sys.path[:0] = {[str(REPO), str(REPO / "tests")]!r}
import test_chat_terminal as tests
from pathlib import Path
from tradeoffs.chat import variants
from tradeoffs.chat.terminal import commands, reading
from tradeoffs.chat.terminal.showing import Screen
variants.known = lambda: tests.TALKERS
screen = Screen.of_this_process()
reading.edited(commands.completed, Path("history"))
sys.exit(tests.chat_of(tests.Model(), tests.A, shown=screen).run(reading.typed(screen.prompt)))
"""


class Typed:
    """A chat in a terminal of its own."""

    def __init__(self, folder):
        self.ours, theirs = pty.openpty()
        environment = os.environ | {"TERM": "xterm", "NO_COLOR": "1", "INPUTRC": "/dev/null"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
            cwd=folder,
            env=environment,
            preexec_fn=controlling,
        )
        os.close(theirs)
        self.seen, self.place, self.decoder = "", 0, codecs.getincrementaldecoder("utf-8")()

    def until(self, text):
        """What came after what was waited for before, until this text did."""
        deadline, begin = time.monotonic() + 20, self.place
        while (found := self.seen.find(text, begin)) < 0:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.ours], [], [], 0.1)[0]:
                self.seen += self.decoder.decode(os.read(self.ours, 4096))
        self.place = found + len(text)
        return self.seen[begin : self.place]

    def interrupt(self):
        """Ctrl-C, once it waits for a key: readline sees no signal that comes between two of them."""
        deadline, state = time.monotonic() + 20, Path(f"/proc/{self.process.pid}/stat")
        while state.read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline, self.seen
        self.type("\x03")

    def type(self, text):
        os.write(self.ours, text.encode())


def controlling():
    """Makes standard input the terminal that Ctrl-C comes from."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_in_a_terminal_lines_are_edited_and_ctrl_c_ends_only_what_it_should(tmp_path):
    typed = Typed(tmp_path)
    typed.until("> ")
    typed.type("first\\\r")
    typed.until(". ")
    typed.type("second\r")
    assert "first\r\nsecond\r\n" in typed.until("tokens/s")
    typed.until("> ")
    typed.type("half a line")
    typed.until("half a line")
    typed.interrupt()  # takes back what is typed
    typed.until("> ")
    typed.type(f"stop 1 {LONG}\r")  # presses Ctrl-C itself, while it answers
    typed.until("stopped")
    typed.until("> ")
    typed.type("/res\t\r")
    typed.until("a new conversation")
    typed.until("> ")
    typed.type("\x1b[200~pasted\nlines\x1b[201~\r")
    assert "pasted\r\nlines\r\n" in typed.until("tokens/s")
    typed.until("> ")
    typed.interrupt()  # nothing is typed
    assert typed.process.wait(20) == 0
    os.close(typed.ours)
    history = tmp_path / "history"
    assert "/reset" in history.read_text() and history.stat().st_mode & 0o777 == 0o600


# --- with a real model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a variant of llama.cpp that answers at random, and its name."""
    import small_run
    from tiny_gguf import CONTEXT, make_checkpoint

    from tradeoffs.convert.gguf_converter import convert

    variant = Variant.parse("tiny-sums-base-f16")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder := tmp_path_factory.mktemp("made"))
        small_run.set_up({"tiny": {"path": "x", "prompt": "own"}}, ["base"], [], ["f16"], small_run.sums(5))
        make_checkpoint(variant.cell.base)
        variant.gguf.parent.mkdir(parents=True)
        convert(variant.cell.base, variant.gguf)
        files.write_json(variant.gguf.with_suffix(".json"), {"sha256": files.sha256(variant.gguf)})
        files.write_json(variant.cell.tokens / "info.json", {"stop_ids": [2], "context": CONTEXT})
        files.write_json(variant.facts, {"max_new_tokens": 6})
    return folder, str(variant), CONTEXT


def through_a_pipe(made, lines, *arguments):
    folder, name, _ = made
    command = [sys.executable, "-m", "tradeoffs.chat", name, "--json", *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    given = {"cwd": folder, "env": environment, "capture_output": True, "text": True}
    ran = subprocess.run(command, input="".join(f"{line}\n" for line in lines), **given)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.slow
def test_two_hundred_turns_have_two_hundred_answers_and_little_is_read_twice(made):
    lines = [f"What is {number} and {number % 7}? " + "A loan. " * (number % 5) for number in range(200)]
    found = through_a_pipe(made, lines)
    assert [row["question"] for row in found] == lines
    assert {row["reason"] for row in found} <= {"stop", "length"} and all(row["tokens"] <= 6 for row in found)
    assert all(row["prompt_tokens"] + 6 <= made[2] for row in found)
    left_out = [row["left_out"] for row in found]
    assert left_out == sorted(left_out) and 100 < left_out[-1] < 200
    stayed = [after for before, after in pairwise(found) if before["left_out"] == after["left_out"]]
    assert len(stayed) > 100 and all(row["cached_tokens"] > row["prompt_tokens"] / 2 for row in stayed[3:])


@pytest.mark.slow
def test_a_question_that_stands_alone_has_its_answer_whatever_came_before(made):
    first, _, again = through_a_pipe(made, ["What is a bond?", "The rate?", "What is a bond?"], "--stateless")
    assert (again["answer"], again["prompt_tokens"]) == (first["answer"], first["prompt_tokens"])
    assert again["cached_tokens"] > first["cached_tokens"]


# --- what there is to talk with


def test_the_run_list_is_what_can_be_talked_with(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    files.write_text("params.yaml", (REPO / "params.yaml").read_text())
    with pytest.raises(UserError, match=r"name the variant .*; recommended is none: .* after `make run`"):
        variants.chosen([])
    files.write_json("metrics/decision.json", {"demo-demo": {"recommended": A, "metric": "test_f1", "cost": "size_mb"}})
    files.write_text(
        "metrics/summary.csv", f"variant,model,dataset,method,format,size_mb,test_f1\n{A},demo,demo,full,q8_0,2.5,\n"
    )
    found = variants.known()
    assert len(found) == 42 and [str(one) for one in variants.chosen([])] == [A]
    assert (found[A].numbers, found[A].metric, found[A].cost, found[A].context) == (
        {"size_mb": 2.5},
        "test_f1",
        "size_mb",
        None,
    )
    assert {one.label for one in found.values() if one.variant.method == "base"} == {"completion"}
    assert {one.label for one in found.values() if one.variant.method != "base"} == {"chat"}
    assert not any(one.text for one in found.values())
    assert (found[A].runtime, found[BASE].runtime) == ("llama.cpp", "transformers")
    files.write_json(Variant.parse(A).pair.tokens / "info.json", {"context": 512})
    assert found[A].context == 512
    with pytest.raises(UserError, match="did you mean demo-demo-full-q8_0"):
        variants.chosen(["demo-demo-full-q8"])
    files.write_json("metrics/decision.json", {"demo-demo": {"nearest_miss": A}})
    with pytest.raises(UserError, match="name the variant"):
        variants.chosen([])
