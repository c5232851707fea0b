"""What a change made worse: a commit or the folder against another commit, on the same test items, by margins.

    python -m tradeoffs.gate --base origin/main --md gate.md --junit gate.xml

Nothing is evaluated again: what the base measured comes from its dvc.lock and DVC's cache or remote. Exit code 0: no
number is worse by more than its margin, and that is shown. 1: something is shown to be worse. 2: neither is shown, or
something that is needed is missing, which is said with what to do.
"""

import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from tradeoffs.common import files
from tradeoffs.common.texts import harmless
from tradeoffs.gate import policy as policies
from tradeoffs.gate import writing
from tradeoffs.gate.judging import judge
from tradeoffs.gate.rows import EXIT, NOT_SHOWN
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError
from tradeoffs.plumbing.lacking import lacking
from tradeoffs.report.formatting import escaped
from tradeoffs.revisions import WORKSPACE, Revision


def main(base: str, head: str, policy: Path | None, md: Path | None, json: Path | None, junit: Path | None) -> None:
    try:
        sides = Revision(base), Revision(head)
        gate = judge(*sides, policies.of(*sides, policy))
        said = writing.markdown(gate)
        for path, text in ((md, said), (json, writing.dumped(writing.document(gate))), (junit, writing.junit(gate))):
            _write(path, text)
        code = gate.exit_code
        _print(said, sys.stdout)
    except Exception as error:  # Python would end with 1, which says that something is worse
        code = EXIT[NOT_SHOWN]
        message = str(error) if isinstance(error, UserError) else lacking(error)
        if not message:
            with suppress(OSError):
                traceback.print_exc()
            message = f"a bug of the gate: {type(error).__name__}; its traceback is above"
        with suppress(OSError):
            _print(f"error: {harmless(message)}", sys.stderr)
        failed = f"**{NOT_SHOWN}**: {escaped(message)}\n", writing.dumped(writing.failed(message))
        for path, text in zip((md, json, junit), (*failed, writing.junit_failed(message)), strict=True):
            with suppress(OSError, UserError):  # one of them may be what is wrong
                _write(path, text)
    sys.exit(code)


def _write(path: Path | None, text: str) -> None:
    """Raises UserError if it cannot be written."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, text)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {lacking(error) or error.strerror}") from error


def _print(text: str, stream: TextIO) -> None:
    """A reader that has seen enough (head, less) changes no exit code."""
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        # What is still in the buffer would be written when Python ends, and be its exit code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument("--base", required=True, metavar="REV", help="what it is held against: a commit, branch or tag")
    parser.add_argument(
        "--head", default=WORKSPACE, metavar="REV", help="what is judged: WORKSPACE (the folder as it is), or a commit"
    )
    parser.add_argument("--policy", type=Path, metavar="FILE", help="what is judged and by which margins (gate.yaml)")
    for name, what in (("md", "Markdown"), ("json", "JSON"), ("junit", "JUnit's XML")):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"write it as {what} too")
    cli.command(main, parser)
