"""What holds for every data set, however it grows: test stays test, and nothing in train says the same, or almost."""

import json
import random
import re
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from tradeoffs import params
from tradeoffs.plumbing.errors import UserError
from tradeoffs.prepare import duplicates, splits

VOCABULARY = [f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "re", "so") for b in ("bar", "den", "fil", "gor", "hum")]
KINDS = ("instruction", "chat", "preference", "text")


@cache
def words(text):
    """As documented: lower case, no punctuation, whole numbers. Apart from the code, which is tested with it."""
    return re.findall(r"\d+|[a-z]+", text.lower())


@cache
def shingles(text):
    found = words(text)
    return frozenset(tuple(found[n : n + 3]) for n in range(max(1, len(found) - 2)))


def jaccard(one, other):
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def alike(one, other, threshold, same_numbers=True):
    """Whether two texts are near-duplicates, by definition."""
    if jaccard(one, other) < threshold:
        return False
    numbers = [[word for word in words(text) if word.isdigit()] for text in (one, other)]
    return numbers[0] == numbers[1] or not same_numbers


def some_words(rng, low, high):
    found = rng.choices(VOCABULARY, k=rng.randint(low, high))
    return " ".join([*found[:-1], str(rng.randint(1, 3)), found[-1]])


def an_example(rng, kind):
    if kind == "text":
        return {"text": some_words(rng, 4, 20)}
    if kind == "chat":
        roles = ("user", "assistant") * rng.randint(1, 2)
        turns = [{"role": role, "content": some_words(rng, 3, 8)} for role in roles]
        return {"messages": [{"role": "system", "content": "Be brief."}] * rng.randint(0, 1) + turns}
    found = {"prompt": some_words(rng, 4, 16), "answer": some_words(rng, 2, 6)}
    return found | ({"rejected": "no " + some_words(rng, 2, 6)} if kind == "preference" else {})


def almost(rng, text):
    """The text with a small change: some are no near-duplicates, which have to stay."""
    found = text.split()
    place = rng.randrange(len(found))
    return rng.choice(
        (
            " ".join([*found[:place], rng.choice(VOCABULARY), *found[place + 1 :]]),
            " ".join(found[:place] + found[place + 1 :]) or text,
            f"{text}, {rng.choice(VOCABULARY)}!",
            text.upper().replace(" ", "  "),
            re.sub(r"\d", "4", text),
        )
    )


def a_copy(rng, example):
    """An example with one of its texts changed, or with another answer; a conversation also longer or shorter by
    turns."""
    if "messages" in example:
        turns = [dict(turn) for turn in example["messages"]]
        change = rng.choice(("longer", "shorter", "text"))
        if change == "longer":
            return {"messages": turns + an_example(rng, "chat")["messages"][-2:]}
        if change == "shorter" and len(turns) > 3:
            return {"messages": turns[:-2]}
        turn = rng.choice(turns)
        turn["content"] = almost(rng, turn["content"])
        return {"messages": turns}
    name = rng.choice(list(example))
    return example | {name: almost(rng, example[name])}


def some_examples(rng, kind, count, like=()):
    """`count` examples; some are copies of each other, or of those in `like`."""
    made = []
    for _ in range(count):
        known = [*like, *made]
        made.append(a_copy(rng, rng.choice(known)) if known and rng.random() < 0.4 else an_example(rng, kind))
    return made


def wanted(kind, threshold, test_share, valid=3, seen=2):
    return params.Dataset(kind=kind, near_duplicate=threshold, seen=seen, valid=valid, test_share=test_share)


def divided(folder, entry, examples, own_test=()):
    """The splits as lists of rows, what is dropped, and the examples that can be used at all."""
    rows = splits.Rows(entry.near_duplicate, entry.kind != "text", folder)
    rows.add(own_test, 1.0)
    rows.add(examples, entry.test_share or 0.0)
    made, dropped = splits.divide(rows, entry, "datasets.mine")
    read = {name: [json.loads(rows.line(number)) for number in numbers] for name, numbers in made.items()}
    return SimpleNamespace(**read, dropped=dropped)


def asked(row):
    """What must not be on two sides, by definition. Apart from the code: of a conversation, how its user begins."""
    if "messages" in row:
        return next(turn["content"] for turn in row["messages"] if turn["role"] == "user")
    return row.get("prompt") or row["text"]


