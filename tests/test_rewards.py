"""What an answer earns: the functions are the metrics, and a file of one's own is read before it is run."""

import itertools
import math
from pathlib import Path

import pytest
import quick_yaml
import wrong_params
from hostile import EVERY

from tradeoffs import params
from tradeoffs.common import cells, settings
from tradeoffs.metrics import answers
from tradeoffs.plumbing.errors import UserError
from tradeoffs.rewards import functions, names
from tradeoffs.rewards.scoring import scoring

ROOT = Path(__file__).parents[1]
SAID = (
    *("", "a", "The cat.", "the  cat", "a cat, a dog", "cat dog cat", "12", "-12", "1,234.", "$5"),
    *(
        '{"a": 1}',
        '{"a": 1, "b": [2]}',
        ' {"a": "1"} ',
        '{"a": NaN}',
        '{"a": 1',
        "{}",
        '[{"a": 1}]',
        '{"b": [2], "a": 1}',
    ),
)


# --- the functions


@pytest.mark.parametrize("name", ["exact_match", "f1"])
def test_a_reward_says_what_the_metric_of_its_name_says(name):
    for answer, expected in itertools.product((*SAID, *EVERY), (*SAID, *EVERY)):
        assert functions.FUNCTIONS[name](answer, expected) == getattr(answers, name)(answer, expected)


@pytest.mark.parametrize("pattern", [r"#### (\-?[0-9\.\,]+)", r"(\w+)$"])
def test_exact_match_goes_by_the_data_sets_pattern_as_the_metric_does(pattern):
    for answer, expected in itertools.product((*SAID, "so #### 1,234.", "#### 1234"), repeat=2):
        found = scoring({"exact_match": 1.0}, pattern, {}).each(answer, expected, "")
        assert found == {"exact_match": answers.exact_match_of(pattern, answer, expected)}


def test_json_is_half_for_being_some_and_half_for_the_fields_as_the_metrics_count_them():
    for answer, expected in itertools.product(SAID, SAID):
        valid, fields = answers.valid_json(answer, expected), answers.fields(answer, expected)
        found = functions.json_right(answer, expected)
        if math.isnan(valid):
            assert found is None
        elif not math.isnan(fields):  # of `{}`, which has none, the metric says nothing
            assert found == pytest.approx(0.5 * valid + 0.5 * fields)
    assert functions.json_right("{}", "{}") == 1.0 and functions.json_right("no", "{}") == 0.0


@pytest.mark.parametrize(
    ("answer", "expected", "found"), [("", "", 1), ("", "ab", 0), ("ab", "abcd", 0.5), ("abcd", "ab", 0.5)]
)
def test_length_is_the_shorter_over_the_longer(answer, expected, found):
    assert functions.length(answer, expected) == found


def test_each_counts_by_its_weight_and_what_says_nothing_does_not_count():
    earns = scoring({"exact_match": 1.0, "json": 0.5}, None, {})
    assert earns.total(earns.each("The cat", "cat", "?")) == 1.0
    assert earns.total(earns.each('{"a": 2}', '{"a": 1}', "?")) == pytest.approx(0.5 * 0.5)
    assert earns.total({"exact_match": None, "json": None}) is None
    only = scoring({"json": 1.0}, None, {})
    assert only.known([{"answer": "cat", "prompt": ""}, {"answer": "{}", "prompt": ""}]) == [
        {"answer": "{}", "prompt": ""}
    ]


def by(text):
    return scoring({"rewards/own.py": 1.0}, None, {"rewards/own.py": text})


