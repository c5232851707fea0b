"""Whether answers of two commits were scored by the same definition of a metric: by their committed code.

Scores are in data/scores.parquet as the code of each commit made them. Where dvc.lock has the same hash of that code
for both, nothing has changed. Where it has not, the functions that a score goes through are compared, wherever in the
project they stand, without their comments, docstrings and layout.
"""

import ast
import hashlib
import json
from functools import cached_property

from tradeoffs.gate import hashes
from tradeoffs.metrics import Metric
from tradeoffs.revisions import Revision

SCRIPT, ROOM, PURE = "stages/score.py", "tradeoffs/metrics", "tradeoffs/metrics/answers.py"
EMBEDDED = "tradeoffs/metrics/embeddings.py"
CODE = (SCRIPT, ROOM)  # deps of the stage that scores


class Changed:
    """What is known of how two revisions score answers."""

    def __init__(self, base: Revision, head: Revision):
        self._sides = base, head
        self._code = {side: _Code(side) for side in self._sides}

    def of(self, metric: Metric) -> str:
        """Why a metric of answers is not the same on both sides; nothing where it is."""
        if self._same_code:
            return ""
        for side in self._sides:
            if not self._fits[side]:
                return f"scored by code that is not committed with {side.name}'s dvc.lock"
        old, new = (self._code[side].of(metric) for side in self._sides)
        return "" if old == new and old is not None else "scored by another definition"

    @cached_property
    def _same_code(self) -> bool:
        old, new = (_locked(side) for side in self._sides)
        return bool(old) and old == new

    @cached_property
    def _fits(self) -> dict[Revision, bool]:
        """Whether the scores of a side were made by the code that it holds."""
        return {side: _locked(side) == {path: hashes.digest(side, path) for path in CODE} for side in self._sides}


def _locked(side: Revision) -> dict[str, str]:
    """The hashes of the code that scored."""
    deps = side.lock.get("score", {}).get("deps") or ()
    return {dep["path"]: dep["md5"] for dep in deps if dep["path"] in CODE}


class _Code:
    """Top-level statements of the project's modules at a revision, by the names they bind."""

    def __init__(self, side: Revision):
        self._side = side
        self._modules: dict[str, dict[str, list[ast.stmt]] | None] = {}

    def of(self, metric: Metric) -> str | None:
        """A hash of all that a score goes through; None if the revision has no such code."""
        roots = [(SCRIPT, "score_pair"), (SCRIPT, "cosine"), (SCRIPT, "main")] if metric.score is None else []
        roots += [(PURE, metric.score.__name__)] if metric.score else [(EMBEDDED, "similarities")]
        roots += [(SCRIPT, "exact_match_of"), (SCRIPT, "answer_pattern")] if metric.name == "exact_match" else []
        if any(name not in (self._module(path) or {}) for path, name in roots):
            return None
        seen: set[tuple[str, str]] = set()
        parts: list[str] = []
        while roots:
            path, name = root = roots.pop()
            if root in seen:
                continue
            seen.add(root)
            module = self._module(path) or {}
            for statement in module.get(name, ()):
                if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("tradeoffs."):
                    roots += self._imported(statement, name)
                    continue
                parts.append(f"{path} {name} {_written(statement)}")
                roots += [(path, found) for found in sorted(_names(statement)) if found in module]
        return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()

    def _imported(self, statement: ast.ImportFrom, name: str) -> list[tuple[str, str]]:
        found = [alias.name for alias in statement.names if (alias.asname or alias.name) == name]
        path = f"{str(statement.module).replace('.', '/')}.py"
        return [(path, one) for one in found if self._module(path) is not None]

    def _module(self, path: str) -> dict[str, list[ast.stmt]] | None:
        if path not in self._modules:
            text = self._side.text(path)
            try:
                self._modules[path] = None if text is None else _bound(ast.parse(text))
            except SyntaxError:
                self._modules[path] = None
        return self._modules[path]


def _bound(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    found: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for name in _binds(statement):
            found.setdefault(name, []).append(statement)
    return found


def _binds(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.split(".")[0] for alias in statement.names]
    return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _names(statement: ast.stmt) -> set[str]:
    """What a statement reads, but not what decorates it: that says how a metric is called, not what it is."""
    return {node.id for part in _parts(statement) for node in ast.walk(part) if isinstance(node, ast.Name)}


def _parts(statement: ast.stmt) -> list[ast.AST]:
    if isinstance(statement, ast.FunctionDef):
        return [statement.args, *_body(statement)]
    return [statement]


def _body(function: ast.FunctionDef) -> list[ast.stmt]:
    first = function.body[0]
    said = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return function.body[1:] if said else function.body


def _written(statement: ast.stmt) -> str:
    return " ".join(ast.dump(part) for part in _parts(statement))
