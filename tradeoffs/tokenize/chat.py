"""Questions and conversations with their answers, as token ids in the model's own chat template."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from tradeoffs.common import chat_templates, files
from tradeoffs.common.examples import question
from tradeoffs.plumbing.errors import UserError


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
            "prompt": question(example),
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
        ids = _ids(tokenizer, messages)
        spans = []
        for at in (number for number, message in enumerate(messages) if message["role"] == "assistant"):
            prompt = _ids(tokenizer, messages[:at], add_generation_prompt=True)
            turn = ids if at == len(messages) - 1 else _ids(tokenizer, messages[: at + 1])
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


def prompt_rows(
    tokenizer: PreTrainedTokenizerFast, prompts: list[str], kind: str, context: int, where: str
) -> list[dict[str, Any]]:
    """The user's own prompts as a model is asked them: in its chat template, or as they are for `kind` text.

    Raises UserError, with its place under `where` in params.yaml, if one leaves no room for an answer in the context.
    """
    rows = []
    for number, prompt in enumerate(prompts):
        if kind != "text":
            try:
                ids = _ids(tokenizer, [{"role": "user", "content": prompt}], add_generation_prompt=True)
            except TemplateError as error:
                raise UserError(f"{where}[{number}]: the model's chat template refuses it: {error}") from error
        else:
            ids = tokenizer(prompt)["input_ids"]
        if not ids:
            raise UserError(f"{where}[{number}]: no token of it is left for the model to go on from")
        if len(ids) >= context:
            raise UserError(
                f"{where}[{number}]: its {len(ids)} tokens leave no room for an answer in the model's context "
                f"of {context}; shorten it"
            )
        rows.append({"id": files.content_id(prompt), "prompt": prompt, "ids": ids})
    return rows


def stop_ids(tokenizer: PreTrainedTokenizerFast, checkpoint: Path) -> list[int]:
    """The ids that end an answer: the end of sequence of the tokenizer and of the checkpoint's generation_config, and
    the special token that the chat template puts after an answer, which need not be either of them (<|im_end|>)."""
    turn = _ids(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    ends = [token for token in turn[-2:] if token in tokenizer.all_special_ids][:1] if tokenizer.chat_template else []
    asked: Any = []
    if (checkpoint / "generation_config.json").is_file():
        asked = files.read_json(checkpoint / "generation_config.json").get("eos_token_id") or []
    found = {tokenizer.eos_token_id, *ends, *(asked if isinstance(asked, list) else [asked])}
    return sorted(token for token in found if token is not None)


def pad_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The pad token, or any other where a tokenizer has none: padding is masked, so its id has no meaning."""
    return next(token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if token is not None)


def _ids(tokenizer: PreTrainedTokenizerFast, messages: list[dict], add_generation_prompt: bool = False) -> list[int]:
    return chat_templates.ids(tokenizer, messages, add_generation_prompt)