def test_a_question_is_judged_by_the_same_functions_whatever_is_answered():
    text = "def reward(answer, expected): return 0.5 if expected.isdigit() else None"
    earns = scoring({"rewards/own.py": 1.0, "exact_match": 1.0}, None, {"rewards/own.py": text})
    assert [earns.total(earns.each(said, "12", "?")) for said in ("12", "no", "")] == [1.5, 0.5, 0.5]
    assert [earns.total(earns.each(said, "cat", "?")) for said in ("cat", "12", "")] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "def reward(answer, expected): return 1.0 if answer == expected else None",
            "rewards/own.py: reward gave None for the answer 'dog' and a number for the expected 'cat'; answers to",
        ),
        (
            "def reward(answer, expected): return None if answer == expected else -1.0",
            "rewards/own.py: reward gave a number for the answer 'dog' and None for the expected 'cat'; answers to",
        ),
    ],
)
def test_a_function_that_says_nothing_of_some_answers_to_a_question_is_refused(text, said):
    """What it leaves out would be compared with the others by less, or by nothing."""
    for known in (True, False):
        earns = by(text)
        if known:
            earns.known([{"answer": "cat", "prompt": "?"}])
        with pytest.raises(UserError) as error:
            earns.each("dog", "cat", "?")
        assert str(error.value).startswith(said) and "give a number, 0 for what is worth nothing" in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def reward(answer, expected): return answer.split()[0] == expected", "IndexError: list index out of range"),
        ("def reward(answer, expected): return 1.0 if len(answer) != 2 else None", "gave None for the answer 'ab'"),
        ("def reward(answer, expected): return None if answer == 'other' else 1.0", "gave None for the answer 'other'"),
    ],
)
def test_answers_as_a_model_may_give_them_are_tried_out(text, said):
    """None at all, one that was cut off, one to another question."""
    rows = [
        {"answer": "abcd", "prompt": "?"},
        {"answer": "something", "prompt": "!"},
        {"answer": "other", "prompt": ""},
    ]
    with pytest.raises(UserError, match=said):
        by(text).try_out(rows)
    by("def reward(answer, expected): return 1.0").try_out(rows)


# --- a file of one's own

OWN = "def reward(answer, expected):\n    return len(answer) / (1 + len(expected))\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rewards").mkdir()
    Path("tradeoffs").mkdir()
    return Path("rewards")


def own(folder, text):
    (folder / "own.py").write_text(text)
    return list(names.problems("rewards/own.py"))


def test_a_file_is_run_as_it_was_handed_over(folder):
    assert own(folder, OWN) == []
    text = names.text_of("rewards/own.py")
    (folder / "own.py").write_text("raise SystemExit")  # what stands there by now is not what is run
    earns = scoring({"rewards/own.py": 2.0}, None, {"rewards/own.py": text})
    assert earns.total(earns.each("abc", "ab", "")) == 2.0


def test_a_file_may_look_at_the_prompt(folder):
    text = "def reward(answer, expected, prompt):\n    return float(prompt in answer)\n"
    assert own(folder, text) == []
    assert scoring({"rewards/own.py": 1.0}, None, {"rewards/own.py": text}).each("so: why?", "", "why?") == {
        "rewards/own.py": 1.0
    }


@pytest.mark.parametrize(
    ("parameters", "given"),
    [
        ("answer, expected", False),
        ("answer, expected, prompt", True),
        ("a, b, c", True),
        ("a, b, /, c", True),
        ("answer, expected, prompt=''", True),
        ("answer, expected, tolerance=''", False),
        ("answer, expected, tolerance='', prompt=''", True),
        ("answer, expected, *, prompt", True),
        ("answer, expected, *, strict='', prompt=None", True),
        ("answer, expected, *, strict=''", False),
        ("answer, expected, tolerance='', *rest", False),
        ("answer, expected, *rest", True),
        ("*texts", True),
        ("answer, expected, **more", False),
        ("a='', b=''", False),
        ("completion, answer", False),
    ],
)
@pytest.mark.parametrize("decorator", ["", "@through\n"])
def test_the_prompt_is_given_to_whoever_takes_it_and_to_no_other_parameter(folder, parameters, given, decorator):
    seen = "any('why?' in (v if isinstance(v, (tuple, dict)) else [v]) for v in locals().values())"
    through = "def through(f):\n    return lambda *a, **k: f(*a, **k)\n"
    text = f"{through}{decorator}def reward({parameters}):\n    return float({seen})\n"
    assert own(folder, text) == []
    assert by(text).each("so", "so", "why?") == {"rewards/own.py": float(given)}


