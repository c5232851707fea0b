"""Checkpoints in shapes that published ones have go through every stage; what no GGUF can be made of says why."""

from pathlib import Path

import numpy as np
import pytest
import small_run

from benchmarks import shapes
from stages import base, convert, evaluate_cpu, finetune, merge, prepare, quantize, reference, tokenize
from tradeoffs.common import files

pytestmark = pytest.mark.usefixtures("one_thread")
# llama.cpp knows no WordPiece, of phi3's vocabulary only that of the published one, and no Qwen3.5 without the layers
# that predict several tokens.
NO_GGUF = {
    "word_pieces": "llama.cpp cannot load it: error loading model vocabulary: cannot find tokenizer merges",
    "phi3": "llama.cpp cannot load it: error loading model vocabulary: unordered_map::at",
    "composite": "llama.cpp's converter cannot convert it: AssertionError",
}
APART = {"crossing_bpe": ["answers"], "bare_bpe": []}  # of these two what letters melt into is left out


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """params.yaml with a model per shape, and a prepared dataset."""
    folder = tmp_path_factory.mktemp("shapes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TQDM_DISABLE", "1")
        models = {name: {"path": f"models/raw/{name}", "prompt": shapes.SHAPES[name].prompt} for name in shapes.SHAPES}
        small_run.set_up(
            models,
            ["base", "lora"],
            ["bf16"],
            ["f16"],
            small_run.sums(40),
            train={"steps": 2, "warmup_steps": 1},
            evaluate={
                "max_new_tokens": 3,
                "splits": {"test": 4, "seen": 2, "general": 1},
                "mmlu": {"shots": 1, "questions": 2},
            },
        )
        prepare.main("sums")
        yield folder


def tokenized(name: str) -> None:
    if not Path("data/tokens", f"{name}-sums").is_dir():
        shapes.build(name, Path("models/raw"))
        base.main(name)
        tokenize.main(name, "sums")


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_every_row_is_a_prompt_and_an_answer_that_ends(workspace, name):
    tokenized(name)
    info = files.read_json(f"data/tokens/{name}-sums/info.json")
    for split in ("train", "seen", "valid", "test"):
        rows = files.read_table(f"data/tokens/{name}-sums/{split}.parquet")
        assert rows
        for row in rows:
            prompt = row["prompt_tokens"]
            assert 0 < prompt < len(row["ids"]) and row["ids"][-1] in info["stop_ids"]
            assert row["scored"] == [at >= prompt for at in range(len(row["ids"]))]
    # All questions are asked for their letters in one way.
    assert len({tuple(row["options"]) for row in files.read_table(f"data/tokens/{name}-sums/mmlu.parquet")}) == 1
    apart = [what for what in info.get("tokenised_apart", []) if what == "answers"]
    assert apart == APART.get(name, [])


def test_where_merges_cross_the_line_break_a_prompt_has_the_tokens_that_generation_sees(workspace):
    tokenized("crossing_bpe")
    tokenizer = shapes.SHAPES["crossing_bpe"].tokenizer()
    for row in files.read_table("data/tokens/crossing_bpe-sums/test.parquet"):
        texts = (f"{row['prompt']}\n", row["answer"])
        prompt, answer = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
        assert row["ids"] == [*prompt, *answer, tokenizer.eos_token_id]


@pytest.mark.slow
@pytest.mark.parametrize("name", shapes.SHAPES)
def test_a_shape_is_trained_merged_and_shipped_or_says_why_not(workspace, name):
    tokenized(name)
    cell = (name, "sums", "lora")
    finetune.main(*cell, 42)
    reference.main(*cell)
    merge.main(*cell)
    rows = [row for row in files.read_table(f"data/items/{name}-sums-lora-trained.parquet") if row["tokens"]]
    assert rows and all(np.isfinite(row["log_likelihood"]) for row in rows)
    convert.main(*cell)
    why_not = files.read_json(f"models/converted/{name}-sums-lora.json").get("no_gguf", "")
    assert why_not.startswith(NO_GGUF.get(name, "")) and bool(why_not) == (name in NO_GGUF)
    if not why_not:
        quantize.main(*cell, "f16")
        evaluate_cpu.main(*cell, "f16")
        scored = files.read_table(f"data/items/{name}-sums-lora-f16.parquet")
        loss = [-sum(row["log_likelihood"] for row in found if row["tokens"]) for found in (rows, scored)]
        assert loss[1] == pytest.approx(loss[0], rel=0.02)
