"""What is said of a model, a data set and a method comes together in one order, and is refused where it cannot."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import quick_yaml
from fake_pipeline import REPO

from tradeoffs import params
from tradeoffs.common import cells, settings
from tradeoffs.common.cells import Cell
from tradeoffs.finetune.job import Job
from tradeoffs.plumbing.errors import UserError

LORA = Cell("demo", "demo", "lora")


@pytest.fixture
def raw():
    return quick_yaml.load((REPO / "params.yaml").read_text())


def read(raw) -> params.Params:
    found, problems = params.checked(raw)
    assert found and not problems
    return found


def problems(raw) -> list[str]:
    return params.checked(raw)[1]


def test_the_most_particular_block_decides(raw):
    """Each is taken away in turn, from the last to the first; what is below it then shows."""
    places = [
        (raw["models"]["demo"].setdefault("methods", {}).setdefault("lora", {}), 5),
        (raw["methods"]["lora"], 4),
        (raw["models"]["demo"], 3),
        (raw["datasets"]["demo"], 2),
    ]
    for block, value in places:
        block["train"] = {"batch_size": value}
    for block, value in places:
        assert settings.budget(read(raw), LORA).batch_size == value
        del block["train"]
    assert settings.budget(read(raw), LORA) == read(raw).train


def test_a_factor_multiplies_the_rate_that_lies_below(raw):
    raw["train"]["lr"] = 0.005
    raw["methods"]["lora"]["train"] = {"lr_factor": 0.4}
    assert settings.budget(read(raw), LORA).lr == 0.002
    raw["models"]["demo"]["train"] = {"lr": 0.0003}
    assert settings.budget(read(raw), LORA).lr == 0.00012
    raw["methods"]["lora"]["train"]["lr"] = 0.7  # said as such, it is that
    assert settings.budget(read(raw), LORA).lr == 0.7


def test_no_digit_is_lost_on_the_way_to_a_file(raw):
    raw["train"]["lr"] = 0.00123456789012345
    part = dict(settings.parts(read(raw)))[cells.settings("cells", LORA)]
    assert json.loads(settings.text(part))["train"]["lr"] == raw["train"]["lr"]


def test_the_committed_rates_are_those_that_each_method_was_given(raw):
    """By the shared rate and the factors: what the default's adapters were trained with."""
    cfg = read(raw)
    rates = {name: settings.budget(cfg, Cell("demo", "demo", name)).lr for name in cfg.run.methods}
    assert rates | {"base": 0.005} == {
        **dict.fromkeys(("base", "lora", "lora_8bit", "qlora"), 0.005),
        "full": 0.001,
        "adalora": 0.02,
        "vblora": 0.06,
    }


def test_epochs_take_the_place_of_steps_and_steps_that_of_epochs_below(raw):
    raw["train"]["epochs"] = 3
    job = Job(LORA.training(42), read(raw).methods["lora"], settings.budget(read(raw), LORA))
    assert job.on(101).budget.steps == 10  # 3 * 101 / 32, the last one whole
    assert job.on(101).on(101) == job.on(101)
    raw["methods"]["lora"]["train"] = {"steps": 70, "epochs": None}
    job = Job(LORA.training(42), read(raw).methods["lora"], read(raw).train)
    assert (job.on(101).budget.steps, job.on(101).budget.epochs) == (70, None)


def test_a_models_own_config_is_laid_over_that_of_the_method_for_it_alone(raw):
    raw["models"]["demo"]["methods"] = {"lora": {"config": {"r": 4}}}
    raw["models"]["other"] = {key: value for key, value in raw["models"]["demo"].items() if key != "methods"}
    cfg = read(raw)
    assert settings.of_method(cfg, LORA).config == raw["methods"]["lora"]["config"] | {"r": 4}
    assert settings.of_method(cfg, replace(LORA, model="other")).config == raw["methods"]["lora"]["config"]


def test_a_further_stage_goes_on_from_what_its_cell_was_tuned_with(raw):
    raw["models"]["demo"]["train"] = {"max_grad_norm": 0.5}
    preference = settings.of_method(read(raw), replace(LORA, method="lora_dpo")).preference
    assert preference and preference.train
    assert preference.train.items() >= {"max_grad_norm": 0.5, "steps": 100, "batch_size": 16, "lr": 0.0005}.items()
    assert "lr_factor" not in preference.train


def test_a_stage_reads_what_the_file_it_depends_on_holds(raw, tmp_path, monkeypatch):
    from stages import finetune
    from stages import settings as stage

    raw["models"]["demo"] |= {"train": {"lr": 0.003}, "methods": {"lora": {"config": {"r": 2}}}}
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(quick_yaml.dump(raw))
    stage.main()
    held = json.loads(Path("metrics/settings/cells/demo-demo-lora.json").read_text())
    cfg = params.load_settings(finetune.Settings, model="demo", dataset="demo", method="lora")
    assert held["train"] == {key: value for key, value in asdict(cfg.train).items() if value is not None}
    assert held["methods"]["lora"] == {key: value for key, value in asdict(cfg.method).items() if value is not None}
    shown = json.loads(Path("metrics/settings.json").read_text())
    assert "demo-demo-base" not in shown and shown["demo-demo-lora"]["config"]["r"] == 2
    assert shown["demo-demo-lora"]["lr"] == 0.003 and shown["demo-demo-adalora"]["lr"] == 0.012


