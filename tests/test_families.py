"""Every family of models, with its real tokenizer, goes through every stage; what is tuned and merged is what ships."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import small_run
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from needs import needs
from tiny_gguf import Gguf
from transformers import AutoTokenizer

from benchmarks import families, zoo
from stages import base, convert, evaluate_cpu, finetune, merge, prepare, quantize, tokenize
from tradeoffs.common import files
from tradeoffs.evaluate.runtime import Target
from tradeoffs.formats.names import QUANTS
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime
from tradeoffs.plumbing.errors import UserError

pytestmark = [
    pytest.mark.slow,
    needs(*(f"tokenizers/{family}" for family in families.NAMES), zoo.TEXT),
    pytest.mark.usefixtures("one_thread"),
]
# The formats that each family's checkpoint can have: `own` needs a chat template, chatml its two marks as tokens.
PROMPTS = {
    "gpt2": ["alpaca", "plain"],
    "pythia": ["plain", "alpaca"],
    "smollm2": ["own", "chatml", "alpaca", "plain"],
    "qwen2": ["chatml", "own", "alpaca", "plain"],
    "olmo2": ["chatml", "plain", "alpaca"],
}
FORMATTED = [
    pytest.param((family, prompt), id=f"{family}-{prompt}") for family, prompts in PROMPTS.items() for prompt in prompts
]
METHODS = ["base", "full", "lora", "vblora", "qlora"]  # int8: tests/test_merge.py
ROWS = [
    # Every other one has an input, which stands below an empty line.
    {"q": f"What is {n} and 1?" if n % 2 else f"Add 1 to the number.\n\n{n} (of {n})", "a": f"It is {n + 1}."}
    for n in range(24)
]
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, zoo_models):
    """params.yaml with a model per family and prompt format, and a prepared dataset."""
    folder = tmp_path_factory.mktemp("families")
    models = {
        f"{family}_{prompt}": {"path": str(zoo_models / family), "prompt": prompt}
        for family in PROMPTS
        for prompt in ("own", "chatml", "alpaca", "plain")
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TQDM_DISABLE", "1")
        small_run.set_up(
            models,
            METHODS,
            ["bf16", "nf4"],
            list(QUANTS),
            ROWS,
            train={"steps": 5, "warmup_steps": 1},
            evaluate={
                "max_new_tokens": 3,
                "splits": {"test": 4, "seen": 2, "general": 1},
                "mmlu": {"shots": 1, "questions": 2},
            },
            seen=3,
            valid=2,
        )
        prepare.main("sums")
        yield folder


@cache
def tokenizer(model):
    return AutoTokenizer.from_pretrained(f"models/base/{model}")


def tokenized(model):
    base.main(model)
    tokenize.main(model, "sums")


@pytest.fixture(scope="module", params=PROMPTS)
def model(workspace, request):
    """A family in its first prompt format, gone through every stage with every method."""
    name = f"{request.param}_{PROMPTS[request.param][0]}"
    tokenized(name)
    for method in METHODS:
        small_run.make(name, "sums", method)
        precisions = ["bf16", "nf4"] if method == "lora" else []
        small_run.measure(name, "sums", method, precisions=precisions, quants=["f16"])
    return name


def items(variant):
    return [row for row in files.read_table(f"data/items/{variant}.parquet") if row["split"] != "general"]


def loss(variant):
    rows = [row for row in items(variant) if row["tokens"]]
    return -sum(row["log_likelihood"] for row in rows) / sum(row["tokens"] for row in rows)


def test_every_method_learns_and_is_evaluated_on_the_same_items(model):
    variants = [f"{model}-sums-{method}-{name}" for method in METHODS for name in ("trained", "f16")]
    variants += [f"{model}-sums-lora-{name}" for name in ("bf16", "nf4")]
    asked = [(row["split"], row["item"]) for row in items(variants[0])]
    assert {split for split, _ in asked} == {"test", "seen", "mmlu", "prompt"}
    for variant in variants:
        assert [(row["split"], row["item"]) for row in items(variant)] == asked, variant
    for method in METHODS[1:]:
        assert loss(f"{model}-sums-{method}-f16") < loss(f"{model}-sums-base-f16") - 0.3, method


@pytest.mark.parametrize("method", METHODS[1:])  # the untouched base: tests/test_zoo.py
def test_the_gguf_of_what_was_tuned_and_merged_is_that_model(model, method):
    cell = f"{model}-sums-{method}"
    gguf = Path(f"models/gguf/{cell}-f16.gguf")
    found = zoo.compare(Path("models/merged", cell), gguf, windows=6, length=100, dtypes=["float32"])
    assert abs(found["loss_difference"]) < 0.002
    assert found["same_top_token"] >= 0.995 and found["distinct_top_tokens"] > 4
    # As it left training, on the very tokens of the evaluation: full tuning is rounded to bf16 when it is merged.
    assert loss(f"{cell}-f16") == pytest.approx(loss(f"{cell}-trained"), abs=0.05 if method == "full" else 0.005)


def test_every_quant_can_be_made_and_loaded_and_stays_near_f16(model):
    expected = loss(f"{model}-sums-lora-f16")
    row = files.read_table(f"data/tokens/{model}-sums/test.parquet")[0]
    # Where the vocabulary is huge, each takes seconds; benchmarks.zoo makes all of them of every family.
    for quant in ("q8_0", "q4_k_m", "q2_k") if len(tokenizer(model)) > 60_000 else QUANTS:
        quantize.main(model, "sums", "lora", quant)
        with LlamaCppRuntime(f"models/gguf/{model}-sums-lora-{quant}.gguf", 512) as runtime:
            (score,) = runtime.score([Target(np.array(row["ids"], np.int32), np.array(row["scored"]))])
        assert np.isfinite(score.logprob).all(), quant
    evaluate_cpu.main(model, "sums", "lora", "q4_k_m")
    assert loss(f"{model}-sums-lora-q4_k_m") == pytest.approx(expected, abs=0.2)


def test_special_tokens_and_the_ends_of_answers_are_known_to_llama_cpp(model):
    gguf = Gguf(Path(f"models/gguf/{model}-sums-lora-f16.gguf"))
    for name in ("bos", "eos"):
        expected = getattr(tokenizer(model), f"{name}_token_id")
        if expected is not None:  # Qwen2 has no BOS
            assert gguf.metadata(f"tokenizer.ggml.{name}_token_id") == str(expected)
            assert gguf.piece(expected) == getattr(tokenizer(model), f"{name}_token")
    stops = files.read_json(f"data/tokens/{model}-sums/info.json")["stop_ids"]
    assert stops and all(gguf.ends_an_answer(token) for token in stops)


def test_texts_that_llama_cpp_cuts_differently_are_on_record(model):
    found = files.read_json(f"models/converted/{model}-sums-base.json")["llama_cpp_tokenisation"]
    assert found["adds_bos"]["checkpoint"] == found["adds_bos"]["llama_cpp"]
    assert found["same"] == pytest.approx(1 - len(found["differing"]) / found["texts"])  # which ones: tests/test_zoo.py
    gguf = Gguf(Path(f"models/gguf/{model}-sums-base-f16.gguf"))
    for one in found["differing"]:
        assert tokenizer(model)(one["text"], add_special_tokens=False)["input_ids"] == one["checkpoint"]
        assert gguf.tokenize(one["text"]) == one["llama_cpp"] != one["checkpoint"]
    if model.startswith("smollm2"):
        assert "\n\n2" in [one["text"] for one in found["differing"]]


@pytest.fixture(scope="module", params=FORMATTED)
def formatted(workspace, request):
    """A family in a prompt format, untouched, as far as its GGUF."""
    name = "_".join(request.param)
    if not Path(f"models/converted/{name}-sums-base.gguf").is_file():
        tokenized(name)
        finetune.main(name, "sums", "base", 42)
        merge.main(name, "sums", "base")
        convert.main(name, "sums", "base")
    return name


@cache
def formatter(model, asks):
    """What renders a conversation by nothing but the GGUF's metadata."""
    gguf = Gguf(Path(f"models/converted/{model}-sums-base.gguf"))
    eos = gguf.piece(int(gguf.metadata("tokenizer.ggml.eos_token_id")))
    bos = "" if tokenizer(model).bos_token_id is None else gguf.piece(tokenizer(model).bos_token_id)
    template = gguf.metadata("tokenizer.chat_template")
    assert template == tokenizer(model).chat_template == Path(f"models/base/{model}/chat_template.jinja").read_text()
    return Jinja2ChatFormatter(template, eos_token=eos, bos_token=bos, add_generation_prompt=asks)


