"""Which room may import which, and how long a file and a function may be: what keeps the tree a tree."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import quick_yaml

REPO = Path(__file__).parents[1]

# From the ground up. A room imports what stands above it in this list, and nothing beside or below it; so there is no
# way round, and what a change reruns can be read off. A room is a folder of tradeoffs/, or a module that stands there
# alone; the error type is one by itself, since what stands above the rest of the plumbing raises it, too.
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("the error type, which everything raises", ("plumbing/errors",)),
    ("names, paths, files and batches, of every stage; facts of PEFT and TRL, read from them", ("common", "methods")),
    ("arguments, the clock, the terminal, who is told of a training: no output depends on it", ("plumbing",)),
    ("the names of formats, and what stands where there is none; what each metric is", ("formats", "metrics")),
    ("params.yaml, checked by those facts", ("params",)),
    ("subjects that several stages share", ("sources", "models", "evaluate")),
    ("runtimes, which answer what an evaluation asks", ("transformers_runtime", "llama_cpp")),
    (
        "the code of one stage, which knows of no other stage's",
        (
            *("prepare", "base", "tokenize", "finetune", "merging", "convert", "measure", "harness", "results"),
            *("artifacts", "readme", "trackers"),
        ),
    ),
    ("what aggregate shows of the results", ("report",)),
    ("scripts, one for each stage", ("stages",)),
    ("what other commits measured, for commands", ("revisions",)),
    ("after a merge; which files are committed together", ("merge",)),
    ("what may be compared of two commits, and what got worse", ("gate",)),
    (
        "commands, no stage",
        (
            *(
                "history",
                "chat",
                "experiments",
                "explore",
                "export",
                "compare",
                "decide",
                "answers",
                "prompt",
                "questions",
                "pin",
                "preset",
            ),
            "committed",
        ),
    ),
    ("what reviewers are told of what a gate says; what people say of answers", ("comment", "votes")),
    ("what make run calls, which ends with some of these", ("repro",)),
)
# Of the rooms of one stage, by whose scripts each is used; score fills the columns that a metric is made of, copying
# finds its answers by the same embeddings, base finds out whether a checkpoint can be converted,
# tasks write what a metric is the sum of.
STAGES_OF = {
    "prepare": {"prepare"},
    "base": {"base"},
    "tokenize": {"tokenize"},
    "finetune": {"finetune"},
    "merging": {"merge"},
    "convert": {"base", "convert"},
    "evaluate": {"reference", "evaluate_gpu", "evaluate_cpu", "measure", "tasks", "tasks_gpu", "tasks_cpu"},
    "harness": {"tasks", "tasks_gpu", "tasks_cpu"},
    "measure": {"measure"},
    "metrics": {"copying", "score", "aggregate", "tasks", "tasks_gpu", "tasks_cpu"},
    "results": {"aggregate"},
    "report": {"aggregate"},
    "artifacts": {"publish"},
    "readme": {"publish"},
    "trackers": {"publish"},
}
# No stage depends on plumbing and params, so they hold nothing that shapes an output; what they import of rooms that
# do are facts alone: how much memory and how many cores this process has, which only the clock's log tells, how a text
# is written where nothing may obey it, and what params.yaml is checked by, which is wrong or right and nothing else.
FACTS = {
    "plumbing": {"tradeoffs/common/memory.py", "tradeoffs/common/cores.py", "tradeoffs/common/texts.py"},
    "params": {
        "tradeoffs/common/cells.py",
        "tradeoffs/common/columns.py",
        "tradeoffs/common/settings.py",
        "tradeoffs/formats/names.py",
        "tradeoffs/methods/peft_facts.py",
        "tradeoffs/methods/trl_stages.py",
        "tradeoffs/metrics/__init__.py",
    },
}
FUNCTION, FILE, SCRIPT = 60, 350, 120  # lines at most: of a function, of a file, of a stage
TABLES: dict[str, str] = {}  # files that may be longer, and why: tables of facts, which no cut makes clearer

NOT_IMPORTED = ("TYPE_CHECKING", "__name__ == '__main__'")  # blocks that no import of the module runs

CODE = sorted(
    path.relative_to(REPO).as_posix()
    for folder in ("stages", "tradeoffs")
    for path in REPO.glob(f"{folder}/**/*.py")
    if path.stat().st_size
)
LEVEL = {room: level for level, (_, rooms) in enumerate(LAYERS) for room in rooms}


def room(file: str) -> str:
    folder, _, name = file.removesuffix(".py").partition("/")
    if folder == "stages":
        return "stages"
    return name if name in LEVEL else name.split("/")[0]


def imports(file: str) -> Iterator[str]:
    """The project's files that a file imports, at its top or within a function, but not for the sake of types alone."""
    todo: list[ast.AST] = [ast.parse((REPO / file).read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in NOT_IMPORTED:
            continue
        todo += ast.iter_child_nodes(node)
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if found := module(name) or module(name.rpartition(".")[0]):
                yield found


def module(name: str) -> str | None:
    """The file of this name, if it is one of the project; an empty __init__.py is there for Python alone."""
    path = name.replace(".", "/")
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if file in CODE), None)


