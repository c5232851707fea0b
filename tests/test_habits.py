"""What editors, containers and hooks are told: files that parse, and commands that are there."""

import json
import re
import shlex
from pathlib import Path

import forked
import pytest
import quick_yaml

REPO = Path(__file__).parents[1]
TASKS = json.loads((REPO / ".vscode/tasks.json").read_text())
CONTAINER = json.loads((REPO / ".devcontainer/devcontainer.json").read_text())
HOOKS = quick_yaml.load((REPO / ".pre-commit-config.yaml").read_text())
COMMANDS = [
    *([task["command"], *task["args"]] for task in TASKS["tasks"]),
    *(shlex.split(command) for command in CONTAINER["postCreateCommand"].split(" && ")),
    *(shlex.split(hook["entry"]) for repo in HOOKS["repos"] for hook in repo["hooks"]),
]
PINNED = dict(
    line.split("==") for line in (REPO / "requirements.lock").read_text().splitlines() if re.match(r"[\w.-]+==", line)
)


@pytest.mark.slow  # together: each of them is started
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_there(command):
    program, *words = command
    if program == "make":
        assert re.search(rf"^{words[0]}:", (REPO / "Makefile").read_text(), re.MULTILINE)
        return
    folder, name = program.rsplit("/", 1)
    assert folder == ".venv/bin", "that of requirements.lock, whatever else is on the PATH"
    if name == "python":
        option, module, *options = words
        place = REPO / module.replace(".", "/")
        assert option == "-m" and any(file.is_file() for file in (place.with_suffix(".py"), place / "__main__.py"))
        asked = [module, "--help"]
    else:
        assert name in PINNED
        options = [word for word in words if word.startswith("-")]
        asked = [name, *(word for word in words if not word.startswith("-")), "--help"]
    done = forked.python("-m", *asked, cwd=REPO, libraries=forked.DVC)
    assert done.returncode == 0, done.stderr
    assert all(option in done.stdout for option in options if option.startswith("--"))


def test_a_task_is_no_shell_line_and_asks_only_for_what_it_declares():
    """What somebody types into a question is one argument, whatever it holds."""
    asked = {one["id"] for one in TASKS["inputs"]}
    assert all(task["type"] == "process" for task in TASKS["tasks"])
    assert set(re.findall(r"\$\{input:(\w+)\}", json.dumps(TASKS["tasks"]))) == asked
    labels = [task["label"] for task in TASKS["tasks"]]
    assert len(labels) == len(set(labels))


def test_the_image_is_named_by_its_digest_and_nothing_else_is_fetched():
    lines = (REPO / ".devcontainer/Dockerfile").read_text().splitlines()
    bases = [line for line in lines if line.startswith("FROM")]
    assert len(bases) == 1 and re.fullmatch(r"FROM [a-z]+:3\.\d+\.\d+-\w+@sha256:[0-9a-f]{64}", bases[0])
    assert not any(re.search(r"apt|curl|wget|pip install|ADD", line) for line in lines)
    assert "features" not in CONTAINER


def test_the_editor_and_the_container_recommend_the_same():
    recommended = json.loads((REPO / ".vscode/extensions.json").read_text())["recommendations"]
    assert CONTAINER["customizations"]["vscode"]["extensions"] == recommended


def test_hooks_are_of_this_environment_and_so_of_the_lock():
    """A hook of another repository would be of another version than the one that CI runs."""
    assert [repo["repo"] for repo in HOOKS["repos"]] == ["local"]
    hooks = {hook["id"]: hook for hook in HOOKS["repos"][0]["hooks"]}
    assert all(hook["language"] == "system" for hook in hooks.values())
    assert {"ruff-check", "ruff-format", "params", "dvc-pre-commit", "dvc-post-checkout", "dvc-pre-push"} == set(hooks)
    # Without a remote `dvc push` fails, so a push of Git would: nobody gets that hook unasked.
    assert "pre-push" not in HOOKS["default_install_hook_types"]
