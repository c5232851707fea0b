"""Talk with a variant of the run list, or with two side by side: their answers as they grow, and what each costs.

    python -m tradeoffs.chat                                        the recommended one
    python -m tradeoffs.chat demo-demo-full-q8_0 demo-demo-full-q2_k
    printf 'What is a bond?\\nAnd a share?\\n' | python -m tradeoffs.chat --json
    python -m tradeoffs.chat --serve                                a page in the browser, and OpenAI's API

Each line is a question, after those before it; /help lists what else can be typed. An answer is made of the most
likely tokens, as an evaluated one is. Through a pipe come answers alone, or one JSON object for each (--json). Nothing
that is said is written to disk, unless /save or --history asks for it.
"""

import sys
from collections.abc import Sequence
from typing import Any

from tradeoffs.chat import variants
from tradeoffs.chat.terminal import commands, options, reading
from tradeoffs.chat.terminal.chat import Chat
from tradeoffs.chat.terminal.conversation import Settings
from tradeoffs.chat.terminal.showing import Lines, Screen
from tradeoffs.plumbing import cli


def main(names: Sequence[str], serve: bool, max_memory: float | None, **given: Any) -> None:
    options.check(names, serve, given)
    if serve:
        from tradeoffs.chat.engine import require_room
        from tradeoffs.chat.server.serving import serve as serve_these

        host, port = given["host"] or options.HOST, given["port"] or 0
        talkers = variants.chosen(names)
        require_room(talkers, max_memory)
        serve_these(talkers, host, port, given["token_file"], max_memory)
        return
    settings = options.settings(given)
    code = talk(names, settings, max_memory, given)
    if code:
        sys.exit(code)


def talk(names: Sequence[str], settings: Settings, max_memory: float | None, given: dict[str, Any]) -> int:
    """The exit code of a chat."""
    talkers = variants.chosen(names)
    from tradeoffs.chat.engine import Engine, require_room

    require_room(talkers, max_memory)
    screen = Screen.of_this_process()
    shown = Lines() if given["json"] else screen
    chat = Chat(talkers, settings, lambda: Engine(max_memory), shown, commands.execute)
    if not shown.interactive:
        if not names:
            shown.note(f"{talkers[0].variant}, which is recommended")
        return chat.run(reading.piped(sys.stdin))
    commands.introduce(chat)
    shown.note(f"{commands.asks(chat)}. /help lists commands, Ctrl-D leaves.")
    reading.edited(commands.completed, given["history"])
    return chat.run(reading.typed(screen.prompt))


if __name__ == "__main__":
    cli.command(main, options.parser())
