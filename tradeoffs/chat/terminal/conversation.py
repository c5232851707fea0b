"""What a chat in the terminal consists of: how it asks, who answers, what was said, and files of that."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tradeoffs.chat.messages import Asked, Turn
from tradeoffs.chat.variants import Talker
from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError

LONGEST = 64 << 20  # bytes of a file that is loaded
PATIENCE = 3600.0  # seconds of an answer: who sits there can end it
ROLES = ("system", "user", "assistant")

# Why an answer ended: those of messages.Reason, and what the terminal itself knows.
Reason = Literal["stop", "length", "left", "time", "failed"]


@dataclass(frozen=True)
class Settings:
    """`window` 1 is a chat in which each question stands alone. `plain`: what is typed goes to the model as it is,
    without its template; None: where it was evaluated so. `together`: two answers at a time."""

    system: str | None = None
    window: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None
    plain: bool | None = None
    together: bool = False


@dataclass(frozen=True)
class Answer:
    """What came of a question. Times are seconds since it was asked. `message`: why there is none."""

    text: str
    reason: Reason
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    left_out: int = 0
    seconds_waited: float = 0.0
    seconds_to_first: float = 0.0
    seconds: float = 0.0
    memory_mb: float | None = None
    message: str = ""

    @property
    def tokens_per_second(self) -> float | None:
        """After the first token, by the steps of the model that followed; what ends an answer takes one, too."""
        steps = self.tokens - (self.reason != "stop")
        took = self.seconds - self.seconds_to_first
        return steps / took if steps > 0 and took > 0 else None


@dataclass(eq=False)  # two of them are two, whatever they hold
class Side:
    """One of those that answer, with its own conversation."""

    talker: Talker
    turns: list[Turn] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)  # of this session, for what they cost
    context: int = 0  # tokens; 0 until it is loaded

    @property
    def name(self) -> str:
        return str(self.talker.variant)

    def plain(self, settings: Settings) -> bool:
        return self.talker.text if settings.plain is None else settings.plain

    def alone(self, settings: Settings) -> bool:
        """Whether each question stands alone: where that is wanted, and of what completes texts."""
        return settings.window == 1 or self.talker.label == "completion" or self.plain(settings)

    def asked(self, question: str, settings: Settings) -> Asked:
        """The question, alone or after what was said before."""
        asked = Asked(
            "terminal",
            self.name,
            max_tokens=settings.max_tokens,
            window=settings.window,
            temperature=settings.temperature,
            top_p=settings.top_p,
            seed=settings.seed,
            seconds=PATIENCE,
        )
        if self.plain(settings):
            return replace(asked, text=question)
        system = [Turn("system", settings.system)] if settings.system else []
        before = [] if self.alone(settings) else self.turns
        return replace(asked, turns=(*system, *before, Turn("user", question)))

    def add(self, question: str, answer: Answer) -> None:
        """Keeps what was said. A question of which nothing was said is as if it had not been asked."""
        self.answers.append(answer)
        if answer.reason != "failed" and (answer.text or answer.reason in ("stop", "length")):
            self.turns += [Turn("user", question), Turn("assistant", answer.text)]


def save(path: Path, sides: Sequence[Side], system: str | None) -> None:
    """One line per conversation, `{"variant": ..., "messages": [{"role": ..., "content": ...}, ...]}`, which a data set
    of kind chat can be read from, too."""
    before = [Turn("system", system)] if system else []
    rows = [
        {"variant": side.name, "messages": [{"role": t.role, "content": t.content} for t in (*before, *side.turns)]}
        for side in sides
    ]
    try:
        files.write_jsonl(path, rows)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error


def load(path: Path, count: int) -> tuple[str | None, list[list[Turn]]]:
    """The system message of a saved chat and its conversations, as many as are asked for; one is taken for all.

    Raises UserError that names the line and what was expected, where it is none.
    """
    try:
        if path.stat().st_size > LONGEST:
            raise UserError(f"{path}: larger than {LONGEST >> 20} MB, no saved chat")
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no text in UTF-8, so no saved chat") from error
    found = [_conversation(line, f"{path} line {number}") for number, line in enumerate(lines, 1)]
    if len(found) not in (1, count):
        raise UserError(f"{path}: holds {len(found)} conversations, and {count} can be loaded")
    systems = {system for system, _ in found}
    if len(systems) > 1:
        raise UserError(f"{path}: its conversations begin with different system messages; a chat has one")
    return systems.pop(), [list(found[at % len(found)][1]) for at in range(count)]


def _conversation(line: str, where: str) -> tuple[str | None, list[Turn]]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: no JSON ({error})") from error
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list):
        raise UserError(f'{where}: expected an object with "messages", a list of {{"role", "content"}}')
    turns = [_turn(message, f"{where}, message {number}") for number, message in enumerate(messages, 1)]
    system = turns.pop(0).content if turns and turns[0].role == "system" else None
    wanted = [("user", "assistant")[at % 2] for at in range(len(turns) + len(turns) % 2)]
    if [turn.role for turn in turns] != wanted:
        raise UserError(f"{where}: expected questions (user), each with its answer (assistant) behind it, in turn")
    return system, turns


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, dict) or message.get("role") not in ROLES or not isinstance(message.get("content"), str):
        raise UserError(f"{where}: expected a role ({', '.join(ROLES)}) and a content, which is a text")
    try:
        message["content"].encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: its content holds halves of characters, which no model can read") from error
    return Turn(message["role"], message["content"])
