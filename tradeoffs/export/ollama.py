"""What Ollama reads: a Modelfile for `ollama create`, and the files `template` and `params` that it takes from a
repository of the hub."""

import json
from pathlib import Path
from typing import Any

from tradeoffs.common.texts import on_a_line
from tradeoffs.export import prompts

# Beside what ends an answer and how long a context is: the most likely token always, as evaluation took it, and no
# penalty for repeating, which is Ollama's default.
GREEDY = {"temperature": 0, "repeat_penalty": 1}


def template(found: prompts.Pieces | str | None, bos: str, adds_bos: bool) -> tuple[str | None, list[str]]:
    """Ollama's template, None where there is none that says the same, and what there is to say of it, in sentences.

    `found`: of the checkpoint's template; None for a model of plain text, which is given a text as it is.
    """
    if found is None:
        return "{{ .Prompt }}", ["The model goes on from a text as it is."]
    if isinstance(found, str):
        return None, [
            f"There is no TEMPLATE: none in Go says the same as the prompt template of this model, since {found}.",
            "Without one Ollama takes its own guess. Use llama.cpp with --jinja, or write the prompt yourself and send "
            "it with raw: true.",
        ]
    notes = []
    if found.trims:
        notes.append("This model's prompt template cuts spaces off around a turn; Ollama's leaves them.")
    if found.system is None:
        notes.append("The model's prompt template takes no system turn.")
    return prompts.go_template(found, bos if adds_bos else ""), notes


def parameters(stops: list[str], context: int) -> dict[str, Any]:
    """What the file `params` holds."""
    return {"stop": stops, "num_ctx": context, **GREEDY}


def write(folder: Path, gguf: str, made: str | None, notes: list[str], settings: dict[str, Any]) -> None:
    """Modelfile, params, and template where there is one, into `folder`, where the file `gguf` lies."""
    lines = [f"# {on_a_line(note)}" for note in notes] + [f"FROM ./{gguf}"]
    if made is not None:
        lines.append(f'TEMPLATE """{made}"""')
        (folder / "template").write_text(made, encoding="utf-8")
    for name, value in settings.items():
        for one in value if isinstance(value, list) else [value]:
            lines += _parameter(name, one)
    (folder / "Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "params").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _parameter(name: str, value: Any) -> list[str]:
    """A Modelfile has no way to write a quotation mark or a line break within quotation marks."""
    if isinstance(value, str) and ('"' in value or on_a_line(value) != value):
        return [f"# a stop of the model is left out, which no line here can hold; it is in params: {value!a}"]
    return [f'PARAMETER {name} "{value}"' if isinstance(value, str) else f"PARAMETER {name} {value}"]
