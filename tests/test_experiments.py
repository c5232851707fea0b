"""A sweep in a real DVC project: what was tried, what is chosen, and what is said where a comparison is not fair."""

import csv
import math
import os
import subprocess
import types
from pathlib import Path

import forked
import pytest
import quick_yaml
from dvc.repo import Repo

from tradeoffs import revisions
from tradeoffs.common.cells import Training
from tradeoffs.experiments import choosing, reading, showing
from tradeoffs.experiments.__main__ import main
from tradeoffs.experiments.trial import Sweep, Trial
from tradeoffs.methods import trl_stages
from tradeoffs.plumbing import live
from tradeoffs.plumbing.errors import UserError

SLOW_FIXTURES = {"commits"}  # read by conftest.py
TESTED = "reference@demo-demo-lora"
LORA, FULL = "finetune@demo-demo-lora-{}", "finetune@demo-demo-full-{}"  # and the seed

# Stands in for training: the best rate of lora is 0.01, that of full 0.001; seeds are 0.01 apart.
FINETUNE = """
import json, math, pathlib, sys, yaml
model, dataset, method, seed = sys.argv[1:]
cfg = yaml.safe_load(open("params.yaml"))
own = cfg["methods"][method]
train = {**cfg["train"], **own.get("train", {})}
train["lr"] = float(train["lr"])
away = math.log10(train["lr"]) + (2 if method == "lora" else 3)
row = {"trainable_params": 1}
if method != "base":
    row |= {"train_seconds": 2.5 + train["lr"], "train_tokens_per_second": 100.0, "adapter_mb": 0.5}
    row["valid_loss"] = 1 + away**2 + int(seed) / 100 - (own.get("config") or {}).get("r", 0) / 1000
if train["steps"] == 1:
    del row["valid_loss"]
cell = f"{model}-{dataset}-{method}"
made = {f"data/training/{cell}/{seed}.json": row, f"models/trained/{cell}/{seed}/weights.json": {"of": row}}
for path, content in made.items():
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    json.dump(content, open(path, "w"))
"""
# Stands in for the evaluation of a text as trained: bits per byte follow the valid loss; a window of 64 halves rows.
REFERENCE = """
import json, pathlib, sys
import pyarrow as pa, pyarrow.parquet as pq, yaml
model, dataset, method = sys.argv[1:]
cell = f"{model}-{dataset}-{method}"
cfg = yaml.safe_load(open("params.yaml"))
windows = 128 // cfg["tokenize"]["window"]
schema = pa.schema([("split", pa.string()), ("item", pa.string()), ("document", pa.string()), ("tokens", pa.int32()),
    ("log_likelihood", pa.float64()), ("bytes", pa.int32()), ("generated", pa.string()), ("answer", pa.string())])
pathlib.Path(f"data/seeds/{cell}").mkdir()
for number, seed in enumerate(cfg["run"]["seeds"]):
    loss = json.load(open(f"models/trained/{cell}/{seed}/weights.json"))["of"].get("valid_loss", 2.0)
    rows = [
        {"split": split, "item": f"{split}{n}-{w}", "document": f"{split}{n}", "tokens": 8 // windows,
         "log_likelihood": -(8 // windows) * (loss + (n % 3) / 10), "bytes": 32 // windows}
        for split in ("test", "seen") for n in range(12) for w in range(windows)
    ]
    path = f"data/seeds/{cell}/{seed}.parquet" if number else f"data/items/{cell}-trained.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
"""
PARAMS = {
    "run": {"methods": ["base", "lora", "full"], "seeds": [42]},
    "seed": 7,
    "tokenize": {"window": 128},
    "evaluate": {"bootstrap": 100},
    "train": {"steps": 10, "batch_size": 4, "lr": 0.01},
    "methods": {
        "base": {},
        "lora": {"peft": "LORA", "config": {"r": 8}},
        "full": {"full": True, "train": {"lr": 0.001}},
    },
}
CELL = "demo-demo-${item.method}"
SPEC = {
    "stages": {
        "tokenize": {
            "matrix": {"model": ["demo"], "dataset": ["demo"]},
            "cmd": "python stages/tokens.py",
            "params": ["seed", "tokenize"],
            "outs": ["data/tokens/demo-demo"],
        },
        "finetune": {
            "matrix": {"model": ["demo"], "dataset": ["demo"], "method": "${run.methods}", "seed": "${run.seeds}"},
            "cmd": "python stages/finetune.py ${item.model} ${item.dataset} ${item.method} ${item.seed}",
            "params": ["train", "methods.${item.method}"],
            "deps": [
                "stages/finetune.py",
                "tradeoffs/finetune",
                "data/tokens/demo-demo/train.parquet",
                "data/tokens/demo-demo/valid.parquet",
            ],
            "outs": [f"data/training/{CELL}/${{item.seed}}.json", f"models/trained/{CELL}/${{item.seed}}"],
        },
        "reference": {
            "matrix": {"model": ["demo"], "dataset": ["demo"], "method": "${run.methods}"},
            "cmd": "python stages/reference.py ${item.model} ${item.dataset} ${item.method}",
            "params": ["run.seeds"],
            "deps": ["stages/reference.py", "data/tokens/demo-demo", f"models/trained/{CELL}"],
            "outs": [f"data/items/{CELL}-trained.parquet", f"data/seeds/{CELL}"],
        },
    }
}
TOKENS = """
import pathlib, yaml
folder = pathlib.Path("data/tokens/demo-demo")
folder.mkdir(parents=True)
for name in ("train", "valid"):
    cfg = yaml.safe_load(open("params.yaml"))
    (folder / f"{name}.parquet").write_text(f"{name} {cfg['seed']} {cfg['tokenize']}")
"""


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def run(
    name: str,
    *changes: str,
    targets: tuple[str, ...] = (LORA, FULL),
    seeds: tuple[int, ...] = (42,),
    queue: bool = False,
) -> None:
    """One `dvc exp run -S ...`, in a temporary folder as a queue's worker does it."""
    changes += () if seeds == (42,) else (f"run.seeds=[{','.join(map(str, seeds))}]",)
    targets = tuple(dict.fromkeys(target.format(seed) for target in targets for seed in seeds))
    with Repo() as repo:
        repo.experiments.run(params=list(changes), targets=targets, name=name, queue=queue, tmp_dir=not queue)


