"""The model card: README.md with metadata by huggingface_hub, and evaluation results in the hub's form of today.

That form is `.eval_results/*.yaml`, which the hub reads of data sets of its own that are registered as benchmarks.
Where the test set is none of the hub's, the older `model-index` of the card holds the numbers: it takes any data set.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from tradeoffs import metrics
from tradeoffs.common.cells import TRAINED, Variant
from tradeoffs.common.texts import on_a_line
from tradeoffs.export import judged, licences, weights
from tradeoffs.export.chosen import Chosen
from tradeoffs.export.licences import Source, Terms
from tradeoffs.report.formatting import MANY, code, escaped, short, subject_of, table
from tradeoffs.results import tasks

TEMPLATE = Path(__file__).with_name("card.md.j2")
LIBRARY = {"adapter": "peft", "full": "transformers", "merged": "transformers", "gguf": "gguf"}
RELATION = {"adapter": "adapter", "full": "finetune", "merged": "finetune", "gguf": "finetune"}
COSTS = {
    "size_mb": "weights, MB",
    "model_memory_mb": "memory of the model, MB",
    "host_memory_mb": "memory that it takes of the host beside the GPU's, MB",
    "decode_tokens_per_second": "tokens written per second",
    "prefill_tokens_per_second": "tokens read per second",
}
LONGEST = 1000  # characters of a text of the example
TAG = "llm-tradeoffs"


def write(chosen: Chosen, folder: Path, parts: dict[str, Any], terms: Terms) -> None:
    """README.md, and .eval_results where the hub has a place for them. `parts`: uses, notes, again and commands of the
    template, which others make."""
    import huggingface_hub

    found = terms.sources
    data = huggingface_hub.ModelCardData(**metadata(chosen, terms))
    own, base = chosen.numbers(), _base(chosen)
    texts: dict[str, Any] = {
        "title": str(chosen.variant),
        "summary": summary(chosen, found),
        "headline": headline(chosen),
        "tested": tested(chosen, found),
        "table": "\n".join(_table(chosen, own, base)),
        "other_column": "" if base is None else f"The untouched base is `{base}`, asked the same.",
        "sizes": sizes(chosen, folder, own),
        "example": example(chosen),
        "definitions": [_definition(chosen, name) for name in _defined(chosen, own)],
        "decision": judged.decided(chosen),
        "loses": judged.loses(chosen, own),
        "made_of": made_of(chosen, terms, folder),
        "limits": limits(chosen),
    }
    card = huggingface_hub.ModelCard.from_template(data, template_path=str(TEMPLATE), **texts, **parts)
    text = re.sub("\n{3,}", "\n\n", card.content.strip())
    (folder / "README.md").write_text(f"{text}\n", encoding="utf-8")
    if entries := benchmark(chosen):
        path = folder / ".eval_results" / f"{chosen.variant.dataset}.yaml"
        path.parent.mkdir()
        rows = huggingface_hub.eval_result_entries_to_yaml(entries)
        path.write_text(yaml.safe_dump(rows, sort_keys=False, allow_unicode=True), encoding="utf-8")


def metadata(chosen: Chosen, terms: Terms) -> dict[str, Any]:
    """What stands in the card's front matter, as ModelCardData takes it."""
    import huggingface_hub

    base, *data = terms.sources
    values: dict[str, Any] = {
        "base_model": on_a_line(base.hub or ""),
        "base_model_relation": "quantized" if not chosen.method.trains else RELATION[chosen.form],
        "datasets": [on_a_line(one.hub) for one in data if one.hub] or None,
        "library_name": LIBRARY[chosen.form],
        "pipeline_tag": "text-generation",
        "tags": tags(chosen),
        **licences.for_card(terms),
    }
    if base.hub is None:
        del values["base_model"], values["base_model_relation"]
    if not benchmark(chosen):
        own = chosen.numbers()
        values |= {"model_name": str(chosen.variant)} if _names(own) else {}
        values["eval_results"] = [
            huggingface_hub.EvalResult(
                task_type="text-generation",
                dataset_type=on_a_line(chosen.dataset.hub or chosen.variant.dataset),
                dataset_name=chosen.variant.dataset,
                dataset_split="test",
                metric_type=metrics.metric(name)[1].name,
                metric_name=metrics.metric(name)[1].label,
                metric_value=own[name],
            )
            for name in _names(own)
            if _split(name) == "test"
        ] or None
    return {key: value for key, value in values.items() if value is not None}


