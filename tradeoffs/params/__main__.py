"""Says whether params.yaml is sound, with everything that is wrong in it, and touches nothing.

    python -m tradeoffs.params              params.yaml
    python -m tradeoffs.params FILE

`make run` does so before anything else; `dvc repro` runs no code of the project before it acts on the names in
params.yaml, so a file of somebody else is checked first: as a Git hook, docs/security.md.
"""

from pathlib import Path

from tradeoffs import params
from tradeoffs.plumbing import cli


def main(file: Path) -> None:
    params.load_all(file)
    print("ok")


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument(
        "file", nargs="?", type=Path, default=params.PATH, metavar="FILE", help="params.yaml by default"
    )
    cli.command(main, parser)
