"""Makes the starting checkpoint of a model: trained here on generated text, from a local folder, or from the hub.

IN   models.<model> and the template that its `prompt` names (metrics/settings/models/<model>.json); for `path` that
     folder, for `hub` that repository, for `general` that file
OUT  models/base/<model>/   config, bf16 or original weights (safetensors), tokenizer, chat template, run_info.json
     data/general/<model>.jsonl   held-out text of the kind that it learned from, by which forgetting is measured; a
     blank line where none is given
     python -m stages.base --model demo
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tradeoffs import params
from tradeoffs.base import demo_model, demo_pages, general_text, hub_downloads, hub_models, hub_space
from tradeoffs.base.prompts import chat_template, lacks_bos
from tradeoffs.common import cells, chat_templates, files
from tradeoffs.convert import gguf_converter
from tradeoffs.models import checkpoints, weights
from tradeoffs.plumbing import cli, clock
from tradeoffs.sources import demo_words, hub


@dataclass(frozen=True)
class Reads:
    seed: int


@dataclass(frozen=True)
class Settings:
    templates: dict[str, str]
    model: Annotated[params.Model, "models.{model}"]


def main(model: str) -> None:
    seed = params.load(Reads).seed
    cfg = params.load_settings(Settings, model=model)
    where = f"models.{model}"
    general, given = general_text.documents(cfg.model, seed, where), cfg.templates.get(cfg.model.prompt, "")
    with files.new_folder(cells.base(model)) as folder:
        if cfg.model.generate:
            source = {"source": "generated"}
            _train(cfg.model.generate, seed, folder)
        elif cfg.model.hub:
            source = _fetch(cfg.model, where, given, folder)
        else:
            path = str(cfg.model.path)  # of the three sources the only one left
            source = {"source": path}
            checkpoints.copy(Path(path), folder, f"{where}.path")
            files.note_if_unwatched(path, "models/raw", f"base@{model}")
        weights.check(folder, _source(cfg.model, where))
        # chat_template.jinja, which transformers prefers to a template in tokenizer_config.json
        files.write_text(folder / "chat_template.jinja", _template(cfg.model, folder, where, given))
        checkpoints.drop_other_template(folder, where)
        facts = {
            **source,
            "base_id": checkpoints.weights_id(folder),
            "prompt": cfg.model.prompt,
            "params": files.params_hash(_shaping(cfg.model)),
            "seed": seed,
            **gguf_converter.limits(folder, where),
        }
        files.write_json(folder / "run_info.json", files.run_info(**facts))
    if general:
        files.write_jsonl(cells.general(model), general)
    else:
        files.write_text(cells.general(model), "\n")  # of an empty output DVC warns, again and again
    if cfg.model.general:
        files.note_if_unwatched(cfg.model.general.path, "models/raw", f"base@{model}")


def _shaping(model: params.Model) -> params.Model:
    """What the checkpoint follows from, since all training depends on it: not the general text, which is only
    evaluated, and not how its commit is called, so that to pin a revision changes nothing."""
    return replace(model, general=None, revision=None, licence=None, gated=None, notes=None)


def _fetch(model: params.Model, where: str, given: str, folder: Path) -> dict[str, str]:
    """Everything that can be wrong is found before the weights are downloaded."""
    found = hub_models.find(str(model.hub), str(model.revision), where)
    hub.note_unpinned(found.repo, model.revision, found.commit, where)
    _template(model, found.folder, where, given)
    hub_space.announce(found, folder)
    hub_downloads.copy(found, folder)
    return {"source": found.repo, "commit": found.commit}


def _train(made: params.GeneratedModel, seed: int, folder: Path) -> None:
    texts = list(demo_pages.documents(made.sentences, seed))
    tokenizer = demo_model.train_tokenizer(texts, made.vocabulary, folder, made.context, demo_words.WORDS)
    batches = demo_model.page_batches(tokenizer, texts, made.batch_tokens, seed, demo_words.WORDS)
    demo_model.train_model(made, batches, seed).save_pretrained(folder)


def _template(model: params.Model, folder: Path, where: str, given: str) -> str:
    """The chat template that the checkpoint in `folder` is given; raises UserError if its tokenizer cannot be read."""
    with clock.loading():
        tokenizer = checkpoints.load_tokenizer(folder, _source(model, where))
    bos = lacks_bos(tokenizer, model.prompt, given)
    tokens = set(tokenizer.get_vocab())
    made = chat_template(model.prompt, tokenizer.chat_template, tokens, bos, f"{where}.prompt", given)
    tokenizer.chat_template = made
    chat_templates.check(tokenizer, f"{where}.prompt")
    return made


def _source(model: params.Model, where: str) -> str:
    if model.generate:
        return f"{where}.generate"
    return f"{where}.hub: {model.hub}" if model.hub else f"{where}.path: {model.path}"


if __name__ == "__main__":
    cli.run(main)
