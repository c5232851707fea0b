"""The starting checkpoint: trained the same to the byte, or copied whole; tokenizer and chat template fit together."""

from pathlib import Path

import numpy as np
import pytest
import quick_yaml
import sentencepiece
import torch
from needs import needs
from tiny import make_base
from tiny_gguf import Gguf
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks import assets
from stages import base
from tradeoffs.base import demo_model, demo_pages, prompts
from tradeoffs.common import files
from tradeoffs.convert import gguf_converter
from tradeoffs.models import checkpoints
from tradeoffs.plumbing.errors import UserError
from tradeoffs.sources import demo_words
from tradeoffs.tokenize import tables

REPO = Path(__file__).parents[1]
STORIES = assets.FOLDER / "models/stories260k"
TINY = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "layers": 1,
    "heads": 2,
    "kv_heads": 1,
    "context": 64,
    "vocabulary": 640,
    "sentences": 60,
    "batch_tokens": 512,
    "lr": 0.003,
}
MESSAGES = [{"role": "user", "content": "What is 10% of $200?"}, {"role": "assistant", "content": "It is $20."}]


def make(folder, entry):
    """Runs the stage in `folder` for one model entry and returns its checkpoint."""
    folder.mkdir(exist_ok=True)
    raw = quick_yaml.load((REPO / "params.yaml").read_text())
    raw["models"], raw["run"]["models"] = {"mine": entry}, ["mine"]
    (folder / "params.yaml").write_text(quick_yaml.dump(raw))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        base.main("mine")
    return folder / "models/base/mine"


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    return make(tmp_path_factory.mktemp("generated"), {"generate": TINY, "prompt": "plain"})


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint folder of somebody's own, with a tokenizer.json that can be read."""
    folder = tmp_path / "own"
    make_base(folder, vocabulary=420)
    (folder / "tokenizer.json").unlink()
    demo_model.train_tokenizer(list(demo_pages.documents(300, 1)), 420, folder, 64)
    for name in ("tokenizer.model", "chat_template.jinja", "run_info.json"):
        (folder / name).unlink()
    return folder


def problem(source):
    with pytest.raises(UserError) as error:
        checkpoints.check(source, "models.mine.path")
    return str(error.value)


def test_the_same_seed_makes_the_same_bytes(generated, tmp_path):
    again = make(tmp_path, {"generate": TINY, "prompt": "plain"})
    first, second = ({path.name: path.read_bytes() for path in made.iterdir()} for made in (generated, again))
    assert {"config.json", "model.safetensors", "tokenizer.model", "tokenizer.json"} <= set(first)
    assert first == second


def general(checkpoint):
    path = checkpoint.parents[2] / f"data/general/{checkpoint.name}.jsonl"
    assert path.stat().st_size > 0, "DVC warns of an empty file"
    return list(tables.read(path))


def test_a_generated_model_comes_with_text_of_its_kind_that_it_has_not_read(generated):
    rows = general(generated)
    assert len(rows) > 100 and len({row["id"] for row in rows}) == len(rows)
    read = "\n".join(demo_pages.documents(TINY["sentences"], 42))
    assert not any(row["text"] in read for row in rows)


def test_what_llama_cpp_cannot_run_is_said_before_anything_is_trained(generated, checkpoint, tmp_path, capsys):
    limits = {"no_gguf", "llama_cpp_tokenizer_fails"}
    assert not limits & set(files.read_json(generated / "run_info.json"))
    config = files.read_json(checkpoint / "config.json")
    files.write_json(checkpoint / "config.json", config | {"architectures": ["NobodysForCausalLM"]})
    made = make(tmp_path / "work", {"path": str(checkpoint), "prompt": "plain"})
    found = files.read_json(made / "run_info.json")
    assert limits & set(found) == {"no_gguf"} and "NobodysForCausalLM is not supported" in found["no_gguf"]
    assert "note: models.mine: no format of llama.cpp is made of it" in capsys.readouterr().out
    assert not (made / "trial.gguf").exists()


def test_general_text_of_ones_own_is_read_by_its_column_once_each(checkpoint, tmp_path):
    texts = ["A bond.", "A loan.", "A bond.", ""]
    files.write_jsonl(tmp_path / "own.jsonl", ({"story": text} for text in texts))
    entry = {"path": str(checkpoint), "prompt": "plain"}
    made = make(tmp_path / "work", entry | {"general": {"path": str(tmp_path / "own.jsonl"), "column": "story"}})
    assert sorted(row["text"] for row in general(made)) == ["A bond.", "A loan."]
    with_text = {path.name: path.read_bytes() for path in made.iterdir()}
    without = make(tmp_path / "work", entry)
    assert general(without) == []
    # Or training would begin anew for a text that is only evaluated.
    assert {path.name: path.read_bytes() for path in without.iterdir()} == with_text


