"""A variant is handed over: what comes out loads elsewhere, says the same, and tells nothing of this machine."""

import json
import platform
import re
import shutil
from pathlib import Path

import fake_results
import pytest
import quick_yaml
import tiny_gguf
import torch
import yaml

from stages import quantize
from tradeoffs import merging, params
from tradeoffs.base.prompts import TEMPLATES
from tradeoffs.common import cells, files
from tradeoffs.common.cells import Cell
from tradeoffs.convert import fetch_converter, gguf_converter
from tradeoffs.export import __main__ as export
from tradeoffs.export import chosen, prompts, usage
from tradeoffs.models import checkpoints
from tradeoffs.plumbing.errors import UserError

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
        described["name_or_path"] = str(folder / "elsewhere")
        files.write_json(CELL.base / "tokenizer_config.json", described)
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
    quantize.main(cell.model, cell.dataset, cell.method, "q8_0")


def lock(folder: Path) -> None:
    """dvc.lock of what lies in the folder: every output with its hash, and the steps that measured."""
    run = params.load_all().run
    outs = [*folder.glob("models/base/*"), *folder.glob("models/trained/*/*"), *folder.glob("models/merged/*")]
    outs += [*folder.glob("models/gguf/*"), *folder.glob("data/tokens/*"), *folder.glob("data/prepared/*")]
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
