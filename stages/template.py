"""The prompt template that params.yaml gives a model, alone in a file: another template then makes only those models
anew that name it.

IN   templates and models.<model>.prompt in params.yaml
OUT  data/templates/<model>.jinja    as it stands there; a blank line where `prompt` is a built-in one, or `own`
     python -m stages.template --model demo
"""

from dataclasses import dataclass
from typing import Annotated

from tradeoffs import params
from tradeoffs.common import cells, files
from tradeoffs.plumbing import cli


@dataclass(frozen=True)
class Reads:
    templates: dict[str, str]
    prompt: Annotated[str, "models.{model}.prompt"]


def main(model: str) -> None:
    cfg = params.load(Reads, model=model)
    # Of an empty output DVC warns, again and again.
    files.write_text(cells.template(model), cfg.templates.get(cfg.prompt, "\n"))


if __name__ == "__main__":
    cli.run(main)
