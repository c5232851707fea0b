"""What a model's `prompt` may name: built-in templates, its own, and those of `templates` in params.yaml."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tradeoffs.params.schema import Model
from tradeoffs.plumbing.errors import near

if TYPE_CHECKING:
    from jinja2 import Environment

BUILT_IN = ("own", "chatml", "plain", "alpaca")
NAME = re.compile(r"[A-Za-z0-9_]+")


def template_checks(templates: Mapping[str, str]) -> Iterator[str]:
    for name, text in templates.items():
        where = f"templates.{name}"
        if not NAME.fullmatch(str(name)):
            yield f"{where}: a name holds letters, digits and _ only"
        if name in BUILT_IN:
            yield f"{where}: {name} is a built-in prompt; give the template another name"
        if isinstance(text, str):
            yield from _text_checks(where, text)


def _text_checks(where: str, text: str) -> Iterator[str]:
    from jinja2 import TemplateSyntaxError, meta  # only where there are templates

    environment = _environment()
    try:
        # Before the compiler, which writes names of its own into what was parsed.
        names = meta.find_undeclared_variables(environment.parse(text))
        environment.compile(text)
    except TemplateSyntaxError as error:
        yield f"{where}: no Jinja, line {error.lineno}: {error.message}"
        return
    except SyntaxError as error:  # of the Python that Jinja makes of it
        yield f"{where}: no Jinja that can be run: {error.msg}"
        return
    except (RecursionError, MemoryError):
        yield f"{where}: no Jinja that can be run: nested too deeply"
        return
    if "messages" not in names:
        yield f"{where}: reads no `messages`, so a prompt would not hold what is asked (docs/models.md, a template)"


def _environment() -> "Environment":
    """Jinja with the extension that transformers and llama.cpp's Python know, which computes nothing.

    Its compiler computes what is constant, `10 ** (10 ** 10)` too, and `'x' | center(10 ** 10)`: not what the sandbox
    intercepts, nor what depends on the context.
    """
    from jinja2 import pass_context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Unfolded(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    @pass_context
    def later(*_: object) -> None:
        return None

    made = Unfolded(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    made.filters, made.tests = dict.fromkeys(made.filters, later), dict.fromkeys(made.tests, later)
    return made


def prompt_checks(models: Mapping[str, Model], templates: Mapping[str, str]) -> Iterator[str]:
    known = [*BUILT_IN, *templates]
    for name, model in models.items():
        if model and isinstance(model.prompt, str) and model.prompt not in known:
            yield f"models.{name}.prompt: unknown value {model.prompt!r}{near(model.prompt, known)}"