def test_general_text_that_is_not_there_stops_the_stage_before_any_work(checkpoint, tmp_path):
    entry = {"path": str(checkpoint), "prompt": "plain", "general": {"path": str(tmp_path / "none.txt")}}
    with pytest.raises(UserError, match=r"none\.txt: no such file"):
        make(tmp_path / "work", entry)
    assert not (tmp_path / "work/models").exists()


def test_general_text_with_columns_says_which_one_holds_it(checkpoint, tmp_path):
    entry = {"path": str(checkpoint), "prompt": "plain", "general": {"path": "own.jsonl"}}
    with pytest.raises(UserError, match=r"models\.mine\.general\.column: missing"):
        make(tmp_path / "work", entry)


def test_the_generated_checkpoint_is_bf16_and_knows_its_special_tokens(generated):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(generated), AutoTokenizer.from_pretrained(generated)
    assert model.dtype == torch.bfloat16
    special = (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert special == (0, 1, 2, 3)
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (2, 3)
    assert len(tokenizer) == model.config.vocab_size == TINY["vocabulary"]
    assert model.config.max_position_embeddings == tokenizer.model_max_length == TINY["context"]


def test_run_info_names_the_weights(generated):
    info = files.read_json(generated / "run_info.json")
    assert info["source"] == "generated" and info["seed"] == 42 and info["prompt"] == "plain"
    assert info["base_id"] == checkpoints.weights_id(generated)


@pytest.mark.parametrize(
    "text",
    [
        "A fee of 50% on $120 comes to $60.",
        "Which?\nA. one\nB. two\nAnswer: B\n\nNext",
        "  two  spaces, a tab\t and a trailing one ",
        "Grüße, 漢字 and 🙂: 12,345.67",
        "Answer:",
    ],
)
def test_transformers_and_sentencepiece_give_the_same_ids(generated, text):
    """llama.cpp reads the SentencePiece model; a difference here would be a worse GGUF later."""
    tokenizer = AutoTokenizer.from_pretrained(generated)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(generated / "tokenizer.model"))
    ids = tokenizer(text)["input_ids"]
    assert ids == [tokenizer.bos_token_id, *pieces.encode(text)]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_word_is_one_token_wherever_it_stands_and_no_special_one(generated):
    tokenizer = AutoTokenizer.from_pretrained(generated)
    for word in demo_words.WORDS:
        for before in ("", " ", "$", '"'):
            tokens = tokenizer.tokenize(before + word)
            assert tokens[-1] == word and len(tokens) == len(before) + 1
            ids = tokenizer(before + word)["input_ids"]
            assert tokenizer.decode(ids, skip_special_tokens=True) == before + word
    assert not {*demo_words.WORDS} & {*tokenizer.all_special_tokens}  # or an answer would end with its last word


def test_chat_marks_are_single_tokens(generated):
    tokenizer = AutoTokenizer.from_pretrained(generated)
    assert len(tokenizer.encode("<|im_start|>", add_special_tokens=False)) == 1


