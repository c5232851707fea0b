"""As much of Go's text/template as the exported Ollama templates use, by its documentation: not Go's own code.

Strings as actions, `.Field`, `$name := "text"`, `$name = .Field`, `range .Field`, `if eq A B`, `else if`, `else` and
`end`. Anything else is an error. `prompt` calls it as Ollama does for a chat: with `Messages`, `System` and no answer.
"""

import re
from collections.abc import Iterator
from typing import Any

ACTION = re.compile(r"\{\{ (.*?) \}\}", re.DOTALL)
STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
ESCAPE = re.compile(r'\\(?:u([0-9a-f]{4})|U([0-9a-f]{8})|([abfnrtv\\"]))')
NAMED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}
WORD = r'(\$\w+|\.\w+|"(?:[^"\\\n]|\\.)*")'


def prompt(template: str, messages: list[dict[str, str]]) -> str:
    """What Ollama makes of a conversation."""
    turns = [{"Role": one["role"], "Content": one["content"]} for one in messages]
    system = "\n\n".join(one["content"] for one in messages if one["role"] == "system")
    last = messages[-1]["content"]
    return render(template, {"Messages": turns, "System": system, "Prompt": last})


def render(template: str, data: dict[str, Any]) -> str:
    parts = _parts(template)
    tree, closed = _block(parts)
    assert closed is None, f"{closed} without a beginning"
    return "".join(_run(tree, data, {}))


def _parts(template: str) -> Iterator[tuple[str, str]]:
    reached = 0
    for found in ACTION.finditer(template):
        yield "text", template[reached : found.start()]
        yield "action", found[1]
        reached = found.end()
    assert "{{" not in template[reached:]
    yield "text", template[reached:]


def _block(parts: Iterator[tuple[str, str]]) -> tuple[list, str | None]:
    """Nodes up to what closes them: `end`, `else`, `else if ...`, or the end of all (None)."""
    nodes: list = []
    for kind, text in parts:
        if kind == "action" and (text == "end" or text.split()[0] == "else"):
            return nodes, text
        if kind == "action" and text.startswith("range "):
            inner, closed = _block(parts)
            assert closed == "end"
            nodes.append(("range", text.removeprefix("range "), inner))
        elif kind == "action" and text.startswith("if "):
            nodes.append(_if(text, parts))
        else:
            nodes.append((kind, text))
    return nodes, None


def _if(text: str, parts: Iterator[tuple[str, str]]) -> tuple:
    then, closed = _block(parts)
    other: list = []
    if closed.startswith("else if "):
        other = [_if(closed.removeprefix("else "), parts)]
    elif closed == "else":
        other, closed = _block(parts)
        assert closed == "end"
    return ("if", text.removeprefix("if "), then, other)


def _run(nodes: list, dot: Any, names: dict[str, str]) -> Iterator[str]:
    for kind, text, *inner in nodes:
        if kind == "text":
            yield text
        elif kind == "range":
            for one in _value(text, dot, names):
                yield from _run(inner[0], one, names)
        elif kind == "if":
            left, right = re.fullmatch(rf"eq {WORD} {WORD}", text).groups()
            chosen = inner[0] if _value(left, dot, names) == _value(right, dot, names) else inner[1]
            yield from _run(chosen, dot, names)
        elif assigned := re.fullmatch(rf"(\$\w+) (:?=) {WORD}", text):
            name, how, value = assigned.groups()
            assert (how == "=") == (name in names), "declared once, and before it is set"
            names[name] = _value(value, dot, names)
        else:
            yield _value(text, dot, names)


def _value(word: str, dot: Any, names: dict[str, str]) -> Any:
    if word.startswith("$"):
        return names[word]
    if word.startswith("."):
        return dot[word[1:]]
    found = STRING.fullmatch(word)
    assert found, f"not of the subset: {word}"
    assert "\\" not in ESCAPE.sub("", found[1]), f"no escape of Go: {word}"
    return ESCAPE.sub(lambda m: NAMED[m[3]] if m[3] else chr(int(m[1] or m[2], 16)), found[1])
