"""Models have processes of their own, which come and go, fail and are killed; each answer has one end, and its own."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import chat_stand_in
import psutil
import pytest

from tradeoffs.chat import __main__ as chat
from tradeoffs.chat import engine as engine_module
from tradeoffs.chat import messages, models, process, room, variants
from tradeoffs.chat.engine import Engine
from tradeoffs.chat.inbox import MOST, Inbox
from tradeoffs.chat.messages import Asked, Begun, Ended, Event, Failed, Logprob, Queued, Ready, Said, Turn
from tradeoffs.chat.terminal import options
from tradeoffs.chat.worker import lifetime
from tradeoffs.chat.worker.pipe import Pipe
from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.plumbing import cli

REPO = Path(__file__).parents[1]
STAND_IN = (sys.executable, str(REPO / "tests/chat_stand_in.py"))
SLOW_FIXTURES = {"talker"}
HANGS = 30.0  # seconds after which a test gives up
AT_ONCE = 5.0  # in which those who wait are told that a process is gone
ENDLESS = "endless 100000"
SECRET = "my-secret-question"


@pytest.fixture
def ask_all(tmp_path, monkeypatch):
    """Runs a test's coroutine, which gets an engine, and closes it. Its models are of chat_stand_in, in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def run(work: Callable[[Engine], Awaitable[None]], **options) -> None:
        async def main() -> None:
            given = {"command": (*STAND_IN, str(tmp_path)), "estimate": lambda variant: 1.0, "max_memory_mb": 1e6}
            engine = Engine(**given | options)
            try:
                async with asyncio.timeout(HANGS):
                    await work(engine)
            finally:
                await engine.close()

        asyncio.run(main())

    return run


def question(text: str, variant: str = "one", **options) -> Asked:
    return Asked("x", variant, (Turn("user", text),), **options)


async def events(engine: Engine, asked: Asked) -> list[Event]:
    return [event async for event in engine.ask(asked)]


async def end(engine: Engine, asked: Asked) -> Ended | Failed:
    return (await events(engine, asked))[-1]


async def begin(engine: Engine, asked: Asked) -> tuple[asyncio.Task, list[Event]]:
    """An answer that has begun, its events until now and from then on."""
    said: list[Event] = []
    begun = asyncio.Event()

    async def follow() -> Event:
        async for event in engine.ask(asked):
            said.append(event)
            if isinstance(event, Said | Failed):
                begun.set()
        return said[-1]

    task = asyncio.create_task(follow())
    await begun.wait()
    return task, said


async def until(holds: Callable[[], object]) -> None:
    while not holds():
        await asyncio.sleep(0.005)


def waiting(engine: Engine, variant: str = "one") -> int:
    found = engine.states().get(variant)
    return found.waiting if found else 0


def started(folder: Path, variant: str = "one") -> int:
    return chat_stand_in.read(folder / "log").count(f"start {variant} ")


# Answers


def test_two_hundred_at_a_time_all_come_back_each_to_its_own(ask_all):
    async def work(engine):
        async def one(number: int) -> None:
            text = f"{number} {20 + number % 30}"
            found = await events(engine, question(text))
            whole = chat_stand_in.answer(text)
            assert isinstance(found[-1], Ended) and found[-1].text == whole and found[-1].reason == "stop"
            assert "".join(event.text for event in found if isinstance(event, Said)) == whole
            assert sum(isinstance(event, Ended | Failed) for event in found) == 1
            places = [event.place for event in found if isinstance(event, Queued)]
            assert places == sorted(places, reverse=True)

        await asyncio.gather(*(one(number) for number in range(200)))
        state = engine.states()["one"]
        assert (state.running, state.waiting) == (0, 0) and state.memory_mb > 1
        assert state.ready.places == chat_stand_in.PLACES

    ask_all(work)


def test_what_cannot_be_answered_says_why_and_nobody_else_notices(ask_all):
    async def work(engine):
        found = await asyncio.gather(
            *(end(engine, question(text)) for text in ("fine 30", "refused 3", "long 3", "misread 3"))
        )
        assert [getattr(one, "fault", None) for one in found] == [None, "invalid", "too_long", "invalid"]
        assert found[0].text == chat_stand_in.answer("fine 30")
        assert found[1].message == "refused: refused 3"
        assert "a bug of this program (KeyError)" in found[3].message and "misread" not in found[3].message

    ask_all(work)


