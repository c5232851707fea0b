"""From text to token ids and masks: questions and conversations with their answers, plain text, multiple choice."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import TemplateError
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources.readers import LETTERS

BATCH = 5000  # rows that are held in memory while a table is written


def instruction_rows(
    tokenizer: PreTrainedTokenizerFast, examples: Iterable[dict], longest: int, stops: list[int], source: Path
) -> Iterator[dict[str, Any]]:
    """One row per example, a question and its answer or a conversation, in the model's own chat template; only answers
    and the token that ends each are scored.

    `prompt_tokens` are those before the last answer, which is the one that evaluation asks for. Raises UserError if an
    example is longer than `longest` tokens, or where the template does not let an answer be learned as it is asked for.
    """
    too_long, count = [], 0
    for number, example in enumerate(tqdm(examples, desc=source.stem, leave=False), 1):
        messages = example.get("messages") or [
            {"role": "user", "content": example["prompt"]},
            {"role": "assistant", "content": example["answer"]},
        ]
        ids, answers = _answers(tokenizer, messages, stops, f"{source} line {number}")
        if len(ids) > longest:
            count += 1
            too_long += [f"line {number} ({len(ids)} tokens)"] if count <= 3 else []
        texts = [message["content"] for message in messages if message["role"] == "assistant"]
        yield {
            "id": example["id"],
            "ids": ids,
            "scored": [any(begin <= at < end for begin, end in answers) for at in range(len(ids))],
            "prompt_tokens": answers[-1][0],
            "prompt": example["prompt"] if "prompt" in example else _said(messages[:-1]),
            "answer": texts[-1],
            "bytes": sum(len(text.encode()) for text in texts),
        }
    if too_long:
        shown = ", ".join(too_long) + (f" and {count - len(too_long)} more" if count > len(too_long) else "")
        raise UserError(
            f"{source}: {count} examples are longer than {longest} tokens (the smaller of tokenize.max_length and the "
            f"model's context): {shown}; raise tokenize.max_length if that is the smaller one, or leave long ones out "
            "for every model alike (max_characters in the data set's block)"
        )


def _answers(
    tokenizer: PreTrainedTokenizerFast, messages: list[dict], stops: list[int], where: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a conversation up to the end of its last answer, and from where to where each answer goes, including
    the token that ends it.

    An answer begins where the prompt of the turns before it ends, with the mark that asks for an answer. That this is
    so is checked in token ids, turn by turn: what is generated later must begin where the answer did in training.
    """
    try:
        ids = _chat(tokenizer, messages)
        spans = []
        for at in (number for number, message in enumerate(messages) if message["role"] == "assistant"):
            prompt = _chat(tokenizer, messages[:at], add_generation_prompt=True)
            turn = ids if at == len(messages) - 1 else _chat(tokenizer, messages[: at + 1])
            if turn[: len(prompt)] != prompt:
                raise UserError(
                    f"{where}: the prompt template does not fit the model's tokenizer: the prompt's last token changes "
                    "when the answer follows; choose another `prompt` for this model in params.yaml"
                )
            # What a template puts after the end of the turn (often a newline) is never generated: it is not scored.
            end = next((place for place in range(len(prompt), len(turn)) if turn[place] in stops), None)
            if end is None:
                raise UserError(
                    f"{where}: the prompt template puts no end-of-sequence token after an answer, so a model could not "
                    "learn to stop; choose another `prompt` for this model in params.yaml"
                )
            if ids[: end + 1] != turn[: end + 1]:
                raise UserError(
                    f"{where}: the model's chat template writes message {at + 1} in another way once more messages "
                    "follow (as those do that leave out earlier thinking), so it cannot be learned where it stands; "
                    "choose another `prompt` for this model in params.yaml, or end each conversation with one answer"
                )
            spans.append((len(prompt), end + 1))
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise UserError(
            f"{where}: the model's chat template refuses a conversation of {roles}: {error}; change these rows, or "
            "choose another `prompt` for this model in params.yaml"
        ) from error
    return ids[: spans[-1][1]], spans


