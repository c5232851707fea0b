"""The demo's data set, and its exams, as rows."""

from collections.abc import Iterator
from typing import Any

from tradeoffs import params
from tradeoffs.plumbing.errors import UserError
from tradeoffs.prepare.records import Source
from tradeoffs.sources import demo_exams, demo_tasks
from tradeoffs.sources.readers import Example


def source(wanted: params.GeneratedDataset, test_share: float, seed: int) -> Source:
    """`wanted.questions` examples, `test_share` of them test ones.

    Those are not drawn by hash from one lot: a test question is in words, and about values, that no other question has.
    Raises UserError where there are too few different ones.
    """
    tested = round(wanted.questions * test_share)
    train = demo_tasks.examples(wanted.questions - tested, "train", seed)
    return Source(_rows(train), _rows(demo_tasks.examples(tested, "test", seed)), {"source": "generated"})


def _rows(pairs: list[demo_tasks.Pair]) -> Iterator[Example]:
    return ({"prompt": prompt, "answer": answer} for prompt, answer in pairs)


def exams(wanted: params.GeneratedDataset, seed: int, where: str) -> list[dict[str, Any]]:
    """Multiple choice: {"subject", "split", "question", "choices", "answer": 0..3}; `where` is the data set's key.

    Raises UserError for more topics, or more questions of one, than there are.
    """
    topics = list(demo_exams.TOPICS)
    if wanted.topics > len(topics):
        known = f"there are {len(topics)}: {', '.join(topics)}"
        raise UserError(f"{where}.generate.topics: {wanted.topics} asked for, {known}")
    return [
        {
            "subject": topic,
            "split": "dev" if number < demo_exams.DEV_QUESTIONS else "test",
            "question": choice.question,
            "choices": list(choice.choices),
            "answer": choice.answer,
        }
        for topic in topics[: wanted.topics]
        for number, choice in enumerate(demo_exams.exam(topic, wanted.topic_questions, seed))
    ]