@pytest.fixture(scope="module")
def commits(tmp_path_factory):
    """A DVC project with commits that have no experiments, a fair and an unfair sweep, ablations; tests only read."""
    folder = tmp_path_factory.mktemp("swept")
    for name in ("data/training", "data/items", "data/seeds", "models/trained"):
        (folder / name).mkdir(parents=True)
        (folder / name / ".gitignore").write_text("demo-*\n")
    for name, text in (("finetune", FINETUNE), ("reference", REFERENCE), ("tokens", TOKENS)):
        (folder / "stages").mkdir(exist_ok=True)
        (folder / "stages" / f"{name}.py").write_text(text)
    trainer = folder / "tradeoffs/finetune/trainer.py"
    trainer.parent.mkdir(parents=True)
    trainer.write_text("")
    (folder / "params.yaml").write_text(quick_yaml.dump(PARAMS, sort_keys=False))
    (folder / "dvc.yaml").write_text(quick_yaml.dump(SPEC, sort_keys=False))
    commits = {}

    def commit(name):
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "--allow-empty", "-m", name)
        commits[name] = git(folder, "rev-parse", "HEAD")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        python = forked.command(tmp_path_factory.mktemp("programs") / "bin", ("pyarrow.parquet", "yaml"))
        patch.setenv("PATH", f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}")
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "a")
            patch.setenv(f"GIT_{role}_EMAIL", "a@example.org")
        git(folder, "init", "-q")
        Repo.init().close()
        with Repo() as repo:
            repo.reproduce()
        commit("none")
        commit("fair")
        for number, seeds in ((0, (1, 2)), (1, (1,)), (1, (2,)), (2, (1, 2))):
            rates = (
                f"++methods.lora.train.lr={0.001 * 10**number:g}",
                f"methods.full.train.lr={0.0001 * 10**number:g}",
            )
            evaluated = {"targets": (TESTED, "reference@demo-demo-full")} if (number, seeds) == (1, (1,)) else {}
            run(f"rate{number}-seed{seeds[0]}", *rates, seeds=seeds, **evaluated)
        run("waits", "methods.full.train.lr=0.5", queue=True)
        commit("unfair")
        run("long", "++methods.lora.train.lr=1e-05", "train.steps=20", targets=(LORA,))
        run("rank", "methods.lora.config.r=16", targets=(LORA,))
        run("data", "methods.full.train.lr=0.1", "seed=8", targets=(FULL,))
        run("old", "train.steps=1", targets=(FULL,))
        run("same", "methods.full.train.lr=0.001", targets=(FULL,))
        commit("ablation")
        for seed in (42, 1):
            run(f"r16-{seed}", "methods.lora.config.r=16", seeds=(seed,), targets=(TESTED,))
        run("r32", "methods.lora.config.r=32", seeds=(42, 1), targets=(TESTED,))
        run("unevaluated", "methods.lora.config.r=4", targets=(LORA,))
        commit("context")
        run("short", "tokenize.window=64", targets=(TESTED,))
        run("wider", "methods.lora.config.r=16", targets=(LORA,))
        commit("edited")
        trainer.write_text("# another loop\n")
        run("loop", "methods.lora.config.r=16", targets=(LORA,))
    return folder, commits