def test_who_stops_reading_is_out_before_the_next_step(ask_all, tmp_path):
    """The step that is made meanwhile is the last one that the sequence is part of."""

    async def work(engine):
        (tmp_path / "steps").write_text("3")
        async with aclosing(engine.ask(question(ENDLESS))) as answer:
            said = 0
            async for event in answer:
                said = event.tokens if isinstance(event, Said) else said
                if said == 3:
                    break
        # By the time that this one is refused the process has read that the other left; the fourth step waits.
        assert (await end(engine, question("refused 1"))).fault == "invalid"
        (tmp_path / "steps").write_text("4")
        await until(lambda: "end" in chat_stand_in.read(tmp_path / "log"))
        fed = int(chat_stand_in.read(tmp_path / "log").split("end")[1])
        assert fed in (len(ENDLESS) + 2, len(ENDLESS) + 3)  # of three steps, or four

    ask_all(work)


def test_an_answer_that_is_ended_keeps_what_it_has_said(ask_all):
    async def work(engine):
        task, said = await begin(engine, question(ENDLESS))
        engine.leave(said[-1].id)
        found = await task
        assert found.reason == "left" and 0 < len(found.text) < 100_000
        assert chat_stand_in.answer(ENDLESS).startswith(found.text)

    ask_all(work)


def test_who_reads_slowly_holds_up_nobody_and_is_kept_little_for(ask_all):
    async def work(engine):
        async with aclosing(engine.ask(question("slow 3000"))) as slow:
            said = [await anext(slow), await anext(slow)]
            for number in range(3):
                assert (await end(engine, question(f"{number} 1500"))).reason == "stop"
            (inbox,) = engine._inboxes.values()
            await until(lambda: inbox.ended)
            assert len(inbox._events) <= MOST
            said += [event async for event in slow]
        assert "".join(event.text for event in said if isinstance(event, Said)) == chat_stand_in.answer("slow 3000")
        assert len(said) < 3000

    ask_all(work)


def test_who_leaves_before_a_question_is_read_is_not_forgotten(monkeypatch):
    monkeypatch.setattr(lifetime, "end", lambda code: None)  # with the other end of the socket
    ours, theirs = socket.socketpair()
    asked, left = question("hi 3"), []
    other = replace(asked, id="y")
    with ours:
        pipe = Pipe(theirs.detach())
        pipe.leave = left.append
        ours.sendall(messages.request(asked, 1.5) + messages.leave("x") + messages.request(other, 2.5))
        questions = pipe.questions()
        assert [next(questions), next(questions)] == [(asked, 1.5), (other, 2.5)]
        with pipe.handed_over("x"):
            assert left == []  # nobody knows of the answer yet
        assert left == ["x"]
        ours.sendall(messages.leave("x"))
    asyncio.run(asyncio.wait_for(until(lambda: left == ["x", "x"]), HANGS))


def test_a_model_ends_quietly_when_who_started_it_is_gone_and_had_not_read_all(monkeypatch, capfd):
    """The socket then says that it was reset, not that it has ended."""
    codes: list[int] = []
    monkeypatch.setattr(lifetime, "end", codes.append)
    ours, theirs = socket.socketpair()
    theirs.sendall(b"not read")
    ours.close()
    pipe = Pipe(theirs.detach())
    asyncio.run(asyncio.wait_for(until(lambda: bool(codes)), HANGS))
    assert codes == [0] and capfd.readouterr().err == "" and pipe


# Time


def test_the_time_limit_counts_what_loading_takes(ask_all, tmp_path):
    async def work(engine):
        (tmp_path / "loading").touch()
        failed = await end(engine, question("hi 3", seconds=0.05))
        assert failed.fault == "late" and failed.message == (
            "one: no answer within 0.05 s: it could not be loaded in that time"
        )
        (tmp_path / "loading").unlink()
        assert (await end(engine, question("hi 3"))).reason == "stop"
        assert started(tmp_path) == 1

    ask_all(work)


def test_an_answer_ends_when_its_time_is_up(ask_all):
    async def work(engine):
        await engine.model("one")
        found = await end(engine, question(ENDLESS, seconds=0.2))
        assert found.reason == "time" and chat_stand_in.answer(ENDLESS).startswith(found.text)

    ask_all(work)


