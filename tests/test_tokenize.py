"""The stage as a whole, by kind of data set: what is trained on, what is evaluated, how long the examples are."""

import json
from pathlib import Path

import pytest
import quick_yaml

from stages import tokenize
from tradeoffs.base.demo_model import train_tokenizer
from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError
from tradeoffs.tokenize import turns

REPO = Path(__file__).parents[1]
TEMPLATE = (
    "{% for m in messages %}{{ m.role + ':' + m.content + (eos_token if m.role == 'assistant' else '\n') }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
TEXTS = [
    "A bond is a loan that is sold to many.",
    "A share is a part of a firm.",
    "It pays 5 % a year, on 200 € or on £ 300.",
]
SPLITS = {"train": 9, "seen": 2, "valid": 3, "test": 4}
WINDOW = 16
ASKED = {"text": {"prompts": ["A bond is", "A share is"]}, "chat": {"prompts": ["What is a bond?"]}}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A model's tokenizer, and data sets of three kinds as `prepare` leaves them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    base = tmp_path / "models/base/tiny"
    base.mkdir(parents=True)
    tokenizer = train_tokenizer(TEXTS * 20, 330, base, 512)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(base)
    files.write_json(base / "config.json", {"model_type": "llama", "max_position_embeddings": 512})
    raw = quick_yaml.load((REPO / "params.yaml").read_text())
    raw["tokenize"] = {"max_length": 256, "window": WINDOW}
    for kind, columns in (
        ("text", {"text": "t"}),
        ("chat", {"messages": "m"}),
        ("preference", {"instruction": "q", "chosen": "c", "rejected": "r"}),
    ):
        entry = {"path": "x.jsonl", "kind": kind, "columns": columns, "test_share": 0.1, "near_duplicate": 0.9}
        raw["datasets"][kind] = {**entry, "seen": 1, "valid": 1, **ASKED.get(kind, {})}
        for split, count in SPLITS.items():
            rows = ({"id": f"{split}{n}", **example(kind, n)} for n in range(count))
            files.write_jsonl(f"data/prepared/{kind}/{split}.jsonl", rows)
        files.write_jsonl(f"data/prepared/{kind}/mmlu.jsonl", [])
    files.write_text("params.yaml", quick_yaml.dump(raw))
    files.write_jsonl("data/general/tiny.jsonl", [{"id": f"g{n}", "text": TEXTS[n] * 3} for n in range(3)])
    return tokenizer


def example(kind, number):
    text = f"{number}: {TEXTS[number % 3]}"
    if kind == "text":
        return {"text": text}
    if kind == "preference":
        return {"prompt": text, "answer": "A loan.", "rejected": "A share."}
    turns = [("user", "What is a bond?"), ("assistant", "A loan."), ("user", text), ("assistant", "A part.")]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def made(kind):
    """Rows of each split, info.json and the histograms."""
    tokenize.main("tiny", kind)
    folder = Path(f"data/tokens/tiny-{kind}")
    names = (*SPLITS, "general", "pairs", "prompts")
    rows = {name: files.read_table(folder / f"{name}.parquet") for name in names}
    return rows, files.read_json(folder / "info.json"), files.read_json(f"data/lengths/tiny-{kind}.json")


def test_text_is_trained_on_in_full_windows_and_evaluated_by_document(workspace):
    rows, info, lengths = made("text")
    ends = workspace.eos_token_id
    whole = [token for n in range(9) for token in [*workspace(example("text", n)["text"])["input_ids"], ends]]
    assert [token for row in rows["train"] for token in row["ids"]] == whole
    assert {len(row["ids"]) for row in rows["train"][:-1]} == {WINDOW}
    for split in ("seen", "valid", "test"):
        documents = [row["id"].rpartition("-")[0] for row in rows[split]]
        assert list(dict.fromkeys(documents)) == [f"{split}{n}" for n in range(SPLITS[split])]
        assert ends not in [token for row in rows[split] for token in row["ids"]]
    assert [row["id"].rpartition("-")[0] for row in rows["general"]] == sorted(
        row["id"].rpartition("-")[0] for row in rows["general"]
    )
    assert info["kind"] == "text"
    assert info["rows"]["train"] == len(rows["train"]) and info["tokens"]["train"] == len(whole)
    assert {split: sum(found["counts"]) for split, found in lengths.items()} == SPLITS  # documents, not windows


def test_a_model_without_general_text_has_no_rows_of_it(workspace):
    files.write_text("data/general/tiny.jsonl", "\n")  # as base leaves it
    rows, info, _ = made("text")
    assert rows["general"] == [] and info["rows"]["general"] == 0


def test_of_a_conversation_all_answers_are_learned_and_the_last_one_is_asked_for(workspace):
    rows, info, lengths = made("chat")
    assert info["kind"] == "instruction"
    for split, count in SPLITS.items():
        assert len(rows[split]) == count
        for number, row in enumerate(rows[split]):
            scored = [token for token, counts in zip(row["ids"], row["scored"], strict=True) if counts]
            assert scored.count(workspace.eos_token_id) == 2
            assert row["answer"] == "A part." and row["prompt"].endswith(example("text", number)["text"])
    assert lengths["train"]["longest"] == max(len(row["ids"]) for row in rows["train"])
    assert not rows["pairs"]


def test_a_data_set_is_asked_its_own_prompts_and_one_without_is_asked_none(workspace):
    for kind in ("text", "chat", "preference"):
        rows, info, _ = made(kind)
        asked = ASKED.get(kind, {"prompts": []})["prompts"]
        assert [row["prompt"] for row in rows["prompts"]] == asked
        assert info["rows"]["prompts"] == len(asked)


def test_a_prompt_that_does_not_fit_is_named_by_its_place_in_its_data_set(workspace):
    path = Path("params.yaml")
    raw = quick_yaml.load(path.read_text())
    raw["datasets"]["chat"]["prompts"] = ["Why?", TEXTS[0] * 80]
    path.write_text(quick_yaml.dump(raw))
    with pytest.raises(UserError, match=r"^datasets\.chat\.prompts\[1\]: its \d+ tokens leave no room"):
        tokenize.main("tiny", "chat")


def test_pairs_are_those_of_the_splits_that_learn_or_are_measured(workspace):
    rows, _, lengths = made("preference")
    assert [row["split"] for row in rows["pairs"]] == ["train"] * 9 + ["valid"] * 3 + ["test"] * 4
    for one, pair in zip(rows["train"], rows["pairs"], strict=False):
        assert pair["prompt_ids"] + pair["chosen_ids"] == one["ids"]
    assert {split: sum(found["counts"]) for split, found in lengths.items()} == SPLITS


def test_no_answer_is_tokenised_twice(workspace, monkeypatch):
    asked = []
    ids = turns.rendered
    monkeypatch.setattr(turns, "rendered", lambda *given, **more: asked.append(given[1]) or ids(*given, **more))
    made("preference")
    answers = [messages[-1]["content"] for messages in asked if messages[-1]["role"] == "assistant"]
    assert answers.count("A loan.") == sum(SPLITS.values())
    assert answers.count("A share.") == sum(SPLITS.values()) - SPLITS["seen"]


def test_where_one_row_does_not_split_all_are_tokenised_apart_and_it_is_said_once(workspace, capsys):
    info, lengths = made("preference")[1:]
    assert "tokenised_apart" not in info and "tokenised_apart" not in lengths
    together = capsys.readouterr().out
    token = next(token for token in sorted(workspace.get_vocab()) if token.isascii() and token.isalpha() and token[1:])
    first, rest = token[0], token[1:]
    workspace.chat_template = TEMPLATE.replace("'assistant:'", f"':{first}'").replace("m.role + ':'", f"':{first}'")
    workspace.save_pretrained("models/base/tiny")
    path = Path("data/prepared/preference/valid.jsonl")
    rows = files.read_jsonl(path)
    rows[1]["rejected"] = rest  # melts with the letter before it; no other answer does
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tables, info, lengths = made("preference")
    assert info["tokenised_apart"] == lengths["tokenised_apart"] == ["answers"]
    printed = capsys.readouterr().out
    assert printed.count("text does not split between a prompt and its answer") == 1 and "split" not in together
    assert "first met at data/prepared/preference/valid (rejected).jsonl line 2: '" in printed

    def alone(text):
        return workspace(text, add_special_tokens=False)["input_ids"]

    assert {len(tables[split]) for split in SPLITS} == set(SPLITS.values())
    for split in SPLITS:
        for number, row in enumerate(tables[split]):
            prompt = f":{first}{example('preference', number)['prompt']}\n:{first}"
            assert row["ids"] == alone(prompt) + alone("A loan.</s>")
    pairs = {row["id"]: row for row in tables["pairs"]}
    assert pairs["valid1"]["rejected_ids"] == alone(f"{rest}</s>")
    assert len(pairs) == sum(SPLITS.values()) - SPLITS["seen"]


def test_the_same_input_gives_the_same_bytes(workspace):
    first = {path: path.read_bytes() for _ in [made("text")] for path in Path("data").rglob("*.*") if path.is_file()}
    made("text")
    assert {path: path.read_bytes() for path in first} == first


def test_what_does_not_fit_leaves_nothing_behind(workspace):
    path = Path("data/prepared/chat/valid.jsonl")
    rows = files.read_jsonl(path)
    rows[1]["messages"][0]["content"] = TEXTS[0] * 40
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(Exception, match=r"valid\.jsonl: 1 examples are longer than 256 tokens .* line 2 \("):
        tokenize.main("tiny", "chat")
    assert not list(Path("data/tokens").glob("*")) and not Path("data/lengths").exists()
