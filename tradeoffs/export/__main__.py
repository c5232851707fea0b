"""Hands a variant over: a folder that PEFT, transformers, llama.cpp, Ollama or vLLM take, with its prompt template, its
numbers and where it is from; and, if asked, the same as a repository of the Hugging Face Hub.

    python -m tradeoffs.export demo-demo-lora-q8_0 --to exported/q8_0
    python -m tradeoffs.export demo-demo-lora-trained --to exported/adapter --push USER/NAME

The format in the variant's name says what comes out: `trained` an adapter (or all weights), a precision a merged
checkpoint, a quant a GGUF. What lies here must be what dvc.lock says was evaluated. docs/export.md tells the rest.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tradeoffs.common import chat_templates, files
from tradeoffs.convert import trial
from tradeoffs.export import card, chosen, gguf_file, licences, ollama, prompts, push, usage, weights
from tradeoffs.export.chosen import Chosen
from tradeoffs.export.push import MAKER, RECORD
from tradeoffs.models import checkpoints
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError
from tradeoffs.report.formatting import code

# What steps read and write: what else lies there would run them again, or be taken away by them.
PIPELINE = ("data", "metrics", "models", "plots", "report", "stages", "tradeoffs")
TRIED = 50  # test prompts that llama.cpp's own tokenizer is compared on


def main(
    variant: str,
    to: Path,
    push: str | None,
    public: bool,
    accept_licence: bool,
    licence: str | None,
    author: str | None,
) -> None:
    if public and not push:
        raise UserError("--public: means nothing without --push")
    if push:
        pushing.require_name(push)
    found = chosen.choose(variant)
    sources = licences.sources(found)
    if push:
        sources = pushing.looked_up(sources)
        pushing.require_allowed(sources, accept_licence)
    to = require_free(to)
    terms = licences.Terms(sources, licence, author or (push.split("/")[0] if push else None), push)
    with files.new_folder(to) as folder:
        notes = fill(found, folder, terms)
        record(found, folder)
    print(f"{to}: {found.form} of {found.variant}, {size(to):.1f} MB; README.md says how it is used")
    for note in notes:
        print(f"note: {note}")
    for line in licences.unclear(sources):
        print(f"note: {line}; read its terms before you publish this")
    if push:
        print(f"pushed as one commit: {pushing.push(to, push, public, str(found.variant))}")


def fill(found: Chosen, folder: Path, terms: licences.Terms) -> list[str]:
    """Everything but the record of it; what there is to say about the prompt, in sentences."""
    tokenizer = checkpoints.load_tokenizer(found.cell.base, str(found.cell.base))
    text = None if found.tokens["kind"] == "text" else tokenizer.chat_template
    notes: list[str] = []
    gguf = f"{found.variant}.gguf"
    if found.form == "gguf":
        notes = _gguf(found, folder, gguf, tokenizer, text, terms)
    else:
        weights.write(found, folder)
    sha, clean = chosen.commit()
    again = [
        f"commit {sha}" + ("" if clean else ", with changes that are not committed: it alone does not make this again")
        if sha
        else "made outside of a Git repository",
        f"dvc.lock has the SHA-256 {files.sha256('dvc.lock')}; in it {found.path} has the MD5 "
        f"{found.lock[str(found.path)]}",
        "by the versions of requirements.lock in that commit; `make run` makes it all, `dvc pull` brings what was made",
    ]
    commands = [usage.line("git", "checkout", sha)] if sha else []
    commands += [
        "make run",
        "source .venv/bin/activate",
        usage.line("python", "-m", MAKER, str(found.variant), "--to", "exported"),
    ]
    parts = {
        "uses": usage.uses(found, gguf, terms.repo, text is not None),
        "notes": notes,
        "again": again,
        "commands": "\n".join(commands),
    }
    card.write(found, folder, parts, terms)
    return notes


def _gguf(found: Chosen, folder: Path, name: str, tokenizer: Any, text: str | None, terms: licences.Terms) -> list[str]:
    """The GGUF, and what Ollama reads."""
    shown = prompts.pieces(tokenizer) if text else None
    bos = str(tokenizer.bos_token or "")
    # Of a conversation the items hold the last question alone.
    known = [row["prompt"] for row in found.items if row["prompt"]] if text and found.dataset.kind != "chat" else []
    prompt, question = [_asked(tokenizer, one) for one in known[:TRIED]], _asked(tokenizer, "a") if text else ""
    # What a runtime puts before a text must be what evaluation had before it.
    adds = gguf_file.adds_bos(found.path)
    adds = adds and (not text or (bool(bos) and question.startswith(bos)))
    described = gguf_file.description(found, terms, card.headline(found), card.tags(found))
    untold = gguf_file.write(found, folder / name, described, text, adds)
    made, notes = ollama.template(shown, bos, bool(adds))
    stops = [tokenizer.convert_ids_to_tokens(token) for token in found.tokens["stop_ids"]]
    ollama.write(folder, name, made, notes, ollama.parameters(stops, found.tokens["context"]))
    for path in licences.texts(found.cell.base):
        (folder / path).write_bytes((found.cell.base / path).read_bytes())
    if text:
        (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    tried = trial.tried(folder / name, prompt)
    ids = [tokenizer(one, add_special_tokens=False)["input_ids"] for one in prompt]
    other = len(prompt) if tried.ids is None else sum(a != b for a, b in zip(tried.ids, ids, strict=True))
    if untold:
        names = ", ".join(code(str(tokenizer.convert_ids_to_tokens(token))) for token in untold)
        notes = [
            *notes,
            f"What ended an answer in evaluation is not all in the GGUF's metadata, which hold one token besides EOS: "
            f"send {names} as `stop` with each request to llama-server. Ollama's files have them.",
        ]
    if other:
        notes = [
            *notes,
            f"llama.cpp's own tokenizer cuts {other} of {len(prompt)} test prompts into other tokens than were scored.",
        ]
    return notes


def _asked(tokenizer: Any, question: str) -> str:
    return chat_templates.rendered(tokenizer, [{"role": "user", "content": question}], asks=True)


def record(found: Chosen, folder: Path) -> None:
    """What it is, of which commit, by which settings, and the digest of every file: nothing of this machine."""
    sha, clean = chosen.commit()
    base = {key: found.base[key] for key in ("commit", "base_id", "prompt") if key in found.base}
    method = {key: value for key, value in asdict(found.method).items() if value is not None}
    held = {
        path.relative_to(folder).as_posix(): files.sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
    files.write_json(
        folder / RECORD,
        {
            "made_by": MAKER,
            "variant": str(found.variant),
            "form": found.form,
            "commit": sha,
            "all_committed": clean,
            "dvc_lock_sha256": files.sha256("dvc.lock"),
            "artefact": {"path": str(found.path), "md5": found.lock[str(found.path)]},
            "base": {"hub": found.model.hub, **base},
            "method": method,
            "training_seed": found.cfg.run.seeds[0],
            "versions": found.facts.get("versions", {}),
            "files": held,
        },
    )


def require_free(to: Path) -> Path:
    """The folder to write, links followed. Raises UserError for one that holds what this command did not write."""
    to = Path(os.path.realpath(to))
    if to.is_file() or Path.cwd().is_relative_to(to):
        raise UserError(f"--to {to}: is a file, or holds the folder you are in; name a new folder")
    if to.is_relative_to(Path.cwd()) and to.relative_to(Path.cwd()).parts[0] in PIPELINE:
        raise UserError(f"--to {to}: is a folder of the pipeline, whose steps would take it for theirs; name another")
    if not to.is_dir() or not any(to.iterdir()):
        return to
    try:
        held = files.read_facts(to / RECORD)["files"]
        known = all(
            files.sha256(path) == held.get(path.relative_to(to).as_posix())
            for path in to.rglob("*")
            if path.is_file() and path != to / RECORD
        )
    except (OSError, KeyError, UserError):
        known = False
    if not known:
        raise UserError(
            f"--to {to}: holds files that this command did not write, or that were changed since, and it would take "
            "their place; name another folder, or remove this one yourself"
        )
    return to


def size(folder: Path) -> float:
    """Megabytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


pushing = push  # the module, where main has an argument of its name

if __name__ == "__main__":
    parser = cli.parser()
    parser.add_argument("variant", metavar="VARIANT", help="MODEL-DATASET-METHOD-FORMAT of the run list in params.yaml")
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="a new folder, or one of an earlier export"
    )
    parser.add_argument("--push", metavar="USER/NAME", help="a repository of the hub, made private if it is new")
    parser.add_argument("--public", action="store_true", help="with --push: for all to read")
    parser.add_argument("--accept-licence", action="store_true", help="I have read the terms that --push names")
    parser.add_argument("--licence", metavar="ID", help="of what is published (apache-2.0, ...); else that of the base")
    parser.add_argument("--author", metavar="NAME", help="who made it, for the metadata; else the USER of --push")
    cli.command(main, parser)