def tags(chosen: Chosen) -> list[str]:
    return [TAG, chosen.variant.method, chosen.variant.format] + (["chat"] if chosen.tokens["kind"] != "text" else [])


def benchmark(chosen: Chosen) -> list[Any]:
    """The headline number as the hub takes it: where the test set is that of a data set of the hub."""
    import huggingface_hub

    source, name = chosen.dataset, chosen.decision["metric"]
    own = chosen.numbers()
    if not (source.hub and source.splits and source.splits.test) or name not in own or _split(name) != "test":
        return []
    found = judged.interval(own, name)
    bounds = "" if found is None else f", 95 % interval {found.low:.6g} to {found.high:.6g}"
    label = metrics.metric(name)[1].label
    notes = f"{label}, on {len(set(_items(chosen)))} of its test examples{bounds}; evaluated by who publishes the model"
    return [
        huggingface_hub.EvalResultEntry(
            dataset_id=on_a_line(source.hub),
            task_id=on_a_line(source.config or "default"),
            value=own[name],
            dataset_revision=source.revision,
            notes=on_a_line(notes),
        )
    ]


def summary(chosen: Chosen, found: list[Source]) -> str:
    base, *data = found
    what = {
        "adapter": f"A {chosen.method.peft} adapter for",
        "full": "All weights, tuned, of",
        "merged": f"A checkpoint (bf16 weights, evaluated as {chosen.variant.format}) of",
        "gguf": f"A GGUF ({chosen.variant.format}) of",
    }[chosen.form]
    tuned = (
        f", tuned on {code(data[0].hub or data[0].name)} by {code(chosen.variant.method)}" if data else ", untouched"
    )
    return f"{what} {code(base.hub or base.name)}{tuned}."


def headline(chosen: Chosen) -> str:
    """The number that the decision goes by, with its interval; for descriptions too, which hold no Markdown."""
    name, own = chosen.decision["metric"], chosen.numbers()
    if name not in own:
        return ""
    found = judged.interval(own, name)
    written = short(own[name]) if found is None else judged.plain(found, name)
    tested = f"{len(set(_items(chosen)))} {'questions' if chosen.dataset.kind == 'questions' else 'test items'}"
    if task := metrics.metric(name)[1].task:
        tested = f"{chosen.results.count(chosen.variant, name)} items of the task {on_a_line(task)}"
    whole = " with its base" if chosen.form == "adapter" else ""
    return f"{chosen.results.label(chosen.variant.dataset, name)} {written} on {tested}" + (
        f", {short(own['size_mb'])} MB of weights{whole}" if "size_mb" in own else ""
    )


def sizes(chosen: Chosen, folder: Path, own: dict[str, float]) -> str:
    """What the weights took as they were measured, and what their files take, which are other things."""
    said = []
    if "size_mb" in own:
        below = ", those of the base below the adapter among them" if chosen.form == "adapter" else ""
        said.append(f"Weights: {own['size_mb']:.6g} MB (1e6 bytes) as they were held when measured{below}.")
    held = [path for kind in ("*.gguf", "*.safetensors", "*.bin") for path in sorted(folder.glob(kind))]
    if held:
        size = sum(path.stat().st_size for path in held)
        said.append(
            f"{'File' if len(held) == 1 else 'Files'}: {', '.join(code(path.name) for path in held)}, {size:,} bytes."
        )
    return " ".join(said)


