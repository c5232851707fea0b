"""params.yaml is read strictly: every problem at once, with the near match, before any work."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import pytest
import quick_yaml

from tradeoffs import params
from tradeoffs.params import fields
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]


@pytest.fixture
def raw():
    return quick_yaml.load((REPO / "params.yaml").read_text())


def problems(raw, tmp_path):
    """The message that reading `raw` ends with."""
    path = tmp_path / "params.yaml"
    path.write_text(quick_yaml.dump(raw))
    with pytest.raises(UserError) as caught:
        params.load_all(path)
    return str(caught.value).replace(str(path), "params.yaml")


def put(raw, path, value):
    *parents, last = path.split(".")
    for part in parents:
        raw = raw[part]
    raw[last] = value


def test_the_committed_file_has_no_problem():
    assert params.load_all(REPO / "params.yaml").run.models


def test_every_problem_is_reported_at_once(raw, tmp_path):
    raw["train"]["stepz"] = raw["train"].pop("steps")
    raw["run"]["methods"] = ["base", "dorra"]
    raw["evaluate"]["batch_tokens"] = "many"
    assert problems(raw, tmp_path) == (
        "params.yaml: 3 problems\n"
        "  train.stepz: unknown key (did you mean steps?)\n"
        "  evaluate.batch_tokens: must be a whole number or auto, is 'many'\n"
        "  run.methods: 'dorra' has no block under methods (did you mean dora?)"
    )


def test_a_method_without_a_block_names_the_near_one(raw, tmp_path):
    raw["run"]["methods"] = ["base", "lorra"]
    assert problems(raw, tmp_path) == (
        "params.yaml: 1 problem\n  run.methods: 'lorra' has no block under methods (did you mean lora?)"
    )


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("train.steps", 0, "train.steps: must be at least 1, is 0"),
        ("train.lr", -1, "train.lr: must be above 0, is -1.0"),
        ("train.lr", True, "train.lr: must be a number, is True"),
        ("seed", 1.5, "seed: must be a whole number, is 1.5"),
        ("run.quants", ["q4_k"], "run.quants[0]: unknown value 'q4_k' (did you mean q4_k_s?)"),
        ("run.precisions", ["fp8"], "run.precisions[0]: unknown value 'fp8' (there are: float32, bf16, fp16,"),
        ("run.precisions", "bf16", "run.precisions: must be a list, is 'bf16'"),
        ("run.models", ["demo", "demo"], "run.models: 'demo' stands twice"),
        ("run.models", [], "run.models: must name at least one entry"),
        ("run.seeds", [], "run.seeds: must name at least one entry"),
        ("run.seeds", [1, 2, 1], "run.seeds: 1 stands twice"),
        ("run.seeds", [-1], "run.seeds[0]: must be at least 0, is -1"),
        ("run.seeds", 42, "run.seeds: must be a list, is 42"),
        ("train.seed", 42, "train.seed: unknown key (it is run.seeds now)"),
        ("methods.lora.train", {"seed": 1}, "methods.lora.train.seed: unknown key (it is run.seeds now)"),
        (
            "methods.lora_dpo.preference.train",
            {"seed": 1},
            "methods.lora_dpo.preference.train.seed: unknown key (it is run.seeds now)",
        ),
        ("evaluate.prompts", ["Why?"], "evaluate.prompts: unknown key (it is datasets.<name>.prompts now)"),
        ("datasets.alpaca.prompts", ["Why?", "How?", "Why?"], "datasets.alpaca.prompts: 'Why?' stands twice"),
        ("evaluate.mmlu", None, "evaluate.mmlu: must be a block of keys, is empty"),
        (
            "methods.full.peft",
            "LORA",
            "methods.full: has both full and peft; a method trains either all weights or an adapter",
        ),
        ("methods.lora.load", "int9", "methods.lora.load: unknown value 'int9' (did you mean int8?)"),
        ("methods.lora.load", "nf4", "methods.lora.double_quant: missing; nf4 needs it"),
        ("methods.lora.double_quant", True, "methods.lora.double_quant: means something with load: nf4 or fp4 only"),
        ("methods.lora_8bit.double_quant", False, "methods.lora_8bit.double_quant: means something with load: nf4"),
        (
            "methods.lora.compute_dtype",
            "bf16",
            "methods.lora.compute_dtype: unknown value 'bf16' (did you mean bfloat16?)",
        ),
        ("methods.base.compute_dtype", "float32", "methods.base.compute_dtype: this method trains nothing"),
        ("methods.loraplus.loraplus_lr_ratio", 0.5, "methods.loraplus.loraplus_lr_ratio: must be at least 1, is 0.5"),
        ("methods.adalora.loraplus_lr_ratio", 4, "methods.adalora.loraplus_lr_ratio: is the optimiser of LORA's two"),
        ("methods.lora.peft", "LORAA", "methods.lora.peft: unknown type 'LORAA' (did you mean LORA?)"),
        ("methods.lora.peft", "lora", "methods.lora.peft: unknown type 'lora' (did you mean LORA?)"),
        ("methods.lora.peft", "POLY", "methods.lora.peft: POLY cannot be used here: it wants a task number"),
        ("methods.lora.config.lora_alfa", 3, "methods.lora.config.lora_alfa: unknown key (did you mean lora_alpha?)"),
        ("methods.vblora.config.lora_alpha", 3, "methods.vblora.config.lora_alpha: unknown key (there are: bias, "),
        ("methods.lora.config.task_type", "X", "methods.lora.config.task_type: is set by the pipeline; leave it out"),
        ("methods.adalora.config.total_step", 9, "methods.adalora.config.total_step: is always train.steps"),
        ("methods.hra.load", "int8", "methods.hra.load: HRA cannot train on an int8 base (these can: ADALORA, "),
        ("methods.dora.load", "int8", "methods.dora.load: LORA with use_dora cannot train on an int8 base; use nf4"),
        ("methods.pissa.load", "int8", "methods.pissa.config.init_lora_weights: pissa needs the weights as they are"),
        ("methods.lora.config.init_lora_weights", "eva", "methods.lora.config.init_lora_weights: eva looks at data"),
        ("methods.prompt_tuning.config", {}, "methods.prompt_tuning.config.num_virtual_tokens: missing; PROMPT_TUNING"),
        ("train.schedule", "cosin", "train.schedule: unknown value 'cosin' (did you mean cosine?)"),
        ("methods.lora.train", {"schedule": "lineer"}, "methods.lora.train.schedule: unknown value 'lineer'"),
        (
            "methods.lora.merge",
            "original_base",
            "methods.lora.merge: means something only where load quantises the base",
        ),
        ("evaluate.cost.batch_sizes", [65], "evaluate.cost.batch_sizes[0]: must be at least 2 and at most 64, is 65"),
        ("evaluate.cost.batch_sizes", [4, 4], "evaluate.cost.batch_sizes: 4 stands twice"),
        ("datasets.demo.prompts", ["Why?", " "], "datasets.demo.prompts: one is empty"),
        ("datasets.demo.prompts", "Why?", "datasets.demo.prompts: must be a list, is 'Why?'"),
        ("datasets.demo.prompts", ["Why?", 5], "datasets.demo.prompts[1]: must be a text, is 5"),
        ("evaluate.bootstrap", 1, "evaluate.bootstrap: must be at least 20, is 1"),
        ("decide.metric", "test_f2", "decide.metric: unknown metric 'test_f2' (did you mean test_f1?)"),
        ("decide.metric", "test_bleu", "decide.metric: test_bleu has no margin; give decide.margins.bleu"),
        ("decide.metric", "cosine_to_base", "decide.metric: unknown metric 'cosine_to_base' ("),
        (
            "decide.metric",
            "general_loss",
            "decide.metric: general_loss is not measured of every variant; name a metric that is",
        ),
        ("decide.metric", "kld", "decide.metric: kld is not measured of every variant; name a metric that is"),
        (
            "decide.metric",
            "same_top_token",
            "decide.metric: same_top_token is not measured of every variant; name a metric that is",
        ),
        ("decide.cost", "size", "decide.cost: unknown value 'size' (did you mean size_mb?)"),
        ("decide.margins.f1", 0, "decide.margins.f1: must be above 0, is 0"),
        ("decide.margins.f2", 0.1, "decide.margins.f2: unknown metric (there are: loss, "),
        ("decide.margins", {"f1": 0.02}, "decide.margins.exact_match: missing; the report judges by it"),
        ("decide.guards.mmlu_acuracy", "base", "decide.guards.mmlu_acuracy: unknown metric (did you mean mmlu_accur"),
        ("decide.guards.general_loss", "bset", "decide.guards.general_loss: unknown value 'bset' (did you mean best?)"),
        ("decide.guards.kld", "base", "decide.guards.kld: kld has no margin; give decide.margins.kld"),
        ("evaluate.kld_tail_samples", 1, "evaluate.kld_tail_samples: must be at least 2, is 1"),
        ("datasets.demo.mmlu", {"subjects": ["anatomy"]}, "datasets.demo.mmlu: needs exactly one of path"),
        (
            "datasets.demo.mmlu",
            {"path": "x", "revision": "main"},
            "datasets.demo.mmlu.revision: means nothing without hub",
        ),
        ("evaluate.copying", -1, "evaluate.copying: must be at least 0, is -1"),
        (
            "datasets.gsm8k.answer_pattern",
            "#### (",
            "datasets.gsm8k.answer_pattern: no regular expression: missing ), unterminated subpattern at position 5",
        ),
        (
            "datasets.gsm8k.answer_pattern",
            "#### [0-9]+",
            "datasets.gsm8k.answer_pattern: needs exactly one group, (...), which holds what exact match compares, and "
            "has 0; (?:...) is a group that holds nothing",
        ),
        ("datasets.gsm8k.answer_pattern", "(a)(b)", "datasets.gsm8k.answer_pattern: needs exactly one group"),
        (
            "datasets.tinystories.answer_pattern",
            "(a)",
            "datasets.tinystories.answer_pattern: means nothing for kind text",
        ),
        ("methods.lora.train", {"stepz": 1}, "methods.lora.train.stepz: unknown key (did you mean steps?)"),
        ("models.demo.path", "x", "models.demo: needs exactly one of generate, path, hub (has generate and path)"),
        ("models.gpt2.path", "x", "models.gpt2: needs exactly one of generate, path, hub (has path and hub)"),
        ("models.gpt2.revision", None, "models.gpt2.revision: missing; hub needs it (a commit of 40 hex digits"),
        ("models.demo.revision", "main", "models.demo.revision: means nothing without hub; leave it out"),
        ("models.demo.prompt", "plian", "models.demo.prompt: unknown value 'plian' (did you mean plain?)"),
        ("templates.house", 5, "templates.house: must be a text, is 5"),
        ("templates.own", "{{ messages }}", "templates.own: own is a built-in prompt; give the template another name"),
        ("templates.a-b", "{{ messages }}", "templates.a-b: a name holds letters, digits and _ only"),
        ("templates.house", "{{ mesages }}", "templates.house: reads no `messages`, so a prompt would not hold"),
        (
            "templates.house",
            "{% for m in messages %}\n{{ m.content }",
            "templates.house: no Jinja, line 2: unexpected '}'",
        ),
        ("templates.house", "{{ messages | jsonn }}", "templates.house: no Jinja, line 1: No filter named 'jsonn'."),
        (
            "templates.house",
            "{% if messages %}" * 120 + "{% endif %}" * 120,
            "templates.house: no Jinja that can be run",
        ),
        ("models.demo.gated", False, "models.demo.gated: means nothing without hub; leave it out"),
        (
            "datasets.dolly_15k.columns.answer",
            None,
            "datasets.dolly_15k.columns.answer: missing; kind instruction needs it",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(raw, tmp_path, path, value, expected):
    put(raw, path, value)
    assert f"\n  {expected}" in problems(raw, tmp_path)


def test_a_model_may_name_a_template_of_the_file(raw, tmp_path):
    raw["templates"]["house"] = (
        "{% for m in messages %}{{ m.content }}{% if loop.last %}{% break %}{% endif %}{% endfor %}"
    )
    raw["models"]["demo"]["prompt"] = "house"
    (tmp_path / "params.yaml").write_text(quick_yaml.dump(raw))
    assert params.load_all(tmp_path / "params.yaml").models["demo"].prompt == "house"
    raw["models"]["demo"]["prompt"] = "hous"
    assert "models.demo.prompt: unknown value 'hous' (did you mean house?)" in problems(raw, tmp_path)


def test_a_name_with_a_dash_would_break_the_names_of_variants(raw, tmp_path):
    raw["methods"]["lora-16"] = raw["methods"]["lora"]
    assert "methods.lora-16: a name holds letters, digits and _ only" in problems(raw, tmp_path)


def test_broken_yaml_names_the_line(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("run:\n  models: [demo\nseed: 1\n")
    with pytest.raises(UserError, match=r"params\.yaml: line 3: not valid YAML"):
        params.load_all(path)


def test_a_missing_file_says_where_it_looked(tmp_path):
    with pytest.raises(UserError, match=r"run from the folder that holds dvc\.yaml"):
        params.load_all(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("text", "said"), [("", "empty"), ("# nothing\n", "empty"), ("- run\n", "a list"), ("run\n", "'run'")]
)
def test_a_file_that_is_no_block_of_keys_says_so(tmp_path, text, said):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        params.load_all(path)
    assert str(caught.value) == f"{path}: 1 problem\n  the whole file: must be a block of keys, is {said}"


def test_a_file_in_another_encoding_says_so(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes("seed: ä".encode("latin-1"))
    with pytest.raises(UserError, match=r"params\.yaml: line 1: not valid YAML: 'utf-8' codec can't decode"):
        params.load_all(path)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("evaluate.cost", [1], "evaluate.cost: must be a block of keys, is a list"),
        ("evaluate.cost", {"batch_sizes": [4]}, "evaluate.cost.repetitions: missing"),
        ("methods.lora_dpo.stage", "dpoo", "methods.lora_dpo.stage: unknown value 'dpoo' (did you mean dpo?)"),
        ("datasets.demo.kind", "exam", "datasets.demo.kind: unknown value 'exam' (there are: instruction, "),
    ],
)
def test_what_does_not_fit_is_not_looked_into(raw, tmp_path, path, value, expected):
    raw["run"]["methods"] = ["base", "lora_dpo"]
    put(raw, path, value)
    assert f"\n  {expected}" in problems(raw, tmp_path)


MISSING = object()


def places(block, above=()):
    """The places of all keys and entries of what YAML holds."""
    for key in list(block) if isinstance(block, dict) else range(len(block)):
        yield (*above, key)
        if isinstance(block[key], (dict, list)):
            yield from places(block[key], (*above, key))


def within(block, place, value):
    """`block` with another value at a place; what is not on the way there is shared."""
    copy, (first, *rest) = block.copy(), place
    if value is MISSING and not rest:
        del copy[first]
    else:
        copy[first] = within(block[first], rest, value) if rest else value
    return copy


WRONG = {"empty": None, "list": ["x"], "block": {"x": 1}, "word": "x", "number": -1, "missing": MISSING}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
def test_whatever_stands_anywhere_is_read_or_named(raw, value):
    kept = {"models": ["demo", "gpt2"], "datasets": ["demo", "alpaca"], "methods": ["base", "lora", "lora_dpo"]}
    raw |= {axis: {name: raw[axis][name] for name in names} for axis, names in kept.items()}
    for place in places(raw):
        found, problems = params.checked(within(raw, place, value))
        assert found or problems, place


@pytest.mark.parametrize("text", ["2e-05", "2e-5", "0.00002", "2.0e-05", "2E-5"])
def test_a_float_as_dvc_writes_it_is_a_number(raw, tmp_path, text):
    raw["train"]["lr"] = "HERE"
    path = tmp_path / "params.yaml"
    path.write_text(quick_yaml.dump(raw).replace("HERE", text))
    assert params.load_all(path).train.lr == 2e-5


@dataclass(frozen=True)
class Reads:
    train: params.Train
    method: Annotated[params.Method, "methods.{method}"]
    cost: Annotated[params.Cost, "evaluate.cost"]


def test_a_stage_gets_what_it_declares_and_nothing_else(monkeypatch):
    monkeypatch.chdir(REPO)
    cfg = params.load(Reads, method="lora")
    assert set(vars(cfg)) == {"train", "method", "cost"}
    assert cfg.method.peft == "LORA"


def test_a_field_is_the_section_of_its_name_or_where_annotated_says():
    assert params.paths(Reads) == {"train": "train", "method": "methods.{method}", "cost": "evaluate.cost"}


def test_each_field_is_what_stands_at_its_place(monkeypatch):
    monkeypatch.chdir(REPO)
    cfg, whole = params.load(Reads, method="adalora"), params.load_all()
    assert (cfg.train, cfg.method, cfg.cost) == (whole.train, whole.methods["adalora"], whole.evaluate.cost)


def test_the_file_is_the_one_that_path_names_at_the_time(raw, tmp_path, monkeypatch):
    raw["train"]["steps"] = 77
    (tmp_path / "other.yaml").write_text(quick_yaml.dump(raw))
    monkeypatch.setattr(params, "PATH", tmp_path / "other.yaml")
    assert params.load(Reads, method="lora").train.steps == 77
    with pytest.raises(UserError, match=r"other\.yaml: 'lorra' has no block under methods"):
        params.load(Reads, method="lorra")


def test_a_problem_elsewhere_in_the_file_stops_a_stage_too(raw, tmp_path, monkeypatch):
    raw["models"]["demo"]["promt"] = "own"
    (tmp_path / "params.yaml").write_text(quick_yaml.dump(raw))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"models\.demo\.promt: unknown key \(did you mean prompt\?\)"):
        params.load(Reads, method="lora")


def test_a_stage_asked_for_an_unknown_name_lists_the_catalogue(monkeypatch):
    monkeypatch.chdir(REPO)
    with pytest.raises(UserError, match=r"'lorra' has no block under methods \(did you mean lora\?\)"):
        params.load(Reads, method="lorra")


def test_load_none_is_no_load(raw, tmp_path):
    raw["methods"]["lora"]["load"] = "none"
    (tmp_path / "params.yaml").write_text(quick_yaml.dump(raw))
    assert params.load_all(tmp_path / "params.yaml").methods["lora"].load is None


def test_schedules_are_those_of_transformers_that_need_no_further_settings():
    import torch
    from transformers import SchedulerType, get_scheduler

    able = []
    for kind in SchedulerType:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
        try:
            schedule = get_scheduler(kind, optimizer, num_warmup_steps=2, num_training_steps=10)
            optimizer.step()
            schedule.step()
        except (TypeError, ValueError):
            continue
        able.append(kind.value)
    assert able == list(get_args(fields.Schedule))