@pytest.fixture
def inside(commits, monkeypatch):
    folder, names = commits
    monkeypatch.chdir(folder)
    return names


def by_method(sweep):
    return choosing.by_method(sweep.trials, ("demo", "demo"))


def trial(method="lora", lr=0.1, seed=1, loss=1.0, steps=10, batch_size=4, found=None, made=None, **setting):
    setting |= {"train.lr": lr, "train.steps": steps, "train.batch_size": batch_size}
    data = dict.fromkeys(reading.DATA, ("hash",))
    valid = {"valid_loss": loss} | (found or {})
    return Trial("exp", "m", "d", method, seed, setting, data, valid, 100.0, 1.0, {}, made or {})


def ablated(rev: str) -> list[dict[str, str]]:
    """The rows of the ablation's one table."""
    lines = [line for line in showing.ablation(reading.read(rev)) if line.startswith("|")]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(head, row, strict=True)) for row in rows]


def clauses(*trials):
    methods = {t.method: choosing.best_first(o for o in trials if o.method == t.method) for t in trials}
    return list(choosing.unfair(methods))


# --- a real sweep


def test_the_best_setting_of_each_method_has_the_lowest_mean_valid_loss(inside):
    methods = by_method(reading.read(inside["fair"]))
    assert list(methods) == ["lora", "full"], "the untouched base is no method of tuning"
    lora, full = methods["lora"], methods["full"]
    assert lora[0].label == "train.lr=0.01"
    assert {one.label for one in lora[1:]} == {"train.lr=0.001", "train.lr=0.1"}
    assert full[0].label == "train.lr=0.001"
    assert lora[0].values == pytest.approx([1.002, 1.012])
    assert [t.experiment for t in lora[0].trials] == ["rate1-seed1", "rate1-seed2"]


def test_a_fair_sweep_is_not_called_unfair_and_names_no_edge(inside):
    text = "\n".join(showing.report(reading.read(inside["fair"])))
    assert "not a fair comparison" not in text
    assert "may lie beyond" not in text