def keys(rows):
    return {" ".join(words(asked(row))) for row in rows}


def turns_of(row):
    """What is said in a conversation but by the system, as it counts for comparison."""
    return [(turn["role"], *words(turn["content"])) for turn in row["messages"] if turn["role"] != "system"]


def content(row):
    return tuple(" ".join(words(part)) for part in splits.parts(row))


def check_that_nothing_leaks(found, entry):
    def like(one, other):
        return alike(asked(one), asked(other), entry.near_duplicate, entry.kind != "text")

    for name, others in (("test", [*found.train, *found.valid, *found.seen]), ("valid", [*found.train, *found.seen])):
        evaluated = getattr(found, name)
        assert not keys(evaluated) & keys(others), name
        assert not [(a, b) for a in evaluated for b in others if like(a, b)], name
        if entry.kind == "chat":
            beginnings = {str(turns_of(row)[:end]) for row in others for end in range(len(turns_of(row)) + 1)}
            assert not [row for row in evaluated if str(turns_of(row)) in beginnings], name
            beginnings = {str(turns_of(row)[:end]) for row in evaluated for end in range(len(turns_of(row)) + 1)}
            assert not [row for row in others if str(turns_of(row)) in beginnings], name
    assert not [
        (one, other)
        for number, one in enumerate(found.train)
        for other in found.train[:number]
        if len(splits.parts(one)) == len(splits.parts(other))
        and all(
            alike(a, b, entry.near_duplicate, entry.kind != "text")
            for a, b in zip(splits.parts(one), splits.parts(other), strict=True)
        )
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("own_test", [False, True], ids=["test by hash", "test of the source"])
def test_no_seed_and_no_growth_brings_a_test_example_or_its_like_into_train(tmp_path, kind, own_test):
    for seed in range(40):
        rng = random.Random(f"{kind} {own_test} {seed}")
        entry = wanted(kind, rng.choice((0.4, 0.6, 0.8, 0.95, 1.0)), None if own_test else rng.uniform(0.2, 0.4))
        old = some_examples(rng, kind, 40)
        test = some_examples(rng, kind, 6, like=old) if own_test else []
        before = divided(tmp_path, entry, old, test)
        added = some_examples(rng, kind, rng.randint(1, 30), like=[*old, *test])
        grown = [*old, *added]
        rng.shuffle(grown)
        more_test = [*test, *some_examples(rng, kind, 2, like=grown)] if own_test else []
        after = divided(tmp_path, entry, grown, more_test)
        assert keys(before.test) <= keys(after.test)
        assert not keys(before.test) & keys([*after.train, *after.valid, *after.seen])
        for found in (before, after):
            check_that_nothing_leaks(found, entry)
        # What is not kept is like another row: nothing else is dropped.
        rows = {content(row): asked(row) for row in [*grown, *more_test]}
        for lost in rows.keys() - {content(row) for row in (*after.train, *after.valid, *after.test)}:
            others = (key for other, key in rows.items() if other != lost)
            assert any(alike(rows[lost], key, entry.near_duplicate, kind != "text") for key in others)


@pytest.mark.parametrize("kind", KINDS)
def test_no_order_of_the_file_changes_a_split(tmp_path, kind):
    for seed in range(20):
        rng = random.Random(f"{kind} {seed}")
        entry = wanted(kind, rng.choice((0.4, 0.6, 0.8)), 0.2)
        unique = {content(row): row for row in some_examples(rng, kind, 40)}  # of repeated ones, the first stays
        rows = list(unique.values())
        found = [divided(tmp_path, entry, rng.sample(rows, len(rows))) for _ in range(2)]
        for split in ("train", "seen", "valid", "test"):
            assert getattr(found[0], split) == getattr(found[1], split)
        assert {name: n for name, n in found[0].dropped.items() if isinstance(n, int)} == {
            name: n for name, n in found[1].dropped.items() if isinstance(n, int)
        }


@pytest.mark.parametrize("same_numbers", [True, False])
def test_every_pair_that_is_alike_by_definition_is_found_and_no_other(tmp_path, same_numbers):
    rng = random.Random(5)
    for threshold in (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0):
        texts = [next(iter(row.values())) for row in some_examples(rng, "text", 150)]
        found = duplicates.Texts(threshold, same_numbers, tmp_path)
        for text in texts:
            found.add([duplicates.words(text)])
        every = np.arange(150)
        prefixes = duplicates.Prefixes(found, found.suspects(every[:0], every), every=False)
        for number, text in enumerate(texts):
            index = duplicates.Index(prefixes)
            index.add(number)
            for other in range(number):
                expected = jaccard(text, texts[other])
                like = index.like(other)
                assert (like is not None) == alike(text, texts[other], threshold, same_numbers)
                assert like is None or like == (number, pytest.approx(expected))


def test_the_bands_find_the_share_of_pairs_that_they_promise():
    for threshold in (0.3, 0.5, 0.8, 0.9, 0.95, 1.0):
        count, size = duplicates.bands(threshold)
        assert count * size <= duplicates.PERMUTATIONS
        assert 1 - (1 - threshold**size) ** count >= duplicates.RECALL
    assert duplicates.bands(0.001) == (duplicates.PERMUTATIONS, 1)


def test_more_texts_than_a_chunk_are_compared_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "CHUNK", 4)
    rng = random.Random(1)
    examples = [an_example(rng, "instruction") for _ in range(30)]
    copies = [row | {"prompt": row["prompt"] + "!"} for row in examples]
    found = divided(tmp_path, wanted("instruction", 0.8, 0.2), examples + copies)
    assert found.dropped["duplicates"] == 30
    found = divided(tmp_path, wanted("text", 0.5, 0.2), [{"text": f"{row['prompt']} end"} for row in examples + copies])
    assert len(found.train) + len(found.valid) + len(found.test) <= 30


