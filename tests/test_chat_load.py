"""The load of benchmarks/chat.py: its clients see what is cut, refused or lost; and what the server does under it."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from benchmarks import chat, chat_clients, chat_endurance, chat_models, chat_servers, ggufs
from benchmarks.chat_clients import Load
from benchmarks.chat_models import conversations

SLOW_FIXTURES = {"served"}
QUESTIONS = [f"What is {number} percent of a loan of {7 * number}?" for number in range(90)]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunks(*events: object, end: bytes = b"0\r\n\r\n", separator: str = "\n\n") -> bytes:
    written = [event if isinstance(event, str) else json.dumps(event) for event in events]
    texts = [f"data: {text}{separator}".encode() for text in written]
    return HEAD + b"".join(f"{len(text):x}\r\n".encode() + text + b"\r\n" for text in texts) + end


def piece(text: str, finish: str | None = None) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}
WHOLE = chunks(piece("Good "), piece("day"), piece("", "stop"), USAGE, "[DONE]")


@asynccontextmanager
async def server(*replies: bytes, apart: int | None = None, closing: bool = False):
    """Gives one reply after the other, `apart` bytes at a time, and then none; `closing`: each on a connection of its
    own. Yields its port, and what was asked."""
    left, asked = list(replies), []

    async def answer(reader, writer):
        try:
            while left:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                asked.append(json.loads(await reader.readexactly(length)))
                reply = left.pop(0)
                for at in range(0, len(reply), apart or len(reply)):
                    writer.write(reply[at : at + (apart or len(reply))])
                    await writer.drain()
                if closing or (not reply.endswith(b"\r\n\r\n") and b"Content-Length" not in reply):
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], asked


def answers(*replies: bytes, apart: int | None = None, turns: int = 1):
    async def run():
        async with server(*replies, apart=apart) as (port, asked):
            load = Load(port, "m", [[f"question {turn}" for turn in range(turns)]], clients=1, max_tokens=9)
            return await chat_clients.held(load, 0.0), asked

    return asyncio.run(run())


@pytest.mark.parametrize("apart", [None, 1, 13])
def test_an_answer_is_read_however_its_bytes_come(apart):
    (answer,), _ = answers(WHOLE, apart=apart)
    assert (answer.text, answer.finish, answer.tokens, answer.prompt_tokens) == ("Good day", "stop", 2, 7)
    assert answer.problem is None
    assert answer.sent < answer.first <= answer.done
    assert answer.pieces == 2


def test_lines_may_end_as_the_peers_do():
    (answer,), _ = answers(chunks(piece("Good day", "stop"), "[DONE]", separator="\r\n\r\n"))
    assert (answer.text, answer.problem) == ("Good day", None)


def test_a_turn_is_asked_with_what_was_said_before():
    found, asked = answers(WHOLE, WHOLE, turns=2)
    assert [message["content"] for message in asked[1]["messages"]] == ["question 0", "Good day", "question 1"]
    assert [message["role"] for message in asked[1]["messages"]] == ["user", "assistant", "user"]
    assert found[1].history == asked[1]["messages"]


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (chunks(piece("Good "), end=b""), "cut off"),
        (chunks(piece("Good day", "stop")), "cut off"),  # without [DONE]
        (chunks(piece("Good day"), "[DONE]"), "cut off"),  # without a reason
        (chunks(piece("Good "), {"error": {"message": "the model died"}}, "[DONE]"), "error: the model died"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nwhy?", "HTTP/1.1 400 Bad Request: why?"),
    ],
)
def test_what_is_no_whole_answer_is_a_problem_and_ends_the_conversation(reply, problem):
    found, _ = answers(reply, WHOLE, turns=2)
    assert [answer.problem for answer in found] == [problem]


def test_a_connection_that_the_server_has_closed_is_opened_anew():
    async def run():
        async with server(WHOLE, WHOLE, WHOLE, closing=True) as (port, _):
            load = Load(port, "m", [["question"] * 3], clients=1, max_tokens=9)
            return await chat_clients.held(load, 0.0)

    found = asyncio.run(run())
    assert [answer.problem for answer in found] == [None] * 3


def test_who_is_refused_comes_back_when_it_was_told_to():
    refusal = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 2\r\n\r\n{}"
    (answer,), asked = answers(refusal, refusal, WHOLE)
    assert (answer.refused, answer.text, len(asked)) == (2, "Good day", 3)


def test_who_leaves_closes_the_connection_with_a_part_of_the_answer():
    long = chunks(*[piece("day ")] * 20_000, piece("", "stop"), "[DONE]")

    async def run():
        async with server(long, apart=1000) as (port, _):
            load = Load(port, "m", [["question"]], clients=1, max_tokens=9, leave=5000)
            return await chat_clients.held(load, 0.0)

    (answer,) = asyncio.run(run())
    assert answer.problem == "cut off"
    assert 0 < answer.pieces < 20_000


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A random two-layer model in a workspace of its own, and a server that it is talked with through."""
    from tiny_gguf import CONTEXT, make_checkpoint

    folder = tmp_path_factory.mktemp("chat")
    make_checkpoint(folder / "drawn")
    talked = chat_models.workspace(folder / "work", folder / "drawn", ggufs.made(folder / "drawn", "f16"), CONTEXT)
    with chat_servers.ours(talked) as server:
        yield talked, server


def test_every_answer_of_many_clients_is_whole_and_that_of_the_model_alone(served):
    found = chat.held(*served, conversations(QUESTIONS, 80, 2), 12)
    assert found["answers"] == found["expected_answers"] == 160
    assert (found["lost"], found["not_whole"], found["other_than_alone"]) == (0, {}, [])
    assert found["rounding_ties"] < 16


def test_who_leaves_changes_nothing_for_those_who_stay(served):
    _, server = served
    leavers = server.begin(conversations=[[question] for question in QUESTIONS], clients=20, max_tokens=300, leave=2000)
    found = chat.held(*served, conversations(QUESTIONS, 20, 3), 12)
    left = server.answers(leavers)["answers"]
    assert sum(answer["problem"] == "cut off" for answer in left) > 10  # an answer may be whole before one can leave
    assert (found["lost"], found["other_than_alone"]) == (0, [])


def test_a_conversation_of_many_turns_goes_on_without_its_oldest(served):
    found = chat_endurance.long(served[1], QUESTIONS, 40)["long"]
    assert found["lost"] == 0
    assert found["left_out"] > 20


def test_when_the_models_process_is_killed_all_are_told_and_the_next_is_answered(served):
    found = chat_endurance.killed(served[1], QUESTIONS, clients=64, max_tokens=500, busy=0.5)["killed"]
    assert found["began"] > 0
    assert found["uninformed"] == 0
    assert any(said.startswith(("error", "HTTP/1.1 503")) for said in found["said"])
    assert found["next_answer_whole"]
