"""What params.yaml may name as a reward: a function of the project, or a file of one's own in rewards/.

The file is code, and runs with the rights of whoever starts the training. Here it is only read: what can be seen
without running it is said before any work.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from tradeoffs.plumbing.errors import near

# What each says of an answer is in tradeoffs/rewards/functions.py.
NAMES = ("exact_match", "f1", "json", "length")
FOLDER = Path("rewards")  # a dep of the stage `settings`, so a change of a file in it is seen
FUNCTION = "reward"
MOST_BYTES = 100_000
ARGUMENTS = ("answer", "expected", "prompt")  # of the function in a file; the last may be left out


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


def _code_problems(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:  # the latter: no UTF-8, or a NUL in it
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) else ""
        yield f"is no Python: {line}{getattr(error, 'msg', error)}"
        return
    made = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == FUNCTION]
    if not made or not _takes_them(made[-1].args):
        yield (
            f"needs a function {FUNCTION}({', '.join(ARGUMENTS[:2])}), or ({', '.join(ARGUMENTS)}), at its top level; "
            "it gives a number, or None where it has nothing to say"
        )
    for number, module in _own_modules(tree):
        yield (
            f"line {number}: imports {module}, which is of this checkout: nothing would be trained again when that "
            "changes; let the file hold all that it needs, beside what is installed"
        )


def _takes_them(wanted: ast.arguments) -> bool:
    """Whether a function can be called with an answer, what was expected, and the prompt if it takes one."""
    most = len(wanted.posonlyargs) + len(wanted.args)
    least = most - len(wanted.defaults)
    named = sum(default is None for default in wanted.kw_defaults)
    return least <= len(ARGUMENTS) and (most >= 2 or wanted.vararg is not None) and not named


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
