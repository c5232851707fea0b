"""A preset changes a part of params.yaml: read strictly, shown value by value, written or run without loss."""

import shutil
import subprocess
from pathlib import Path

import fake_pipeline
import forked
import pytest
import quick_yaml

from tradeoffs import params
from tradeoffs import preset as presets
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]
SHIPPED = sorted((REPO / "experiments").glob("*.yaml"))
SMALL = "# A try.\nrun:\n  methods: [base, lora]\ntrain: {steps: 100}\nmethods:\n  lora:\n    config: {r: 8}\n"
# What a shell, YAML and Hydra each have a meaning for.
TEXTS = [
    "it's",
    "a \\' b",
    "ends in \\",
    "two\nlines",
    "a: b, [c], {d}",
    "true",
    "1e-5",
    "$HOME `id` #",
    "naïve 😀",
    " x ",
]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """params.yaml as it is committed, in a repository of its own, and one small preset."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(REPO / "params.yaml", tmp_path)
    write(SMALL)
    git("init", "-q")
    git("add", "params.yaml")
    git("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "one")
    return tmp_path


def git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout


def write(text: str) -> Path:
    file = Path("experiments/small.yaml")
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def refused(text: str) -> str:
    with pytest.raises(UserError) as found:
        presets.read(write(text))
    return str(found.value)


def test_it_shows_each_value_that_changes_and_touches_nothing(project, capsys):
    before = Path("params.yaml").read_bytes()
    presets.main(Path("experiments/small.yaml"), write=False)
    said = capsys.readouterr().out.splitlines()
    assert said[1:4] == [
        "  run.methods: [base,full,lora,lora_8bit,qlora,adalora,vblora] -> [base,lora]",
        "  train.steps: 250 -> 100",
        "  methods.lora.config.r: 16 -> 8",
    ]
    assert said[4].endswith("python -m tradeoffs.repro --exp --preset experiments/small.yaml")
    assert Path("params.yaml").read_bytes() == before


def test_what_is_written_is_those_lines_alone_and_git_takes_them_back(project):
    before = Path("params.yaml").read_text()
    presets.main(Path("experiments/small.yaml"), write=True)
    cfg = params.load_all()
    assert (cfg.run.methods, cfg.train.steps, cfg.methods["lora"].config["r"]) == (["base", "lora"], 100, 8)
    changed = [
        line
        for line in git("diff", "-U0", "params.yaml").splitlines()
        if line[:1] in "+-" and line[:2] not in ("++", "--")
    ]
    gone = [f"-  - {name}" for name in ("full", "lora_8bit", "qlora", "adalora", "vblora")]
    values = ["-  steps: 250", "+  steps: 100", "-      r: 16", "+      r: 8"]
    assert sorted(changed) == sorted([*gone, *values])
    git("restore", "params.yaml")
    assert Path("params.yaml").read_text() == before


def test_a_list_keeps_the_comment_behind_it(project):
    presets.main(write("run:\n  seeds: [1, 2]\n"), write=True)
    assert "  - 1\n  - 2                # every format is made of the first\n" in Path("params.yaml").read_text()


def test_nothing_is_written_over_what_is_not_committed(project):
    fake_pipeline.change(project, lambda raw: raw.update(seed=7))
    before = Path("params.yaml").read_bytes()
    with pytest.raises(UserError, match=r"^params\.yaml: has changes that are not committed"):
        presets.main(Path("experiments/small.yaml"), write=True)
    assert Path("params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {stepz: 1}\n", "train.stepz: unknown key (did you mean steps?)"),
        ("run: {methods: [lorra]}\n", "run.methods: 'lorra' has no block under methods (did you mean lora?)"),
        ("methods: {lora: {config: {rr: 8}}}\n", "methods.lora.config.rr: "),
        ("runn: {models: [demo]}\n", "runn: unknown key (did you mean run?)"),
    ],
)
def test_what_is_wrong_is_said_as_of_params_yaml_with_the_near_match(project, text, said):
    assert refused(text).startswith(f"params.yaml with experiments/small.yaml: 1 problem\n  {said}")


def test_all_that_is_wrong_is_said_at_once(project):
    said = refused("train: {steps: -1, lr: fast}\nrun: {quants: [q9]}\n")
    assert said.startswith("params.yaml with experiments/small.yaml: 3 problems\n")


@pytest.mark.parametrize("text", ["", "- a\n", "12\n", "{}\n"])
def test_what_is_no_preset_is_refused(project, text):
    assert refused(text).startswith("experiments/small.yaml: must hold blocks of params.yaml")


def test_a_file_that_is_not_there_is_said_with_the_near_one(project):
    with pytest.raises(
        UserError, match=r"experiments/smal\.yaml: no such preset \(did you mean experiments/small\.yaml\?\)"
    ):
        presets.read(Path("experiments/smal.yaml"))


def test_problems_of_params_yaml_itself_come_first(project):
    fake_pipeline.change(project, lambda raw: raw["train"].update(stepz=1))
    assert refused(SMALL).startswith("params.yaml: 1 problem\n  train.stepz")


def test_null_empties_and_blocks_are_added(project):
    preset = presets.read(
        write("models:\n  demo: {generate: null, path: models/raw/mine}\n  more: {path: a, prompt: own}\n")
    )
    assert preset.after["models"]["demo"] == {"generate": None, "path": "models/raw/mine", "prompt": "plain"}
    presets.overrides(preset)
    presets.main(preset.file, write=True)
    assert params.load_all().models["more"].path == "a"


def test_null_takes_out_what_is_judged_or_earned_by_and_a_file_of_ones_own_may_be(project):
    files = project / "rewards"
    files.mkdir()
    (files / "units.py").write_text("def reward(answer, expected):\n    return 1.0\n")
    preset = presets.read(
        write(
            "decide: {guards: {mmlu_accuracy: null}}\n"
            "methods: {lora_grpo: {reward: {functions: {exact_match: null, rewards/units.py: 1.0}}}}\n"
        )
    )
    assert presets.overrides(preset)
    presets.main(preset.file, write=True)
    found = params.load_all()
    assert "mmlu_accuracy" not in found.decide.guards and found.decide.guards
    assert found.methods["lora_grpo"].reward.functions == {"rewards/units.py": 1.0}


def test_dvc_and_the_file_get_every_text_as_it_stands(project):
    wanted = {"datasets": {"demo": {"prompts": TEXTS}}, "templates": {"mine": "{{ messages }}{# it's #}\n"}}
    preset = presets.read(write(quick_yaml.dump(wanted, default_style='"')))
    assert presets.overrides(preset), "compares what DVC makes of it"
    presets.main(preset.file, write=True)
    assert params.load_all().datasets["demo"].prompts == TEXTS


def test_what_dvc_takes_for_something_else_is_refused(project):
    preset = presets.read(write("datasets:\n  demo:\n    prompts: ['${train.steps} steps']\n"))
    with pytest.raises(UserError, match=r"^experiments/small\.yaml: DVC "):
        presets.overrides(preset)


def test_lists_that_the_file_shares_by_an_alias_are_written_out(project):
    text = "methods:\n  lora: {config: {target_modules: &some [q_proj]}}\n  qlora: {config: {target_modules: *some}}\n"
    presets.main(write(text), write=True)
    written = Path("params.yaml").read_text()
    assert written.count("      target_modules:\n      - q_proj\n") == 2 and "*id" not in written


def test_without_a_file_all_are_listed_by_their_first_line(project, capsys):
    presets.main(None, write=False)
    assert capsys.readouterr().out.startswith("experiments/small.yaml\n    A try.\n")


# --- those that come along


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.stem)
def test_each_that_comes_along_is_sound_begins_with_what_it_is_and_names_its_command(file, monkeypatch):
    monkeypatch.chdir(REPO)
    preset = presets.read(file.relative_to(REPO))
    assert presets.overrides(preset)
    first, *rest = file.read_text(encoding="utf-8").splitlines()
    assert first.startswith("# ") and first.endswith(".")
    assert file.is_symlink() or f"#   {presets.RUN.format(file=preset.file)}" in rest


# --- the one command


@pytest.mark.slow
def test_it_runs_as_an_experiment_and_leaves_the_workspace_as_it_is(tmp_path):
    fake_pipeline.make(tmp_path, methods=["base"], precisions=[], quants=["q8_0"])
    shutil.copytree(REPO / "experiments", tmp_path / "experiments")
    (tmp_path / "experiments/small.yaml").write_text(SMALL)
    words = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (("init", "-q"), ("config", "user.name", "a"), ("config", "user.email", "a@example.org")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    fake_pipeline.dvc("init", "-q", cwd=tmp_path)
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    subprocess.run(["git", *words, "commit", "-q", "-m", "one"], cwd=tmp_path, check=True)
    before = (tmp_path / "params.yaml").read_bytes()
    command = (
        "-m",
        "tradeoffs.repro",
        "--exp",
        "--preset",
        "experiments/small.yaml",
        "-S",
        "seed=7",
        "--name",
        "small",
    )
    environment = fake_pipeline.environment_with()
    done = forked.python(*command, "finetune@demo-demo-lora-42", cwd=tmp_path, env=environment, libraries=forked.DVC)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("small: seed=7\n")
    assert (tmp_path / "params.yaml").read_bytes() == before
    shown = fake_pipeline.dvc("exp", "show", "--json", cwd=tmp_path)
    assert '"r": 8' in shown and '"steps": 100' in shown and '"seed": 7' in shown


@pytest.mark.parametrize("option", ["--preset experiments/small.yaml", "--exp --dry --preset experiments/small.yaml"])
def test_what_does_not_go_with_a_preset_is_said(project, option):
    done = forked.python(
        "-m",
        "tradeoffs.repro",
        *option.split(),
        env=fake_pipeline.environment_with(PYTHONPATH=str(REPO)),
        libraries=forked.DVC,
    )
    assert done.returncode == 1
    assert ("add --exp" if "--exp" not in option else "--dry: there is none of experiments") in done.stderr
