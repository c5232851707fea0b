"""`python -m tradeoffs.prompt`: what a row becomes, by the template that params.yaml gives the model now."""

from pathlib import Path

import pytest
import quick_yaml

from tradeoffs import prompt
from tradeoffs.base.demo_model import train_tokenizer
from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]
TEXTS = ["A bond is a loan that is sold to many.", "A share is a part of a firm.", "It pays 5 % of 200 €."] * 20
HOUSE = (
    "{% for m in messages %}{{ m.role ~ '=' ~ m.content ~ (eos_token if m.role == 'assistant' else '\n') }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant=' }}{% endif %}"
)
SPACED = HOUSE.replace("'='", "': '").replace("assistant=", "assistant: ")
ROWS = {
    "instruction": {"prompt": "What is\na bond?", "answer": "A loan."},
    "preference": {"prompt": "What is\na bond?", "answer": "A loan.", "rejected": "A share."},
    "chat": {
        "messages": [
            {"role": role, "content": content}
            for role, content in [("user", "A bond?"), ("assistant", "A loan."), ("user", "5?"), ("assistant", "Yes.")]
        ]
    },
    "text": {"text": "A bond is a loan. " * 5},
}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    base = tmp_path / "models/base/demo"
    base.mkdir(parents=True)
    tokenizer = train_tokenizer(TEXTS, 330, base, 512)
    files.write_json(base / "config.json", {"model_type": "llama", "vocab_size": 330})
    files.write_text(base / "chat_template.jinja", "{{ bos_token }}" + HOUSE)
    files.write_json(base / "run_info.json", {"prompt": "house"})
    for kind, row in ROWS.items():
        for split in prompt.SPLITS:
            files.write_jsonl(f"data/prepared/{kind}/{split}.jsonl", [{"id": str(n), **row} for n in range(2)])
    change(house=HOUSE)
    return tokenizer


def change(name="house", **templates):
    raw = quick_yaml.load((REPO / "params.yaml").read_text())
    raw["templates"], raw["models"]["demo"]["prompt"] = templates, name
    for kind in ROWS:
        columns = {"instruction": ("instruction", "answer"), "chat": ("messages",), "text": ("text",)}
        names = columns.get(kind, ("instruction", "chosen", "rejected"))
        entry = {"path": "x.jsonl", "kind": kind, "columns": dict.fromkeys(names, "c")}
        raw["datasets"][kind] = {**entry, "test_share": 0.1, "near_duplicate": 0.9, "seen": 1, "valid": 1}
    files.write_text("params.yaml", quick_yaml.dump(raw))


def shown(capsys, dataset, split="test", row=2):
    prompt.main("demo", dataset, split, row)
    return capsys.readouterr().out


def joined(lines):
    """The text of a block, its bars taken out."""
    return "".join(line.removeprefix("    ") for line in lines).replace(prompt.BAR, "").replace("\\n", "\n")


def blocks(text):
    """Label and text of each block."""
    found = []
    for line in text.split("\n"):
        if line.startswith("    ") and found:
            found[-1][1].append(line)
        elif line:
            found.append((line, []))
    return [(label, joined(lines)) for label, lines in found if lines]


def test_a_row_is_shown_as_the_tokens_that_are_read_and_those_that_are_scored(workspace, capsys):
    out = shown(capsys, "instruction")
    (asked, before), (answer, behind) = blocks(out)
    assert out.startswith("demo-instruction, test, row 2 of 2\ntemplate: templates.house of params.yaml\n\nprompt, ")
    assert before == "<s>user=What is\na bond?\nassistant=" and behind == "A loan.</s>"
    ids = workspace("A loan.</s>", add_special_tokens=False)["input_ids"]
    assert asked.startswith("prompt, read only, ") and answer.startswith("answer, scored; generation begins here, ")
    assert answer.endswith(f" {len(ids)} tokens") and out.count(prompt.BAR) > len(ids)
    assert "generation ends at </s> (2), or after 48 tokens" in out


