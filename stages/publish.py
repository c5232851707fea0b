"""Puts what follows from the results where it is looked for: the decision in README.md, the models in models/dvc.yaml.

IN   report/summary.md    report/report.md
OUT  README.md, what stands between its two markers    models/dvc.yaml, the list of DVC artifacts
     what came of the run, in the tools of launch.report_to
     python -m stages.publish

Neither is an output of the stage in dvc.yaml: README.md is written by people, too, and DVC takes no dvc.yaml for one.
So DVC does not see if one of them was changed since; `--check` of `tradeoffs.readme` and `tradeoffs.artifacts` does.
"""

from dataclasses import dataclass

from tradeoffs import artifacts, params, readme, trackers
from tradeoffs.plumbing import cli


@dataclass(frozen=True)
class Reads:
    run: params.Run


def main() -> None:
    # Of `methods` only the kinds of those that ran, and another kind makes another report, which is a dep: watched as a
    # whole, a block that nobody runs would run this.
    artifacts.write(params.load(Reads).run, params.load_all().methods)
    if readme.is_wanted():
        readme.write()
    trackers.publish()


if __name__ == "__main__":
    cli.run(main)
