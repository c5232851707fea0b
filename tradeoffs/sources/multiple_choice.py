"""How multiple choice is written: the original format of MMLU (Hendrycks et al. 2021, github.com/hendrycks/test)."""

from collections.abc import Sequence

LETTERS = "ABCD"  # of the options


def title(subject: str) -> str:
    """What stands above the questions about a subject."""
    return f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}."


def asked(question: str, choices: Sequence[str]) -> str:
    """A question with its choices, up to where the letter comes."""
    options = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    return f"{question}{options}\nAnswer:"