def test_a_model_that_hangs_keeps_nobody(ask_all, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "LATE", 0.05)

    async def work(engine):
        await engine.model("one")
        (tmp_path / "steps").write_text("0")
        failed = await end(engine, question(ENDLESS, seconds=1))  # time enough for the step to begin
        assert failed.fault == "late" and failed.message == "one: no answer within 1 s"
        (tmp_path / "steps").unlink()
        assert (await end(engine, question("hi 3"))).reason == "stop"

    ask_all(work)


def test_a_model_that_hangs_for_long_is_started_again(ask_all, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "LATE", 0.05)
    monkeypatch.setattr(process, "HUNG", 0.5)

    async def work(engine):
        await engine.model("one")
        (tmp_path / "steps").write_text("0")
        others = asyncio.create_task(end(engine, question("others 5")))
        assert (await end(engine, question(ENDLESS, seconds=1))).fault == "late"
        died = await others
        assert died.fault == "died" and "one: its process did nothing for 0.5 s" in died.message
        (tmp_path / "steps").unlink()
        assert (await end(engine, question("hi 3"))).reason == "stop"
        assert started(tmp_path) == 2

    ask_all(work)


def test_a_full_queue_says_when_to_come_again(ask_all, tmp_path):
    async def work(engine):
        (tmp_path / "steps").write_text("0")
        tasks = [asyncio.create_task(end(engine, question(f"{number} 5"))) for number in range(3)]
        await until(lambda: waiting(engine) == 3)
        busy = await end(engine, question("more 5"))
        assert busy.fault == "busy" and 1 <= busy.retry <= 60
        assert busy.message == f"one: 3 questions wait already; try again in {busy.retry} seconds"
        (tmp_path / "steps").unlink()
        assert [found.reason for found in await asyncio.gather(*tasks)] == ["stop"] * 3
        assert (await end(engine, question("more 5"))).reason == "stop"

    ask_all(work, waiting=3)


def test_patience_is_the_time_that_the_queue_takes_by_the_recent_pace(monkeypatch):
    model = models.Model("one")
    model.inboxes = {f"{at}": Inbox() for at in range(100)}
    assert model.patience() == 10
    monkeypatch.setattr(models.time, "monotonic", lambda: 1000.0)
    model.ends.extend([10.0, 990.0, 995.0])  # one is no news any more
    assert model.patience() == models.RECENT
    model.inboxes = dict(list(model.inboxes.items())[:4])
    assert model.patience() == 20


# Processes that end


def test_a_process_that_is_killed_ends_its_answers_at_once_and_no_others(ask_all):
    async def work(engine):
        tasks = [(await begin(engine, question(f"{number} 100000")))[0] for number in range(chat_stand_in.PLACES)]
        other, _ = await begin(engine, question(ENDLESS, "other"))
        pid = engine.states()["one"].pid
        os.kill(pid, signal.SIGSTOP)  # so that it reads no more: the end of its socket is an error then
        tasks += [asyncio.create_task(end(engine, question(f"waits {number}"))) for number in range(28)]
        await until(lambda: waiting(engine) == 28)
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(AT_ONCE):
            found = await asyncio.gather(*tasks)
        assert {one.fault for one in found} == {"died"} and len(found) == 32
        assert found[0].message == (
            "one: its process was ended by SIGKILL (there may have been no memory for it); "
            "the next question starts another"
        )
        assert (await end(engine, question("next 30"))).text == chat_stand_in.answer("next 30")
        assert engine.states()["one"].pid not in (pid, None)
        assert not other.done()

    ask_all(work)