def test_the_table_has_spread_seeds_budget_and_time(inside):
    lines = showing.report(reading.read(inside["fair"]))
    (row,) = [line for line in lines if line.startswith("| lora | train.lr=0.01 |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:10] == ["1.0070", "1.0020 to 1.0120", "0.0071", "2", "3", "40", "251", "2.51"]


def test_test_numbers_are_those_of_an_experiment_that_was_evaluated_and_never_the_commits(inside):
    lora, full = by_method(reading.read(inside["fair"])).values()
    bits = pytest.approx((1.002 + 0.1) / 4 / math.log(2))
    assert [t.test.get("test_bits_per_byte") for t in lora[0].trials] == [bits, None]
    assert showing._mean_tested(full[0], "test_loss").endswith("(1 seed)")
    assert not any(t.test for one in (*lora[1:], *full[1:]) for t in one.trials)


def test_the_commits_own_training_counts_only_where_its_seed_is_the_sweeps(inside):
    assert all(t.seed in (1, 2) for t in reading.read(inside["fair"]).trials)
    lora = by_method(reading.read(inside["unfair"]))["lora"]
    assert inside["unfair"] in {t.experiment for one in lora for t in one.trials}


def test_any_changed_key_is_part_of_the_setting_and_small_rates_are_numbers(inside):
    lora = {one.label: one for one in by_method(reading.read(inside["unfair"]))["lora"]}
    assert set(lora) == {
        "config.r=8, train.lr=0.01, train.steps=10",
        "config.r=16, train.lr=0.01, train.steps=10",
        "config.r=8, train.lr=1e-05, train.steps=20",
    }
    assert lora["config.r=8, train.lr=1e-05, train.steps=20"].setting["train.lr"] == 1e-5


def test_unequal_budgets_numbers_and_data_are_called_unfair(inside):
    text = "\n".join(showing.report(reading.read(inside["unfair"])))
    assert "**not a fair comparison: unequal numbers of settings: lora 3, full 2**" in text
    assert "**not a fair comparison: unequal budgets in examples: lora 40 or 80, full 40**" in text
    assert "**not a fair comparison: the rows that valid loss is measured on: not the same in all trials**" in text


def test_an_experiment_with_other_code_is_called_unfair(inside):
    text = "\n".join(showing.report(reading.read(inside["edited"])))
    assert "- **not a fair comparison: the code: not the same in all trials**" in text


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("stages/finetune.py", "the code"),
        ("tradeoffs/finetune", "the code"),
        ("tradeoffs/models", "the code"),
        ("tradeoffs/base/prompts.py", "the code"),
        ("models/base/demo", "the base model"),
        ("data/tokens/demo-demo/train.parquet", "the examples trained on"),
        ("data/tokens/demo-demo/pairs.parquet", "the examples trained on"),
        ("data/tokens/demo-demo/valid.parquet", reading.VALID),
    ],
)
def test_what_a_dependency_of_training_is_its_place_says(path, what):
    found = reading.data_of({"deps": [{"path": path, "md5": "hash"}]})
    assert found == {name: ("hash",) if name == what else () for name in reading.DATA}


def test_every_dependency_of_training_is_of_one_kind():
    spec = quick_yaml.load((Path(__file__).parents[1] / "dvc.yaml").read_text())["stages"]["finetune"]
    for path in spec["deps"]:
        found = reading.data_of({"deps": [{"path": path, "md5": "hash"}]})
        # Settings are what is swept.
        assert sum(map(len, found.values())) == (not path.startswith("metrics/settings/")), path


def test_what_is_not_in_the_table_is_counted_and_named(inside, monkeypatch):
    assert "Left out: 1 experiment, queued: waits" in showing.report(reading.read(inside["fair"]))
    unfair = showing.report(reading.read(inside["unfair"]))
    assert "Left out: 1 experiment, trained by an earlier version, without valid_loss: old" in unfair
    assert "Left out: 1 experiment, trained nothing that was not trained before: same" in unfair
    rows = reading.dvc.api.exp_show(revs=inside["fair"])
    lost = [{"Experiment": name, "rev": "0", "typ": "branch_commit", "State": "Failed"} for name in ("b", "a")]
    monkeypatch.setattr(reading.dvc.api, "exp_show", lambda revs: rows + lost)
    text = "\n".join(showing.report(reading.read(inside["fair"])))
    assert "Left out: 2 experiments, failed (dvc queue logs NAME says why): a, b" in text