def example(chosen: Chosen) -> list[str]:
    """What the model does, and the first test item with its own answer."""
    data = code(chosen.dataset.hub or chosen.variant.dataset)
    if _by_tasks_alone(chosen):
        return ["Only what the tasks below ask was measured; nothing else is known of what it can do."]
    if chosen.dataset.kind == "questions":
        return [
            "What it answers freely was not measured, only which letter of a question's options it finds most likely"
            f"{', and what the tasks below ask' if chosen.tasks else ''}."
        ]
    if chosen.tokens["kind"] == "text":
        return [f"It goes on from a text, as the texts of {data} do."]
    lines = [f"It answers what it is asked in the way of the data set {data}; nothing else is known of what it can do."]
    if found := chosen.example:
        asked = "asked (the last question of a conversation)" if chosen.dataset.kind == "chat" else "asked"
        for what, name in ((asked, "prompt"), ("its answer", "generated"), ("expected", "answer")):
            lines.append(f"{what}: {escaped(_cut(found[name] or ''))}")
        lines[1] = f"the first test item, {lines[1]}"
    elif chosen.items:
        lines.append("no test item is shown: the data set is a file of its owner's")
    return lines


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()} ..."


def tested(chosen: Chosen, found: list[Source]) -> str:
    asked = [f"{code(task)} ({count} items)" for task, count in chosen.tasks.items()]
    by_tasks = [f"Asked by tasks of lm-evaluation-harness: {', '.join(asked)}."] if asked else []
    return " ".join([*([] if _by_tasks_alone(chosen) else [_tested_on_data(chosen)]), *by_tasks])


def _by_tasks_alone(chosen: Chosen) -> bool:
    """Whether the data set asks nothing itself (kind questions without multiple choice)."""
    return chosen.dataset.kind == "questions" and chosen.dataset.mmlu is None


def _tested_on_data(chosen: Chosen) -> str:
    whole = chosen.lock.get(f"data/prepared/{chosen.variant.dataset}", "not in dvc.lock")
    if chosen.dataset.kind == "questions":
        return (
            f"Measured on {len(_items(chosen))} multiple-choice questions of {code(chosen.variant.dataset)}. As they "
            f"were prepared they have the MD5 {code(whole)} in dvc.lock, and by their ids in order the SHA-256 "
            f"{code(items_digest(chosen))}."
        )
    where = code(chosen.dataset.hub) if chosen.dataset.hub else code(chosen.variant.dataset)
    own = "its own test split" if chosen.dataset.splits and chosen.dataset.splits.test else "rows held out from it"
    return (
        f"Measured on {len(set(_items(chosen)))} test items of the data set {where} ({own}, near-duplicates of which "
        f"were taken out of the training data). The data set as it was prepared, test items among it, has the MD5 "
        f"{code(whole)} in dvc.lock; the test items that were asked, by their ids in order, have the SHA-256 "
        f"{code(items_digest(chosen))}."
    )


def items_digest(chosen: Chosen) -> str:
    import hashlib

    return hashlib.sha256("\n".join(_items(chosen)).encode()).hexdigest()


def made_of(chosen: Chosen, terms: Terms, folder: Path) -> list[str]:
    lines = []
    for source in terms.sources:
        at = f" at commit {code(source.revision)}" if source.revision else ""
        name = code(source.hub or source.name)
        lines.append(f"{source.what}: {name}{at}; licence: {escaped(source.said)}")
    if chosen.form == "adapter" and not chosen.model.hub:
        lines.append(
            f"the base is on no hub: it is the folder {code(weights.base_of(chosen)[0])} of the project that this was "
            f"made in (`dvc pull` or `dvc get` brings it, or `dvc repro base@{chosen.variant.model}` makes it); the "
            f"SHA-256 over its weights is {code(chosen.base['base_id'])}"
        )
    if kept := licences.texts(folder):
        lines.append(f"licence texts that came with the base: {', '.join(map(code, kept))}")
    if not licences.for_card(terms):
        lines.append("no licence is stated for this model: who publishes it has to")
    if chosen.facts.get("merged_onto"):
        lines.append(f"the adapter was merged onto {code(chosen.facts['merged_onto'])} (merge.onto of params.yaml)")
    return lines