@pytest.mark.parametrize(
    "text",
    [
        "def reward(answer, expected, *, strict=True): return 1.0",
        "def reward(*texts): return 1.0",
        "import json, re\nfrom collections import Counter\ndef reward(a, b, c=''): return None",
        "import numpy\ndef reward(a, b): return numpy.float64(1)",
    ],
)
def test_what_is_a_reward_is_taken(folder, text):
    assert own(folder, text) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def reward(answer): return 1.0", "needs a function reward(answer, expected), or (answer, expected, prompt)"),
        ("def reward(a, b, c, d): return 1.0", "needs a function reward"),
        ("def reward(a, b, *, c): return 1.0", "needs a function reward"),
        ("def reward(a, b, c, *, prompt): return 1.0", "needs a function reward"),
        ("def reward(*, answer, expected): return 1.0", "needs a function reward"),
        ("def reward(**texts): return 1.0", "needs a function reward"),
        ("def reward(expected, answer): return 1.0", "needs a function reward"),
        ("def reward(prompt, answer, expected): return 1.0", "needs a function reward"),
        ("def reward(prompt, answer): return 1.0", "needs a function reward"),
        ("def reward(completions, **kwargs): return [1.0]", "reward(completions, ...) is TRL's own form"),
        ("def reward(prompts, completions, **kwargs): return [1.0]", "reward(completions, ...) is TRL's own form"),
        ("def award(a, b): return 1.0", "needs a function reward"),
        ("async def reward(a, b): return 1.0", "needs a function reward"),
        ("def reward(a, b:\n return 1", "is no Python: line 1: "),
        ("import tradeoffs.metrics\n" + OWN, "line 1: imports tradeoffs.metrics, which is of this checkout"),
        (OWN + "    import beside\n", "line 3: imports beside, which is of this checkout"),
        ("from . import other\n" + OWN, "line 1: imports ., which is of this checkout"),
        ("#" * 200_000 + "\n" + OWN, "has 200,0"),
    ],
)
def test_what_can_be_seen_of_a_file_is_said_before_it_runs(folder, text, said):
    Path("beside.py").write_text("")
    found = own(folder, text)
    assert len(found) == 1 and found[0].startswith(said), found


@pytest.mark.parametrize(
    "name",
    [
        *("/etc/hosts.py", "../rewards/own.py", "rewards/../own.py", "own.py", "rewards/own.txt"),
        # Of which no settings would hold the text.
        *("./rewards/own.py", "rewards//own.py", "rewards/./own.py"),
    ],
)
def test_a_file_elsewhere_or_by_another_name_is_refused(folder, name):
    Path("own.py").write_text(OWN)
    (folder / "own.py").write_text(OWN)
    assert [said.split(",")[0] for said in names.problems(name)] == [
        "must be a Python file in rewards/ of this checkout"
    ]


def test_a_link_that_leads_out_of_the_checkout_is_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "own.py"
    outside.write_text(OWN)
    (folder / "own.py").symlink_to(outside)
    assert "must be a Python file in rewards/" in next(names.problems("rewards/own.py"))


def test_a_name_that_there_is_not_is_answered_with_the_near_match():
    assert next(names.problems("exactmatch")).startswith("no reward of that name (did you mean exact_match?)")
    assert set(names.NAMES) == set(functions.FUNCTIONS)