def test_the_csv_has_one_row_per_training(inside, tmp_path, capsys):
    main(inside["fair"], tmp_path / "runs.csv")
    assert capsys.readouterr().out.startswith("## demo on demo")
    with (tmp_path / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    chosen = {(row["method"], row["train.lr"], row["seed"]) for row in rows if row["chosen"] == "1"}
    assert chosen == {(m, lr, s) for m, lr in (("lora", "0.01"), ("full", "0.001")) for s in "12"}


def test_a_training_that_is_not_in_the_cache_is_named(inside):
    (rev,) = [row["rev"] for row in reading.dvc.api.exp_show(revs=inside["unfair"]) if row["Experiment"] == "rank"]
    out = quick_yaml.load(git(Path(), "show", f"{rev}:dvc.lock"))["stages"][LORA.format(42)]["outs"][0]
    assert out["path"] == "data/training/demo-demo-lora/42.json"
    with Repo() as repo:
        cached = Path(repo.cache.local.oid_to_path(out["md5"]))
    cached.rename(cached.with_suffix(".away"))
    try:
        sweep = reading.read(inside["unfair"])
    finally:
        cached.with_suffix(".away").rename(cached)
    assert list(sweep.left_out["not in the cache (dvc exp pull)"]) == ["rank"]


# --- ablations


def test_an_ablation_shows_test_quality_and_size_of_every_setting_in_the_order_of_its_values(inside):
    rows = ablated(inside["ablation"])
    assert [row["setting"] for row in rows] == ["config.r=4", "**config.r=8**", "config.r=16", "config.r=32"]
    assert [row["seeds"] for row in rows] == ["1", "1", "2", "2"]
    assert rows[0]["test bits per byte"] == "", "it was trained and not evaluated"
    assert {row["adapter MB"] for row in rows} == {"0.5"}
    assert rows[1]["against the bold one"] == "", "the commit's own setting is what the others are held against"
    value = (1.42 - 0.008 + 0.1) / 4 / math.log(2)  # mean of seeds 42 and 1, of loss + 0.1, 4 bytes per token
    assert rows[1]["test bits per byte"].startswith(f"{value:.3f} [")
    assert "test F1" not in rows[0], "a text has no answers"
    assert rows[0]["valid loss"] == "1.4160"


def test_a_difference_is_the_mean_over_seeds_paired_on_the_same_documents(inside):
    row = ablated(inside["ablation"])[2]
    mean = ((1.42 - 0.016) + (1.01 - 0.016)) / 2
    found = (mean - (1.42 - 0.008)) / 4 / math.log(2)
    assert row["against the bold one"].startswith(f"{found:+.3f} [")
    assert row["against the bold one"].endswith("], excludes 0")


def test_settings_that_change_the_windows_are_compared_by_bits_per_byte_and_not_by_loss(inside):
    lines = "\n".join(showing.ablation(reading.read(inside["context"])))
    assert "so valid losses do not compare" in lines
    short, own, other = ablated(inside["context"])
    assert own["setting"] == "**config.r=8, tokenize.window=128**"
    assert (short["setting"], other["setting"]) == ("tokenize.window=64", "config.r=16"), "what each changes of it"
    assert "valid loss" not in own
    assert short["test bits per byte"] == own["test bits per byte"]
    assert short["against the bold one"] == "+0.000 [+0.000, +0.000]"


def test_other_test_documents_are_not_compared(inside):
    sweep = reading.read(inside["ablation"])
    some = by_method(sweep)["lora"]
    one, first = (next(o for o in some if o.setting["config.r"] == r) for r in (16, 8))
    names, sums = one.trials[0].tested["test_bits_per_byte"]
    one.trials[0].tested["test_bits_per_byte"] = [f"new {name}" for name in names], sums
    rows = showing._measured(sweep, [one, first], first, "test_bits_per_byte")
    assert [row[1] for row in rows] == ["other test items", ""]


def test_an_ablation_that_only_trained_says_what_to_queue():
    sweep = Sweep([trial(lr=0.1), trial(lr=0.2)], {})
    lines = showing.ablation(sweep)
    assert any("none of these went on to evaluate: queue reference@" in line for line in lines)
    assert any(line.startswith("| **train.lr=0.1** | 1 | 1.0000 |") for line in lines), (
        "the first, without the commit's"
    )


# --- what is refused


def test_a_commit_without_experiments_says_how_to_make_some(inside):
    with pytest.raises(UserError, match=r"has no experiments; make some: python -m tradeoffs.repro --exp -S"):
        reading.read(inside["none"])


def test_an_unknown_commit_is_named(inside):
    with pytest.raises(UserError, match="--rev v9: no such commit"):
        reading.read("v9")


def test_outside_of_a_dvc_project_is_one_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no DVC project; run from the folder that holds dvc\.yaml"):
        reading.read("HEAD")


def test_a_project_without_git_is_one_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True).close()
    with pytest.raises(UserError, match="Git"):
        reading.read("HEAD")


# --- fairness, setting by setting


