"""Joins everything that was measured: metrics, tables, pictures and the report.

IN   data/items/    data/seeds/    data/copying/    data/scores.parquet    data/facts/    data/cost.json
     data/training/    data/prepared/<dataset>/info.json    data/lengths/    data/tasks/    metrics/settings/notes.json
OUT  metrics/{headline,training,quality,cost,mmlu,decision}.json    metrics/{summary,ladder}.csv    plots/
     report/ (pages in Markdown and HTML, of which report.md is the first; with prompts in params.yaml also the answers
     to them, prompts.csv)
     python -m stages.aggregate
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.common.cells import TASKS, cells, pairs, prepared, variants
from tradeoffs.plumbing import cli
from tradeoffs.report import decision as shown
from tradeoffs.report import page
from tradeoffs.report.pictures import draw_all
from tradeoffs.results import decision, tables
from tradeoffs.results.results import Results

METRICS = {"training": tables.training, "quality": tables.quality, "cost": tables.cost, "mmlu": tables.mmlu}


@dataclass(frozen=True)
class Reads:
    run: params.Run
    seed: int
    bootstrap: Annotated[int, "evaluate.bootstrap"]
    tasks: Annotated[list[str], "evaluate.tasks"]
    decide: params.Decide


def remove_left_tasks(cfg: Reads) -> None:
    """Of the folders of tasks too; of what is asked all must be there."""
    wanted = variants(cfg.run)
    wanted += [further for cell in cells(cfg.run) for further in cell.further(cfg.run.seeds)]
    folders = [variant.tasks(cfg.run.seeds) for variant in wanted]
    files.remove_leftovers(folders if cfg.tasks else [TASKS / "none"])
    for folder in folders if cfg.tasks else ():
        asked = [folder / f"{task}.parquet" for task in cfg.tasks]
        files.remove_leftovers(asked)
        for path in asked:
            files.must_exist(path)


def main() -> None:
    cfg = params.load(Reads)
    files.remove_leftovers([variant.facts for variant in variants(cfg.run)])
    trainings = [[cell.training(seed).facts for seed in cfg.run.seeds] for cell in cells(cfg.run)]
    files.remove_leftovers([facts[0].parent for facts in trainings])
    for facts in trainings:
        files.remove_leftovers(facts)
    files.remove_leftovers([prepared(dataset) for dataset in cfg.run.datasets])
    files.remove_leftovers([pair.lengths for pair in pairs(cfg.run)])
    remove_left_tasks(cfg)
    results = Results(cfg.run, cfg.seed, cfg.bootstrap, cfg.decide)

    # Everything is made before the first file is written.
    measured = {name: make(results) for name, make in METRICS.items()}
    decisions = [decision.decide(results, pair) for pair in results.groups()]
    measured |= {"headline": tables.headline(results, decisions), "decision": decision.table(results, decisions)}
    summary, ladder, answers = tables.summary(results), tables.ladder(results), tables.prompts(results)
    with files.new_folder("plots") as folder:
        tables.write_csv(folder / "training.csv", tables.curves(results, "curve"))
        if preferences := tables.curves(results, "preference_curve"):
            tables.write_csv(folder / "preference.csv", preferences)
        if seeds := tables.seeds(results):
            tables.write_csv(folder / "seeds.csv", seeds)
        tables.write_csv(folder / "subjects.csv", tables.subjects(results))
        texts = page.pages(results, draw_all(results, folder))

    for name, numbers in measured.items():
        files.write_json(f"metrics/{name}.json", numbers)
    tables.write_csv("metrics/summary.csv", summary)
    tables.write_csv("metrics/ladder.csv", ladder)
    if answers:
        tables.write_csv("report/prompts.csv", answers)
    else:
        Path("report/prompts.csv").unlink(missing_ok=True)
    page.write(texts, Path("report"))
    files.write_text("report/summary.md", page.summary(results))
    print("\n".join(shown.overview(results, decisions)))
    print("The whole report: report/report.md, report/report.html")


if __name__ == "__main__":
    cli.run(main)