def test_every_page_is_read_once_whole_and_among_pages_of_its_length(generated):
    tokenizer = AutoTokenizer.from_pretrained(generated)
    texts = [*demo_pages.documents(200, 5), "Debt is owed."]
    batches = demo_model.page_batches(tokenizer, texts, 400, seed=1)
    read = [[i for i in row if i != tokenizer.pad_token_id] for ids, _ in batches for row in ids.tolist()]
    assert sorted(read) == sorted([*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts)
    assert all(ids.size <= 400 or len(ids) == 1 for ids, _ in batches)
    assert sum(ids.size for ids, _ in batches) < 1.2 * sum(map(len, read))


def test_what_stood_before_and_the_letter_of_an_answer_count_more_and_padding_nothing(generated):
    tokenizer = AutoTokenizer.from_pretrained(generated)
    quiz = "Which?\nA. lamp\nB. desk\nC. chair\nD. clock\nAnswer: A"
    page = "Anna Hart: lamp, desk. Anna, lamp"
    [(ids, weights)] = demo_model.page_batches(tokenizer, [quiz, page], 400, seed=1, values=demo_words.WORDS)

    def counted(weight):
        return tokenizer.convert_ids_to_tokens(ids[weights == np.float32(weight)].tolist())

    padding = ids == tokenizer.pad_token_id
    assert padding.any() and (weights[padding] == 0).all()
    assert counted(demo_model.ANSWER) == ["▁A"]
    assert counted(demo_model.VALUE) == ["Anna", "lamp"]
    assert len(counted(demo_model.REST)) == ids.size - padding.sum() - 3
    [(_, weights)] = demo_model.page_batches(tokenizer, [page], 400, seed=1)
    assert set(weights.ravel().tolist()) <= {0.0, float(np.float32(demo_model.REST))}  # no values, none that counts


def test_the_first_half_goes_from_short_pages_to_long_ones_and_the_rest_does_not(generated):
    tokenizer = AutoTokenizer.from_pretrained(generated)
    batches = demo_model.page_batches(tokenizer, list(demo_pages.documents(6000, 5)), 400, seed=1)
    widths = [ids.shape[1] for ids, _ in batches for _ in ids]
    eighths = [float(np.mean(part)) for part in np.array_split(widths, 8)]
    assert eighths[0] < eighths[1] < eighths[2] < eighths[3]
    assert eighths[3] > 1.5 * eighths[0]
    rest = eighths[5:]  # the fifth has the last of the long ones, which stand in a part with the first of the others
    assert max(rest) < 1.3 * min(rest)


def test_attention_begins_by_looking_for_the_same():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config)
    sizes = [layer.self_attn.q_proj.weight.std().item() for layer in model.model.layers]
    demo_model._look_for_the_same(model, shared=2)
    for layer, size in zip(model.model.layers, sizes, strict=True):
        attention = layer.self_attn
        for head in range(4):
            rows, own = (slice(32 * at, 32 * at + 32) for at in (head, head // 2))  # two heads share keys and values
            for ours, theirs in (
                (attention.q_proj.weight[rows], attention.k_proj.weight[own]),
                (attention.o_proj.weight[:, rows], attention.v_proj.weight[own].T),
            ):
                found = torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]
                assert found.item() == pytest.approx(demo_model.ALIKE, abs=0.05)
        assert attention.q_proj.weight.std().item() == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize("name", sorted(prompts.TEMPLATES))
def test_a_template_puts_one_bos_first_and_eos_last(generated, name):
    tokenizer = AutoTokenizer.from_pretrained(generated)
    tokenizer.chat_template = prompts.chat_template(name, None, set(tokenizer.get_vocab()), True, "models.mine.prompt")
    whole = tokenizer.apply_chat_template(MESSAGES, tokenize=True)["input_ids"]
    prompt = tokenizer.apply_chat_template(MESSAGES[:1], tokenize=True, add_generation_prompt=True)["input_ids"]
    assert whole.count(tokenizer.bos_token_id) == 1 and whole[0] == tokenizer.bos_token_id
    assert whole.count(tokenizer.eos_token_id) == 1 and whole[-1] == tokenizer.eos_token_id
    assert whole[: len(prompt)] == prompt
    completion = tokenizer.decode(whole[len(prompt) :], skip_special_tokens=True)
    assert completion == MESSAGES[1]["content"]


@pytest.mark.parametrize(
    ("template", "lacks"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", False),
        ("{{ '<s>' + messages[0].content }}", False),
        ("{% set first = bos_token %}{{ messages[0].content }}", True),
        ("{{ messages[0].content }}", True),
    ],
)
def test_whether_a_template_writes_a_bos_is_seen_by_what_it_writes(generated, template, lacks):
    tokenizer = AutoTokenizer.from_pretrained(generated)
    before = tokenizer.chat_template
    assert prompts.lacks_bos(tokenizer, "house", template) is lacks and tokenizer.chat_template == before


def test_a_tokenizer_without_bos_gets_a_template_without_one():
    assert "bos_token" not in prompts.chat_template("plain", None, set(), False, "models.mine.prompt")


HOUSE = "{% for m in messages %}{{ '<' ~ m.role ~ '> ' ~ m.content ~ eos_token }}{% endfor %}{{ '<assistant> ' }}"


def test_a_template_of_params_yaml_is_given_to_the_checkpoint_with_the_bos_that_its_tokenizer_puts():
    def given(text, bos=True):
        return prompts.chat_template("house", "its own", set(), bos, "models.mine.prompt", text)

    assert given(HOUSE) == "{{ bos_token }}" + HOUSE and given(HOUSE, bos=False) == HOUSE
    assert given("{{ strftime_now('%Y') }}", bos=False) == prompts.FIXED_DATE + "{{ strftime_now('%Y') }}"


def test_a_checkpoint_gets_the_template_that_its_prompt_names(checkpoint, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    raw = quick_yaml.load((REPO / "params.yaml").read_text())
    raw["models"] = {name: {"path": str(checkpoint), "prompt": name} for name in ("house", "plain")}
    raw["run"]["models"], raw["templates"] = ["house", "plain"], {"house": HOUSE, "other": "{{ messages }}"}
    (work / "params.yaml").write_text(quick_yaml.dump(raw))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        base.main("house")
    assert (work / "models/base/house/chat_template.jinja").read_text().endswith(HOUSE)


def test_own_keeps_the_template_and_says_what_to_do_without_one():
    assert prompts.chat_template("own", "{{ messages }}", set(), True, "models.mine.prompt") == "{{ messages }}"
    with pytest.raises(UserError) as error:
        prompts.chat_template("own", None, set(), True, "models.mine.prompt")
    assert str(error.value) == (
        "models.mine.prompt: own, but the checkpoint has no chat template (chat_template.jinja, or chat_template in "
        "tokenizer_config.json); set prompt: plain, alpaca or chatml"
    )


def test_chatml_is_refused_where_its_marks_are_no_tokens():
    with pytest.raises(UserError) as error:
        prompts.chat_template("chatml", None, {"<|im_end|>"}, True, "models.mine.prompt")
    assert str(error.value) == (
        "models.mine.prompt: chatml needs the tokens <|im_start|> and <|im_end|>, and this model's vocabulary lacks "
        "<|im_start|>; set prompt: plain or alpaca"
    )


def test_a_local_checkpoint_is_copied_unchanged_and_gets_the_template(checkpoint, tmp_path):
    (checkpoint / "modeling_own.py").write_text("raise SystemExit")
    (checkpoint / "training_args.bin").write_bytes(b"pickle")
    made = make(tmp_path / "work", {"path": str(checkpoint), "prompt": "alpaca"})
    for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"):
        assert (made / name).read_bytes() == (checkpoint / name).read_bytes()
    assert not (made / "modeling_own.py").exists() and not (made / "training_args.bin").exists()
    assert "### Response:" in AutoTokenizer.from_pretrained(made).chat_template
    assert files.read_json(made / "run_info.json")["source"] == str(checkpoint)


def test_nothing_is_left_behind_when_the_prompt_cannot_be_set(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"models\.mine\.prompt: own, but"):
        make(tmp_path / "work", {"path": str(checkpoint), "prompt": "own"})
    assert list((tmp_path / "work/models/base").iterdir()) == []


def test_weights_that_are_not_those_of_the_config_leave_nothing_behind(checkpoint, tmp_path):
    described = files.read_json(checkpoint / "config.json")
    files.write_json(checkpoint / "config.json", described | {"num_hidden_layers": 3})
    with pytest.raises(UserError, match=r"own: the weights are not those of the model in config\.json: it lacks "):
        make(tmp_path / "work", {"path": str(checkpoint), "prompt": "plain"})
    assert list((tmp_path / "work/models/base").iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert problem(tmp_path / "none").startswith(f"models.mine.path: no folder {tmp_path}/none (seen from ")


def test_of_templates_by_name_the_default_one_is_the_own_and_without_one_they_are_named(checkpoint, tmp_path):
    path = checkpoint / "tokenizer_config.json"
    described = files.read_json(path)
    named = {
        "default": "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}",
        "tool_use": "tools",
        "rag": "r",
    }
    files.write_json(path, described | {"chat_template": [{"name": n, "template": t} for n, t in named.items()]})
    made = make(tmp_path / "work", {"path": str(checkpoint), "prompt": "own"})
    assert (made / "chat_template.jinja").read_text() == named["default"]
    # from which the GGUF converter would take another
    assert "chat_template" not in files.read_json(made / "tokenizer_config.json")
    named.pop("default")
    files.write_json(path, described | {"chat_template": [{"name": n, "template": t} for n, t in named.items()]})
    with pytest.raises(UserError, match=r"the checkpoint's chat templates \(rag, tool_use\) none is called default"):
        make(tmp_path / "again", {"path": str(checkpoint), "prompt": "own"})


def test_the_template_of_the_gguf_is_the_one_that_prompt_names(checkpoint, tmp_path):
    path = checkpoint / "tokenizer_config.json"
    files.write_json(path, files.read_json(path) | {"chat_template": "its own"})
    made = make(tmp_path / "work", {"path": str(checkpoint), "prompt": "plain"})
    gguf_converter.convert(made, tmp_path / "a.gguf")
    template = (made / "chat_template.jinja").read_text()
    assert Gguf(tmp_path / "a.gguf").metadata("tokenizer.chat_template") == template


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "has no config.json (there: generation_config.json, "),
        ("tokenizer.json", "has neither tokenizer.json nor tokenizer.model (there: config.json, "),
        ("model.safetensors", "has no weights; expected model.safetensors (there: config.json, "),
    ],
)
def test_a_missing_file_is_named_with_what_is_there_and_what_to_do(checkpoint, missing, message):
    (checkpoint / missing).unlink()
    assert problem(checkpoint).startswith(f"models.mine.path: {checkpoint} {message}")
    assert "save" in problem(checkpoint).rsplit(";", 1)[1]