def test_the_same_numbers_of_everything_are_fair():
    assert clauses(*(trial(m, lr, s) for m in ("lora", "full") for lr in (0.1, 0.2) for s in (1, 2))) == []


def test_fewer_seeds_for_one_setting_are_unfair():
    lora = trial(lr=0.1, seed=1), trial(lr=0.1, seed=2), trial(lr=0.2)
    found = clauses(*lora, trial("full", lr=1), trial("full", lr=2))
    assert found == ["unequal numbers of seeds per setting: lora 1 or 2, full 1"]


def test_a_budget_is_examples_and_not_steps():
    assert clauses(trial(), trial("full", steps=5, batch_size=8)) == []
    assert clauses(trial(), trial("full", steps=5)) == ["unequal budgets in examples: lora 40, full 20"]


def test_a_method_that_alone_may_keep_its_best_weights_is_unfair():
    rule = {"train.valid_every": 10, "train.keep": "best", "train.patience": 2}
    assert clauses(trial("lora", **rule), trial("full", **rule)) == []
    off = {"train.valid_every": 0, "train.keep": "last", "train.patience": 0}
    assert clauses(trial("lora", **off), trial("full")) == [], "of before there were any"
    assert clauses(trial("lora", **rule), trial("full", **off)) == [
        "unequal rules for which weights are kept, and for when to stop: lora the best of every 10 steps, patience 2, "
        "full the last"
    ]


def test_a_further_stage_counts_with_its_own_budget():
    assert trial(stage="dpo", **{"preference.train.steps": 3}).examples == 10 * 4 + 3 * 4
    assert trial(stage="grpo", **{"reward.train.steps": 3, "reward.train.batch_size": 8}).examples == 10 * 4 + 3 * 8


def test_of_a_budget_in_epochs_the_steps_are_those_that_the_training_knew():
    assert trial(steps=None, made={"steps": 7}, **{"train.epochs": 1}).examples == 7 * 4
    own = {"train.epochs": 1, "reward.train.epochs": 2, "reward.train.batch_size": 8}
    assert trial(stage="grpo", steps=None, made={"steps": 7, "reward_steps": 5}, **own).examples == 7 * 4 + 5 * 8


# --- what a setting is chosen by

PAIRS, EARNED = "valid_reward_accuracy", "valid_reward"


def staged(stage, value, method="tuned", lr=0.1, seed=1, **more):
    """A trial whose loss rises with what it was for."""
    found = {{"dpo": PAIRS, "grpo": EARNED}[stage]: value}
    return trial(method, lr, seed, loss=2 + value, found=found, stage=stage, **more)


@pytest.mark.parametrize("stage", trl_stages.STAGES)
def test_a_method_with_a_stage_is_chosen_by_what_that_stage_is_for(stage):
    some = choosing.best_first(staged(stage, value, lr=lr) for lr, value in ((0.1, 0.5), (0.2, 0.7), (0.3, 0.6)))
    assert [one.setting["train.lr"] for one in some] == [0.2, 0.3, 0.1], "the highest, and never the lowest loss"
    assert list(choosing.at_the_edge(some)) == []


def test_what_is_chosen_by_the_same_stands_in_one_table_which_says_by_what():
    trials = [trial(lr=lr, seed=seed, loss=1 + lr) for lr in (0.1, 0.2) for seed in (1, 2)]
    trials += [staged("grpo", lr, "by_reward", lr, seed) for lr in (0.1, 0.2) for seed in (1, 2)]
    trials += [staged("dpo", lr + seed / 100, "on_pairs", lr, seed) for lr in (0.1, 0.2) for seed in (1, 2)]
    lines = showing.report(Sweep(trials, {}))
    assert "- by_reward: chosen by valid reward, the highest is the best" in lines
    assert "- on_pairs: chosen by valid reward accuracy, the highest is the best" in lines
    assert not any("chosen by valid loss" in line for line in lines), "which is what all others are chosen by"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    heads = [row[2] for row in rows if row[:2] == ["method", "best setting"]]
    assert heads == ["valid loss", "valid reward", "valid reward accuracy"]
    best = {row[0]: row for row in rows if row[1] in ("train.lr=0.1", "train.lr=0.2") and len(row) > 7}
    assert best["lora"][1:5] == ["train.lr=0.1", "1.1000", "1.1000 to 1.1000", "0.0000"]
    assert best["by_reward"][1:3] == ["train.lr=0.2", "0.2000"] and best["by_reward"][-1] == "2.2000", "its loss beside"
    assert best["on_pairs"][1:5] == ["train.lr=0.2", "0.2150", "0.2100 to 0.2200", "0.0071"]
    assert [row[1] for row in rows if row[0] == "by_reward" and "**" in row[1]] == ["**train.lr=0.2**"]


