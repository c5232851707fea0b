"""Multiple choice as the token ids that lm-evaluation-harness asks it with."""

from typing import Any

from transformers import PreTrainedTokenizerFast

from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources import multiple_choice
from tradeoffs.sources.multiple_choice import LETTERS
from tradeoffs.tokenize import turns


def mmlu_rows(
    tokenizer: PreTrainedTokenizerFast, questions: list[dict], shots: int, limit: int, context: int
) -> list[dict[str, Any]]:
    """Questions with the token ids that lm-evaluation-harness asks them with (its task `mmlu`, model `hf`).

    The format is the original few-shot one (Hendrycks et al. 2021, github.com/hendrycks/test). Of a prompt that does
    not fit the context its last tokens are kept, as the harness does; `cut` marks it. Where a tokenizer lets a letter
    melt into the prompt, of which the harness makes nothing, or a letter behind what it holds already, the letters of
    all questions are tokenised apart from it; `apart` marks that. Raises UserError if a subject has fewer than `shots`
    examples.
    """
    try:
        return _rows(tokenizer, questions, shots, limit, context, apart=False)
    except _MeltedError:
        return _rows(tokenizer, questions, shots, limit, context, apart=True)


class _MeltedError(Exception):
    pass


def _rows(
    tokenizer: PreTrainedTokenizerFast, questions: list[dict], shots: int, limit: int, context: int, apart: bool
) -> list[dict[str, Any]]:
    rows = []
    for subject in dict.fromkeys(question["subject"] for question in questions):
        mine = [question for question in questions if question["subject"] == subject]
        examples = [question for question in mine if question["split"] == "dev"][:shots]
        if len(examples) < shots:
            raise UserError(f"evaluate.mmlu.shots: {shots} asked for, {subject} has {len(examples)} examples")
        asked = [question for question in mine if question["split"] == "test"][:limit]
        prompts = [mmlu_prompt(subject, examples, question) for question in asked]
        for question, found in zip(asked, _with_letters(tokenizer, prompts, context, apart), strict=True):
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
    shown = "".join(f"{_question(example)} {LETTERS[example['answer']]}\n\n" for example in examples)
    return f"{multiple_choice.title(subject)}\n\n{shown}{_question(question)}"


def _question(row: dict) -> str:
    return multiple_choice.asked(row["question"].strip(), row["choices"])


def _with_letters(
    tokenizer: PreTrainedTokenizerFast, prompts: list[str], context: int, apart: bool
) -> list[dict[str, Any]]:
    """Per prompt: `ids` up to the letter, `options`, the id of each letter, `stems`, the ids before it, and `cut`.

    A letter is what follows the prompt's own ids when both are tokenised together; `apart`: when it is tokenised alone.
    It can be more than one token ("▁" and "A"): the first ones then belong to the prompt where they are the same for
    all letters. Where they are not, they are that letter's stem.
    """
    texts = [text for prompt in prompts for text in (prompt, *(f"{prompt} {letter}" for letter in LETTERS))]
    closing = turns.closing(tokenizer) if texts else 0
    ids = [found[: len(found) - closing] for found in tokenizer(texts)["input_ids"]] if texts else []
    alone = [turns.encoded(tokenizer, f" {letter}") for letter in LETTERS]
    step, rows = 1 + len(LETTERS), []
    for start in range(0, len(ids), step):
        prompt, wholes = ids[start], ids[start + 1 : start + step]
        letters = alone if apart else [whole[len(prompt) :] for whole in wholes]
        melted = not apart and any(whole[: len(prompt)] != prompt for whole in wholes)
        if melted or not all(letters) or len({tuple(letter) for letter in letters}) < len(LETTERS):
            if not apart:
                raise _MeltedError
            raise UserError("this tokenizer has the same tokens for different option letters; MMLU cannot be asked")
        stems = [letter[:-1] for letter in letters]
        if all(stem == stems[0] for stem in stems):
            prompt, stems = prompt + stems[0], [[] for _ in stems]
        rows.append(
            {
                "ids": prompt[-context:],
                "options": [letter[-1] for letter in letters],
                "stems": stems,
                "cut": len(prompt) + max(map(len, stems)) > context,
                "apart": apart,
            }
        )
    return rows
