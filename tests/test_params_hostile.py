"""Whatever params.yaml holds is read as DVC reads it or refused in words; so is what cannot be run or means harm."""

import subprocess
import sys
from pathlib import Path

import pytest
import quick_yaml
from dvc.utils.serialize import load_yaml

from tradeoffs import params
from tradeoffs.common.limits import limited
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]
RAW = quick_yaml.load((REPO / "params.yaml").read_text())
WHOLE = (REPO / "params.yaml").read_text()


def said(path: Path) -> str:
    """The message that reading the file ends with."""
    with pytest.raises(UserError) as caught:
        params.load_all(path)
    return str(caught.value).replace(str(path), "params.yaml")


def changed(tmp_path: Path, **values) -> Path:
    """The real file with other values at dotted places (`__` for each dot)."""
    raw = quick_yaml.load(WHOLE)
    for place, value in values.items():
        *parents, last = place.split("__")
        block = raw
        for part in parents:
            block = block[part]
        block[last] = value
    path = tmp_path / "params.yaml"
    path.write_text(quick_yaml.dump(raw))
    return path


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def with_lr(text: str) -> str:
    """The real file with a literal of YAML for train.lr."""
    return WHOLE.replace("  lr: 0.005\n", f"  lr: {text}\n", 1)


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("launch__train", "", "launch.train: is empty; says how the training script is started"),
        ("launch__train", "  ", "launch.train: is empty"),
        ("launch__train", "touch x\npython -m", "launch.train: must be one line"),
        ("train__warmup_steps", 251, "train.warmup_steps: 251 is more than the 250 steps of the training"),
        ("methods__lora__train", {"steps": 5}, "methods.lora.train.warmup_steps: 10 is more than the 5 steps"),
        ("methods__lora__config__lora_alpha", 0, "methods.lora.config.lora_alpha: must be above 0, is 0"),
        ("methods__lora__config__lora_alpha", -16, "methods.lora.config.lora_alpha: must be above 0, is -16"),
        ("methods__lora__config__lora_alpha", "x", "methods.lora.config.lora_alpha: must be a whole number, is 'x'"),
        ("methods__lora__config__lora_dropout", -1, "methods.lora.config.lora_dropout: must be at least 0 and below 1"),
        (
            "methods__lora__config__lora_dropout",
            1.0,
            "methods.lora.config.lora_dropout: must be at least 0 and below 1",
        ),
        ("methods__lora__config__r", 0, "methods.lora.config.r: must be at least 1, is 0"),
        ("methods__lora__config__target_modules", 5, "methods.lora.config.target_modules: must be a list"),
        ("methods__adalora__config__tinit", 250, "methods.adalora.config: tinit (250) and tfinal"),
        ("train__batch_size", 10**12, "train.batch_size: must be at most 1,000,000 (no machine gets that far)"),
        ("train__steps", 10**12, "train.steps: must be at most 100,000,000"),
        ("tokenize__max_length", 10**9, "tokenize.max_length: must be at most 16,777,216"),
        ("tokenize__window", 10**9, "tokenize.window: must be at most 16,777,216"),
        ("run__seeds", [2**32], "run.seeds[0]: must be at most 4,294,967,295 (NumPy takes no larger seed)"),
        ("seed", 2**32, "seed: must be at most 4,294,967,295"),
        ("train__lr", float("inf"), "train.lr: must be a finite number, is inf"),
        ("train__lr", float("nan"), "train.lr: must be a finite number, is nan"),
        ("methods__lora__config__r", 10**400, "methods.lora.config.r: a number of 401 digits; no count is that large"),
        ("models__demo__generate__heads", 256, "models.demo.generate.heads: leaves each 1 wide; rotary positions"),
        ("models__demo__prompt", "a\x1b[2J", "models.demo.prompt: holds the control character U+001B; take it out"),
        ("methods__lora", 5, "methods.lora: must be a block of keys, is 5"),
        ("methods__lora", None, "methods.lora: must be a block of keys, is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(tmp_path, place, value, expected):
    assert f"\n  {expected}" in said(changed(tmp_path, **{place: value}))


@pytest.mark.parametrize(
    ("peft", "config"),
    [
        ("ADALORA", {"init_r": 12, "target_r": 8, "orth_reg_weight": 0}),
        ("TINYLORA", {"weight_tying": 0}),
        ("CARTRIDGE", {"num_virtual_tokens": 8, "num_frozen_tokens": 0}),
        ("FOURIERFT", {"n_frequency": 2_000_000}),
        ("OSF", {"rank_pattern": {"q_proj": 0.5}}),
        ("LORA", {"r": 8, "alpha_pattern": {"q_proj": 0.5}, "rank_pattern": {"q_proj": 4}}),
    ],
)
def test_what_peft_allows_is_allowed(tmp_path, peft, config):
    params.load_all(changed(tmp_path, methods__tried={"peft": peft, "config": config}))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"alpha_pattern": {".*": 0}}, "alpha_pattern..*: must be above 0, is 0"),
        ({"alpha_pattern": {"q_proj": -16}}, "alpha_pattern.q_proj: must be above 0, is -16"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern.q_proj: must be a number, is 'x'"),
        ({"rank_pattern": {"q_proj": 0}}, "rank_pattern.q_proj: must be at least 1, is 0"),
        ({"rank_pattern": {"q_proj": 0.5}}, "rank_pattern.q_proj: must be a whole number, is 0.5"),
    ],
)
def test_ranks_and_factors_of_single_modules_are_as_those_of_all(tmp_path, config, expected):
    path = changed(tmp_path, methods__tried={"peft": "LORA", "config": {"r": 8} | config})
    assert f"\n  methods.tried.config.{expected}" in said(path)