@pytest.mark.parametrize(("earned", "said"), [(0.0, True), (0.5, False)])
def test_of_several_that_are_the_best_none_is_chosen_and_it_says_so(tmp_path, earned, said):
    trials = [staged("grpo", earned, lr=lr) for lr in (0.1, 0.2, 0.3)]
    lines = showing.report(Sweep(trials, {}))
    assert "- tuned: tied: 3 settings have the same valid reward, so none of them is chosen" in lines
    assert any(line.startswith("- tuned: nothing was earned") for line in lines) == said
    rows = [line for line in lines if line.startswith("| tuned |")]
    assert len(rows) == 4 and rows[0].startswith(f"| tuned | tied | {earned:.4f} |")
    assert not any("**" in row for row in rows) and not any("may lie beyond" in line for line in lines)
    showing.write_csv(tmp_path / "runs.csv", Sweep(trials, {}))
    with (tmp_path / "runs.csv").open(newline="") as file:
        assert {row["chosen"] for row in csv.DictReader(file)} == {"0"}


def test_two_that_are_tied_behind_the_best_leave_it_chosen():
    lines = showing.report(Sweep([staged("grpo", value, lr=value + 1) for value in (0.0, 0.5)], {}))
    lines += showing.report(Sweep([trial(lr=lr, loss=loss) for lr, loss in ((1, 0.1), (2, 0.2), (3, 0.2))], {}))
    assert not any("tied" in line or "earned:" in line for line in lines)
    assert sum("**" in line for line in lines) == 2


def test_the_csv_says_what_was_chosen_by_what(tmp_path):
    trials = [trial(lr=lr, loss=1 + lr) for lr in (0.1, 0.2)] + [staged("grpo", lr, lr=lr) for lr in (0.1, 0.2)]
    showing.write_csv(tmp_path / "runs.csv", Sweep(trials, {}))
    with (tmp_path / "runs.csv").open(newline="") as file:
        rows = [
            {key: row[key] for key in ("chosen_by", "train.lr", "valid_loss", EARNED, "chosen")}
            for row in csv.DictReader(file)
        ]
    assert [list(row.values()) for row in rows] == [
        ["valid_loss", "0.1", "1.1", "", "1"],
        ["valid_loss", "0.2", "1.2", "", "0"],
        [EARNED, "0.2", "2.2", "0.2", "1"],
        [EARNED, "0.1", "2.1", "0.1", "0"],
    ]


def test_an_ablation_shows_what_a_method_is_chosen_by_beside_the_loss():
    lines = showing.ablation(Sweep([staged("dpo", 0.5, lr=0.1), staged("dpo", 0.7, lr=0.2)], {}))
    assert any("| seeds | valid reward accuracy | valid loss | train s |" in line for line in lines)
    assert any(line.startswith("| **train.lr=0.1** | 1 | 0.5000 | 2.5000 |") for line in lines)


def test_other_rewards_do_not_compare():
    name = "reward.functions.f1"
    same = [staged("grpo", 0.5, lr=lr, **{name: 1.0}) for lr in (0.1, 0.2)]
    assert clauses(*same) == []
    said = ["what answers earn: not the same in all trials, so what they earned does not compare"]
    for other in (
        {name: 2.0},
        {name: 1.0, "reward.code.rewards/own.py": "1"},
        {name: 1.0, "reward.answer_pattern": "x"},
    ):
        assert clauses(*same, staged("grpo", 0.9, lr=0.3, **other)) == said


