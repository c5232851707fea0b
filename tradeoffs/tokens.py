"""From text to token ids and masks: instruction examples, plain text windows, multiple-choice questions."""

from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from tradeoffs import files
from tradeoffs.errors import UserError
from tradeoffs.records import LETTERS


def instruction_rows(
    tokenizer: PreTrainedTokenizerFast, examples: list[dict], longest: int, stops: list[int], source: Path
) -> list[dict[str, Any]]:
    """One row per example, in the model's own chat template; only the answer and the token that ends it are scored.

    Raises UserError if an example is longer than `longest` tokens, or if the template lets the end of the prompt and
    the beginning of the answer melt into one token: generation could then not start where the answer did in training.
    """
    rows, too_long = [], []
    for number, example in enumerate(tqdm(examples, desc=source.stem, leave=False), 1):
        user = {"role": "user", "content": example["prompt"]}
        prompt = _chat(tokenizer, [user], add_generation_prompt=True)
        ids = _chat(tokenizer, [user, {"role": "assistant", "content": example["answer"]}])
        if ids[: len(prompt)] != prompt:
            raise UserError(
                f"{source} line {number}: the prompt template does not fit the model's tokenizer: the prompt's last "
                f"token changes when the answer follows; choose another `prompt` for this model in params.yaml"
            )
        # What a template puts after the end of the turn (often a newline) is never generated, so it is not scored.
        end = next((at for at in range(len(prompt), len(ids)) if ids[at] in stops), None)
        if end is None:
            raise UserError(
                f"{source} line {number}: the prompt template puts no end-of-sequence token after an answer, so a "
                "model could not learn to stop; choose another `prompt` for this model in params.yaml"
            )
        ids = ids[: end + 1]
        if len(ids) > longest:
            too_long.append(f"line {number} ({len(ids)} tokens)")
        rows.append(
            {
                "id": example["id"],
                "ids": ids,
                "scored": [at >= len(prompt) for at in range(len(ids))],
                "prompt_tokens": len(prompt),
                "prompt": example["prompt"],
                "answer": example["answer"],
                "bytes": len(example["answer"].encode()),
            }
        )
    if too_long:
        shown = ", ".join(too_long[:3]) + (f" and {len(too_long) - 3} more" if len(too_long) > 3 else "")
        raise UserError(
            f"{source}: {len(too_long)} examples are longer than {longest} tokens (the smaller of tokenize.max_length "
            f"and the model's context): {shown}; shorten or remove them, or raise tokenize.max_length"
        )
    return rows


def pair_rows(
    tokenizer: PreTrainedTokenizerFast,
    examples: list[dict],
    chosen: list[dict],
    longest: int,
    stops: list[int],
    source: Path,
) -> list[dict[str, Any]]:
    """One row per pair: ids of the prompt, of the chosen and of the rejected answer, each with the token that ends it.

    `chosen` are the instruction_rows of the examples; a rejected answer becomes a row in the same way, and must be as
    short. Raises UserError where instruction_rows does.
    """
    others = [{**example, "answer": example["rejected"]} for example in examples]
    rejected = instruction_rows(tokenizer, others, longest, stops, source.with_stem(f"{source.stem} (rejected)"))
    return [
        {
            "id": one["id"],
            "prompt_ids": one["ids"][: one["prompt_tokens"]],
            "chosen_ids": one["ids"][one["prompt_tokens"] :],
            "rejected_ids": other["ids"][other["prompt_tokens"] :],
        }
        for one, other in zip(chosen, rejected, strict=True)
    ]


def text_rows(tokenizer: PreTrainedTokenizerFast, examples: list[dict], window: int) -> list[dict[str, Any]]:
    """Windows of at most `window` tokens, document by document; every token but a window's first is scored.

    A document's last window is what is left of it; a window of a single token has nothing to score and is dropped.
    """
    rows = []
    for example in tqdm(examples, desc="text", leave=False):
        found = tokenizer(example["text"], add_special_tokens=True, return_offsets_mapping=True)
        ids, spans = found["input_ids"], found["offset_mapping"]
        for number, start in enumerate(range(0, len(ids), window)):
            part, reach = ids[start : start + window], spans[start : start + window]
            if len(part) < 2:
                continue
            text = example["text"][reach[0][1] : max(end for _, end in reach)]
            rows.append(
                {
                    "id": f"{example['id']}-{number}",
                    "ids": part,
                    "scored": [at > 0 for at in range(len(part))],
                    "prompt_tokens": 0,
                    "bytes": len(text.encode()),
                }
            )
    return rows


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
