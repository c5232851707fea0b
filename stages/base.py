"""Makes the starting checkpoint of a model: trained here on generated text, or copied from a local folder.

IN   models.<model> in params.yaml; for `path` that folder, for `general` that file
OUT  models/base/<model>/   config, bf16 or original weights (safetensors), tokenizer, chat template, run_info.json
     data/general/<model>.jsonl   held-out text of the kind that it learned from, by which forgetting is measured; empty
     where none is given
     python -m stages.base --model demo
"""

from dataclasses import replace
from pathlib import Path

from transformers import AutoTokenizer

from tradeoffs import checkpoints, cli, clock, demo_model, demo_text, files, params, records
from tradeoffs.prompts import chat_template

READS = ("seed", "models.{model}")
GENERAL = 1000  # documents of general text that are kept, at most


def main(model: str) -> None:
    cfg = params.load(READS, model=model)
    general = _general(cfg.model, cfg.seed)
    with files.new_folder(f"models/base/{model}") as folder:
        if cfg.model.generate:
            source = "generated"
            _train(cfg.model.generate, cfg.seed, folder)
        else:
            source = cfg.model.path
            checkpoints.copy(Path(source), folder, f"models.{model}.path")
            files.note_if_unwatched(source, "models/raw", f"base@{model}")
        _set_prompt(cfg.model.prompt, folder, f"models.{model}.prompt")
        facts = {
            "source": source,
            "base_id": checkpoints.weights_id(folder),
            "prompt": cfg.model.prompt,
            # Without the general text: it is only evaluated, and all training depends on this folder.
            "params": files.params_hash(replace(cfg.model, general=None)),
            "seed": cfg.seed,
        }
        files.write_json(folder / "run_info.json", files.run_info(**facts))
    files.write_jsonl(f"data/general/{model}.jsonl", general)
    if cfg.model.general:
        files.note_if_unwatched(cfg.model.general.path, "models/raw", f"base@{model}")


def _general(model: params.Model, seed: int) -> list[dict[str, str]]:
    """Documents (id, text), all different, in an order that does not change when others come or go."""
    if model.general:
        columns = params.Columns(text=model.general.column or "text")  # a text file's documents are in that one
        texts = [row["text"] for row in records.read(Path(model.general.path), columns)]
    elif model.generate:
        texts = demo_text.held_out(GENERAL, model.generate.sentences, seed)
    else:
        texts = []
    found = {files.content_id(text): text for text in texts if text}
    return [{"id": id, "text": found[id]} for id in sorted(found)[:GENERAL]]


def _train(made: params.GeneratedModel, seed: int, folder: Path) -> None:
    texts = list(demo_text.documents(made.sentences, seed))
    tokenizer = demo_model.train_tokenizer(texts, made.vocabulary, folder, made.context)
    batches = demo_model.page_batches(tokenizer, texts, made.batch_tokens, seed)
    demo_model.train_model(made, batches, seed).save_pretrained(folder)


def _set_prompt(name: str, folder: Path, where: str) -> None:
    """Writes chat_template.jinja, which transformers prefers to a template in tokenizer_config.json."""
    with clock.loading():
        tokenizer = AutoTokenizer.from_pretrained(folder)
    bos = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    template = chat_template(name, tokenizer.chat_template, set(tokenizer.get_vocab()), bos, where)
    files.write_text(folder / "chat_template.jinja", template)


if __name__ == "__main__":
    cli.run(main)