ARROWS = {file: set(imports(file)) - {file} for file in CODE}


def test_every_room_has_its_place():
    assert {room(file) for file in CODE} == set(LEVEL)
    assert len(LEVEL) == sum(len(rooms) for _, rooms in LAYERS)


def test_no_room_imports_one_beside_or_below_it():
    wrong = {
        f"{file} ({room(file)}) -> {other} ({room(other)})"
        for file, others in ARROWS.items()
        for other in others
        if room(file) != room(other) and LEVEL[room(file)] <= LEVEL[room(other)]
    }
    assert not wrong


def test_no_two_modules_import_each_other_round_any_corner():
    TopologicalSorter(ARROWS).prepare()  # raises CycleError with the way round


def closure(file: str) -> set[str]:
    """The files that a file lives off; not those that params.yaml is checked by, which are facts."""
    seen, todo = set(), [file]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += ARROWS[name] if room(name) not in FACTS else ()
    return seen


@pytest.mark.parametrize("stage", sorted(path.stem for path in (REPO / "stages").glob("[!_]*.py")))
def test_a_stage_lives_off_no_other_stages_room(stage):
    rooms = {room(file) for file in closure(f"stages/{stage}.py")} & set(STAGES_OF)
    assert rooms == {name for name, stages in STAGES_OF.items() if stage in stages}


@pytest.mark.parametrize("name", FACTS)
def test_what_no_stage_depends_on_imports_facts_alone(name):
    shaping = set(LEVEL) - {"plumbing/errors", "plumbing", "params"}
    found = {other for file in CODE if room(file) == name for other in ARROWS[file] if room(other) in shaping}
    assert found == FACTS[name]


def test_no_function_is_long():
    long = {}
    for file in CODE:
        for node in ast.walk(ast.parse((REPO / file).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = int(node.end_lineno or 0) - node.lineno + 1
                if lines > FUNCTION:
                    long[f"{file}: {node.name}"] = lines
    assert not long


def test_no_file_is_long_but_tables_of_facts():
    lengths = {file: len((REPO / file).read_text().splitlines()) for file in CODE}
    limits = {file: SCRIPT if room(file) == "stages" else FILE for file in CODE}
    assert {file for file in CODE if lengths[file] > limits[file]} == set(TABLES)


def test_the_page_on_architecture_says_what_a_change_in_a_room_reruns():
    """A file that has a row of its own also reruns what depends on the whole folder that it stands in."""
    stages = {
        name: set(spec["deps"]) for name, spec in quick_yaml.load((REPO / "dvc.yaml").read_text())["stages"].items()
    }
    rows = []
    for dep in sorted({dep for deps in stages.values() for dep in deps if dep.startswith("tradeoffs/")}):
        places = {dep, *(str(folder) for folder in Path(dep).parents)}
        found = [f"`{stage}`" for stage, deps in stages.items() if places & deps]
        name = dep if dep.endswith(".py") else f"{dep}/"
        rows.append(f"| `{name}` | {'every stage' if len(found) == len(stages) else ', '.join(found)} |")
    page = (REPO / "docs/architecture.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("| `tradeoffs/")] == rows


def test_the_page_on_architecture_shows_every_room_once():
    page = (REPO / "docs/architecture.md").read_text()
    tree = page.split("```")[1]
    rooms = re.findall(r"(?:^|\s)([a-z_]+)(?:/|\.py)", tree)
    commands = re.findall(r"^ *([a-z_ ]+?) +commands: python -m tradeoffs\.NAME$", tree, re.MULTILINE)[0].split()
    assert sorted([*rooms, *commands]) == sorted({"tradeoffs", *(name.split("/")[0] for name in LEVEL)})
    assert all((REPO / f"tradeoffs/{name}.py").is_file() for name in commands)