def test_of_a_conversation_every_answer_is_shown_as_scored_and_the_last_as_generated(workspace, capsys):
    found = blocks(shown(capsys, "chat"))
    assert [label.split(", ")[1].split(";")[0] for label, _ in found] == ["read only", "scored", "read only", "scored"]
    assert ["generation" in label for label, _ in found] == [False, False, False, True]


def test_of_a_pair_both_answers_are_shown_and_of_a_text_its_first_window(workspace, capsys):
    assert [text for _, text in blocks(shown(capsys, "preference"))][1:] == ["A loan.</s>", "A share.</s>"]
    out = shown(capsys, "text")
    assert [label.split(",")[0] for label, _ in blocks(out)] == ["read only", "scored"]
    assert "windows of at most 256 tokens" in out


def test_a_template_can_be_tried_before_anything_runs(workspace, capsys):
    assert "made with another template" not in shown(capsys, "instruction")
    change(house=SPACED)
    out = shown(capsys, "instruction")
    assert "note: models/base/demo was made with another template; `dvc repro` makes it" in out
    assert blocks(out)[0][1].endswith("assistant: ")
    change("alpaca")
    out = shown(capsys, "instruction")
    assert "### Response:" in joined(out.split("\n")) and "made with another template" in out


def test_what_does_not_split_is_shown_apart_with_what_would_fit(workspace, capsys):
    change(house=SPACED)
    path = Path("data/prepared/instruction/valid.jsonl")
    files.write_jsonl(path, [{"id": "a", "prompt": "Is it", "answer": "sold."}])
    out = shown(capsys, "instruction")
    assert "text does not split between a prompt and its answer" in out and "take it out of the template" in out


def test_what_tokenize_has_found_is_not_looked_for_again(workspace, capsys, monkeypatch):
    monkeypatch.delattr(prompt, "not_split")
    files.write_json("data/tokens/demo-instruction/info.json", {})
    assert "tokenised apart" not in shown(capsys, "instruction")
    files.write_json("data/tokens/demo-instruction/info.json", {"tokenised_apart": ["answers"]})
    assert "tokenised apart" in shown(capsys, "instruction")


def test_what_another_row_is_refused_for_is_said(workspace, capsys):
    files.write_jsonl("data/prepared/chat/valid.jsonl", [{"id": "a", "messages": ROWS["chat"]["messages"][:2]}])
    change(house=HOUSE.replace("{% for", "{% if messages[2:] %}{% for", 1) + "{% endif %}")
    out = None
    with pytest.raises(UserError, match=r"test\.jsonl line 1: "):
        out = shown(capsys, "chat")
    assert out is None


def test_characters_that_a_terminal_would_obey_are_written_out(workspace, capsys):
    rows = [{"id": "a", "prompt": "\x1b[31mred\x07\tand \x9b", "answer": "\x1b]0;title\x07"}]
    files.write_jsonl("data/prepared/instruction/test.jsonl", rows)
    out = shown(capsys, "instruction", row=1)
    assert not {"\x1b", "\x07", "\x9b", "\t"} & set(out) and "\\x1b" in out.replace(prompt.BAR, "")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: Path("data/prepared/instruction/test.jsonl").unlink(), "missing; run `dvc repro prepare@instruction`"),
        (lambda: Path("models/base/demo/chat_template.jinja").unlink(), "run `dvc repro` to make it (stage base)"),
        (lambda: change("own"), "was made with another prompt than its own; run `dvc repro base@demo`"),
        (lambda: files.write_jsonl("data/prepared/instruction/test.jsonl", []), "--row 2: data/prepared/instruction"),
    ],
)
def test_what_is_missing_is_said_with_the_stage_that_makes_it(workspace, capsys, broken, message):
    broken()
    with pytest.raises(UserError) as error:
        shown(capsys, "instruction")
    assert message in str(error.value)