@pytest.mark.parametrize(
    "name", ["../../../outside", "a; touch x", "$(touch x)", "`touch x`", "a-b", "..", "", "\u0440\u0430", "a" * 61]
)
@pytest.mark.parametrize("axis", ["models", "datasets", "methods"])
def test_a_name_of_a_catalogue_is_a_plain_word_of_some_length(tmp_path, axis, name):
    raw = quick_yaml.load(WHOLE)
    raw[axis][name] = next(iter(raw[axis].values()))
    raw["run"][axis] = [name]
    (tmp_path / "params.yaml").write_text(quick_yaml.dump(raw))
    assert f"\n  {axis}.{name}: a name " in said(tmp_path / "params.yaml")


def test_the_longest_names_make_paths_that_a_file_system_takes():
    from tradeoffs.common.cells import Variant

    longest = "x" * 60
    variant = Variant(longest, longest, longest, "decode_q4_k_m")
    assert max(len(f".unfinished-{path.name}.json") for path in (variant.gguf, variant.items, variant.facts)) <= 255


@pytest.mark.parametrize("key", sorted(RAW["evaluate"]["cost"]))
def test_a_key_that_is_missing_under_cost_is_named(tmp_path, key):
    cost = {name: value for name, value in RAW["evaluate"]["cost"].items() if name != key}
    assert f"\n  evaluate.cost.{key}: missing" in said(changed(tmp_path, evaluate__cost=cost))


READ_IN_TWO_WAYS = ["+.5", "-.5", "._5", "+.5e+3", ".5e3"]


@pytest.mark.parametrize(
    "text", ["yes", "on", "010", "0o17", "0x1F", "0b1", "1:30", "2001-01-01", "08", "=", *READ_IN_TWO_WAYS]
)
def test_what_two_readers_of_yaml_take_for_two_things_is_refused(tmp_path, text):
    assert f"not valid YAML: {text} is one thing to one reader of YAML and another" in said(
        written(tmp_path, with_lr(text))
    )


READ_ALIKE = [".005", ".5e-3", ".5E+3", "y", "n", "Y", "N"]


