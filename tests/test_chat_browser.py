"""The page of the chat in a browser: it shows what is said and what it costs, asks nobody else for anything, and no
text of an answer does anything in it.

Skipped only where there is no Chromium; Playwright's library drives it, and downloads none.
"""

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import chromium
import hostile
import pytest
import uvicorn
from playwright.sync_api import expect

from tradeoffs.chat import votes
from tradeoffs.chat.messages import Asked, Begun, Ended, Event, Failed, Queued, Said, Turn
from tradeoffs.chat.server import app, serving
from tradeoffs.chat.variants import Talker
from tradeoffs.common.cells import Variant

WAIT = 10_000  # ms until something that must come is taken for missing
TOKEN = "token-of-the-test"
A, B, BASE, TEXT = "demo-demo-lora-q4_0", "demo-demo-full-q8_0", "demo-demo-base-f16", "demo-stories-full-q8_0"
PICKED = [A, B, BASE]  # in this order, which is not that of the run list; two are shown
HOLD = object()
expect.set_options(timeout=WAIT)
pytestmark = [pytest.mark.slow, chromium.NEEDED]


@dataclass
class Script:
    """An engine whose variants say what is written here, whatever they are asked: texts and events, in this order;
    at HOLD they wait until `held` is set. The server and all that is between it and the page is the real one."""

    says: dict[str, list] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)

    def states(self) -> dict:
        return {}

    async def ask(self, asked: Asked) -> AsyncIterator[Event]:
        self.asked.append(asked)
        text, tokens = "", 0
        try:
            for piece in self.says.get(asked.variant, ["one ", "two ", "three"]):
                while piece is HOLD and not self.held.is_set():
                    await asyncio.sleep(0.005)
                if isinstance(piece, str):
                    if not tokens:
                        yield Begun("", 40 + 2 * len(asked.turns), 30, max(0, len(asked.turns) // 2 - 2), 512, 128)
                    text, tokens = text + piece, tokens + 1
                    yield Said("", piece, tokens)
                elif piece is not HOLD:
                    yield piece
                    if isinstance(piece, Failed | Ended):
                        return
            yield Ended("", "stop", text, 40, 30, tokens, 0.0, 0.12, 0.62, 142.6)
        except BaseException:  # the client has left
            self.left.append(asked.variant)
            raise


def talker(name: str, label: str = "chat", recommended: bool = False, **numbers: float) -> Talker:
    variant = Variant.parse(name)
    return Talker(variant, "llama.cpp", label, recommended, numbers, "test_exact_match", "size_mb", name == TEXT)


MEASURED = {"test_exact_match_low": 0.93, "test_exact_match_high": 0.98, "size_mb": 4.21}
KNOWN = {
    BASE: talker(BASE, "completion"),
    TEXT: talker(TEXT, "completion"),
    A: talker(A, test_exact_match=0.96, **MEASURED),
    B: talker(B, recommended=True, test_exact_match=0.99, **MEASURED),
}


@pytest.fixture(scope="module")
def engine() -> Script:
    return Script()


@pytest.fixture
def script(engine, tmp_path, monkeypatch) -> Iterator[Script]:
    """A new one in a folder without votes."""
    monkeypatch.chdir(tmp_path)
    vars(engine).update(vars(Script()))
    yield engine
    engine.held.set()


@pytest.fixture(scope="module")
def server(engine) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        served = uvicorn.Server(serving.configured(app.made(engine, KNOWN, PICKED, {host}, TOKEN)))
        thread = threading.Thread(target=served.run, args=([listener],), daemon=True)
        thread.start()
        yield f"http://{host}"
        served.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium.launched() as found:
        yield found


class Tab:
    """The open page, what it asked for and what it complained of."""

    def __init__(self, browser, url: str, token: str = TOKEN, **context):
        self.url, self.requests, self.said = url, [], []
        self.page = browser.new_context(**context).new_page()
        self.page.set_default_timeout(WAIT)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.goto(f"{url}/#token={token}")
        self.page.wait_for_selector("main:not([aria-busy])")

    def ask(self, question: str, ends: bool = True) -> None:
        turns = self.page.locator("#turns > li").count()
        self.page.fill("#question", question)
        self.page.press("#question", "Enter")
        expect(self.page.locator("#turns > li")).to_have_count(turns + 1)
        if ends:
            self.ended()

    def ended(self) -> None:
        self.page.wait_for_selector("#send")

    def texts(self, selector: str) -> list[str]:
        return self.page.locator(selector).all_inner_texts()

    def refused(self, status: int) -> None:
        """Takes note of what Chromium itself says of an answer of this status; there must have been one."""
        assert len(self.said) == 1 and f"status of {status}" in self.said.pop()

    def answers(self) -> list[str]:
        return self.page.locator("#turns > li:last-child .answer .said").evaluate_all("a => a.map(o => o.textContent)")


@pytest.fixture
def tab(browser, server, script, request) -> Iterator[Tab]:
    found = Tab(browser, server, **getattr(request, "param", {}))
    yield found
    assert [url for url in found.requests if not url.startswith(f"{server}/")] == []
    assert [url for url in found.requests if TOKEN in url.partition("#")[0]] == []
    assert found.said == []
    found.page.context.close()


def test_two_columns_stream_each_with_its_costs_and_its_part_of_the_window(tab, script):
    script.says = {A: [Queued("", 2), "a b ", HOLD, "c"], B: ["d ", "e"]}
    tab.ask("first?", ends=False)
    expect(tab.page.locator(".answer .said").first).to_have_text("a b")
    assert tab.texts(".answer h4") == [A, B]
    assert tab.page.text_content("#status") == f"{A} answers."
    assert "Waits for the other answer." in tab.page.text_content(".answer:nth-child(2)")
    assert [asked.variant for asked in script.asked] == [A]  # B begins when A has ended: neither slows the other down
    script.held.set()
    tab.ended()
    assert tab.answers() == ["a b c", "d e"]
    assert tab.page.text_content("#status") == "Both have answered."
    costs = ["120 ms to first token", "4 tokens/s", "2 tokens", "143 MB memory"]
    assert tab.texts(".answer:nth-child(2) .costs li") == costs
    bar = tab.page.locator(".answer:nth-child(2) [role=meter]")
    assert (bar.get_attribute("aria-valuenow"), bar.get_attribute("aria-valuemax")) == ("170", "512")
    assert bar.get_attribute("aria-valuetext") == "42 read (30 kept) + 128 reserved of 512 tokens"


def test_together_both_are_asked_at_once_and_a_place_in_the_queue_is_said(tab, script):
    script.says = {A: [Queued("", 2), HOLD, "a"], B: [Queued("", 1), HOLD, "b"]}
    tab.page.check("#together")
    tab.ask("first?", ends=False)
    expect(tab.page.locator(".answer .state")).to_have_text(["Place 2 in the queue.", "Next in the queue."])
    assert {asked.variant for asked in script.asked} == {A, B}
    script.held.set()
    tab.ended()
    assert tab.answers() == ["a", "b"]


def test_stop_ends_what_is_written_and_what_would_come_after_it(tab, script):
    script.says = {A: ["a b", HOLD, "c"]}
    tab.ask("first?", ends=False)
    expect(tab.page.locator(".answer .said").first).to_have_text("a b")
    tab.page.press("#question", "Escape")
    tab.ended()
    assert tab.answers() == ["a b", ""]
    assert [text.strip() for text in tab.texts(".answer .state")] == ["Stopped.", "Stopped before it began."]
    assert tab.page.locator(".vote:visible").count() == 0  # what was cut cannot be compared
    deadline = time.monotonic() + WAIT / 1000
    while script.left != [A] and time.monotonic() < deadline:
        time.sleep(0.005)
    assert script.left == [A] and [asked.variant for asked in script.asked] == [A]
    script.held.set()
    tab.ask("second?")
    said = [(turn.role, turn.content) for turn in script.asked[1].turns]
    assert said == [("user", "first?"), ("assistant", "a b"), ("user", "second?")]
    assert [turn.content for turn in script.asked[2].turns] == ["second?"]  # B has not answered the first


def test_an_earlier_question_is_edited_and_what_followed_it_goes(tab, script):
    tab.page.fill("#system", "Be short.")
    for question in ("first?", "second?", "third?"):
        tab.ask(question)
    script.asked.clear()
    tab.page.click("#turns > li:nth-child(2) .edit")
    tab.page.keyboard.press("Escape")
    assert tab.texts(".question .said") == ["first?", "second?", "third?"]
    assert tab.page.evaluate("document.activeElement.className") == "quiet edit"
    tab.page.keyboard.press("Enter")
    tab.page.keyboard.press("Control+A")
    tab.page.keyboard.type("other?")
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#turns > li")).to_have_count(2)
    tab.ended()
    assert tab.texts(".question .said") == ["first?", "other?"]
    said = [turn.content for turn in script.asked[0].turns]
    assert said == ["Be short.", "first?", "one two three", "other?"]
    tab.page.click("#reset")
    assert tab.page.locator("#turns > li").count() == 0 and tab.page.is_visible("#nothing")
    tab.ask("new?")
    assert [turn.content for turn in script.asked[-1].turns] == ["Be short.", "new?"]


def plain(asked: Asked) -> Asked:
    return replace(asked, id="", seconds=Asked("", "").seconds)


def test_settings_are_what_is_asked_with_and_greedy_without_any(tab, script):
    tab.page.select_option("#pick-1", "")
    tab.ask("first?")
    assert plain(script.asked[0]) == Asked("", A, (Turn("user", "first?"),))
    tab.page.click("#sampling summary")
    for name, value in {"temperature": "0.7", "top-p": "0.9", "seed": "5", "most": "20", "window": "3"}.items():
        tab.page.fill(f"#{name}", value)
    tab.page.check("#stateless")
    tab.ask("second?")
    expected = Asked("", A, (Turn("user", "second?"),), max_tokens=20, window=3, temperature=0.7, top_p=0.9, seed=5)
    assert plain(script.asked[1]) == expected
    tab.page.fill("#temperature", "3")
    tab.page.fill("#question", "third?")
    tab.page.press("#question", "Enter")
    assert tab.page.evaluate("document.activeElement.id") == "temperature"
    assert tab.page.input_value("#question") == "third?" and len(script.asked) == 2


def test_what_is_left_out_is_said(tab, script):
    tab.page.select_option("#pick-1", "")
    for number in range(4):
        tab.ask(f"{number}?")
    assert tab.texts(".gone") == ["1 question left out"]


def test_variants_are_shown_with_what_they_are_and_what_is_known_of_them(tab):
    options = tab.texts("#pick-0 option")
    assert options == [f"{BASE} (completion)", f"{TEXT} (completion)", A, f"{B} (recommended)"]
    assert tab.page.input_value("#pick-0") == A and tab.page.input_value("#pick-1") == B
    assert tab.page.inner_text("#facts-1") == "chat recommended llama.cpp · exact match 0.99 [0.93, 0.98] · 4.21 MB"
    tab.page.select_option("#pick-0", BASE)
    assert (
        tab.page.inner_text("#facts-0") == "completion llama.cpp · not measured · not tuned: each question stands alone"
    )


def test_what_completes_texts_is_asked_as_its_evaluation_asked_it(tab, script):
    tab.page.fill("#system", "Be short.")
    tab.page.select_option("#pick-0", BASE)
    tab.page.select_option("#pick-1", TEXT)
    tab.ask("Once")
    tab.ask("upon a time")
    assert plain(script.asked[2]) == Asked("", BASE, (Turn("system", "Be short."), Turn("user", "upon a time")))
    assert plain(script.asked[3]) == Asked("", TEXT, text="upon a time")
    assert tab.answers() == ["one two three"] * 2


def test_differences_are_marked_word_by_word_and_no_text_is_lost(tab, script):
    script.says = {A: ["Anna paid 40 euros", " on 3 May. ", "مرحبا"], B: ["Anna paid 45 euros", " in May. ", "مرحبا"]}
    tab.ask("who?")
    assert tab.answers() == ["Anna paid 40 euros on 3 May. مرحبا", "Anna paid 45 euros in May. مرحبا"]
    assert tab.texts(".answer:nth-child(1) mark") == ["40", "on 3"]
    assert tab.texts(".answer:nth-child(2) mark") == ["45", "in"]
    tab.page.uncheck("#marked")
    expect(tab.page.locator("mark")).to_have_count(0)
    tab.page.check("#marked")
    # Too long to be compared, and with little in common: marks would say nothing.
    for ours, theirs in (("a " * 2000 + "c", "a " + "b " * 2000), ("order, normal", '{"order": "green chair"}')):
        script.says = {A: [ours], B: [theirs]}
        tab.ask("who?")
        assert tab.answers() == [ours, theirs]
        assert tab.page.locator("#turns > li:last-child mark").count() == 0


def test_a_vote_is_kept_and_counted(tab, script):
    script.says = {A: ["same"], B: ["same"]}
    tab.ask("who?")
    assert "Both answers are the same." in tab.page.inner_text(".vote")
    tab.page.dblclick(".vote .tie")
    tab.page.wait_for_selector(".vote .tie[aria-pressed=true]")
    assert tab.page.locator(".vote button:enabled").count() == 0
    (line,) = votes.VOTES.read_text().splitlines()
    found = json.loads(line)
    assert found.pop("at")
    messages = [{"role": "user", "content": "who?"}]
    assert found == {
        **{"left": A, "right": B, "better": "tie", "blind": False, "messages": messages, "answers": ["same", "same"]}
    }
    script.says = {}
    tab.ask("again?")
    tab.page.click("#turns > li:last-child .vote .left")
    tab.page.wait_for_selector("#turns > li:last-child .vote .left[aria-pressed=true]")
    tab.page.click("#votes summary")
    tab.page.wait_for_selector(".counted")
    assert tab.texts("#counted p")[1] == "0 better, 1 worse, 1 tie; wins 0.0 % [0.0 %, 97.5 %]"
    with votes.VOTES.open("a") as file:
        file.write("{")
    tab.page.click("#votes summary")
    tab.page.click("#votes summary")
    expect(tab.page.locator("#counted")).to_contain_text("data/votes.jsonl: line 3: no JSON, or not all of it")
    tab.refused(500)


def test_blind_nothing_tells_the_two_apart_until_the_vote(tab, script):
    script.says = {A: ["of A", HOLD], B: ["of B"]}
    tab.page.check("#blind")
    swapped = set()
    for number in range(12):
        script.held.clear()
        tab.ask(f"{number}?", ends=False)
        tab.page.wait_for_selector("#turns > li:last-child .answer.hidden")
        turn = tab.page.locator("#turns > li:last-child")
        for _ in range(2):
            expect(turn.locator("h4")).to_have_text(["Left", "Right"], use_inner_text=True)
            assert not any(name in turn.inner_html() for name in (A, B, "of A", "of B", "costs", "window"))
            script.held.set()
        tab.ended()
        expect(turn.locator("h4")).to_have_text(["Left", "Right"], use_inner_text=True)
        assert not any(name in turn.inner_html() for name in (A, B, "costs", "window"))
        assert A not in tab.page.text_content("#status") and B not in tab.page.text_content("#status")
        said = tab.answers()
        swapped.add(said == ["of B", "of A"])
        assert sorted(said) == ["of A", "of B"]
        turn.locator(".vote .left").click()
        turn.locator(".vote .left[aria-pressed=true]").wait_for()
        assert turn.locator("h4").all_inner_texts() == ([A, B] if said == ["of A", "of B"] else [B, A])
        assert turn.locator(".costs").count() == 2
        found = json.loads(votes.VOTES.read_text().splitlines()[-1])
        names = {"of A": A, "of B": B}
        assert (found["left"], found["right"], found["blind"]) == (names[said[0]], names[said[1]], True)
        assert found["answers"] == said
        if len(swapped) == 2:
            break
    assert swapped == {True, False}
    assert "messages_right" in found  # from the second question on each has its own conversation


def test_names_that_were_shown_before_the_vote_make_it_no_blind_one(tab):
    tab.page.check("#blind")
    tab.ask("who?")
    tab.page.click(".reveal")
    tab.page.wait_for_selector(".answer .costs")
    tab.page.click(".vote .right")
    tab.page.wait_for_selector(".vote .right[aria-pressed=true]")
    assert json.loads(votes.VOTES.read_text())["blind"] is False


def test_the_same_variant_twice_cannot_be_voted_on(tab):
    tab.page.select_option("#pick-1", A)
    tab.ask("who?")
    assert tab.page.locator(".vote:visible").count() == 0


def test_a_process_that_dies_is_said_in_its_place_and_can_be_asked_again(tab, script):
    script.says = {A: ["half", HOLD, Failed("", "died", f"{A}: its process ended with -9")]}
    tab.ask("who?", ends=False)
    expect(tab.page.locator(".answer .said").first).to_have_text("half")
    script.held.set()
    tab.ended()
    assert tab.texts(".answer.failed .careful") == [f"{A}: its process ended with -9"]
    assert tab.answers() == ["half", "one two three"]
    assert tab.page.text_content("#status") == f"{A} has not answered; why stands in its place."
    assert tab.page.locator(".vote:visible").count() == 0
    script.says = {}
    tab.page.click("text=Ask again")
    expect(tab.page.locator(".answer.failed")).to_have_count(0)
    tab.ended()
    assert tab.answers() == ["one two three"] * 2


def test_where_there_is_nothing_to_vote_on_names_are_not_hidden(tab, script):
    script.says = {A: [Failed("", "died", f"{A}: its process ended with -9")]}
    tab.page.check("#blind")
    tab.ask("who?")
    assert sorted(tab.texts(".answer h4")) == sorted([A, B])
    assert tab.texts(".answer.failed .careful") == [f"{A}: its process ended with -9"]
    tab.refused(503)
    script.says = {}
    tab.page.click("text=Ask again")
    tab.page.click(".vote .left")
    tab.page.wait_for_selector(".vote .left[aria-pressed=true]")
    assert json.loads(votes.VOTES.read_text())["blind"] is False  # the names had been there


def test_an_answer_that_was_cut_at_its_longest_can_be_voted_on_and_one_that_took_too_long_not(tab, script):
    tab.page.check("#blind")
    cut = lambda reason: Ended("", reason, "cut", 40, 30, 1, 0.0, 0.12, 0.62, 142.6)  # noqa: E731
    script.says = {A: [cut("length")]}
    tab.ask("who?")
    tab.page.wait_for_selector(".vote .left")
    assert "Cut at 1 token, the most that an answer may have." in "".join(tab.texts(".answer .state"))
    script.says = {A: [cut("time")]}
    tab.ask("who?")
    turn = tab.page.locator("#turns > li:last-child")
    assert turn.locator(".vote:visible").count() == 0
    assert sorted(turn.locator("h4").all_inner_texts()) == sorted([A, B])


def test_while_it_grows_tokens_are_counted_as_the_model_does(tab, script):
    script.says = {A: [Said("", "one ", 7), HOLD]}
    tab.ask("who?", ends=False)
    expect(tab.page.locator(".costs .tokens")).to_have_text("7 tokens")
    script.held.set()
    tab.ended()


def test_every_text_of_an_answer_stays_text(tab, script):
    for text in hostile.HOSTILE:
        asked = text if text.strip() else "blank?"
        script.says = {A: [*text[:20], text[20:]], B: [f"{text} {text}"]}
        tab.page.click("#reset")
        tab.ask(asked)
        assert tab.answers() == [text, f"{text} {text}"]
        found = tab.page.evaluate(
            """[document.querySelector(".question .said").textContent, document.title,
            document.querySelectorAll("main :is(img, script, iframe, a, svg, object, embed, link, style)").length,
            document.querySelectorAll("[onload], [onerror]").length,
            document.documentElement.scrollWidth <= document.documentElement.clientWidth]"""
        )
        # What is typed has the ends of lines that text boxes have.
        assert found == [asked.replace("\r\n", "\n").replace("\r", "\n"), "Chat with variants", 0, 0, True]
    tab.page.click(".edit")
    assert tab.page.input_value(".question textarea") == found[0]


def test_the_keyboard_alone_is_enough_and_shows_where_it_is(tab, script):
    page, reached = tab.page, []
    assert page.evaluate("document.activeElement.id") == "question"
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    tab.ended()
    assert script.asked[0].turns[-1].content == "one\ntwo"
    assert page.evaluate("document.activeElement.id") == "question"
    page.focus(".skip")
    for _ in range(60):
        found = page.evaluate(
            "[document.activeElement.id || document.activeElement.className, document.activeElement.tagName]"
        )
        if found[1] == "BODY":
            break
        reached.append(found[0] or found[1])
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"{found} does not show that it has the focus"
        page.keyboard.press("Tab")
    order = ["skip", "reset", "system", "stateless", "window", "in-turn", "marked", "blind", "pick-0", "pick-1"]
    order += ["quiet edit", "left", "tie", "right", "question", "send"]
    assert [one for one in reached if one in order] == order
    page.focus(".vote .right")
    page.keyboard.press("Space")
    page.wait_for_selector(".vote .right[aria-pressed=true]")
    assert page.evaluate("document.activeElement.id") == "question"


def test_what_can_be_operated_has_a_name_and_only_the_state_is_announced(tab, script):
    tab.ask("who?")
    tab.page.click(".edit")
    nameless = tab.page.evaluate(
        """[...document.querySelectorAll('input, select, textarea, button, [role=meter]')].filter((one) =>
        !one.labels?.length && !one.getAttribute('aria-label') && !one.textContent.trim())
        .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    live = tab.page.locator("[aria-live], [role=status], [role=alert], [role=log], output").evaluate_all(
        "all => all.map((one) => one.id)"
    )
    assert live == ["trouble", "status"]
    tab.page.click("text=Cancel")
    changes = """() => { window.changes = [];
        new MutationObserver(() => window.changes.push(document.querySelector('#status').textContent))
        .observe(document.querySelector('#status'), {childList: true, characterData: true, subtree: true}); }"""
    tab.page.evaluate(changes)
    script.says = {A: ["word "] * 200}
    tab.page.select_option("#pick-1", "")
    tab.ask("many?")
    assert 0 < len(tab.page.evaluate("window.changes")) < 10


@pytest.mark.parametrize("tab", [{"token": "wrong"}], indirect=True)
def test_a_wrong_token_is_said_and_the_right_address_mends_it(tab, server):
    assert tab.page.inner_text("#trouble").startswith("The token is missing or wrong: it stands in the address")
    tab.page.goto(f"{server}/#token={TOKEN}")
    tab.page.wait_for_selector("#trouble", state="hidden")
    tab.ask("who?")
    assert tab.answers() == ["one two three"] * 2
    tab.refused(401)


def test_the_token_is_neither_in_the_address_nor_kept_and_can_be_typed(tab, server):
    assert TOKEN not in tab.page.url
    assert tab.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    assert not tab.page.is_visible("#token")
    tab.page.reload()
    tab.page.wait_for_selector("#token")
    assert tab.page.evaluate("document.activeElement.id") == "token"
    assert tab.page.inner_text("#trouble").startswith("The token is missing or wrong")
    tab.page.keyboard.type("wrong")
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#token")).to_have_value("")
    tab.page.keyboard.type(TOKEN)
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("#key", state="hidden")
    assert not tab.page.is_visible("#trouble") and tab.page.evaluate("document.activeElement.id") == "question"
    tab.ask("who?")
    assert tab.answers() == ["one two three"] * 2
    assert tab.page.url == f"{server}/" and TOKEN not in tab.page.content()
    tab.refused(401)


def test_a_full_queue_is_said_with_how_long_to_wait(tab, script):
    script.says = {A: [Failed("", "busy", "64 wait already")]}
    tab.page.select_option("#pick-1", "")
    tab.ask("who?")
    assert tab.texts(".answer .careful") == ["Too much is asked at a time: ask again in 2 s. 64 wait already"]
    tab.refused(429)


SIZES = [
    pytest.param({"viewport": {"width": width, "height": 900}, "color_scheme": scheme}, id=f"{width} {scheme}")
    for width in (1280, 390)
    for scheme in ("light", "dark")
]


@pytest.mark.parametrize("tab", SIZES, indirect=True)
def test_nothing_is_wider_than_the_screen_and_all_is_legible_in_both_schemes(tab, script):
    long = "Donaudampfschifffahrt" * 12
    script.says = {A: [f"{long} مرحبا שלום\nשורה שנייה"], B: ["short ", "answer"]}
    tab.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    for number in range(4):
        tab.ask(f"{long} {number}?")
    tab.page.click("#turns > li:last-child .vote .left")
    tab.page.wait_for_selector(".counted")
    script.says = {A: [Failed("", "died", f"{A}: {long}")], B: ["short"]}
    tab.ask("what?")
    assert tab.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    contrasts = tab.page.evaluate(chromium.CONTRASTS)
    assert min(contrasts.values()) >= 4.5, contrasts  # WCAG 2.2, 1.4.3
    if folder := os.environ.get("SCREENSHOTS"):
        dark = tab.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        name = f"{tab.page.viewport_size['width']}-{'dark' if dark else 'light'}.png"
        tab.page.screenshot(path=Path(folder, name), full_page=True)
    tab.refused(503)