def test_a_thousand_questions_of_one_form_stay_and_are_not_compared_one_by_one(tmp_path, monkeypatch):
    form = (
        "A shop sells {} for {} dollars and every one who comes in the morning buys {} of them. What does it take in?"
    )
    names = [f"{a} {b} {c} {a}s" for a in VOCABULARY[:10] for b in VOCABULARY[10:20] for c in VOCABULARY[20:30]]
    rows = [{"prompt": form.format(name, 5, 7), "answer": f"{name} gives 35"} for name in names]
    rows += [{"prompt": form.format("bread", n, n + 1), "answer": f"It is {n * (n + 1)}"} for n in range(1000)]
    compared = []
    similarity = duplicates.Texts.similarity
    monkeypatch.setattr(duplicates.Texts, "similarity", lambda *arguments: compared.append(1) or similarity(*arguments))
    found = divided(tmp_path, wanted("instruction", 0.8, 0.1), rows)
    assert found.dropped["near_duplicates"] == found.dropped["near_duplicates_within"] == 0
    assert len(compared) < 20_000  # of two million pairs


def test_one_question_with_other_answers_stays_and_with_almost_the_same_one_does_not(tmp_path):
    long = "the very same long answer to the question that was put with one word more at the end"
    rng = random.Random(2)
    others = [an_example(rng, "instruction") for _ in range(30)]
    ask = "Which of the answers to this question that is put so often is the one to give?"
    asked = [{"prompt": ask, "answer": answer} for answer in ("yes", "no", "perhaps", long, f"{long} here")]
    found = divided(tmp_path, wanted("instruction", 0.8, 1e-9, valid=1), [*others, *asked], own_test=others[:1])
    assert [row["answer"] for row in found.train if row["prompt"] == ask and row["answer"] in ("yes", "no", "perhaps")]
    assert found.dropped["near_duplicates_within"] == 1
    (example,) = found.dropped["near_duplicates_within_examples"]
    assert example["dropped"] == example["like"] == ask
    assert 0.8 <= example["similarity"] < 1


def test_the_leak_report_names_what_was_dropped_and_what_it_is_like(tmp_path):
    rng = random.Random(3)
    test = [{"text": some_words(rng, 30, 40)} for _ in range(8)]
    leaks = [{"text": row["text"].replace(" ", ", ") + " and more"} for row in test]
    rest = [{"text": some_words(rng, 30, 40)} for _ in range(20)]
    found = divided(tmp_path, wanted("text", 0.8, None), [*rest, *leaks, *test], own_test=test)
    assert found.dropped["near_duplicates"] == 16
    assert len(found.dropped["near_duplicate_examples"]) == splits.SHOWN
    for example in found.dropped["near_duplicate_examples"]:
        assert example["like"] in {row["text"] for row in test}
        assert example["similarity"] == pytest.approx(jaccard(example["dropped"], example["like"]))