def fails(text, answer="abc"):
    with pytest.raises(UserError) as error:
        scoring({"rewards/own.py": 1.0}, None, {"rewards/own.py": text}).each(answer, "ab", "")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nraise KeyError('x')\n" + OWN, "rewards/own.py: does not run: line 2: KeyError: 'x'"),
        (
            "def reward(a, b):\n    return 1 / 0",
            "rewards/own.py: line 2: ZeroDivisionError: division by zero, of the answer",
        ),
        ("import sys\nsys.exit('bye')\n" + OWN, "rewards/own.py: does not run: line 2: SystemExit: bye"),
        (
            "import sys\ndef reward(a, b):\n    sys.exit()",
            "rewards/own.py: line 3: SystemExit, of the answer 'abc'",
        ),
        (
            "class Stop(KeyboardInterrupt): ...\ndef reward(a, b):\n    raise Stop",
            "rewards/own.py: line 3: Stop, of the answer 'abc'",
        ),
        ("def reward(a, b):\n    return reward(a, b)", "rewards/own.py: line 2: RecursionError: maximum recursion"),
        (OWN + "del reward\n", "rewards/own.py: does not run: AttributeError: module "),
        (OWN + "reward = 3\n", "rewards/own.py: TypeError: 'int' object is not callable, of the answer 'abc'"),
        ("def reward(a, b):\n    return 10**400", "rewards/own.py: OverflowError: int too large"),
        ("def reward(a, b):\n    return [1.0]", "rewards/own.py: reward gave [1.0] for the answer 'abc'; it must give"),
        (
            "def reward(a, b):\n    return 'good'",
            "rewards/own.py: reward gave 'good' for the answer 'abc'; it must give",
        ),
        ("def reward(a, b):\n    return float('nan')", "rewards/own.py: reward gave nan for the answer 'abc'"),
    ],
)
def test_what_goes_wrong_in_a_file_is_one_message_with_its_line(text, said):
    assert fails(text).startswith(said)


@pytest.mark.parametrize("when", ["as it begins", "as it judges"])
def test_whoever_interrupts_a_training_stops_it_in_a_reward_too(when):
    """As the terminal does it: by a signal, while the file's own code runs."""
    interrupt = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    body = OWN if when == "as it begins" else f"def reward(a, b):\n    {interrupt.replace(chr(10), '; ')}return 1.0\n"
    with pytest.raises(KeyboardInterrupt):
        by(interrupt + body if when == "as it begins" else body).each("abc", "ab", "")


def test_a_file_may_have_data_classes_with_annotations_as_texts():
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Found:\n    a: str\n"
        "def reward(answer, expected):\n    return float(Found(answer).a == expected)\n"
    )
    assert by(text).each("ab", "ab", "") == {"rewards/own.py": 1.0}


def test_an_empty_answer_can_be_seen_in_a_message():
    said = "gave None for the answer '' and a number for the expected 'ab'"
    assert said in fails("def reward(a, b):\n    return 1.0 if a else None", "")


def test_an_answer_in_a_message_can_do_nothing_to_a_terminal():
    assert "\x1b" not in fails("def reward(a, b):\n    raise ValueError(a)", "\x1b[2Jx" * 50)


# --- params.yaml


def problems(tmp_path, edit):
    return wrong_params.problems(tmp_path, "lora_grpo", edit)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_generation": 4}, "num_generation: GRPOConfig of TRL has no such field (did you mean num_generations?)"),
        ({"learning_rate": 1e-6}, "learning_rate: is no choice here (set reward.train.lr); leave it out"),
        ({"reward_weights": [1.0]}, "reward_weights: is no choice here (reward.functions has a weight for each)"),
        ({"use_vllm": True}, "use_vllm: is no choice here (answers are drawn by transformers"),
        ({"sync_ref_model": True}, "sync_ref_model: is no choice here (the reference is the model after supervised"),
        ({"use_adaptive_entropy": True}, "use_adaptive_entropy: is no choice here (a run that goes on after a kill"),
        ({"max_steps": 3}, "max_steps: is decided by the pipeline; what can be chosen of training is in reward.train"),
        ({"beta": "much"}, "beta: must be a number, is 'much'"),
        ({"num_generations": 2.5}, "num_generations: must be a whole number, is 2.5"),
        ({"max_completion_length": None}, "max_completion_length: must be a number of tokens; an answer has to end"),
    ],
)
def test_a_wrong_field_of_the_configuration_is_named_when_params_are_read(tmp_path, config, expected):
    found = problems(tmp_path, lambda raw, block: block["reward"].update(config=config))
    assert f"\n  methods.lora_grpo.reward.config.{expected}" in found