def test_a_file_that_differs_is_named_by_its_digest(tmp_path):
    key = "reward.code.rewards/own.py"
    texts = ["def reward(a, b): return 1.0\n", "def reward(a, b): return 2.0\n"]
    trials = [staged("grpo", 0.5, **{key: text}) for text in texts]
    assert {one.label for one in choosing.best_first(trials)} == {f"{key}={live.digest(text)}" for text in texts}
    showing.write_csv(tmp_path / "runs.csv", Sweep(trials, {}))
    assert "def reward" not in (tmp_path / "runs.csv").read_text()


def test_trials_of_one_method_that_end_with_other_stages_are_two_methods():
    methods = choosing.by_method([trial("tuned"), staged("dpo", 0.7)], ("m", "d"))
    assert list(methods) == ["tuned (valid loss)", "tuned (valid reward accuracy)"]


def test_a_training_of_before_a_stage_was_measured_or_by_an_unknown_one_is_left_out_and_named(monkeypatch):
    """And what one of today measured is read with it."""
    row = {"train_seconds": 1.0, "train_tokens_per_second": 1.0, "valid_loss": 1.0, "steps": 3, "reward_steps": 2}
    lock = {f"finetune@demo-demo-lora_grpo-{seed}": {"seed": seed} for seed in (1, 2, 3)}
    old = object.__new__(reading._Revision)
    old._name, old._revision = "old", types.SimpleNamespace(text=lambda path: "", lock=lock)
    rows, stages = {1: row, 2: row | {EARNED: 0.5}, 3: row}, {1: "grpo", 2: "grpo", 3: "kto"}
    monkeypatch.setattr(reading._Revision, "_training", lambda self, training, entry: rows[training.seed])
    monkeypatch.setattr(reading._Revision, "_setting", lambda self, one, lock: {"stage": stages[one.seed]})
    left_out = {}
    (found,) = old.trials(set(), left_out)
    assert left_out == {
        "trained by an earlier version, without valid_reward": {"old": None},
        "trained by stage kto, which is not known here": {"old": None},
    }
    assert (found.seed, found.value, found.valid) == (2, 0.5, {"valid_loss": 1.0, EARNED: 0.5})
    assert found.steps == {"steps": 3, "reward_steps": 2}


@pytest.mark.parametrize(
    ("best", "said"), [(0, "train.lr=1 is the smallest"), (1, ""), (2, "train.lr=3 is the largest")]
)
def test_a_best_value_at_the_edge_is_said(best, said):
    some = choosing.best_first(trial(lr=lr, loss=float(n != best)) for n, lr in enumerate((1, 2, 3)))
    assert list(choosing.at_the_edge(some)) == ([f"{said} tried"] if said else [])


def test_two_values_have_no_edge_and_neither_have_words_and_lists():
    assert not list(choosing.at_the_edge(choosing.best_first([trial(lr=1, loss=0.1), trial(lr=2)])))
    for key, values in (("schedule", ["linear", "cosine", "constant"]), ("modules", [["q"], ["q", "k"], ["v"]])):
        some = choosing.best_first(trial(loss=n, **{key: value}) for n, value in enumerate(values))
        assert len(some) == 3
        assert not list(choosing.at_the_edge(some))


def test_a_lock_of_before_there_were_several_seeds_has_no_evaluation_of_one():
    lock = {TESTED: {"params": {"params.yaml": {"evaluate.max_new_tokens": 48}}}}
    training = Training.parse("demo-demo-lora-42")
    assert object.__new__(reading._Revision)._evaluation(training, lock) is None


def revision(monkeypatch, text):
    monkeypatch.setattr(revisions, "_commit", lambda name: "0" * 40)
    monkeypatch.setattr(revisions, "_git", lambda *words: text)
    return reading._Revision(None, "old", "old")


def test_a_params_yaml_of_an_earlier_time_may_be_written_as_none_is_today(monkeypatch):
    text = b"seed: 7\nseed: 7\n123: yes\nnumber: 010\nevaluate: {bootstrap: 100}\n"
    assert revision(monkeypatch, text).settings() == (7, 100)


@pytest.mark.parametrize("text", [b"seed: [", b"seed: \xff", b"seed: " + b"1" * 5000])
def test_a_params_yaml_that_nothing_can_read_is_said(monkeypatch, text):
    with pytest.raises(UserError, match=r"^params\.yaml of old \(0000000\): not (valid YAML: |UTF-8 )"):
        revision(monkeypatch, text).settings()