def test_a_step_runs_with_no_others_than_those_of_the_file_that_it_depends_on(raw, tmp_path, monkeypatch):
    """Or DVC, and its run cache, would keep what comes of the new under the old."""
    from stages import finetune
    from stages import settings as stage

    def load(now=False):
        return params.load_settings(finetune.Settings, now=now, model="demo", dataset="demo", method="lora")

    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(quick_yaml.dump(raw))
    stage.main()
    raw["methods"]["full"]["train"]["lr_factor"] = 0.1
    raw["models"]["demo"]["notes"] = "another"
    Path("params.yaml").write_text(quick_yaml.dump(raw))
    assert load().train.lr == 0.005
    raw["models"]["demo"]["train"] = {"lr": 0.003}
    Path("params.yaml").write_text(quick_yaml.dump(raw))
    with pytest.raises(UserError, match=r"^metrics/settings/cells/demo-demo-lora\.json: does not hold what"):
        load()
    assert load(now=True).train.lr == 0.003
    stage.main()
    assert load().train.lr == 0.003


def test_steps_that_epochs_take_the_place_of_train_nothing_anew(raw):
    raw["datasets"]["demo"]["train"] = {"epochs": 2}
    before = dict(settings.parts(read(raw)))[cells.settings("cells", LORA)]
    raw["train"]["steps"] += 1
    assert dict(settings.parts(read(raw)))[cells.settings("cells", LORA)] == before
    assert "steps" not in before["train"] and before["train"]["epochs"] == 2


def test_an_empty_epochs_gives_way_to_steps(raw):
    raw["datasets"]["demo"]["train"] = {"epochs": 2}
    raw["models"]["demo"]["train"] = {"epochs": None, "steps": 70}
    found = settings.budget(read(raw), LORA)
    assert (found.steps, found.epochs) == (70, None)


WRONG = [
    ("models.demo.train", {"lrr": 1}, "models.demo.train.lrr: unknown key (did you mean lr?)"),
    ("models.demo.train", {"lr_factor": 0}, "models.demo.train.lr_factor: must be above 0, is 0.0"),
    ("datasets.demo.train", {"epochs": -1}, "datasets.demo.train.epochs: must be above 0, is -1.0"),
    (
        "datasets.demo.train",
        {"epochs": 1, "steps": 9},
        "datasets.demo.train: has both steps and epochs; one of them is how long it takes",
    ),
    ("models.demo.tokenize", {"windows": 9}, "models.demo.tokenize.windows: unknown key (did you mean window?)"),
    ("models.demo.methods", {"lorra": {}}, "models.demo.methods.lorra: 'lorra' has no block under methods"),
    ("models.demo.methods", {"lora": {"config": {"rr": 8}}}, "models.demo.methods.lora.config.rr: "),
    ("models.demo.methods", {"lora": {"train": {"lrr": 1}}}, "models.demo.methods.lora.train.lrr: unknown key"),
    ("models.demo.methods", {"lora": {"train": {"lr_factor": "x"}}}, "models.demo.methods.lora.train.lr_factor: "),
    ("models.demo.methods", {"adalora": {"config": {"tinit": "x"}}}, "models.demo.methods.adalora.config.tinit: "),
    ("models.demo.methods", {"lora": {"config": {"r": 0}}}, "models.demo.methods.lora.config.r: "),
    (
        "models.demo.methods",
        {"full": {"config": {"r": 8}}},
        "models.demo.methods.full.config: this method has no",
    ),
    ("models.demo.methods", {"base": {"train": {}}}, "models.demo.methods.base: this method trains nothing"),
    (
        "models.demo.train",
        {"steps": 5},
        "models.demo.train.warmup_steps: 10 is more than the 5 steps of the training, which would end before",
    ),
    ("models.demo.train", {"warmup_steps": 260}, "models.demo.train.warmup_steps: 260 is more than the 250 steps"),
]


@pytest.mark.parametrize(("place", "value", "said"), WRONG, ids=[f"{place}-{value}" for place, value, _ in WRONG])
def test_what_cannot_be_laid_over_is_named_where_it_stands(raw, place, value, said):
    *blocks, key = place.split(".")
    block = raw
    for name in blocks:
        block = block[name]
    block[key] = value
    found = problems(raw)
    assert any(problem.startswith(said) for problem in found), found
    assert len(found) == len(set(found))


def test_of_what_is_not_in_the_run_list_only_the_block_itself_is_looked_at(raw):
    raw["models"]["gpt2"]["train"] = {"steps": 5}  # with 10 steps of warm-up
    assert not problems(raw)