@pytest.mark.parametrize(("text", "said"), [("abort 3", "SIGABRT"), ("bug 3", "code 1 (ValueError)")])
def test_a_model_that_gives_up_is_started_again(ask_all, text, said):
    async def work(engine):
        failed = await end(engine, question(text))
        assert failed.fault == "died" and said in failed.message and text not in failed.message
        assert (await end(engine, question("next 30"))).reason == "stop"

    ask_all(work)


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("models/x.gguf: not found;\nrun it", "one: models/x.gguf: not found;"),
        ("abort", "one: its process was ended by SIGABRT"),
        ("bug", "one: its process ended with code 1 (ValueError)"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why_to_all_who_asked_and_is_tried_once(ask_all, tmp_path, fails, said):
    async def work(engine):
        (tmp_path / "fails-one").write_text(fails)
        found = await asyncio.gather(*(end(engine, question("hi 3")) for _ in range(5)))
        assert {(one.fault, one.message) for one in found} == {("unloaded", said)}
        assert started(tmp_path) == 1
        (tmp_path / "fails-one").unlink()
        assert (await end(engine, question("hi 3"))).reason == "stop"

    ask_all(work)


def test_a_model_that_does_not_stay_loaded_is_given_up_by_all_who_wait(ask_all, monkeypatch):
    loads = []

    async def load(self: models.Models, model: models.Model) -> None:
        """Its process has ended by the time that it is looked at."""
        loads.append(model)

    monkeypatch.setattr(models.Models, "_load", load)

    async def work(engine):
        found = await asyncio.gather(*(end(engine, question("hi 3")) for _ in range(5)))
        assert {(one.fault, one.message) for one in found} == {
            ("unloaded", "one: its process ends as soon as it is loaded")
        }
        assert len(loads) == models.TRIES

    ask_all(work)


def test_a_process_that_cannot_be_started_is_an_error(ask_all):
    async def work(engine):
        failed = await end(engine, question("hi 3"))
        assert failed.fault == "unloaded" and "no process can be started for it: No such file" in failed.message

    ask_all(work, command=("/no/such/python",))


def test_closing_ends_answers_loading_and_processes(ask_all, tmp_path):
    async def work(engine):
        running, _ = await begin(engine, question(ENDLESS))
        (tmp_path / "loading").touch()
        loading = asyncio.create_task(end(engine, question(ENDLESS, "other")))
        await until(lambda: started(tmp_path, "other"))
        pids = [int(line.split()[2]) for line in chat_stand_in.read(tmp_path / "log").splitlines() if "start" in line]
        await engine.close()
        assert [(await task).fault for task in (running, loading)] == ["stopped", "stopped"]
        assert len(pids) == 2 and not any(map(psutil.pid_exists, pids))
        assert (await end(engine, question("hi 3"))).fault == "stopped"

    ask_all(work)


CHATS = """
import asyncio, sys
from tradeoffs.chat.engine import Engine
from tradeoffs.chat.messages import Asked, Turn

async def main(variant, *command):
    engine = Engine(command=command, estimate=lambda variant: 1.0)
    async for event in engine.ask(Asked("x", variant, (Turn("user", "endless 100000"),))):
        pass

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("held", ["loading", "steps"])
def test_no_process_outlives_a_chat_that_is_killed(tmp_path, held):
    (tmp_path / held).write_text("2")
    chat = subprocess.Popen([sys.executable, "-c", CHATS, "one", *STAND_IN, str(tmp_path)], cwd=REPO)
    try:
        asyncio.run(asyncio.wait_for(until(lambda: started(tmp_path)), HANGS))
        model = psutil.Process(int(chat_stand_in.read(tmp_path / "log").split()[2]))
    finally:
        chat.kill()
        chat.wait()
    assert psutil.wait_procs([model], HANGS)[1] == []


@pytest.mark.parametrize("held", ["loading", "steps"])
def test_a_process_ends_with_the_other_end_of_its_socket_whatever_it_is_at(tmp_path, held):
    """Where the system does not end it."""
    (tmp_path / held).write_text("0")
    ours, theirs = socket.socketpair()
    with theirs:
        command = [*STAND_IN, str(tmp_path), "--fd", str(theirs.fileno()), "one"]
        model = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    with ours:
        ours.sendall(messages.request(question(ENDLESS), 0.0))
        asyncio.run(asyncio.wait_for(until(lambda: started(tmp_path)), HANGS))
    assert model.wait(HANGS) == 0


# Memory


def test_models_leave_by_least_recent_use(ask_all, tmp_path):
    async def work(engine):
        for name in ("a", "b", "c"):
            (tmp_path / f"memory-{name}").write_text("100")

        def there() -> set[str]:
            return {name for name, state in engine.states().items() if state.ready}

        for name in ("a", "b", "a", "c"):
            assert (await end(engine, question("hi 3", name))).reason == "stop"
        assert there() == {"a", "c"}
        assert (await end(engine, question("hi 3", "b"))).reason == "stop"
        assert there() == {"b", "c"}
        assert 200 < sum(state.memory_mb for state in engine.states().values()) < 400

    ask_all(work, max_memory_mb=400.0, estimate=lambda variant: 120.0)


def test_a_model_that_answers_stays_and_each_has_its_turn(ask_all, tmp_path):
    async def work(engine):
        (tmp_path / "steps").write_text("9")  # of each process: enough for one of these answers
        running, _ = await begin(engine, question("running 20", "a"))
        waits = asyncio.create_task(end(engine, question("hi 3", "b")))
        await until(lambda: engine._models["a"].leaving)
        again = asyncio.create_task(end(engine, question("again 3", "a")))
        await until(lambda: waiting(engine, "a") == 1)
        assert not running.done() and started(tmp_path, "b") == 0
        (tmp_path / "steps").write_text("100")
        assert [(await one).reason for one in (running, waits, again)] == ["stop"] * 3
        assert [started(tmp_path, name) for name in "ab"] == [2, 1]

    ask_all(work, max_memory_mb=120.0, estimate=lambda variant: 100.0)


def test_who_waited_for_a_model_has_its_answer_before_others_take_the_memory(ask_all, tmp_path):
    async def work(engine):
        (tmp_path / "loading").touch()
        first = asyncio.create_task(end(engine, question("first 20", "a")))
        await until(lambda: started(tmp_path, "a"))
        second = asyncio.create_task(end(engine, question("second 20", "b")))
        await until(lambda: engine._models["a"].leaving)
        (tmp_path / "loading").unlink()
        assert [(await one).reason for one in (first, second)] == ["stop"] * 2
        assert [started(tmp_path, name) for name in "ab"] == [1, 1]

    ask_all(work, max_memory_mb=120.0, estimate=lambda variant: 100.0)


def test_who_gives_up_waiting_for_room_makes_none(ask_all):
    async def work(engine):
        running, _ = await begin(engine, question(ENDLESS, "a"))
        assert (await end(engine, question("hi 3", "b", seconds=0.05))).fault == "late"
        await until(lambda: not engine._models["a"].leaving)
        assert not running.done()
        assert (await end(engine, question("hi 3", "a"))).reason == "stop"

    ask_all(work, max_memory_mb=120.0, estimate=lambda variant: 100.0)


def test_what_does_not_fit_is_not_started(ask_all, tmp_path):
    async def work(engine):
        failed = await end(engine, question("hi 3"))
        assert (failed.fault, failed.message) == (
            "too_large",
            "one takes about 500 MB (estimated), and all models may have 400 MB together; allow more "
            "(--max-memory), or take a smaller variant",
        )
        assert started(tmp_path) == 0

    ask_all(work, max_memory_mb=400.0, estimate=lambda variant: 500.0)


def test_what_a_model_really_takes_counts_once_it_is_loaded(ask_all, tmp_path):
    async def work(engine):
        (tmp_path / "memory-large").write_text("300")
        for name in ("small", "large"):
            assert (await end(engine, question("hi 3", name))).reason == "stop"
        await until(lambda: engine.states()["small"].ready is None)  # 300 and its own are too much together
        (tmp_path / "memory-large").write_text("400")
        (tmp_path / "memory-small").write_text("200")
        assert (await end(engine, question("hi 3", "small"))).reason == "stop"
        assert engine.states()["large"].ready is None
        (tmp_path / "memory-huge").write_text("500")
        failed = await end(engine, question("hi 3", "huge"))
        assert failed.fault == "too_large" and "all models may have 370 MB together" in failed.message
        assert "estimated" not in failed.message
        assert (await end(engine, question("hi 3", "huge"))).message.split(" MB")[0] == failed.message.split(" MB")[0]
        assert started(tmp_path, "huge") == 1

    ask_all(work, max_memory_mb=370.0)


def test_an_estimate_is_what_was_measured_or_the_files(elsewhere):
    gguf, bf16 = Variant.parse("m-d-lora-q4_0"), Variant.parse("m-d-lora-bf16")
    for path in (gguf.gguf, bf16.cell.merged / "model.safetensors"):
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.truncate(3_000_000_000)
    assert room.estimate_mb(gguf, None, 1e6) == room.LLAMA_CPP + 3000
    assert room.estimate_mb(bf16, None, 1e6) == room.TRANSFORMERS + 3000
    assert room.estimate_mb(bf16.cell.variant("float32"), None, 1e6) == room.TRANSFORMERS + 6000
    assert room.estimate_mb(gguf, 9000.0, 1e6) == 9000
    assert room.estimate_mb(Variant.parse("m-d-lora-trained"), None, 1e6) == room.TRANSFORMERS
    gguf.cell.base.mkdir(parents=True)
    shape = {"num_hidden_layers": 3, "hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 4}
    whole = 512 * 2 * 2 * 3 * 128 / 1e6  # MB of the keys and values of a whole context
    found = {"text_config": shape | {"max_position_embeddings": 512}}
    files.write_json(gguf.cell.base / "config.json", found)
    assert room.estimate_mb(gguf, None, 1e6) == pytest.approx(room.LLAMA_CPP + 3000 + (32 + 64) * whole)
    assert room.estimate_mb(gguf, None, 128) == pytest.approx(room.LLAMA_CPP + 3000 + 32 * whole + 16)
    found["text_config"]["max_position_embeddings"] = 1 << 20  # too long for each to have one of its own
    files.write_json(gguf.cell.base / "config.json", found)
    assert room.estimate_mb(gguf, None, 1e6) == pytest.approx(room.LLAMA_CPP + 3000 + 0.001536 * (1 << 20))


def test_who_waits_for_room_is_told_when_an_idle_process_ends(ask_all):
    async def work(engine):
        assert (await end(engine, question("hi 3", "a"))).reason == "stop"
        process = engine._models["a"].process
        process.open = False  # it takes no more questions, and is not gone yet
        waits = asyncio.create_task(end(engine, question("hi 3", "b")))
        await until(lambda: engine._models["a"].leaving)
        os.kill(process.pid, signal.SIGKILL)
        assert (await waits).reason == "stop"

    ask_all(work, max_memory_mb=120.0, estimate=lambda variant: 100.0)


def test_whatever_is_wrong_with_an_estimate_is_told(ask_all):
    async def work(engine):
        failed = await end(engine, question("hi 3"))
        assert (failed.fault, failed.message) == ("unloaded", "one: what it takes cannot be told (ValueError: of 'x')")

    def estimate(variant):
        raise ValueError("of 'x'")

    ask_all(work, estimate=estimate)


def test_a_model_that_hangs_while_it_loads_is_ended(ask_all, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "LOADING", 0.2)
    (tmp_path / "loading").touch()

    async def work(engine):
        failed = await end(engine, question("hi 3"))
        assert failed.fault == "unloaded" and "it was not loaded in" in failed.message
        assert not engine._models["one"].alive
        monkeypatch.setattr(models, "LOADING", 900)
        (tmp_path / "loading").unlink()
        assert (await end(engine, question("hi 3"))).reason == "stop"

    ask_all(work)


def test_answers_that_nobody_has_read_yet_do_not_wait(ask_all):
    async def work(engine):
        unread = [engine.ask(question(f"{at} 20")) for at in range(3)]
        for one in unread:
            await anext(one)
        await until(lambda: all(inbox.ended for inbox in engine._inboxes.values()))
        assert waiting(engine) == 0
        assert (await end(engine, question("hi 3"))).reason == "stop"
        for one in unread:
            await one.aclose()

    ask_all(work, waiting=1)


def test_a_variant_without_room_is_told_at_the_start(monkeypatch):
    monkeypatch.chdir(REPO)
    (talker,) = variants.chosen(["demo-demo-lora-q4_0"])
    engine_module.require_room([talker], None)
    for arguments in (["--serve"], []):
        monkeypatch.setattr(sys, "argv", ["chat", str(talker), *arguments, "--max-memory", "10"])
        with pytest.raises(SystemExit) as ended:
            cli.command(chat.main, options.parser())
        assert f"{ended.value.code}".startswith(f"error: {talker} takes about ")


def test_the_limit_is_a_share_of_what_a_container_has(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/box\n")
    (tmp_path / "sys/fs/cgroup/box").mkdir(parents=True)
    everything = room.limit_mb(tmp_path)
    (tmp_path / "sys/fs/cgroup/box/memory.max").write_text("1000000000\n")
    assert room.limit_mb(tmp_path) == 800 < everything


def test_a_name_that_is_no_variant_is_told_so(ask_all, monkeypatch):
    monkeypatch.chdir(REPO)

    async def work(engine):
        failed = await end(engine, question("hi 3", "demo-demo-lora-q4_1"))
        assert failed.fault == "unloaded" and "no variant of the run list (did you mean" in failed.message

    ask_all(work, estimate=None)


# What is told to whom


@pytest.mark.parametrize("fails", ["misread", "bug", "abort"])
def test_no_log_holds_what_was_asked(ask_all, capfd, fails):
    async def work(engine):
        failed = await end(engine, question(f"{fails}-{SECRET} 3"))
        assert isinstance(failed, Failed) and SECRET not in failed.message

    ask_all(work)
    said = "".join(capfd.readouterr())
    assert SECRET not in said
    if fails != "abort":  # but where it failed is there
        assert "Traceback" in said and "chat_stand_in.py" in said and said.rstrip().endswith("Error")


@pytest.mark.skipif(not Path("/proc/self/limits").is_file(), reason="only Linux says what limits a process has")
def test_a_process_leaves_no_image_of_its_memory_and_gives_way_where_there_is_none(ask_all):
    async def work(engine):
        about = Path("/proc", str((await engine.model("one")).pid))
        limits = about.joinpath("limits").read_text().splitlines()
        assert next(line.split()[4:6] for line in limits if line.startswith("Max core file size")) == ["1", "1"]
        assert about.joinpath("oom_score_adj").read_text() == "500\n"

    ask_all(work)


def test_nothing_that_was_said_shows_in_what_is_printed_of_an_object():
    logprob = Logprob(SECRET, -1.0, ((SECRET, -1.0),))
    asked = Asked("1", "one", (Turn("user", SECRET),), text=SECRET, stop=(SECRET,))
    said = [
        Said("1", SECRET, 1, (logprob,)),
        Ended("1", "stop", SECRET, 1, 0, 1, 0.0, 0.0, 0.0, 1.0, (1,), (logprob,)),
        Failed("1", "invalid", SECRET),
    ]
    assert SECRET not in f"{asked!r} {said!r} {logprob!r}"


def test_a_process_gets_no_secrets():
    ours = {
        "PATH": "/bin",
        "OMP_NUM_THREADS": "2",
        "LC_ALL": "C",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "0",
        "HF_TOKEN": "s",
        "AWS_SECRET_ACCESS_KEY": "s",
        "DATABASE_URL": "s",
        "TORCH_API_KEY": "s",
        "PYTHONPATH": "/mine",
    }
    given = process.environment(ours)
    assert "s" not in given.values()
    assert {*given} == {*list(ours)[:5], "PYTHONPATH", "HF_HUB_OFFLINE"}
    assert given["PYTHONPATH"] == f"{REPO}{os.pathsep}/mine"


TOLD = 'line\nbreak, "quote", \u2028, \ud800, 😀, \x00'


@pytest.mark.parametrize(
    "event",
    [
        Ready("llama.cpp", "cpu", 512, 8, 64, 1.5, 100.0),
        Queued("1", 3),
        Begun("1", 10, 4, 0, 512, 64),
        Said("1", TOLD, 4),
        Said("1", TOLD, 4, (Logprob(TOLD, -0.5, (("a", -0.5), (TOLD, -1.5))), Logprob("a", None))),
        Ended("1", "stop", TOLD, 10, 4, 4, 0.1, 0.2, 0.3, 100.0, (1, 2), (Logprob(TOLD, -0.5),)),
        Failed("1", "busy", TOLD, 3),
    ],
    ids=lambda event: event.kind,
)
def test_events_arrive_as_they_were_sent(event):
    line = messages.line([event, event])
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert list(messages.events(line)) == [event, event]


def test_a_question_arrives_as_it_was_asked():
    asked = Asked("1", "one", (Turn("user", TOLD), Turn("assistant", "")), ids=(1, 2), stop=(TOLD,), seed=1)
    line = messages.request(asked, 5.0)
    assert line.count(b"\n") == 1
    found = messages.json.loads(line)
    assert Asked.of(found["asked"]) == asked and found["since"] == 5.0


def test_an_inbox_merges_what_is_said_at_a_stretch_and_nothing_else():
    inbox = Inbox()
    given = [
        Queued("1", 2),
        Queued("1", 1),
        Begun("1", 1, 0, 0),
        Said("1", "a", 1),
        Said("1", "b", 2),
        Failed("1", "died", ""),
    ]
    for event in [*given, Said("1", "c", 3)]:
        inbox.put(event)
    assert asyncio.run(inbox.get()) == [given[1], given[2], Said("1", "ab", 2), given[-1]]
    assert inbox.begun and inbox.ended


def test_an_exit_code_is_explained_with_what_the_process_said():
    assert process.explained("one", 1, "noise\nerror: no\x1b[0m file\nmore\n") == "one: no\\x1b[0m file"
    assert process.explained("one", -9, "noise") == (
        "one: its process was ended by SIGKILL (there may have been no memory for it)"
    )
    assert process.explained("one", 0, "noise") == "one: its process ended with code 0"


# A real model


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """A workspace with a variant of llama.cpp; its name."""
    import small_run
    from tiny_gguf import CONTEXT, make_checkpoint

    from tradeoffs.convert.gguf_converter import convert

    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small_run.set_up({"tiny": {"path": "x", "prompt": "own"}}, ["base"], [], ["f16"], small_run.sums(5))
        variant = Variant.parse("tiny-sums-base-f16")
        make_checkpoint(variant.cell.base)
        variant.gguf.parent.mkdir(parents=True)
        convert(variant.cell.base, variant.gguf)
        files.write_json(variant.gguf.with_suffix(".json"), {"sha256": files.sha256(variant.gguf)})
        files.write_json(variant.cell.tokens / "info.json", {"stop_ids": [2], "context": CONTEXT})
        files.write_json(variant.facts, {"max_new_tokens": 40})
    return folder, variant


def test_a_real_model_answers_many_is_killed_and_answers_again(ask_all, talker, monkeypatch):
    folder, variant = talker
    monkeypatch.chdir(folder)

    async def work(engine):
        def asked(number: int, **options) -> Asked:
            return question(f"What is {number} and 1?", str(variant), **options)

        alone = [await end(engine, asked(number)) for number in range(3)]
        assert all(len(found.ids) == 40 or found.reason == "stop" for found in alone)
        ready = engine.states()[str(variant)].ready
        assert (ready.runtime, ready.device, ready.context, ready.max_tokens) == ("llama.cpp", "cpu", 600, 40)
        assert ready.seconds > 0 and 20 < ready.memory_mb < 1000
        long = [asyncio.create_task(end(engine, asked(number, max_tokens=500))) for number in range(32)]
        await until(lambda: engine.states()[str(variant)].running >= 8)
        os.kill(engine.states()[str(variant)].pid, signal.SIGKILL)
        async with asyncio.timeout(AT_ONCE):
            found = await asyncio.gather(*long)
        assert {getattr(one, "fault", "ended") for one in found} <= {"died", "ended"}
        assert sum(isinstance(one, Failed) for one in found) >= 8
        assert [(await end(engine, asked(number))).ids for number in range(3)] == [one.ids for one in alone]

    ask_all(work, command=process.COMMAND, estimate=None)


def test_a_process_takes_what_was_estimated_and_heeds_what_all_may_have(ask_all, talker, monkeypatch):
    folder, variant = talker
    monkeypatch.chdir(folder)

    def work(most_mb):
        async def load(engine):
            process = await engine.model(str(variant))
            found.append(process.ready.result().memory_mb)
            assert found[-1] == pytest.approx(room.estimate_mb(variant, None, most_mb), rel=0.2)

        return load

    found = list[float]()
    for most_mb in (1e6, 200):
        ask_all(work(most_mb), command=None, estimate=None, max_memory_mb=most_mb)
    assert found[1] < found[0]


def test_a_damaged_model_is_told_by_its_process_in_one_line(ask_all, talker, monkeypatch):
    folder, variant = talker
    monkeypatch.chdir(folder)
    described = variant.gguf.with_suffix(".json")
    whole = files.read_json(described)
    files.write_json(described, {"sha256": "another"})

    async def work(engine):
        failed = await end(engine, question("hi", str(variant)))
        assert failed.fault == "unloaded" and "\n" not in failed.message
        assert failed.message.startswith(f"{variant}: {variant.gguf}: damaged: it is not what was made")

    try:
        ask_all(work, command=process.COMMAND, estimate=None)
    finally:
        files.write_json(described, whole)
