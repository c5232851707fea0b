"""What each step is made with, model by model and cell by cell: params.yaml, with what is said of a model, a data set
or a method laid over what all share. A value then makes only those steps anew whose own settings it moves.

IN   params.yaml
OUT  metrics/settings/{models,datasets,pairs,cells}/<name>.json    parts of such a file
     metrics/settings.json    of each cell that is trained, for `dvc params diff`
     python -m stages.settings
"""

from tradeoffs import params
from tradeoffs.common import cells, files, settings
from tradeoffs.plumbing import cli


def main() -> None:
    cfg = params.load_all()
    with files.new_folder(cells.SETTINGS) as folder:
        for path, part in settings.parts(cfg):
            files.write_text(folder / path.relative_to(cells.SETTINGS), settings.text(part))
    files.write_text("metrics/settings.json", settings.text(settings.listed(cfg)))


if __name__ == "__main__":
    cli.run(main)