@pytest.mark.parametrize(
    ("functions", "expected"),
    [
        ({}, "functions: names no reward; there are exact_match, f1, json, length, and files as rewards/own.py"),
        ({"exact": 1.0}, "functions.exact: no reward of that name (did you mean exact_match?)"),
        ({"f1": 0}, "functions.f1: must be above 0, is 0"),
        (["f1"], "functions: must be a block of keys, is a list"),
        (
            {"rewards/none.py": 1.0},
            "functions.rewards/none.py: there is no such file; it holds def reward(answer, expected)",
        ),
        ({"../own.py": 1.0}, "functions.../own.py: must be a Python file in rewards/ of this checkout"),
    ],
)
def test_a_wrong_reward_is_named_when_params_are_read(tmp_path, functions, expected):
    found = problems(tmp_path, lambda raw, block: block["reward"].update(functions=functions))
    assert f"\n  methods.lora_grpo.reward.{expected}" in found


def test_what_the_pipeline_fills_in_is_no_setting(tmp_path):
    found = problems(tmp_path, lambda raw, block: block["reward"].update(answer_pattern="(.)", code={"a": "b"}))
    for key in ("answer_pattern", "code"):
        assert f"methods.lora_grpo.reward.{key}: is filled in by the pipeline" in found


def test_a_stage_and_what_it_goes_by_belong_together(tmp_path):
    found = problems(tmp_path, lambda raw, block: block.pop("stage"))
    assert "methods.lora_grpo.reward: means something with `stage` only (e.g. stage: grpo); leave it out" in found
    found = problems(tmp_path, lambda raw, block: block.pop("reward"))
    assert "methods.lora_grpo.reward: missing; holds functions, config (of TRL's trainer) and train" in found
    pairs = {"config": {"beta": 0.1}}
    found = problems(tmp_path, lambda raw, block: block.update(preference=pairs))
    assert "methods.lora_grpo.preference: means something with `stage` only (e.g. stage: dpo); leave it out" in found


def test_a_stage_on_a_data_set_of_another_kind_is_one_error_of_the_run_list(tmp_path):
    def edit(raw, block):
        raw["run"] |= {"methods": ["base", "lora_grpo"], "datasets": ["orca_pairs"]}

    assert problems(tmp_path, edit).splitlines()[1:] == [
        "  run.methods: 'lora_grpo' (stage: grpo) learns from a data set of kind instruction, and 'orca_pairs' in "
        "run.datasets is of kind preference; take one of the two out"
    ]


def test_a_changed_file_is_a_changed_setting_of_those_who_name_it_and_of_nobody_else(folder):
    raw = quick_yaml.load((ROOT / "params.yaml").read_text())
    block = raw["methods"]["lora_grpo"]
    raw["methods"]["mine"] = block | {"reward": block["reward"] | {"functions": {"rewards/own.py": 1.0, "f1": 0.5}}}
    raw["run"] |= {"methods": ["base", "lora_grpo", "mine"]}
    raw["datasets"]["demo"]["answer_pattern"] = "(.+)"
    own(folder, OWN)
    cfg, found = params.checked(raw)
    assert cfg and not found
    before = dict(settings.parts(cfg))
    assert before[cells.settings("cells", "demo-demo-mine")]["methods"]["mine"]["reward"] == {
        "functions": {"rewards/own.py": 1.0, "f1": 0.5},
        "config": block["reward"]["config"],
        "train": before[cells.settings("cells", "demo-demo-lora_grpo")]["methods"]["lora_grpo"]["reward"]["train"],
        "answer_pattern": "(.+)",
        "code": {"rewards/own.py": OWN},
    }
    own(folder, OWN + "# another\n")
    after = dict(settings.parts(cfg))
    assert [path for path, part in after.items() if part != before[path]] == [cells.settings("cells", "demo-demo-mine")]
