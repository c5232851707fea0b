"""OpenAI's API as the chat serves it: by its own client, against the real server."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
from chat_server import KNOWN, NAME, OTHER, QUESTION, TOKEN, Script, events, read, running

from benchmarks import chat_models, chat_servers, ggufs
from tradeoffs.chat import page, room
from tradeoffs.chat.messages import Asked, Ended, Failed, Logprob, Queued, Said, Turn
from tradeoffs.chat.server import app, asks, serving, streams
from tradeoffs.chat.server.errors import RequestError
from tradeoffs.chat.server.streams import Answers
from tradeoffs.chat.variants import Talker
from tradeoffs.common.cells import Variant
from tradeoffs.plumbing.errors import UserError

MESSAGES: Any = QUESTION["messages"]
REPO = Path(__file__).parents[1]
SLOW_FIXTURES = {"real"}  # read by conftest.py


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # of the votes
    with running() as found:
        yield found


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"http://{server.host}/v1", api_key=TOKEN, max_retries=0) as found:
        yield found


# What is asked, and what the engine is asked then


def test_a_conversation_and_all_that_it_can_ask_for():
    body = {
        **{"model": NAME, "max_completion_tokens": 7, "temperature": 0.5, "top_p": 0.9, "seed": -1, "stop": "\n"},
        **{"logprobs": True, "top_logprobs": 3, "stream": True, "stream_options": {"include_usage": True}},
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "7 and 1?"}]},
            {"role": "assistant", "content": "8", "refusal": None, "tool_calls": []},
            {"role": "user", "content": "Sure?", "name": "me"},
        ],
        "tradeoffs": {"window": 2},
    }
    wanted = asks.chat(body, KNOWN)
    turns = ("system", "Be brief."), ("user", "What is 7 and 1?"), ("assistant", "8"), ("user", "Sure?")
    (asked,) = wanted.asked
    assert asked == Asked(
        asked.id,
        NAME,
        tuple(Turn(*turn) for turn in turns),  # type: ignore[arg-type]
        max_tokens=7,
        window=2,
        temperature=0.5,
        top_p=0.9,
        seed=(1 << 64) - 1,
        stop=("\n",),
        logprobs=3,
    )
    assert (wanted.form, wanted.stream, wanted.usage) == ("chat.completion", True, True)


def test_what_is_not_said_is_as_in_an_evaluation():
    (asked,) = asks.chat(dict(QUESTION), KNOWN).asked
    assert asked == Asked(asked.id, NAME, (Turn("user", "What is 7 and 1?"),))
    assert (asked.temperature, asked.max_tokens) == (0.0, None)


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("One", [("One", None)]),
        (["One", "two"], [("One", None), ("two", None)]),
        ([1, 15, 9], [(None, (1, 15, 9))]),
        ([[1, 15], [9]], [(None, (1, 15)), (None, (9,))]),
    ],
)
def test_a_prompt_is_a_text_or_token_ids_or_several(prompt, asked):
    wanted = asks.completion({"model": NAME, "prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 1}, KNOWN)
    assert [(one.text, one.ids) for one in wanted.asked] == asked
    assert {(one.echo, one.logprobs, one.max_tokens) for one in wanted.asked} == {(True, 1, 1)}
    assert len({one.id for one in wanted.asked}) == len(asked)


def test_a_prompt_is_scored_without_an_answer():
    body = {"model": NAME, "prompt": "One", "max_tokens": 0}
    assert [one.max_tokens for one in asks.completion(body | {"echo": True}, KNOWN).asked] == [0]
    with pytest.raises(RequestError, match="max_tokens: expected a whole number from 1 on, as the context allows"):
        asks.completion(body, KNOWN)


def test_what_clients_send_unasked_is_let_through():
    unasked = {"n": 1, "user": "me", "store": False, "metadata": {"a": "b"}, "frequency_penalty": 0, "logit_bias": None}
    unasked |= {"presence_penalty": 0.0, "tools": [], "response_format": {"type": "text"}, "service_tier": "auto"}
    assert asks.chat(QUESTION | unasked, KNOWN).asked


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"frequency_penalty": False}, "frequency_penalty"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"top_k": 5}, "top_k"),
        ({"temprature": 0}, "temprature"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "0"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"seed": 1 << 64}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"tradeoffs": {"window": 0}}, "tradeoffs.window"),
        ({"tradeoffs": {"other": 1}}, "tradeoffs.other"),
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "What?"}, "messages"),
        ({"messages": ["What?"]}, "messages[0]"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": "8"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
    ],
)
def test_what_is_not_there_or_wrong_is_named(more, param):
    with pytest.raises(RequestError, match=r"^\w") as caught:
        asks.chat(QUESTION | more, KNOWN)
    assert caught.value.param == param
    assert param in str(caught.value)
    assert caught.value.status == (404 if more.get("model") else 400)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "two"]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["x"] * 129}, "prompt"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"messages": MESSAGES}, "messages"),
        ({"echo": True, "stream": True}, "echo"),
        ({"logprobs": True}, "logprobs"),
    ],
)
def test_the_same_of_a_completion(more, param):
    with pytest.raises(RequestError) as caught:
        asks.completion({"model": NAME, "prompt": "One"} | more, KNOWN)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_a_name_that_is_nearly_one_is_told_the_right_one():
    with pytest.raises(RequestError, match=f"did you mean {NAME}"):
        asks.chat(QUESTION | {"model": NAME[:-1]}, KNOWN)


# What comes back


def test_an_answer_as_a_whole(client, server):
    reply = client.chat.completions.create(model=NAME, messages=MESSAGES, seed=3)
    (choice,) = reply.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "It is 8.", "stop")
    assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (12, 3, 15)
    assert reply.usage.prompt_tokens_details.cached_tokens == 4
    assert (reply.object, reply.model) == ("chat.completion", NAME)
    extra = reply.model_extra["tradeoffs"]  # type: ignore[index]
    begun = {"prompt_tokens": 12, "cached_tokens": 4, "left_out": 0, "context": 512, "max_tokens": 128}
    assert extra["begun"] == begun
    assert extra["ended"]["seconds_to_first"] == 0.2
    assert server.script.asked[0].seed == 3


def test_an_answer_that_streams(client, server):
    server.script.says = [Queued("", 2), "It ", "is ", "", "8."]
    stream = client.chat.completions.create(
        model=NAME, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    assert [chunk.choices[0].delta.content or "" for chunk in chunks] == ["", "", "It ", "is ", "8.", ""]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 5 + ["stop"]
    assert chunks[1].choices[0].delta.role == "assistant"
    extras = [chunk.model_extra["tradeoffs"] for chunk in chunks]  # type: ignore[index]
    assert extras[0] == {"queued": 2}
    assert extras[1]["begun"]["context"] == 512
    assert [extra["tokens"] for extra in extras[2:5]] == [1, 2, 4]
    assert extras[5]["ended"]["tokens"] == 4
    assert (last.choices, last.usage.completion_tokens) == ([], 4)
    assert len({chunk.id for chunk in (*chunks, last)}) == 1


def test_without_being_asked_there_is_no_usage_in_a_stream(server):
    *chunks, done = events(server.ask(stream=True).body)
    assert done == "[DONE]"
    assert not any("usage" in chunk for chunk in chunks)


def test_log_probabilities(client, server):
    certain = Logprob("8", -0.1, (("8", -0.1), ("9", -2.5)))
    part = Logprob("\ufffd", -1.0, (("\ufffd", -1.0),))
    server.script.says = [Said("", "8", 1, (certain,)), Said("", "", 2, (part,))]
    server.script.says += [Ended("", "length", "8", 5, 0, 2, 0.1, 0.2, 0.3, 1.0)]
    found = client.chat.completions.create(model=NAME, messages=MESSAGES, logprobs=True, top_logprobs=2)
    first, second = found.choices[0].logprobs.content
    assert (first.token, first.logprob, first.bytes) == ("8", -0.1, [56])
    assert [(top.token, top.logprob) for top in first.top_logprobs] == [("8", -0.1), ("9", -2.5)]
    assert second.bytes is None  # of a part of a character
    assert found.choices[0].finish_reason == "length"
    streamed = client.chat.completions.create(model=NAME, messages=MESSAGES, logprobs=True, top_logprobs=2, stream=True)
    tokens = [one.token for chunk in streamed if (logs := chunk.choices[0].logprobs) for one in logs.content or ()]
    assert tokens == ["8", "\ufffd"]


def test_several_completions(client, server):
    reply = client.completions.create(model=NAME, prompt=["One", "two"], max_tokens=3)
    assert [(choice.index, choice.text) for choice in reply.choices] == [(0, "It is 8."), (1, "It is 8.")]
    assert reply.usage.total_tokens == 30
    texts = {0: "", 1: ""}
    for chunk in client.completions.create(model=NAME, prompt=["One", "two"], stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert set(texts.values()) == {"It is 8."}


def test_where_the_tokens_of_a_stream_stand_is_as_in_the_whole(server):
    """Of a character that has not come to its end, too."""
    tokens = [("", "\ufffd"), ("\u00e9", "\ufffd"), (" b", " b")]
    said = [Said("", text, at, (Logprob(token, -0.5),)) for at, (text, token) in enumerate(tokens, 1)]
    server.script.says = [*said, Ended("", "stop", "\u00e9 b", 5, 0, 3, 0.1, 0.2, 0.3, 1.0)]
    ask = {"path": "/v1/completions", "messages": None, "prompt": "One", "logprobs": 1}
    whole = server.ask(**ask).json()["choices"][0]["logprobs"]["text_offset"]
    chunks = [event["choices"][0] for event in events(server.ask(**ask, stream=True).body)[:-1]]
    assert (
        [at for chunk in chunks if chunk["logprobs"] for at in chunk["logprobs"]["text_offset"]] == whole == [0, 1, 2]
    )


@pytest.mark.parametrize("ends_at_once", [True, False])
def test_echo_as_a_harness_reads_it(client, server, ends_at_once):
    """lm-eval takes the last one for what was generated, and the others for those of its own prompt."""
    prompt = (Logprob("<s>", None), Logprob("7", -1.0, (("6", -0.5),)), Logprob(" 8", -0.2, ((" 8", -0.2),)))
    said = [] if ends_at_once else [Said("", ".", 1, (Logprob(".", -0.3, ((".", -0.3),)),))]
    text = "" if ends_at_once else "."
    ended = Ended("", "length", text, 3, 0, len(said), 0.1, 0.2, 0.3, 1.0, prompt_logprobs=prompt)
    server.script.says = [*said, ended]
    reply = client.completions.create(model=NAME, prompt=[[1, 7, 8]], echo=True, logprobs=1, max_tokens=1, seed=1234)
    logs = reply.choices[0].logprobs
    assert logs.token_logprobs[1:-1] == [-1.0, -0.2]
    assert [max(top.values()) for top in logs.top_logprobs[1:-1]] == [-0.5, -0.2]
    assert logs.top_logprobs[1] == {"6": -0.5, "7": -1.0}  # its own is among them
    assert logs.token_logprobs[0] is None
    assert logs.text_offset == [0, 3, 4, 6]
    assert reply.choices[0].text == "<s>7 8" + text


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ("too_long", openai.BadRequestError, "context_length_exceeded"),
        ("invalid", openai.BadRequestError, "invalid"),
        ("too_large", openai.BadRequestError, "too_large"),
        ("busy", openai.RateLimitError, "busy"),
        ("died", openai.InternalServerError, "died"),
        ("unloaded", openai.InternalServerError, "unloaded"),
        ("late", openai.APIStatusError, "late"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_why_there_is_no_answer(client, server, fault, error, code, stream):
    server.script.says = [Failed("", fault, "for a reason", 7)]
    with pytest.raises(error, match="for a reason") as caught:
        client.chat.completions.create(model=NAME, messages=MESSAGES, stream=stream)
    assert caught.value.code == code
    if fault in ("busy", "died"):
        assert caught.value.response.headers["retry-after"] == "7"


def test_what_fails_in_the_middle_of_a_stream_is_no_end(client, server):
    server.script.says = ["It ", Failed("", "died", "its process ended")]
    said = []
    with pytest.raises(openai.APIError, match="its process ended"):
        for chunk in client.chat.completions.create(model=NAME, messages=MESSAGES, stream=True):
            said.append(chunk.choices[0].delta.content)
    assert said == ["", "It "]


def test_an_answer_that_had_its_time_is_cut_or_none(client, server):
    server.script.says = ["It ", Ended("", "time", "It ", 5, 0, 1, 0.1, 0.2, 300.0, 1.0)]
    assert client.chat.completions.create(model=NAME, messages=MESSAGES).choices[0].finish_reason == "length"
    server.script.says = [Ended("", "time", "", 5, 0, 0, 300.0, 300.0, 300.0, 1.0)]
    with pytest.raises(openai.APIStatusError, match="no answer in 300 seconds") as caught:
        client.chat.completions.create(model=NAME, messages=MESSAGES)
    assert caught.value.status_code == 408


def test_a_wrong_key_and_a_wrong_name(client):
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.NotFoundError, match="did you mean"):
        client.models.retrieve(NAME + "x")


def test_a_bug_says_nothing_of_a_conversation(client, server, capfd):
    server.script.says = [ValueError("My secret")]
    with pytest.raises(openai.InternalServerError, match="a bug of the server"):
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "My secret"}])
    said = capfd.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert "secret" not in said and TOKEN not in said


def test_many_at_once_each_get_their_own(server):
    async def run():
        async with openai.AsyncOpenAI(base_url=f"http://{server.host}/v1", api_key=TOKEN, max_retries=0) as client:
            asked = [client.chat.completions.create(model=NAME, messages=MESSAGES, seed=at) for at in range(32)]
            return await asyncio.gather(*asked)

    replies = asyncio.run(run())
    assert [reply.choices[0].message.content for reply in replies] == ["It is 8."] * 32
    assert sorted(asked.seed or 0 for asked in server.script.asked) == list(range(32))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_answer(server, stream):
    server.script.says = ["It ", None, "is"]
    with server.connect() as connection:
        connection.sendall(server.post(json.dumps(QUESTION | {"stream": stream}).encode()))
        server.script.wait_for(server.script.asked, 1)
    server.script.wait_for(server.script.left, 1)


def test_who_gets_no_end_in_time_is_told_so(server, monkeypatch):
    """Whatever became of the engine."""
    monkeypatch.setattr(streams, "SLACK_SECONDS", -299.9)
    server.script.says = [None]
    assert server.ask().status == 408
    server.script.says = ["It ", None]
    *_, said, error = events(server.ask(stream=True).body)
    assert said["choices"][0]["delta"] == {"content": "It "}
    assert error["error"]["code"] == "late"
    server.script.wait_for(server.script.left, 2)


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_of_many_prompts_leaves_places_to_others(server, stream):
    server.script.says, most = [None, "8."], streams.AT_ONCE
    with server.connect() as connection:
        body = QUESTION | {"messages": None, "prompt": ["One"] * 20, "stream": stream}
        connection.sendall(server.post(json.dumps(body).encode(), path="/v1/completions"))
        server.script.wait_for(server.script.asked, most)
        assert server.send(server.head()).status == 200
        assert len(server.script.asked) == most
        server.script.held.set()
        assert read(connection).status == 200
    assert len(server.script.asked) == 20


def test_a_stream_that_waits_says_so_and_openais_client_passes_over_it(client, server, monkeypatch):
    monkeypatch.setattr(streams, "ALIVE_SECONDS", 0.01)
    server.script.says = [None, "8."]
    with server.connect() as connection:
        connection.sendall(server.post(json.dumps(QUESTION | {"stream": True}).encode()))
        said = b""
        while streams.ALIVE.encode() not in said:
            said += connection.recv(1 << 16)
    server.script.wait_for(server.script.left, 1)
    found = client.chat.completions.create(model=NAME, messages=MESSAGES, stream=True)  # begins with a comment
    server.script.held.set()
    assert "".join(chunk.choices[0].delta.content or "" for chunk in found) == "8."


def test_what_is_ready_together_is_one_write():
    """An engine that is faster than the network does not pay for each token."""
    script, sent = Script(says=["x"] * 100), []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    asyncio.run(Answers(script, asks.chat(QUESTION | {"stream": True}, KNOWN))({}, receive, send))  # type: ignore[arg-type]
    found = [event for message in sent for event in events(message.get("body", b""))]
    assert len(found) == 103
    assert len(sent) < 6


# What else is served


def test_the_list_of_models(client):
    models = {model.id: model.model_extra["tradeoffs"] for model in client.models.list()}  # type: ignore[index]
    assert list(models) == list(KNOWN)
    assert models[NAME] == {
        **{
            "runtime": "llama.cpp",
            "label": "chat",
            "text": False,
            "recommended": True,
            "picked": 1,
            "loaded": False,
        },
        **{"context": None, "numbers": {"size_mb": 4.2}, "metric": "test_f1", "cost": "size_mb"},
    }
    assert (models[OTHER]["label"], models[OTHER]["picked"]) == ("completion", None)
    assert client.models.retrieve(OTHER).id == OTHER


def test_the_page_and_its_files_are_there_without_the_token(server):
    for path, (name, kind) in page.FILES.items():
        reply = server.send(server.head(f"GET {path} HTTP/1.1", token=None))
        assert (reply.status, reply.headers["content-type"]) == (200, [kind])
        assert reply.body == (page.FOLDER / name).read_bytes()
    assert server.send(server.head("GET /health HTTP/1.1", token=None)).json() == {"status": "ok"}
    assert server.send(server.head("GET /favicon.ico HTTP/1.1", token=None)).status == 204


def test_by_which_names_it_is_reached(server):
    for name in (f"127.0.0.1:{server.port}", f"localhost:{server.port}", f"LOCALHOST:{server.port}"):
        request = server.head("GET /health HTTP/1.1").replace(server.host.encode(), name.encode())
        assert server.send(request).status == 200
    own = server.head("GET /health HTTP/1.1", f"Origin: http://{server.host}", "Sec-Fetch-Site: same-origin")
    assert server.send(own).status == 200
    assert server.send(server.head("GET / HTTP/1.1", "Sec-Fetch-Site: none")).status == 200


def test_votes_are_kept_and_counted(server):
    vote = {"left": NAME, "right": OTHER, "better": "left", "blind": True, "messages": MESSAGES, "answers": ["8", "9"]}
    assert server.send(server.post(json.dumps(vote).encode(), path="/votes")).status == 201
    (counted,) = server.send(server.head("GET /votes HTTP/1.1")).json()
    assert counted["votes"] == 1
    wrong = server.send(server.post(json.dumps(vote | {"better": "both"}).encode(), path="/votes"))
    assert wrong.status == 400
    assert "better" in wrong.json()["error"]["message"]
    unknown = server.send(server.post(json.dumps(vote | {"left": "x-y-z-w"}).encode(), path="/votes"))
    assert unknown.status == 400 and "no variant of the run list" in unknown.json()["error"]["message"]


# Start and end


def key(folder: Path, text: str = TOKEN, mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_what_has_no_room_together_is_said_at_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no files: a process alone
    names = ["demo-demo-full-q8_0", "demo-demo-lora-q4_0"]
    two = [Talker(Variant.parse(name), "llama.cpp", "chat", False, {}) for name in names]
    both = 2 * room.LLAMA_CPP
    said = serving.crowded(two, both - 1)
    assert said.startswith(
        f"{names[0]}, {names[1]} take about {both:.0f} MB, and all models may have {both - 1:.0f} MB together"
    )
    assert not serving.crowded(two, both) and not serving.crowded(two[:1], 100) and not serving.crowded(two, None)


def test_a_token_of_a_file(tmp_path):
    assert serving.read_token(key(tmp_path, f"{TOKEN}\n")) == TOKEN


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (TOKEN, 0o640, "others can read or write it; `chmod 600 /"),
        (TOKEN, 0o602, "others can read or write it"),
        (TOKEN[:31], 0o600, "32 to 512"),
        (f"{TOKEN} {TOKEN}", 0o600, "32 to 512"),
        ("ä" * 40, 0o600, "32 to 512"),
        ("", 0o600, "32 to 512"),
    ],
)
def test_a_file_that_holds_no_safe_token_is_refused(text, mode, said, tmp_path):
    with pytest.raises(UserError, match=said):
        serving.read_token(key(tmp_path, text, mode))


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"No such file.*token_urlsafe"):
        serving.read_token(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UserError, match=r"no regular file|Is a directory"):
            serving.read_token(path)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_are_let_in_with_a_token_of_a_file_alone(host):
    with pytest.raises(UserError, match=r"--token-file FILE(.|\n)*umask 077(.|\n)*ssh -L"):
        serving.serve([], host)


def test_a_port_that_is_taken_is_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port} at 127.0.0.1: Address already in use; --port 0"):
            serving.serve([], port=port)
    with pytest.raises(UserError, match=r"--host nowhere\.invalid: "):
        serving.serve([], "nowhere.invalid", token_file=key(tmp_path))


@pytest.fixture(scope="module")
def talked(tmp_path_factory):
    """A random two-layer model in a workspace of its own."""
    from tiny_gguf import CONTEXT, make_checkpoint

    folder = tmp_path_factory.mktemp("chat")
    make_checkpoint(folder / "drawn")
    return chat_models.workspace(folder / "work", folder / "drawn", ggufs.made(folder / "drawn", "f16"), CONTEXT)


@pytest.fixture(scope="module")
def real(talked):
    with chat_servers.ours(talked) as server:
        yield server


def of(server: chat_servers.Server, **options: Any) -> dict[str, Any]:
    token = server.headers["Authorization"].removeprefix("Bearer ")
    return {"base_url": f"http://127.0.0.1:{server.port}/v1", "api_key": token, "max_retries": 0, **options}


def test_a_real_model_by_openais_client(real):
    with openai.OpenAI(**of(real)) as client:
        ask: Any = {"model": real.model, "messages": MESSAGES, "max_tokens": 12}
        whole = client.chat.completions.create(**ask, logprobs=True, top_logprobs=2)
        text, logs = whole.choices[0].message.content, whole.choices[0].logprobs
        streamed = list(client.chat.completions.create(**ask, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == text
        assert len(logs.content) == whole.usage.completion_tokens == 12
        assert all(one.logprob <= 0 and one.top_logprobs[0].logprob >= one.logprob for one in logs.content)
        assert whole.choices[0].finish_reason == "length"
        middle = next(one for one in text[1:] if one.isascii())
        cut = client.chat.completions.create(**ask, stop=middle)
        assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (text[: text.index(middle)], "stop")
        drawn = [
            client.chat.completions.create(**ask, temperature=1.5, seed=seed).choices[0].message.content
            for seed in (5, 5, -6)
        ]
        assert drawn[0] == drawn[1] != drawn[2]
        with pytest.raises(openai.BadRequestError, match="context") as caught:
            client.chat.completions.create(**ask | {"max_tokens": 100_000})
        assert caught.value.code == "context_length_exceeded"


def test_a_prompts_own_log_probabilities_as_a_harness_asks_for_them(real):
    with openai.OpenAI(**of(real)) as client:
        ids = [1, 40, 50, 60, 70, 80]
        reply = client.completions.create(
            model=real.model, prompt=[ids, ids[:4]], echo=True, logprobs=1, max_tokens=1, temperature=0, seed=1234
        )
        long, short = (choice.logprobs for choice in reply.choices)
        assert len(long.token_logprobs) == 7 and len(short.token_logprobs) == 5
        assert long.token_logprobs[1:4] == pytest.approx(short.token_logprobs[1:4], abs=2e-3)
        assert all(-20 < one < 0 for one in long.token_logprobs[1:-1])
        reply = client.completions.create(model=real.model, prompt=[ids], echo=True, logprobs=1, max_tokens=0)
        scored = reply.choices[0].logprobs
        assert scored.tokens == long.tokens[:-1] and reply.usage.completion_tokens == 0
        assert scored.token_logprobs == pytest.approx([None, *long.token_logprobs[1:-1]], abs=2e-3)


def test_many_clients_of_a_real_model_get_what_one_gets(real):
    async def run():
        async with openai.AsyncOpenAI(**of(real)) as client:

            async def one(number: int) -> str:
                content = f"What is {number} and {number}?"
                ask: Any = {"model": real.model, "messages": [{"role": "user", "content": content}], "max_tokens": 8}
                if number % 2:
                    return (await client.chat.completions.create(**ask)).choices[0].message.content or ""
                stream = await client.chat.completions.create(**ask, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            together = await asyncio.gather(*(one(number) for number in range(32)))
            return together, [await one(number) for number in (0, 13, 31)]

    together, alone = asyncio.run(run())
    assert len(together) == 32 and all(together)
    assert [together[number] for number in (0, 13, 31)] == alone


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_it_is_asked_to_and_who_waits_is_told(talked, number):
    command = [sys.executable, "-m", "tradeoffs.chat", "--serve", talked.variant]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    with subprocess.Popen(
        command, cwd=talked.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        address = process.stdout.readline()  # type: ignore[union-attr]
        base, _, token = address.strip().partition("#token=")
        with openai.OpenAI(base_url=f"{base}v1", api_key=token, max_retries=0) as client:
            stream = client.chat.completions.create(
                model=talked.variant,
                messages=[{"role": "user", "content": "A secret question"}],
                max_tokens=500,
                stream=True,
                temperature=2.0,
                seed=1,
            )
            next(iter(stream))
            (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.send_signal(number)
            with pytest.raises(openai.APIError, match=r"closed|stopped"):
                list(stream)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")
    assert len(token) >= 43
    assert not Path(f"/proc/{worker}").exists()


def test_everything_that_is_public_is_on_the_list():
    assert set(app.PUBLIC) == {"/health", "/favicon.ico", *page.FILES}