def test_long_texts_are_cut_in_the_report(tmp_path):
    text = " ".join(f"word{n}" for n in range(5000))
    rows = [{"text": some_words(random.Random(n), 20, 30)} for n in range(20)]
    found = divided(tmp_path, wanted("text", 0.8, None), [*rows, {"text": text}], own_test=[{"text": f"{text} end"}])
    (example,) = found.dropped["near_duplicate_examples"]
    assert example["dropped"] == text[: splits.SHOWN_CHARACTERS] + " ..."


def test_a_conversation_is_asked_by_its_user_and_is_another_one_with_other_answers():
    turns = [("system", "Be brief."), ("user", "One?"), ("assistant", "Yes."), ("user", "One?"), ("assistant", "No.")]
    chat = {"messages": [{"role": role, "content": content} for role, content in turns]}
    assert splits.key(chat) == "One?"
    assert splits.parts(chat) == ("One?", "Yes.\nOne?\nNo.", "Be brief.")
    assert splits.parts({"messages": chat["messages"][1:]}) == ("One?", "Yes.\nOne?\nNo.")
    assert splits.parts({"messages": chat["messages"][2:]}) == ("One?", "Yes.\nNo.")  # begun by the assistant
    assert splits.parts({"messages": chat["messages"][:1]}) == ("", "", "Be brief.")  # what is empty is dropped


def test_conversations_that_begin_alike_and_go_on_otherwise_stay_within_train(tmp_path):
    rng = random.Random(7)
    others = [an_example(rng, "chat") for _ in range(30)]
    roles, greeting = ("user", "assistant", "user", "assistant"), ("Hi!", "Hello, how can I help you?")
    greeted = [(*greeting, some_words(rng, 8, 12), some_words(rng, 8, 12)) for _ in range(5)]
    greeted.append((*greeted[0][:3], greeted[0][3] + " so"))
    chats = [
        {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]}
        for texts in greeted
    ]
    found = divided(tmp_path, wanted("chat", 0.8, None, valid=1), [*others, *chats], own_test=others[:1])
    assert sum(row["messages"][0]["content"] == "Hi!" for row in found.train) == 5
    assert found.dropped["near_duplicates_within"] == 1


@pytest.mark.parametrize(
    ("valid", "seen", "message"),
    [
        (17, 1, "datasets.mine.valid: 17 asked for, beside test there are only 17 rows, and training needs some too; "),
        (3, 15, "datasets.mine.seen: 15 asked for, train has only 14 rows; lower it or add rows "),
    ],
)
def test_a_data_set_smaller_than_its_splits_is_an_error_that_counts_what_there_was(tmp_path, valid, seen, message):
    rng = random.Random(4)
    test, rows = ([{"text": some_words(rng, 20, 30)} for _ in range(count)] for count in (3, 17))
    with pytest.raises(UserError) as error:
        divided(
            tmp_path, wanted("text", 0.8, None, valid, seen), [*rows, rows[0], {"text": " "}, test[0]], own_test=test
        )
    assert str(error.value).startswith(message)
    assert "(of 23 rows 1 are empty, 1 duplicates, 3 in test and 1 like one of those" in str(error.value)


@pytest.mark.parametrize(("empty", "own_test"), [("test", []), ("train", [{"text": "one two three four"}])])
def test_a_split_of_the_source_with_nothing_in_it_is_an_error(tmp_path, empty, own_test):
    rows = [] if empty == "train" else [{"text": "five six seven eight"}]
    with pytest.raises(
        UserError, match=rf"^datasets\.mine: {empty} is empty: the source's own {empty} split has no row"
    ):
        divided(tmp_path, wanted("text", 0.8, None), rows, own_test)


def test_nothing_is_left_in_the_folder_of_the_scratch_files(tmp_path):
    divided(tmp_path, wanted("text", 0.8, 0.3), some_examples(random.Random(6), "text", 40))
    assert not list(tmp_path.iterdir())