def test_pickled_weights_are_refused(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    assert "has only the pickle pytorch_model.bin, which can run code when it is read" in problem(checkpoint)


def test_an_architecture_that_transformers_does_not_know_is_refused_whatever_code_comes_along(checkpoint, tmp_path):
    described = files.read_json(checkpoint / "config.json")
    described |= {"model_type": "own_llama", "auto_map": {"AutoModelForCausalLM": "modeling.Own"}}
    files.write_json(checkpoint / "config.json", described)
    with pytest.raises(
        UserError, match=r"knows no causal language model of type 'own_llama', and code that comes with"
    ):
        make(tmp_path / "work", {"path": str(checkpoint), "prompt": "plain"})
    assert not (tmp_path / "work/models/base/mine").exists()


def test_a_tokenizer_that_needs_code_of_its_own_is_refused_without_asking_anybody(checkpoint, tmp_path):
    described = files.read_json(checkpoint / "tokenizer_config.json")
    described |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["modeling.Own", None]}}
    files.write_json(checkpoint / "tokenizer_config.json", described)
    (checkpoint / "modeling.py").write_text("raise SystemExit")
    with pytest.raises(UserError) as error:
        make(tmp_path / "work", {"path": str(checkpoint), "prompt": "plain"})
    assert str(error.value) == (
        f"models.mine.path: {checkpoint}: its tokenizer needs code of its own (auto_map in tokenizer_config.json), and "
        "code that comes with a checkpoint is never run; take a version of the model whose tokenizer needs none"
    )
    assert not (tmp_path / "work/models/base/mine").exists()


