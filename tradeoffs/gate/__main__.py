"""What a change made worse: a commit or the folder against another commit, on the same test items, by margins.

    python -m tradeoffs.gate --base origin/main --md gate.md --junit gate.xml

Nothing is evaluated again: what the base measured comes from its dvc.lock and DVC's cache or remote. Exit code 0: no
number is worse by more than its margin, and that is shown. 1: something is shown to be worse. 2: neither is shown, or
something that is needed is missing, which is said with what to do.
"""

import sys
import traceback
from pathlib import Path

from tradeoffs.common import files
from tradeoffs.common.texts import harmless
from tradeoffs.gate import policy as policies
from tradeoffs.gate import writing
from tradeoffs.gate.judging import NOT_SHOWN, judge
from tradeoffs.gate.rows import EXIT
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError
from tradeoffs.plumbing.lacking import lacking
from tradeoffs.report.formatting import escaped
from tradeoffs.revisions import WORKSPACE, Revision


def main(base: str, head: str, policy: Path | None, md: Path | None, json: Path | None, junit: Path | None) -> None:
    try:
        gate = judge(Revision(base), Revision(head), policies.read(policy))
        texts = {md: writing.markdown(gate), json: writing.dumped(writing.document(gate)), junit: writing.junit(gate)}
        code, said = gate.exit_code, writing.markdown(gate)
    except Exception as error:  # Python would end with 1, which says that something is worse
        message = str(error) if isinstance(error, UserError) else lacking(error)
        if not message:
            traceback.print_exc()
            message = f"a bug of the gate: {type(error).__name__}; its traceback is above"
        texts = {
            md: f"**{NOT_SHOWN}**: {escaped(message)}\n",
            json: writing.dumped(writing.failed(message)),
            junit: writing.junit_failed(message),
        }
        code, said = EXIT[NOT_SHOWN], ""
        print(f"error: {harmless(message)}", file=sys.stderr)
    for path, text in texts.items():
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(path, text)
    if said:
        print(said)
    sys.exit(code)


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
