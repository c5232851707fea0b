"""What params.yaml may name as a reward: a function of the project, or a file of one's own in rewards/.

The file is code, and runs with the rights of whoever starts the training. Here it is only read: what can be seen
without running it is said before any work.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tradeoffs.plumbing.errors import near

# What each says of an answer is in tradeoffs/rewards/functions.py.
NAMES = ("exact_match", "f1", "json", "length")
FOLDER = Path("rewards")  # a dep of the stage `settings`, so a change of a file in it is seen
FUNCTION = "reward"
MOST_BYTES = 100_000
ARGUMENTS = ("answer", "expected", "prompt")  # of the function in a file; the last may be left out
TRLS = "completions"  # an argument that a function for TRL has, and none of ours
Given = Literal["third", "named", "no"]  # how a function is given the prompt


def is_file(name: str) -> bool:
    """Whether a name means a file, and no function of the project."""
    return "/" in name or name.endswith(".py")


def problems(name: str) -> Iterator[str]:
    """What is wrong with a name: there is no such function, or the file cannot be one."""
    if is_file(name):
        yield from _file_problems(name)
    elif name not in NAMES:
        yield f"no reward of that name{near(name, NAMES)}; a file of your own is named as {FOLDER}/own.py"


def text_of(name: str) -> str:
    """The text of a file in which `problems` finds none."""
    return Path(name).read_text(encoding="utf-8")


def _file_problems(name: str) -> Iterator[str]:
    path = Path(name)
    inside = FOLDER.resolve()
    # In one way of writing it only: by it the file's text is found among the settings of a cell.
    plain = name == path.as_posix() and path.parts[0] == str(FOLDER) and ".." not in path.parts
    if not plain or path.suffix != ".py" or not path.resolve().is_relative_to(inside):
        yield f"must be a Python file in {FOLDER}/ of this checkout, as {FOLDER}/own.py"
    elif not path.is_file():
        yield f"there is no such file; it holds def {FUNCTION}({', '.join(ARGUMENTS[:2])}) -> float"
    elif path.stat().st_size > MOST_BYTES:
        yield f"has {path.stat().st_size:,} bytes; a reward is a small file, of at most {MOST_BYTES:,}"
    else:
        yield from _code_problems(path)


def given_prompt(text: str) -> Given | None:
    """How the function of a file is given the prompt; None where the file has no function that can be called.

    It goes by what is written and not by what is there when it runs: a decorator takes anything.
    """
    made = _made(ast.parse(text))
    return _given(made) if made else None


def _made(tree: ast.Module) -> ast.arguments | None:
    """What the function of a file takes; None where it has none."""
    made = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == FUNCTION]
    return made[-1].args if made else None


def _is_trls(tree: ast.Module) -> bool:
    """Whether a function is written to be called as TRL calls one, by the name of this argument."""
    made = _made(tree)
    return made is not None and TRLS in [one.arg for one in (*made.posonlyargs, *made.args, *made.kwonlyargs)]


def _given(wanted: ast.arguments) -> Given | None:
    _, expected, prompt = ARGUMENTS
    places = [argument.arg for argument in (*wanted.posonlyargs, *wanted.args)]
    required = len(places) - len(wanted.defaults)
    ours = [name for name in places if name in ARGUMENTS]
    in_order = ours == sorted(ours, key=ARGUMENTS.index) and expected not in places[:1] and prompt not in places[:2]
    if not in_order or not (len(places) >= 2 or wanted.vararg):
        return None
    named = [argument.arg for argument in wanted.kwonlyargs]
    by_name = prompt in named or prompt in places[max(3, len(wanted.posonlyargs)) :]
    needed = {name for name, default in zip(named, wanted.kw_defaults, strict=True) if default is None}
    if needed - {prompt} or required > (2 if by_name else 3):
        return None
    if by_name:
        return "named"
    # A third one that need not be given and has another name is no place for a prompt.
    return "third" if required == 3 or places[2:3] == [prompt] or (wanted.vararg and len(places) < 3) else "no"


def _code_problems(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # ValueError: no UTF-8, or a NUL in it
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) else ""
        yield f"is no Python: {line}{getattr(error, 'msg', error)}"
        return
    if _is_trls(tree):
        yield (
            f"{FUNCTION}({TRLS}, ...) is TRL's own form, which is given all answers of a step as a list; here it is "
            f"asked about one at a time: {FUNCTION}({', '.join(ARGUMENTS[:2])}), or ({', '.join(ARGUMENTS)}), which "
            "gives a number"
        )
    elif given_prompt(text) is None:
        yield (
            f"needs a function {FUNCTION}({', '.join(ARGUMENTS[:2])}), or ({', '.join(ARGUMENTS)}), at its top level, "
            "in this order; what else it takes has defaults. It gives a number, or None where it has nothing to say of "
            "a question"
        )
    for number, module in _own_modules(tree):
        yield (
            f"line {number}: imports {module}, which is of this checkout: nothing would be trained again when that "
            "changes; let the file hold all that it needs, beside what is installed"
        )


def _own_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = ["." * node.level + (node.module or "")]
        else:
            continue
        for name in found:
            top = name.split(".")[0]
            if not top or Path(top).is_dir() or Path(f"{top}.py").is_file():
                yield node.lineno, name