def _said(messages: list[dict]) -> str:
    """A conversation for people to read: the only message, or all of them with who says each."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def pair_rows(
    tokenizer: PreTrainedTokenizerFast,
    examples: Iterable[dict],
    chosen: Iterable[dict],
    longest: int,
    stops: list[int],
    source: Path,
) -> Iterator[dict[str, Any]]:
    """One row per pair: ids of the prompt, of the chosen and of the rejected answer, each with the token that ends it.

    `chosen` are the rows that instruction_rows made of the examples. Of the rejected answers it makes such rows too,
    which must be as short. Raises UserError where it does.
    """
    others = ({**example, "answer": example["rejected"]} for example in examples)
    rejected = instruction_rows(tokenizer, others, longest, stops, source.with_stem(f"{source.stem} (rejected)"))
    for one, other in zip(chosen, rejected, strict=True):
        yield {
            "id": one["id"],
            "prompt_ids": one["ids"][: one["prompt_tokens"]],
            "chosen_ids": one["ids"][one["prompt_tokens"] :],
            "rejected_ids": other["ids"][other["prompt_tokens"] :],
        }


def documents(tokenizer: PreTrainedTokenizerFast, examples: Iterable[dict], name: str) -> Iterator[dict[str, Any]]:
    """`id`, `ids` and `sizes` of each text: its token ids, and how many bytes of the text, as UTF-8, each adds."""
    for example in tqdm(examples, desc=name, leave=False):
        text = example["text"]
        found = tokenizer(text, add_special_tokens=True, return_offsets_mapping=True, verbose=False)
        sizes, reached = [], 0
        for _, end in found["offset_mapping"]:
            sizes.append(len(text[reached:end].encode()))
            reached = max(reached, end)
        yield {"id": example["id"], "ids": found["input_ids"], "sizes": sizes}


def text_rows(documents: Iterable[dict], window: int) -> Iterator[dict[str, Any]]:
    """Windows of at most `window` tokens, document by document; every token but a window's first is scored.

    A document's last window is what is left of it; a window of a single token has nothing to score and is dropped.
    """
    for document in documents:
        for number, start in enumerate(range(0, len(document["ids"]), window)):
            part = slice(start, start + window)
            if len(document["ids"][part]) > 1:
                yield _window(f"{document['id']}-{number}", document["ids"][part], document["sizes"][part])


def packed_rows(documents: Iterable[dict], separator: list[int], window: int) -> Iterator[dict[str, Any]]:
    """Documents one after the other, each with `separator` behind it, cut into windows of `window` tokens.

    Every token but a window's first is scored. The last window, shorter than the others, is kept: a small data set
    would lose much of itself without it, and one that is smaller than a window all.
    """
    ids: list[int] = []
    sizes: list[int] = []
    number = 0
    for document in documents:
        ids += [*document["ids"], *separator]
        sizes += [*document["sizes"], *(0 for _ in separator)]
        whole = len(ids) - len(ids) % window
        for start in range(0, whole, window):
            yield _window(f"train-{number}", ids[start : start + window], sizes[start : start + window])
            number += 1
        ids, sizes = ids[whole:], sizes[whole:]
    if len(ids) > 1:
        yield _window(f"train-{number}", ids, sizes)


def _window(id: str, ids: list[int], sizes: list[int]) -> dict[str, Any]:
    scored = [False] + [True] * (len(ids) - 1)
    return {"id": id, "ids": ids, "scored": scored, "prompt_tokens": 0, "bytes": sum(sizes[1:])}


def separator_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """What stands between two packed documents: the end of sequence; without one the beginning of sequence; nothing if
    the tokenizer itself puts it there; an empty line where it has neither."""
    around = tokenizer("a")["input_ids"]
    if tokenizer.eos_token_id is not None:
        return [] if around[-1] == tokenizer.eos_token_id else [tokenizer.eos_token_id]
    if tokenizer.bos_token_id is not None:
        return [] if around[0] == tokenizer.bos_token_id else [tokenizer.bos_token_id]
    return tokenizer("\n\n", add_special_tokens=False)["input_ids"]


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The examples of a prepared split, one at a time."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def counted(found: Iterable[dict], lengths: list[int]) -> Iterator[dict]:
    """The same, while the number of tokens of each is added to `lengths`."""
    for one in found:
        lengths.append(len(one["ids"]))
        yield one


def length_histograms(lengths: Mapping[str, Sequence[int]]) -> dict[str, dict[str, Any]]:
    """How many examples of each split have edges[n] to edges[n + 1] - 1 tokens, the longest and the median.

    All splits have the same edges, and those of other data sets and tokenizers begin as these do: 0, 8, 12, 16, 24, 32,
    48, 64, ...
    """
    edges = [0, 8]
    while edges[-1] <= max(map(max, filter(None, lengths.values())), default=0):
        edges.append(edges[-1] * 4 // 3 if edges[-1] % 3 == 0 else edges[-1] * 3 // 2)
    return {
        split: {
            "edges": edges,
            "counts": np.histogram(found, edges)[0].tolist(),
            "longest": max(found),
            "median": median(found),
        }
        for split, found in lengths.items()
        if found
    }


def write_rows(path: Path, rows: Iterable[dict], schema: pa.Schema) -> tuple[int, int]:
    """Parquet of rows that come one at a time; how many there were, and how many tokens in their `ids`."""
    count = total = 0
    rows = iter(rows)
    batches = iter(lambda: list(islice(rows, BATCH)), [])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in chain([next(batches, [])], batches):  # a table without rows has one, too
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count, total = count + len(batch), total + sum(len(row.get("ids", ())) for row in batch)
    return count, total


def mmlu_rows(
    tokenizer: PreTrainedTokenizerFast, questions: list[dict], shots: int, limit: int, context: int
) -> list[dict[str, Any]]:
    """Questions with the token ids that lm-evaluation-harness asks them with (its task `mmlu`, model `hf`).

    The format is the original few-shot one (Hendrycks et al. 2021, github.com/hendrycks/test). Of a prompt that does
    not fit the context its last tokens are kept, as the harness does; `cut` marks it. Raises UserError if a subject has
    fewer than `shots` examples, or if the tokenizer lets a letter melt into the prompt.
    """
    rows = []
    for subject in dict.fromkeys(question["subject"] for question in questions):
        mine = [question for question in questions if question["subject"] == subject]
        examples = [question for question in mine if question["split"] == "dev"][:shots]
        if len(examples) < shots:
            raise UserError(f"evaluate.mmlu.shots: {shots} asked for, {subject} has {len(examples)} examples")
        asked = [question for question in mine if question["split"] == "test"][:limit]
        prompts = [mmlu_prompt(subject, examples, question) for question in asked]
        for question, found in zip(asked, _with_letters(tokenizer, prompts, context), strict=True):
            rows.append(
                {
                    "id": question["id"],
                    "subject": subject,
                    **found,
                    "answer": question["answer"],
                    "question": question["question"],
                    "choices": question["choices"],
                }
            )
    return rows


def mmlu_prompt(subject: str, examples: list[dict], question: dict) -> str:
    """The original prompt: a header, the examples with their letters, the question up to `Answer:`."""
    header = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
    shown = "".join(f"{_question(example)} {LETTERS[example['answer']]}\n\n" for example in examples)
    return header + shown + _question(question)


def _question(row: dict) -> str:
    choices = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"], strict=True))
    return f"{row['question'].strip()}{choices}\nAnswer:"


def _with_letters(tokenizer: PreTrainedTokenizerFast, prompts: list[str], context: int) -> list[dict[str, Any]]:
    """Per prompt: `ids` up to the letter, `options`, the id of each letter, `stems`, the ids before it, and `cut`.

    A letter is what follows the prompt's own ids when both are tokenised together. It can be more than one token ("▁"
    and "A"): the first ones then belong to the prompt where they are the same for all letters. Where they are not, they
    are that letter's stem.
    """
    texts = [text for prompt in prompts for text in (prompt, *(f"{prompt} {letter}" for letter in LETTERS))]
    ids = tokenizer(texts)["input_ids"] if texts else []
    step, rows = 1 + len(LETTERS), []
    for start in range(0, len(ids), step):
        prompt = ids[start]
        letters = [whole[len(prompt) :] for whole in ids[start + 1 : start + step]]
        if not all(letters):
            raise UserError(
                "this tokenizer lets the option letters melt into 'Answer:' before them; MMLU cannot be asked of it"
            )
        stems = [letter[:-1] for letter in letters]
        if all(stem == stems[0] for stem in stems):
            prompt, stems = prompt + stems[0], [[] for _ in stems]
        rows.append(
            {
                "ids": prompt[-context:],
                "options": [letter[-1] for letter in letters],
                "stems": stems,
                "cut": len(prompt) + max(map(len, stems)) > context,
            }
        )
    return rows


def prompt_rows(
    tokenizer: PreTrainedTokenizerFast, prompts: list[str], kind: str, context: int
) -> list[dict[str, Any]]:
    """The user's own prompts as a model is asked them: in its chat template, or as they are for `kind` text.

    Raises UserError if one leaves no room for an answer in the context.
    """
    rows = []
    for number, prompt in enumerate(prompts):
        if kind != "text":
            ids = _chat(tokenizer, [{"role": "user", "content": prompt}], add_generation_prompt=True)
        else:
            ids = tokenizer(prompt)["input_ids"]
        if not ids:
            raise UserError(f"evaluate.prompts[{number}]: no token of it is left for the model to go on from")
        if len(ids) >= context:
            raise UserError(
                f"evaluate.prompts[{number}]: its {len(ids)} tokens leave no room for an answer in the model's context "
                f"of {context}; shorten it"
            )
        rows.append({"id": files.content_id(prompt), "prompt": prompt, "ids": ids})
    return rows


def stop_ids(tokenizer: PreTrainedTokenizerFast, checkpoint: Path) -> list[int]:
    """The ids that end an answer: the end of sequence of the tokenizer and of the checkpoint's generation_config, and
    the special token that the chat template puts after an answer, which need not be either of them (<|im_end|>)."""
    turn = _chat(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    ends = [token for token in turn[-2:] if token in tokenizer.all_special_ids][:1] if tokenizer.chat_template else []
    asked: Any = []
    if (checkpoint / "generation_config.json").is_file():
        asked = files.read_json(checkpoint / "generation_config.json").get("eos_token_id") or []
    found = {tokenizer.eos_token_id, *ends, *(asked if isinstance(asked, list) else [asked])}
    return sorted(token for token in found if token is not None)


def pad_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The pad token, or any other where a tokenizer has none: padding is masked, so its id has no meaning."""
    return next(token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if token is not None)


def _chat(tokenizer: PreTrainedTokenizerFast, messages: list[dict], add_generation_prompt: bool = False) -> list[int]:
    return list(
        tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=add_generation_prompt, return_dict=False
        )
    )
