"""An example runs from a params file of its own: the project's, but for what the example is about."""

from pathlib import Path

import fake_pipeline
import pytest
import quick_yaml

from benchmarks import fetch
from tradeoffs import params

REPO = Path(__file__).parents[1]
FILES = sorted((REPO / "examples").glob("*/params.yaml"))
# Its results are of the demo model as it was made before (examples/README.md says which).
ITS_OWN = {"models.demo", "models.stories260k", "datasets.instructions", "datasets.stories"}


@pytest.fixture(params=FILES, ids=lambda path: path.parent.name)
def example(request) -> Path:
    return request.param


def test_every_example_has_its_params():
    assert {path.parent for path in FILES} == {path.parent.parent for path in REPO.glob("examples/*/report/report.md")}


def test_it_is_the_projects_file_but_for_what_it_is_about(example):
    params.load_all(example)
    own, project = (quick_yaml.load(path.read_text()) for path in (example, REPO / "params.yaml"))
    project["train"]["steps"] = own["train"]["steps"]
    project["decide"]["metric"] = own["decide"]["metric"]
    project["evaluate"]["splits"] = own["evaluate"]["splits"]
    for section, block in own.items():
        if section in ("models", "datasets", "methods"):
            for name, entry in block.items():
                if section == "methods" and "train" in entry:
                    project[section][name]["train"] = entry["train"]  # rates are those of its model
                if f"{section}.{name}" not in ITS_OWN:
                    assert entry == project[section][name], f"{section}.{name}"
        elif section != "run":
            assert block == project[section], section
    assert set(own) == set(project)
    catalogues = {kind: set(own[kind]) for kind in ("models", "datasets", "methods")}
    assert {kind: set(own["run"][kind]) for kind in catalogues} == catalogues


def test_what_its_page_copies_is_what_fetch_brings_and_its_params_read(example):
    page = (REPO / "examples/README.md").read_text()
    brought = {file.path for name in ("stories260k", "instructions") for file in fetch.read_table()[name]}
    assert "fetch --into .scratch/assets stories260k instructions" in page
    assert "cp -r .scratch/assets/models/stories260k models/raw/" in page
    assert "cp .scratch/assets/data/instructions/instruction-data.json data/raw/" in page
    assert {"data/instructions/instruction-data.json", "models/stories260k/model.safetensors"} <= brought
    cfg = params.load_all(example)
    assert cfg.models["stories260k"].path == "models/raw/stories260k"
    assert cfg.datasets["instructions"].path == "data/raw/instruction-data.json"


def test_in_the_place_of_params_yaml_dvc_runs_its_cells(example, tmp_path):
    fake_pipeline.make(tmp_path)
    (tmp_path / "params.yaml").write_text(example.read_text())
    fake_pipeline.dvc("init", "--no-scm", "--quiet", cwd=tmp_path)
    cells = set(fake_pipeline.dvc("stage", "list", "--name-only", cwd=tmp_path).split())
    assert {"finetune@stories260k-instructions-lora-43", "evaluate_cpu@demo-stories-full-q4_0"} <= cells
    assert "prepare@demo" not in cells