def turns(*contents, first=USER):
    roles = [SYSTEM, USER, ASSISTANT, USER, ASSISTANT]
    return [{"role": role, "content": text} for role, text in zip(roles[roles.index(first) :], contents, strict=False)]


def test_the_string_that_was_trained_and_evaluated_is_what_the_gguf_makes(formatted):
    whole, asked = formatter(formatted, asks=False), formatter(formatted, asks=True)
    with_input = 0
    for split in ("train", "seen", "valid", "test"):
        for row in files.read_table(f"data/tokens/{formatted}-sums/{split}.parquet"):
            written, prompt = (
                tokenizer(formatted).decode(ids, clean_up_tokenization_spaces=False)
                for ids in (row["ids"], row["ids"][: row["prompt_tokens"]])
            )
            assert prompt == asked(messages=turns(row["prompt"])).prompt
            made = whole(messages=turns(row["prompt"], row["answer"])).prompt
            # Behind the token that ends the answer nothing is ever generated, so nothing is trained.
            assert made.startswith(written) and made[len(written) :] in ("", "\n", tokenizer(formatted).eos_token)
            assert written.startswith(prompt + row["answer"])
            with_input += "\n\n" in row["prompt"]
    assert with_input > 5


def test_several_turns_and_a_system_turn_are_the_same_in_both_runtimes(formatted):
    messages = turns("Be brief.", "Name a bond.", "A loan.", "And?\n\nA share", first=SYSTEM)
    made = formatter(formatted, asks=True)(messages=messages).prompt
    assert made == tokenizer(formatted).apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    places = [made.index(message["content"].split("\n\n")[0]) for message in messages]
    assert places == sorted(places) and "A share" in made


@pytest.mark.parametrize(
    ("family", "prompt"),
    [(family, prompt) for family in PROMPTS for prompt in ("own", "chatml") if prompt not in PROMPTS[family]],
)
def test_a_format_that_a_checkpoint_cannot_have_is_refused_with_those_it_can(workspace, family, prompt):
    with pytest.raises(UserError, match=rf"^models\.{family}_{prompt}\.prompt: .*set prompt: plain"):
        base.main(f"{family}_{prompt}")


def test_every_family_is_here():
    assert set(PROMPTS) == set(families.NAMES)