@pytest.mark.parametrize(
    "text", ["0.005", "5e-3", "5E-3", "1_0", "1.", "+1.5", ".inf", "true", "~", "'010'", "x.y", *READ_ALIKE]
)
def test_what_is_read_at_all_is_what_dvc_reads(tmp_path, text):
    from tradeoffs.params.parsing import parsed

    path = written(tmp_path, with_lr(text))
    assert parsed(path) == load_yaml(str(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1\nseed: 2\n", "line 2: not valid YAML: seed stands twice; only one of the two would count"),
        ("a: !!python/object/apply:os.system [x]\n", "the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("a: !!bool maybe\n", "line 1: not valid YAML"),
        ("a: &a [*a]\n", "line 1: not valid YAML: a block that holds itself, by an alias"),
        ("[" * 100_000, "line 1: not valid YAML: nested more than 50 deep"),
        ("- " * 100_000, "line 1: not valid YAML: nested more than 50 deep"),
        ("? [a, b]\n: 1\n", "line 1: not valid YAML: a key must be a text; write it in quotes"),
        ("123: x\n", "line 1: not valid YAML: 123: a key must be a text; write it in quotes"),
        ("%YAML 1.1\n---\nseed: 1\n", "not valid YAML"),
        ("a: 1\x00\n", "not valid YAML"),
        ("a: 1\n---\nb: 1\n", "not valid YAML: but found another document"),
        ("#" * 1_000_001, "1,000,001 bytes; params.yaml takes at most 1,000,000"),
        ("a: " + "1" * 5000, "not valid YAML"),
    ],
)
def test_yaml_that_breaks_a_reader_is_refused_in_words(tmp_path, text, expected):
    message = said(written(tmp_path, text))
    assert expected in message and len(message) < 2000


def test_aliases_count_as_all_that_they_stand_for(tmp_path):
    lines = ["b0: &b0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "more than 100,000 values, aliases (*) written out" in said(written(tmp_path, "\n".join(lines)))


def test_merging_a_block_into_others_is_bounded_too(tmp_path):
    lines = ["b0: &b0 {a: 1}", *(f"b{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}'] * 9)}]}}" for n in range(1, 12))]
    assert "more than 100,000 values" in said(written(tmp_path, "\n".join(lines)))


@pytest.mark.parametrize(
    "code", ["10 ** (10 ** 10)", "'x' * 10 ** 12", "'x' | center(10 ** 12)", "'%1000000000000d' % 1"]
)
def test_nothing_that_a_template_computes_is_computed_to_check_it(tmp_path, code):
    path = changed(tmp_path, templates={"x": f"{{{{ messages }}}}{{{{ {code} }}}}"})
    assert limited("the check", lambda: params.load_all(path), seconds=20).templates


def test_a_template_that_makes_no_program_is_said_with_the_reason(tmp_path):
    path = changed(tmp_path, templates={"x": "{{ messages }}{% break %}"})
    assert "templates.x: no Jinja that can be run: 'break' outside loop" in said(path)


def test_a_message_holds_nothing_that_a_terminal_obeys(tmp_path):
    message = said(changed(tmp_path, train={"\u202e" + "x" * 5000: 1, "a\nb": 2}))
    assert "\u202e" not in message and r"\u202exxx" in message
    assert all(len(line) < 1100 for line in message.splitlines())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "cp037"])
def test_another_encoding_is_named_with_what_to_do(tmp_path, encoding):
    assert "params.yaml: " in said(written(tmp_path, WHOLE.encode(encoding)))


def test_a_folder_in_its_place_is_said(tmp_path):
    (tmp_path / "params.yaml").mkdir()
    assert "not found" in said(tmp_path / "params.yaml")


def command(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tradeoffs.params", *map(str, words)]
    return subprocess.run(line, cwd=REPO, capture_output=True, text=True, check=False)


def test_the_command_says_ok_or_what_is_wrong(tmp_path):
    assert command().stdout == "ok\n"
    done = command(changed(tmp_path, launch__train=""))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ") and "launch.train: is empty" in done.stderr
