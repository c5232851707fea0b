"""What a line does that begins with a `/`, in a chat in the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from tradeoffs.chat import variants
from tradeoffs.chat.terminal import conversation
from tradeoffs.chat.terminal.chat import Chat, OverError
from tradeoffs.chat.terminal.conversation import Side
from tradeoffs.chat.terminal.showing import per_second, seconds
from tradeoffs.chat.variants import Talker
from tradeoffs.plumbing.errors import UserError, near

NOTHING = ("-", "none", "off")
MOST = 2  # variants that answer


@dataclass(frozen=True)
class Command:
    takes: str
    does: str
    run: Callable[[Chat, str], None]


def execute(chat: Chat, line: str) -> None:
    """Raises UserError for what is no command, or not one that can be done."""
    name, _, rest = line.partition(" ")
    if name not in COMMANDS:
        raise UserError(f"{name}: no command{near(name, COMMANDS)}; type // for a question that begins with /")
    COMMANDS[name].run(chat, rest.strip())


def completed(before: str) -> Sequence[str]:
    """What the next word of a line can be, after what stands before it."""
    if not before:
        return [f"{name} " if command.takes else name for name, command in COMMANDS.items()]
    name = before.split()[0]
    if name == "/variant":
        return list(variants.known())
    return [f"{path}{'/' * path.is_dir()}" for path in sorted(Path().glob("*"))] if name in ("/save", "/load") else []


def described(talker: Talker) -> str:
    """What a variant is, and the numbers by which it would be chosen."""
    numbers = talker.numbers
    found: list[str] = [talker.runtime]
    if talker.label == "completion":
        found.append("completion, of plain text" if talker.text else "completion, untuned")
    if talker.metric in numbers:
        found.append(f"{talker.metric.replace('_', ' ')} {numbers[talker.metric]:.3g}")
    if "size_mb" in numbers:
        found.append(f"{numbers['size_mb']:,.3g} MB of weights")
    return ", ".join([*found, *(["recommended"] if talker.recommended else [])])


def asks(chat: Chat) -> str:
    """How a chat asks, in a sentence."""
    found, drawn = chat.settings, chat.settings.temperature > 0
    said = f"temperature {found.temperature:g}, top-p {found.top_p:g}" if drawn else "greedy, as evaluated"
    said += f", seed {found.seed}" if drawn and found.seed is not None else ""
    if all(side.alone(found) for side in chat.sides):
        return f"{said}; each line alone"
    said += f"; {f'the last {found.window} questions' if found.window else 'as much of the conversation as fits'}"
    single = any(side.talker.single for side in chat.sides)
    return f"{said}; evaluated on single questions: /stateless asks as evaluated" if single else said


def _help(chat: Chat, rest: str) -> None:
    width = max(len(f"{name} {command.takes}") for name, command in COMMANDS.items())
    chat.shown.rows([f"{f'{name} {command.takes}':<{width}}  {command.does}" for name, command in COMMANDS.items()])
    chat.shown.rows(
        [
            "A \\ at the end of a line: it goes on in the next. //...: a question that begins with a /.",
            "Ctrl-C ends the answer; where nothing is typed, the chat, as Ctrl-D does.",
        ]
    )


def _reset(chat: Chat, rest: str) -> None:
    for side in chat.sides:
        side.exchanges.clear()
    chat.shown.note("a new conversation")


def _system(chat: Chat, rest: str) -> None:
    if rest:
        chat.settings = replace(chat.settings, system=None if rest in NOTHING else rest)
    text = chat.settings.system
    if plain := [side.name for side in chat.sides if side.plain(chat.settings)] if text else []:
        chat.shown.note(f"{' and '.join(plain)}: a text is completed as it is, without a system message")
    chat.shown.note(f"system message: {text}" if text else "no system message; /system TEXT sets one, /system - none")


def _window(chat: Chat, rest: str) -> None:
    if rest in ("all", *NOTHING):
        chat.settings = replace(chat.settings, window=None)
    elif rest:
        if not (rest.isascii() and rest.isdigit() and len(rest) < 10 and int(rest)):
            raise UserError(f"/window {rest[:20]}: expected a number of questions from 1 to 999999999, or all")
        chat.settings = replace(chat.settings, window=int(rest))
    chat.shown.note(asks(chat))


def _stateless(chat: Chat, rest: str) -> None:
    alone = _switch("/stateless", rest or "on")
    chat.settings = replace(chat.settings, window=1 if alone else None)
    chat.shown.note(asks(chat))


def _text(chat: Chat, rest: str) -> None:
    plain = _switch("/text", rest or "on")
    chat.settings = replace(chat.settings, plain=plain)
    chat.shown.note(
        "what is typed goes to the model as it is, each line alone, without its prompt template"
        if plain
        else "what is typed is a question, in the model's prompt template"
    )


def _switch(name: str, rest: str) -> bool:
    if rest not in ("on", "off"):
        raise UserError(f"{name} {rest}: expected on or off")
    return rest == "on"


def _save(chat: Chat, rest: str) -> None:
    path = _path("/save", rest)
    if path.exists() and str(path.resolve()) not in chat.written:
        raise UserError(f"{path}: is there already, and not from this chat; give another name")
    if not any(side.turns for side in chat.sides):
        raise UserError("nothing was said yet, so there is nothing to save")
    conversation.save(path, chat.sides, chat.settings.system)
    chat.written.add(str(path.resolve()))
    chat.shown.note(f"saved {path}: {_counted(chat.sides)}")


def _load(chat: Chat, rest: str) -> None:
    path = _path("/load", rest)
    system, conversations = conversation.load(path, [side.name for side in chat.sides])
    chat.settings = replace(chat.settings, system=system)
    for side, found in zip(chat.sides, conversations, strict=True):
        side.exchanges = found
    chat.written.add(str(path.resolve()))
    chat.shown.note(f"loaded {path}: {_counted(chat.sides)}{', a system message' if system else ''}")
    for side in chat.sides:
        if others := sorted({one.variant for one in side.exchanges} - {side.name, ""}):
            chat.shown.note(f"{side.name} goes on after answers of {', '.join(others)}")


def _path(name: str, rest: str) -> Path:
    if not rest:
        raise UserError(f"{name}: expected the name of a file, such as chat.jsonl")
    path = Path(rest).expanduser()
    if path.is_dir():
        raise UserError(f"{name} {path}: a folder; expected the name of a file, such as chat.jsonl")
    return path


def _counted(sides: Sequence[Side]) -> str:
    counts = [len(side.exchanges) for side in sides]
    return " and ".join(f"{count} question{'s' if count != 1 else ''}" for count in counts)


def _variant(chat: Chat, rest: str) -> None:
    names = rest.split()
    if len(names) > MOST:
        raise UserError(f"/variant: {len(names)} names; expected one, or two to compare")
    if names:
        try:
            chat.replace(variants.chosen(names))
        except UserError as error:
            if chat.shown.interactive:
                raise
            chat.shown.note(str(error))
            raise OverError(1) from error  # rather than answers of the one before
        introduce(chat)
        return
    known = variants.known()
    width = max(map(len, known))
    talking = {side.name: place for place, side in zip("AB", chat.sides, strict=False)}
    marks = {name: talking.get(name, " ") if len(chat.sides) > 1 else "* "[name not in talking] for name in known}
    chat.shown.rows([f"{marks[name]} {name:<{width}}  {described(talker)}" for name, talker in known.items()])


def introduce(chat: Chat) -> None:
    """Who answers."""
    places = "AB" if len(chat.sides) > 1 else " "
    for place, side in zip(places, chat.sides, strict=True):
        chat.shown.note(f"{place}  {side.name}: {described(side.talker)}".strip())


def _cost(chat: Chat, rest: str) -> None:
    """What each costs: as the run has measured it, alone on the machine; and in this chat."""
    table = [["", *(side.name for side in chat.sides)]]
    for label, key, form in (
        *((talker.metric.replace("_", " "), talker.metric, "{:.3g}") for talker in [chat.sides[0].talker]),
        ("weights", "size_mb", "{:,.3g} MB"),
        ("memory of the model", "model_memory_mb", "{:,.3g} MB"),
        ("memory of the process, at most", "peak_memory_mb", "{:,.0f} MB"),
        ("loading", "load_seconds", "{:.2g} s"),
        ("first token", "ttft_seconds", "{:.2g} s"),
        ("speed", "decode_tokens_per_second", "{:,.0f} tokens/s"),
    ):
        values = [side.talker.numbers.get(key) for side in chat.sides]
        if any(value is not None for value in values):
            table.append([f"measured: {label}", *("" if v is None else form.format(v) for v in values)])
    here = [_session(side) for side in chat.sides]
    table += [[f"here: {label}", *(column[label] for column in here)] for label in here[0]]
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    chat.shown.rows(["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in table])


def _session(side: Side) -> dict[str, str]:
    said = [answer for answer in side.answers if answer.reason != "failed" and answer.tokens]
    speeds = [answer.tokens_per_second for answer in said if answer.tokens_per_second]
    memory = [answer.memory_mb for answer in said if answer.memory_mb]
    return {
        "answers": str(len(said)),
        "tokens of prompts": f"{sum(answer.prompt_tokens for answer in said):,}",
        "of these known already": f"{sum(answer.cached_tokens for answer in said):,}",
        "tokens written": f"{sum(answer.tokens for answer in said):,}",
        "first token, median": seconds(median(answer.first_token for answer in said)) if said else "",
        "speed, median": per_second(median(speeds)) if speeds else "-",
        "memory of the process": f"{memory[-1]:,.0f} MB" if memory else "",
    }


def _quit(chat: Chat, rest: str) -> None:
    raise OverError


COMMANDS = {
    "/help": Command("", "this", _help),
    "/reset": Command("", "forget the conversation", _reset),
    "/system": Command("[TEXT | -]", "show, set or drop the system message", _system),
    "/window": Command("[N | all]", "keep the last N questions, or as many as fit", _window),
    "/stateless": Command("[on | off]", "each question alone, or after those before it", _stateless),
    "/text": Command("[on | off]", "complete what is typed, or answer it", _text),
    "/save": Command("FILE.jsonl", "write the conversation, which can be loaded, or be a data set", _save),
    "/load": Command("FILE.jsonl", "go on with a saved conversation", _load),
    "/variant": Command("[NAME [NAME2]]", "who answers from now on; without a name: all there are", _variant),
    "/cost": Command("", "what each costs: measured, and here", _cost),
    "/quit": Command("", "leave", _quit),
}