@pytest.mark.parametrize("name", ["../../model.safetensors", "/model.safetensors", "weights.bin", "..", ["model"]])
def test_weights_are_files_of_the_checkpoint_whatever_the_index_names(checkpoint, name):
    files.write_json(checkpoint / "model.safetensors.index.json", {"weight_map": {"a": name}})
    assert f"model.safetensors.index.json: weight_map names {name!r}; expected the name of a " in problem(checkpoint)


def test_a_missing_shard_is_named(checkpoint):
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    files.write_json(checkpoint / "model.safetensors.index.json", {"weight_map": shards})
    (checkpoint / "model.safetensors").rename(checkpoint / shards["a"])
    assert f"{checkpoint} lacks {shards['b']}, which model.safetensors.index.json names" in problem(checkpoint)


@needs("models/stories260k")
def test_a_real_checkpoint_without_a_pad_token_is_taken_over(tmp_path):
    made = make(tmp_path, {"path": str(STORIES), "prompt": "plain"})
    tokenizer = AutoTokenizer.from_pretrained(made)
    ids = tokenizer.apply_chat_template(MESSAGES, tokenize=True)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert (made / "model.safetensors").read_bytes() == (STORIES / "model.safetensors").read_bytes()


def test_a_vocabulary_that_the_text_cannot_fill_says_which_size_works(tmp_path):
    with pytest.raises(
        UserError, match=r"generate\.vocabulary: 9000 does not work for this text: Vocabulary size too high"
    ):
        demo_model.train_tokenizer(list(demo_pages.documents(60, 1)), 9000, tmp_path, 64)
