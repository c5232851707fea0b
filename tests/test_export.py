"""A variant is handed over: what comes out loads elsewhere, says the same, and tells nothing of this machine."""

import csv
import json
import platform
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import fake_results
import forked
import go_template
import hostile
import huggingface_hub
import pytest
import quick_yaml
import tiny_gguf
import torch
from fake_hub import REPO, TOKEN, FakeHub

from stages import quantize
from tradeoffs import merging, params
from tradeoffs.base.prompts import TEMPLATES
from tradeoffs.common import cells, chat_templates, files
from tradeoffs.common.cells import Cell
from tradeoffs.common.texts import on_a_line
from tradeoffs.convert import gguf_converter
from tradeoffs.export import __main__ as export
from tradeoffs.export import card, chosen, gguf_file, ollama, prompts, usage, weights
from tradeoffs.models import checkpoints
from tradeoffs.plumbing.errors import UserError
from tradeoffs.report.formatting import escaped, subject_of
from tradeoffs.results import tables
from tradeoffs.tokenize import chat

pytestmark = pytest.mark.slow  # the fixture makes adapters, checkpoints and GGUFs
CELL = Cell("demo", "demo", "lora")
RUN = {"models": ["demo"], "datasets": ["demo"], "methods": ["base", "full", "lora"], "precisions": ["bf16"]}
TEMPLATE = "{{ bos_token }}" + TEMPLATES["plain"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with made-up numbers of real models: a tiny base, a LoRA on it, merged, as GGUF."""
    folder = tmp_path_factory.mktemp("home") / "project"
    folder.mkdir()
    fake_results.finished(folder, **RUN, quants=["f16", "q8_0"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny_gguf.make_checkpoint(CELL.base)
        (CELL.base / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
        checkpoints.drop_other_template(CELL.base, "demo")
        described = json.loads((CELL.base / "tokenizer_config.json").read_text())
        paths = {key: str(folder / "elsewhere") for key in weights.PATHS}
        files.write_json(CELL.base / "tokenizer_config.json", described | paths | {"more": [{"within": paths}]})
        for name in ("config.json", "generation_config.json", "special_tokens_map.json"):
            held = files.read_json(CELL.base / name) if (CELL.base / name).is_file() else {}
            files.write_json(CELL.base / name, held | {"more": {"_name_or_path": paths["name_or_path"]}})
        (CELL.base / "LICENSE").write_text("Free.\n", encoding="utf-8")
        facts = {"source": str(folder), "base_id": checkpoints.weights_id(CELL.base), "prompt": "plain"}
        files.write_json(CELL.base / "run_info.json", files.run_info(**facts))
        _adapter(CELL.training(42).weights)
        full = Cell("demo", "demo", "full").training(42).weights
        shutil.copytree(CELL.base, full, ignore=shutil.ignore_patterns("*tok*", "*.jinja", "LICENSE"))
        _formats(CELL)
        stops = {"kind": "instruction", "stop_ids": [2], "context": tiny_gguf.CONTEXT}
        files.write_json(CELL.tokens / "info.json", stops)
        lock(folder)
    return folder


def _adapter(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from tradeoffs.finetune.adapters import save_adapter
    from tradeoffs.models.loading import load_model

    torch.manual_seed(1)
    made = get_peft_model(
        load_model(CELL.base, None, torch.float32),
        LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    folder.mkdir(parents=True)
    save_adapter(made, folder)
    files.write_json(folder / "run_info.json", files.run_info(base={"source": str(folder)}, method="lora"))


def _formats(cell: Cell) -> None:
    method = params.load_all().methods[cell.method]
    with files.new_folder(cell.merged) as merged:
        merging.merge(cell.base, cell.training(42).weights, cell.method, method, "trained_base", merged)
        checkpoints.copy_companions(cell.base, merged)
        files.write_json(merged / "run_info.json", files.run_info(method="lora"))
    cell.converted.parent.mkdir(parents=True)
    cell.variant("f16").gguf.parent.mkdir(parents=True)
    gguf_converter.convert(cell.merged, cell.converted)
    files.write_json(cell.converted.with_suffix(".json"), files.run_info(sha256=files.sha256(cell.converted)))
    for quant in ("f16", "q8_0"):
        quantize.main(cell.model, cell.dataset, cell.method, quant)


def lock(folder: Path) -> None:
    """dvc.lock of what lies in the folder: every output with its hash, and the steps that measured."""
    run = params.load_all().run
    outs = [*folder.glob("models/base/*"), *folder.glob("models/trained/*/*"), *folder.glob("models/merged/*")]
    outs += [*folder.glob("models/gguf/*"), *folder.glob("data/tokens/*"), *folder.glob("data/prepared/*")]
    outs += [*folder.glob("data/facts/*"), *folder.glob("data/training/*/*"), *folder.glob("data/*.*")]
    made = {"all": {"outs": [_entry(path.relative_to(folder)) for path in outs]}}
    for variant in cells.variants(run):
        deps = [_entry(variant.gguf)] if variant.gguf.is_file() else []
        made[f"evaluate@{variant}"] = {"deps": deps, "outs": [_entry(variant.items)]}
    tables = [_entry(path) for path in (chosen.SUMMARY, chosen.DECISION)]
    made["aggregate"] = {"deps": [_entry(Path("data/items"))], "outs": tables}
    files.write_text("dvc.lock", quick_yaml.dump({"schema": "2.0", "stages": made}))


def _entry(path: Path) -> dict[str, str]:
    return {"path": str(path), "md5": chosen.digest(path)}


@pytest.fixture
def project(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, as the working directory; tests leave it as it is."""
    monkeypatch.chdir(run)
    return run


def exported(variant: str, to: Path, **options: object) -> Path:
    wanted = {"push": None, "public": False, "accept_licence": False, "licence": None, "author": None, **options}
    export.main(variant, to, **wanted)
    return to


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each form, exported once."""
    target = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run)
        forms = {"adapter": "lora-trained", "full": "full-trained", "merged": "lora-bf16", "gguf": "lora-q8_0"}
        return {form: exported(f"demo-demo-{name}", target / form, author="Ada") for form, name in forms.items()}


IDS = torch.tensor([[1, 10, 20, 30, 40, 50]])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_the_adapter_loads_with_plain_peft_and_says_the_same(project: Path, made: dict[str, Path]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def loaded(adapter: Path) -> torch.Tensor:
        base = AutoModelForCausalLM.from_pretrained(CELL.base, dtype=torch.float32)
        return logits(PeftModel.from_pretrained(base, adapter))

    assert torch.equal(loaded(made["adapter"]), loaded(CELL.training(42).weights))
    base = AutoModelForCausalLM.from_pretrained(CELL.base, dtype=torch.float32)
    assert not torch.equal(logits(base), loaded(made["adapter"])), "the adapter does something"
    assert AutoTokenizer.from_pretrained(made["adapter"]).chat_template == TEMPLATE
    config = json.loads((made["adapter"] / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "models/base/demo"


@pytest.mark.parametrize("form", ["merged", "full"])
def test_a_checkpoint_loads_with_plain_transformers_and_says_the_same(
    project: Path, made: dict[str, Path], form: str
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = CELL.merged if form == "merged" else Cell("demo", "demo", "full").training(42).weights
    here = AutoModelForCausalLM.from_pretrained(made[form], dtype=torch.float32)
    there = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    assert torch.equal(logits(here), logits(there))
    assert AutoTokenizer.from_pretrained(made[form]).chat_template == TEMPLATE


@pytest.mark.parametrize("form", ["adapter", "merged", "full"])
def test_the_cards_lines_of_python_load_it(
    project: Path, made: dict[str, Path], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = re.search(r"```python\n(.*?)```", (made[form] / "README.md").read_text(), re.DOTALL)[1]
    monkeypatch.chdir(made[form])
    names: dict[str, object] = {}
    exec(lines.replace("PATH/TO", str(project)), names)
    assert logits(names["model"]).isfinite().all()
    assert names["tokenizer"].chat_template == TEMPLATE
    asked, answered = names["asked"]["input_ids"], names["made"]
    assert asked[0, 0] == 1, "as evaluation asks: one BOS"
    assert answered.shape[1] > asked.shape[1]


def test_a_card_shows_a_test_item_and_asks_it_of_llama_server(project: Path, made: dict[str, Path]) -> None:
    item = chosen.choose("demo-demo-lora-q8_0").items[0]
    text = (made["gguf"] / "README.md").read_text()
    assert f"- its answer: {escaped(item['generated'])}" in text
    (request,) = [line for line in text.splitlines() if line.startswith("curl ")]
    words = shlex.split(request)
    assert words[1] == "http://127.0.0.1:8080/v1/chat/completions"
    most = params.load_all().evaluate.max_new_tokens
    turns = [{"role": "user", "content": item["prompt"]}]
    assert json.loads(words[-1]) == {"messages": turns, "temperature": 0, "max_tokens": most}


def test_of_a_users_own_file_no_test_item_is_shown(project: Path) -> None:
    found = chosen.choose("demo-demo-lora-q8_0")
    own = replace(found.dataset, generate=None, path="data/raw/mine.csv")
    found = replace(found, cfg=replace(found.cfg, datasets={"demo": own}))
    assert "no test item is shown" in card.example(found)[1]
    told = "\n".join(use.text for use in usage.uses(found, "x.gguf", None, True))
    assert "YOUR QUESTION" in told
    assert json.dumps(found.items[0]["prompt"])[1:-1] not in told


def test_a_card_says_what_weights_and_files_take(project: Path, made: dict[str, Path]) -> None:
    for form, name in {"gguf": "demo-demo-lora-q8_0.gguf", "adapter": "adapter_model.safetensors"}.items():
        text = (made[form] / "README.md").read_text()
        assert f"File: `{name}`, {(made[form] / name).stat().st_size:,} bytes." in text
        assert ("those of the base below the adapter among them" in text) == (form == "adapter")
        assert ("MB of weights with its base**" in text) == (form == "adapter")


def test_all_that_a_card_has_numbers_of_is_defined(project: Path, made: dict[str, Path]) -> None:
    text = (made["gguf"] / "README.md").read_text()
    assert "- general loss: mean negative log-likelihood" in text
    (line,) = [line for line in text.splitlines() if line.startswith("- multiple choice: share")]
    subjects = chosen.choose("demo-demo-lora-q8_0").results.subjects(CELL.variant("q8_0"))
    count = sum(asked for _, asked in subjects.values())
    assert f"; {count} questions made by this project's code, not those of MMLU, by subject: " in line
    assert all(f"{subject_of(name)} ({asked})" in line for name, (_, asked) in subjects.items())


@pytest.mark.parametrize(
    ("origin", "named"),
    [
        ("https://github.com/ada/thing.git", "https://github.com/ada/thing.git"),
        ("https://ada:ghp_secret@github.com/ada/thing", "https://github.com/ada/thing"),
        ("git@gitlab.com:ada/thing.git", "https://gitlab.com/ada/thing.git"),
        ("ssh://git@github.com/ada/thing", "https://github.com/ada/thing"),
        ("https://oauth2:secret@git.intranet.example/ada/thing", None),
        ("https://github.com/ada/thing?token=secret", None),
        ("/home/ada/thing", None),
        ("", None),
    ],
)
def test_the_repository_is_named_if_it_is_public_and_without_what_signs_in(
    origin: str, named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chosen, "_git", lambda *words: origin)
    assert chosen.repository() == named


def _reader(path: Path):
    from tradeoffs.export.gguf_file import _library

    return _library()[0].GGUFReader(path, "r")


def test_a_gguf_keeps_its_tensors_and_says_what_it_is(project: Path, made: dict[str, Path]) -> None:
    before, after = _reader(CELL.variant("q8_0").gguf), _reader(made["gguf"] / "demo-demo-lora-q8_0.gguf")

    def held(reader):
        return [(one.name, one.tensor_type, tuple(one.shape), one.data.tobytes()) for one in reader.tensors]

    assert held(before) == held(after)
    general = {key: field.contents() for key, field in after.fields.items() if key.startswith("general.")}
    assert general["general.name"] == "demo-demo-lora-q8_0"
    assert general["general.quantized_by"] == "Ada"
    assert general["general.base_model.0.name"] == "demo"
    assert general["general.dataset.0.name"] == "demo"
    assert "llm-tradeoffs" in general["general.tags"]
    assert "test items" in general["general.description"]
    assert "general.basename" not in general, "the converter's guess from the name of a folder"
    others = [key for key in before.fields if not key.startswith(("general.", "GGUF."))]
    assert others
    for key in others:
        assert after.fields[key].contents() == (TEMPLATE if "chat_template" in key else before.fields[key].contents())


def test_the_gguf_loads_with_plain_llama_cpp_and_says_the_same(project: Path, made: dict[str, Path]) -> None:
    from llama_cpp import Llama

    def answer(path: Path) -> list[int]:
        model = Llama(str(path), n_ctx=128, n_threads=1, verbose=False)
        found = []
        for token in model.generate([1, 10, 20, 30], temp=0.0):
            found.append(token)
            if len(found) == 12:
                return found
        return found

    assert answer(made["gguf"] / "demo-demo-lora-q8_0.gguf") == answer(CELL.variant("q8_0").gguf)


LLAMA3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = 'Be brief.' %}{% endif %}"
    "{{ '<|start|>system\n\n' + system + '<|eot|>' }}{% for message in messages %}"
    "{{ '<|start|>' + message.role + '\n\n' + message.content | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
)
WORDS_OF_GO = r"{{ .Prompt }}\"\"\"\\\né😀\t"
MARKS_OF_GO = (
    "{% for m in messages %}{{ '" + WORDS_OF_GO + "' + m.role + ':' + m.content }}{% endfor %}"
    "{{ '" + WORDS_OF_GO + "assistant:' }}"
)
DATED = "Today: {{ strftime_now('%d %b %Y') }}\n" + TEMPLATES["chatml"]  # as Llama 3.2
NO_THOUGHTS = (  # as Qwen3 and R1
    "{% for m in messages %}{% set text = m.content %}{% if m.role == 'assistant' and '</think>' in text %}"
    "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}<|{{ m.role }}|>{{ text }}{% endfor %}"
    "<|assistant|>"
)
TEXTS = ("What is 7 and 1?", *prompts.TRICKY, 'é """ \\ {{ end }} {{- /* x */ -}}', *hostile.HOSTILE[:-1])


def conversations(text: str, system: bool) -> list[list[dict[str, str]]]:
    user, assistant = {"role": "user", "content": text}, {"role": "assistant", "content": f"so {text}"}
    found = [[user], [user, assistant, user], [user, assistant, user, assistant, user]]
    return found + [[{"role": "system", "content": f"be {text}"}, *turns] for turns in found if system]


@pytest.fixture
def render(project: Path):
    tokenizer = checkpoints.load_tokenizer(CELL.base, "demo")

    def of(template: str, turns: list[dict[str, str]]) -> str:
        tokenizer.chat_template = template
        return chat_templates.rendered(tokenizer, turns, asks=True)

    return of


@pytest.fixture
def pieces(project: Path):
    tokenizer = checkpoints.load_tokenizer(CELL.base, "demo")

    def of(template: str) -> prompts.Pieces | str:
        tokenizer.chat_template = template
        return prompts.pieces(tokenizer)

    return of


@pytest.mark.parametrize(
    ("template", "trims", "system"),
    [
        (TEMPLATE, False, True),
        (TEMPLATES["chatml"], False, True),
        (LLAMA3, True, True),
        (NO_SYSTEM, False, False),
        (MARKS_OF_GO, False, True),
    ],
)
@pytest.mark.parametrize("adds_bos", [True, False])
def test_ollamas_template_gives_the_same_prompt(
    render, pieces, template: str, trims: bool, system: bool, adds_bos: bool
) -> None:
    found = pieces(template)
    assert isinstance(found, prompts.Pieces), found
    assert (found.trims, found.system is not None) == (trims, system)
    made, notes = ollama.template(found, "<s>", adds_bos)
    assert any("spaces" in note for note in notes) == trims
    assert '"""' not in made
    for text in TEXTS:
        given = text.strip() if trims else text
        for turns in conversations(given, system) if given else []:
            before = "<s>" if adds_bos and template.startswith("{{ bos_token }}") else ""
            assert before + go_template.prompt(made, turns) == render(template, turns)


@pytest.mark.parametrize(
    "template",
    [
        TEMPLATES["alpaca"],
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{% for m in messages %}{{ m.content[:20] }}{% endfor %}",
        "{{ messages[-1].content }}",
        "{% for m in messages %}{{ m.content }}{% endfor %}{{ messages | length }}",
        DATED,
        NO_THOUGHTS,
    ],
)
def test_what_ollama_cannot_say_is_left_out_with_the_reason(pieces, template: str, tmp_path: Path) -> None:
    made, notes = ollama.template(pieces(template), "<s>", True)
    assert made is None
    ollama.write(tmp_path, "x.gguf", made, notes, ollama.parameters(["</s>"], 512))
    assert not (tmp_path / "template").exists()
    lines = (tmp_path / "Modelfile").read_text().splitlines()
    assert not any(line.startswith("TEMPLATE") for line in lines)
    assert lines[0].startswith("# There is no TEMPLATE: ")


def test_the_modelfile_gives_the_prompt_that_tokenize_made(project: Path, made: dict[str, Path]) -> None:
    modelfile = (made["gguf"] / "Modelfile").read_text()
    template = re.search(r'^TEMPLATE """(.*?)"""$', modelfile, re.DOTALL | re.MULTILINE)[1]
    assert (made["gguf"] / "template").read_text() == template
    settings = json.loads((made["gguf"] / "params").read_text())
    assert settings == {"stop": ["</s>"], "num_ctx": tiny_gguf.CONTEXT, "temperature": 0, "repeat_penalty": 1}
    assert re.findall(r"^PARAMETER (\S+) (.*)$", modelfile, re.MULTILINE) == [
        ("stop", '"</s>"'), ("num_ctx", "600"), ("temperature", "0"), ("repeat_penalty", "1")
    ]  # fmt: skip
    tokenizer = checkpoints.load_tokenizer(CELL.base, "demo")
    example = {"id": "1", "prompt": "What is a bond?\n\n  Say it.", "answer": "A loan."}
    (row,) = chat.instruction_rows(tokenizer, [example], 500, [2], Path("rows"))
    asked = go_template.prompt(template, [{"role": "user", "content": example["prompt"]}])
    # The BOS is what the runtime puts before it, as the file says.
    assert gguf_file.adds_bos(made["gguf"] / "demo-demo-lora-q8_0.gguf")
    model = tiny_gguf.Gguf(made["gguf"] / "demo-demo-lora-q8_0.gguf")
    assert [1, *model.tokenize(asked)] == row["ids"][: row["prompt_tokens"]]
    assert model.ends_an_answer(2)


def test_a_model_of_plain_text_gets_it_as_it_is(project: Path, tmp_path: Path) -> None:
    described, held = CELL.tokens / "info.json", Path("dvc.lock").read_text()
    before = described.read_text()
    try:
        files.write_json(described, files.read_json(described) | {"kind": "text"})
        lock(project)
        out = exported("demo-demo-lora-f16", tmp_path / "out")
    finally:
        described.write_text(before)
        files.write_text("dvc.lock", held)
    assert (out / "template").read_text() == "{{ .Prompt }}"
    assert not (out / "chat_template.jinja").exists()


def test_stops_that_no_line_can_hold_are_said(tmp_path: Path) -> None:
    ollama.write(tmp_path, "x.gguf", None, [], ollama.parameters(['"', "a\nFROM /etc/passwd", "<|end|>"], 8))
    lines = (tmp_path / "Modelfile").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "FROM ./x.gguf", 'PARAMETER stop "<|end|>"', "PARAMETER num_ctx 8", "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]  # fmt: skip
    assert json.loads((tmp_path / "params").read_text())["stop"] == ['"', "a\nFROM /etc/passwd", "<|end|>"]


def test_the_card_parses_back(project: Path, made: dict[str, Path]) -> None:
    summary = chosen.choose("demo-demo-lora-q8_0").numbers()
    card = huggingface_hub.ModelCard.load(made["gguf"] / "README.md")
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found["f1"] == summary["test_f1"]
    assert found["loss"] == summary["test_loss"]
    assert {result.dataset_type for result in card.data.eval_results} == {"demo"}
    assert (card.data.library_name, card.data.pipeline_tag) == ("gguf", "text-generation")
    assert "license" not in card.data.to_dict(), "nobody has said which"
    assert f"| F1 | {summary['test_f1']:.3f} [{summary['test_f1_low']:.3f}" in card.text
    assert "by their ids in order, have the SHA-256" in card.text
    assert "general loss as trained: " in card.text.partition("## What it loses")[2].partition("## Use")[0]
    for form, library in {"adapter": "peft", "merged": "transformers", "full": "transformers"}.items():
        assert huggingface_hub.ModelCard.load(made[form] / "README.md").data.library_name == library
    assert huggingface_hub.utils.validate_repo_id("user/demo-demo-lora-q8_0") is None


def test_nothing_tells_of_this_machine(project: Path, made: dict[str, Path]) -> None:
    told = {str(project), str(project.parent), str(Path.home()), "hardware", "elsewhere"} - {"/"}
    told |= {platform.node()} if len(platform.node()) > 8 else set()  # a short one is found in any weights
    for folder in made.values():
        for path in folder.rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            assert not [word for word in told if word.encode() in content], path


def test_a_token_that_is_called_as_a_key_of_a_path_stays(tmp_path: Path) -> None:
    held = {"model": {"vocab": {"tokenizer_file": 3, "a": 4}}, "tokenizer_file": "/home/me"}
    files.write_json(tmp_path / "tokenizer.json", held)
    weights._forget_paths(tmp_path / "tokenizer.json")
    assert files.read_json(tmp_path / "tokenizer.json") == {"model": {"vocab": {"tokenizer_file": 3, "a": 4}}}


def test_what_the_gguf_cannot_say_of_the_end_of_an_answer_is_said(project: Path, tmp_path: Path) -> None:
    found = chosen.choose("demo-demo-lora-q8_0")
    found.__dict__["tokens"] = found.tokens | {"stop_ids": [2, 7, 8, 9]}
    assert gguf_file.write(found, tmp_path / "x.gguf", {}, None, None) == [8, 9]
    model = tiny_gguf.Gguf(tmp_path / "x.gguf")
    assert [model.ends_an_answer(token) for token in (2, 7, 8, 9)] == [True, True, False, False]
    (tmp_path / "out").mkdir()
    notes = export.fill(found, tmp_path / "out", export.licences.Terms(export.licences.sources(found), None))
    (note,) = [note for note in notes if "as `stop` with each request to llama-server" in note]
    assert note in (tmp_path / "out/README.md").read_text()
    assert json.loads(shlex.split(usage.uses(found, "x", None, True, ["<a>"])[1].text)[-1])["stop"] == ["<a>"]
    assert '"stop": [' in (tmp_path / "out/README.md").read_text()
    assert "source .venv/bin/activate" in (tmp_path / "out/README.md").read_text()


def test_every_file_is_in_the_record(project: Path, made: dict[str, Path]) -> None:
    for folder in made.values():
        held = json.loads((folder / "provenance.json").read_text())
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert there == {*held["files"], "provenance.json"}
        assert all(files.sha256(folder / name) == digest for name, digest in held["files"].items())
        assert held["artefact"]["md5"] == chosen.digest(Path(held["artefact"]["path"]))


@pytest.mark.parametrize(
    "path",
    [
        "models/gguf/demo-demo-lora-q8_0.gguf",
        "models/base/demo/config.json",
        "data/items/demo-demo-lora-q8_0.parquet",
        "metrics/summary.csv",
        "metrics/decision.json",
    ],
)
def test_what_was_changed_after_the_run_is_refused(project: Path, tmp_path: Path, path: str) -> None:
    before = Path(path).read_bytes()
    try:
        Path(path).write_bytes(before + b"\n")
        with pytest.raises(UserError, match=r"not what dvc\.lock says"):
            exported("demo-demo-lora-q8_0", tmp_path / "out")
    finally:
        Path(path).write_bytes(before)
    assert not list(tmp_path.iterdir())


def test_an_artefact_that_was_made_after_it_was_evaluated_is_refused(project: Path, tmp_path: Path) -> None:
    before = Path("dvc.lock").read_text()
    held = quick_yaml.load(before)
    held["stages"]["evaluate@demo-demo-lora-q8_0"]["deps"][0]["md5"] = "0" * 32
    try:
        files.write_text("dvc.lock", quick_yaml.dump(held))
        with pytest.raises(UserError, match="measured another version of it"):
            exported("demo-demo-lora-q8_0", tmp_path / "out")
    finally:
        files.write_text("dvc.lock", before)


def test_what_others_were_asked_is_no_matter_of_a_variant(project: Path, tmp_path: Path) -> None:
    """A run list that has changed since, of which some steps have run and the report has not been made."""
    params_before, lock_before = Path("params.yaml").read_text(), Path("dvc.lock").read_text()
    raw, held = quick_yaml.load(params_before), quick_yaml.load(lock_before)
    raw["run"] |= {"methods": ["lora", "base", "vblora"], "quants": ["q8_0", "q4_0"]}
    held["stages"]["evaluate@demo-demo-lora-q4_0"] = {
        "outs": [{"path": "data/items/demo-demo-lora-q4_0.parquet", "md5": "1" * 32}]
    }
    del held["stages"]["evaluate@demo-demo-lora-f16"]
    try:
        files.write_text("params.yaml", quick_yaml.dump(raw))
        files.write_text("dvc.lock", quick_yaml.dump(held))
        assert (exported("demo-demo-lora-q8_0", tmp_path / "out") / "README.md").is_file()
    finally:
        files.write_text("params.yaml", params_before)
        files.write_text("dvc.lock", lock_before)


@pytest.mark.parametrize("column", ["test_f1", "decode_tokens_per_second"])
def test_numbers_of_another_run_are_refused(project: Path, tmp_path: Path, column: str) -> None:
    summary, lock_before = chosen.SUMMARY.read_text(), Path("dvc.lock").read_text()
    with chosen.SUMMARY.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row[column] = "0.987" if row["variant"] == "demo-demo-lora-q8_0" else row[column]
    try:
        tables.write_csv(chosen.SUMMARY, rows)
        lock(project)
        with pytest.raises(UserError, match=rf"summary.csv: {column} of demo-demo-lora-q8_0 is not what was measured"):
            exported("demo-demo-lora-q8_0", tmp_path / "out")
        exported("demo-demo-lora-bf16", tmp_path / "other")
    finally:
        chosen.SUMMARY.write_text(summary)
        files.write_text("dvc.lock", lock_before)


def test_what_is_missing_is_said_with_the_way_to_it(project: Path, tmp_path: Path) -> None:
    gguf = CELL.variant("q8_0").gguf
    gguf.rename(tmp_path / "away")
    try:
        with pytest.raises(UserError, match=r"models/gguf/demo-demo-lora-q8_0.gguf: missing; `dvc pull models/gguf"):
            exported("demo-demo-lora-q8_0", tmp_path / "out")
    finally:
        (tmp_path / "away").rename(gguf)
    with pytest.raises(UserError, match=r"no variant of the run list.*did you mean demo-demo-lora-q8_0"):
        exported("demo-demo-lora-q8", tmp_path / "out")
    with pytest.raises(UserError, match=r"trains nothing.*demo-demo-base-bf16"):
        exported("demo-demo-base-trained", tmp_path / "out")


def test_only_what_it_wrote_itself_is_replaced(project: Path, made: dict[str, Path], tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(made["adapter"], own)
    assert exported("demo-demo-lora-trained", own).is_dir()
    (own / "README.md").write_text("my own words")
    with pytest.raises(UserError, match="did not write, or that were changed since"):
        exported("demo-demo-lora-trained", own)
    assert (own / "README.md").read_text() == "my own words"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    for place in (mine, Path(), project.parent, mine / "thesis.txt", Path("models/gguf/new")):
        with pytest.raises(UserError, match="--to"):
            exported("demo-demo-lora-trained", place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "own"], "nothing half made is left"


def test_a_hash_is_that_of_dvc(tmp_path: Path) -> None:
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db.local import LocalHashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    (tmp_path / "made/b").mkdir(parents=True)
    for name in ("z", "a.txt", "b/ü", "b.txt"):
        (tmp_path / "made" / name).write_text(name)
    fs = LocalFileSystem()
    store = LocalHashFileDB(fs, str(tmp_path / "cache"))
    *_, found = build(store, str(tmp_path / "made"), fs, "md5")
    assert chosen.digest(tmp_path / "made") == found.hash_info.value


def test_an_adapter_of_the_hubs_base_names_it_and_its_commit(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = chosen.choose("demo-demo-lora-trained")
    model = replace(found.model, generate=None, hub="team/base", revision="main", licence="mit")
    found = replace(found, cfg=replace(found.cfg, models={"demo": model}))
    found.__dict__["base"] = {"source": "team/base", "commit": 40 * "a", "base_id": "x"}
    weights.write(found, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("team/base", 40 * "a")
    _, vllm = usage.uses(found, "", None, template=True)
    assert shlex.split(vllm.text) == [
        *("vllm", "serve", "team/base", "--revision", 40 * "a", "--enable-lora"),
        *("--lora-modules", "demo-demo-lora-trained=.", "--max-lora-rank", "16", "--chat-template"),
        "chat_template.jinja",
    ]


def test_the_command_pushes_what_it_made(project: Path, tmp_path: Path) -> None:
    words = ["demo-demo-lora-q8_0", "--to", tmp_path / "out", "--push", "team/q8", "--licence", "mit"]
    with FakeHub() as hub:
        more = {"HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "PYTHONPATH": str(REPO)}
        environment = hub.environment(tmp_path / "home", **more)
        done = forked.python("-m", "tradeoffs.export", *words, cwd=project, env=environment, libraries=forked.HUB)
        assert done.returncode == 0, done.stderr
        access, held = hub.held("team/q8")
    assert f"pushed as one commit: {hub.url}/team/q8/commit/" in done.stdout
    assert access == "private"
    assert {name: len(content) for name, content in held.items() if name != ".gitattributes"} == {
        path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()
    }
    data = huggingface_hub.ModelCard(held["README.md"].decode()).data
    assert data.license == "mit"
    assert b"ollama run hf.co/team/q8" in held["README.md"]
    assert TOKEN not in done.stdout + done.stderr
    assert not [name for name, content in held.items() if TOKEN.encode() in content]
    assert "Writing" not in done.stderr, "a progress bar is for a terminal"


def test_without_a_token_nothing_is_written(
    project: Path, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="--push team/x: no token"):
        exported("demo-demo-lora-q8_0", tmp_path / "out", push="team/x", accept_licence=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", hostile.HOSTILE)
def test_hostile_words_are_one_word_of_a_command(text: str) -> None:
    written = usage.line("llama-server", "-m", text)
    assert "\n" not in written
    assert shlex.split(written) == ["llama-server", "-m", on_a_line(text)]
    assert not hostile.harm(written)