def limits(chosen: Chosen) -> list[str]:
    what = "test items and tasks" if chosen.tasks else "test items"
    what = "tasks" if _by_tasks_alone(chosen) else what
    lines = [f"The numbers are of these {what} alone; on other questions, languages or tasks nothing was measured."]
    if chosen.tasks:
        in_what = "in the chat template" if chosen.cfg.evaluate.harness.chat_template else "as plain text"
        lines.append(f"The tasks were asked {in_what}, which need not be how the model is used.")
    if chosen.dataset.kind == "questions" and not _by_tasks_alone(chosen):
        lines.append("The questions were asked as plain text with worked examples, without the prompt template.")
    elif chosen.dataset.kind != "questions" and chosen.tokens["kind"] != "text":
        most = chosen.cfg.evaluate.max_new_tokens
        lines.append(f"Answers were cut after {most} tokens, and the context holds {chosen.tokens['context']} tokens.")
    lines.append("Speed and memory are of one machine, measured alone on it; another has other numbers.")
    return lines


def _table(chosen: Chosen, own: dict[str, float], base: Variant | None) -> list[str]:
    others = chosen.numbers(base) if base else {}
    header = ["", "this model"] + (["untouched base"] if base else [])
    rows = [
        [judged.label(chosen, name), _written(own, name), *([_written(others, name)] if base else [])]
        for name in _names(own)
    ]
    rows += [
        [label, short(own[name]), *([short(others.get(name))] if base else [])]
        for name, label in COSTS.items()
        if name in own
    ]
    return table(header, rows)


def _written(row: dict[str, float], name: str) -> str:
    if name not in row:
        return ""
    found = judged.interval(row, name)
    return short(row[name]) if found is None else judged.plain(found, name)


def _names(row: dict[str, float]) -> list[str]:
    """Metrics of quality that a row has, in the order of the report."""
    listed = [*metrics.columns("answers"), *metrics.columns("likelihood"), *metrics.columns("ladder"), "general_loss"]
    listed += [metric.name for measured in tasks.of_pair().values() for metric in measured]
    return [name for name in dict.fromkeys(listed) if name in row]


def _split(name: str) -> str:
    return metrics.metric(name)[0]


def _defined(chosen: Chosen, own: dict[str, float]) -> list[str]:
    """What the card has numbers of: those of the table, and of what it loses."""
    told = [guard.metric for guard in chosen.guards] + (["general_loss"] if "general_loss_change" in own else [])
    return list(dict.fromkeys([*_names(own), *told]))


def _definition(chosen: Chosen, name: str) -> str:
    said = f"{judged.label(chosen, name)}: {escaped(metrics.metric(name)[1].definition)}"
    if name == "general_loss":
        return f"{said}, on text like that the base learned from, which no method is tuned on; of the model as trained"
    if name != "mmlu_accuracy":
        return said
    subjects = chosen.results.subjects(chosen.variant)
    asked = [f"{subject_of(subject)} ({count})" for subject, (_, count) in subjects.items()]
    more = f" and {len(asked) - MANY} more" if len(asked) > MANY else ""
    source, label = chosen.dataset.mmlu, chosen.results.label(chosen.variant.dataset, name)
    whose = f"of {code(source.hub)}" if source and source.hub else "from a file of the user's"
    whose = whose if label == metrics.metric(name)[1].label else "made by this project's code, not those of MMLU"
    count = sum(count for _, count in subjects.values())
    return f"{said}; {count} questions {whose}, by subject: {', '.join(asked[:MANY])}{more}"


def _items(chosen: Chosen) -> list[str]:
    return [row["item"] for row in chosen.items]


def _base(chosen: Chosen) -> Variant | None:
    """The untouched base, if the run list has it, and this is another."""
    found = Variant(chosen.variant.model, chosen.variant.dataset, "base", TRAINED)
    return found if found != chosen.variant and chosen.numbers(found) else None
