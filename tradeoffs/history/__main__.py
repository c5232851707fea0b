"""One number over commits and experiments, with its interval and what of its changes is more than noise.

    python -m tradeoffs.history test_exact_match demo-demo-lora-q4_0
    python -m tradeoffs.history test_f1 -n 10 --exp --png history.png      of what each commit recommends
    python -m tradeoffs.history size_mb recommended --since v1.0 --csv sizes.csv

Commits are first parents that changed dvc.lock or metrics/. Items come from DVC's cache or remote, nothing is evaluated
again; where they are not to be had, the value is the committed one and nothing is said of its change.
"""

from pathlib import Path

from tradeoffs import params
from tradeoffs.common.cells import Pair, Variant
from tradeoffs.history import points, showing
from tradeoffs.history.points import RECOMMENDED, Asked
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError


def main(
    metric: str,
    variant: str,
    rev: str,
    since: str | None,
    count: int,
    exp: bool,
    csv: Path | None,
    png: Path | None,
) -> None:
    cfg = params.load_all()
    named, pair = _of(variant)
    asked = Asked(points.known(metric), named, pair, cfg.evaluate.bootstrap, cfg.decide)
    main_line = points.commits(rev, since, count)
    if not main_line:
        raise UserError(f"{rev}: none of its commits changed dvc.lock or metrics/; make run, and commit them")
    found = points.follow(asked, main_line, points.experiments(rev) if exp else ())
    if not any(point.value for point in found):
        why = f"; {found[-1].entry.name}: {found[-1].why}" if found[-1].why else ""
        raise UserError(f"{metric} of {variant}: no commit that was looked at has it{why}")
    if csv:
        showing.csv(csv, asked, found)
    if png:
        showing.png(png, asked, found)
    print("\n".join(showing.markdown(asked, found)))


def _of(name: str) -> tuple[Variant | None, Pair | None]:
    """A variant, or what is recommended of a model and data set. Raises UserError for neither."""
    if name == RECOMMENDED:
        return None, None
    if name.endswith(f"-{RECOMMENDED}") and name.count("-") == 2:
        return None, Pair(*name.split("-")[:2])
    return Variant.parse(name), None


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument("metric", metavar="METRIC", help="of quality, as in metrics/summary.csv; or a cost (size_mb)")
    parser.add_argument(
        "variant",
        metavar="VARIANT",
        nargs="?",
        default=RECOMMENDED,
        help=f"MODEL-DATASET-METHOD-FORMAT, {RECOMMENDED} (the default) or MODEL-DATASET-{RECOMMENDED}",
    )
    parser.add_argument("--rev", default="HEAD", help="the last commit, and the one whose experiments --exp shows")
    parser.add_argument("--since", metavar="REV", help="from this commit on, of the last -n")
    parser.add_argument("-n", dest="count", type=cli.count, default=20, help="the last so many commits (20)")
    parser.add_argument("--exp", action="store_true", help="and the experiments that were made on the last commit")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write it as a table of numbers, too")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw it, too")
    cli.command(main, parser)
