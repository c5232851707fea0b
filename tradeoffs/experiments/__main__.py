"""The experiments of a commit as a table: for every method the settings tried, and the best of them on held-out rows.

    python -m tradeoffs.experiments                      those of HEAD; docs/sweeps.md says how to make them
    python -m tradeoffs.experiments --ablation           what each setting changes, by test quality: docs/ablations.md
    python -m tradeoffs.experiments --rev v1.0 --csv runs.csv

A trial is one training, with one of `run.seeds`, as dvc.lock of its experiment records it: every parameter that reached
it is its setting, whatever the experiment meant to change. Chosen is by `valid_loss` alone, the mean over seeds; of a
method with `stage: dpo` by `valid_reward_accuracy`, with `stage: grpo` by `valid_reward`. Test numbers are shown for
what was chosen, where the experiment went on to evaluate it. An ablation chooses nothing: it shows them for every
setting.
"""

from pathlib import Path

from tradeoffs.experiments.reading import read
from tradeoffs.experiments.showing import ablation, report, write_csv
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError


def main(rev: str, csv: Path | None = None, ablated: bool = False) -> None:
    sweep = read(rev)
    if csv and sweep.trials:
        write_csv(csv, sweep)
    print("\n".join((ablation if ablated else report)(sweep)))
    if not sweep.trials:
        raise UserError("none of the experiments trained anything that the commit itself did not train")


if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument("--rev", default="HEAD", help="the commit that the experiments were made on")
    parser.add_argument(
        "--ablation", dest="ablated", action="store_true", help="test quality, size and time of every setting"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one row per training to a file")
    cli.command(main, parser)
