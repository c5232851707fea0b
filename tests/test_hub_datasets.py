"""A data set of the hub gives its rows at one commit; no more is downloaded than is wanted; what fails is explained."""

import gzip
import json
import random
import re
from pathlib import Path

import forked
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import quick_yaml
from fake_hub import STRANGER, TOKEN, FakeHub, error

from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.params import Columns

REPO = Path(__file__).parents[1]
WHERE = "datasets.mine"
ROWS = [{"text": f"Shares of firm {n} fell.", "label": n % 2} for n in range(40)]
EXPECTED = [{"prompt": f"Which?\n\n{row['text']}", "answer": ("World", "Business")[row["label"]]} for row in ROWS]
BIG = 400  # rows of each of three files of 6 MB that no compression makes smaller, in row groups of 20

# Opens each of the argument's data sets, in one process, since the libraries take a second to import. They wait for
# longer and longer between their tries; here not at all.
CLIENT = """
import json, sys, time
time.sleep = lambda seconds: None
from tradeoffs import params
from tradeoffs.prepare import records
from tradeoffs.plumbing.errors import UserError

def one(entry):
    entry = {"kind": "text", "near_duplicate": 1.0, "seen": 1, "valid": 1, "test_share": 0.1, **entry}
    entry["columns"] = params.Columns(**entry["columns"])
    entry["splits"] = params.HubSplits(**entry["splits"])
    try:
        source = records.open_source(params.Dataset(**entry), sys.argv[1])
        train, test = list(source.train), source.test and list(source.test)
        return {"train": train, "test": test, "facts": source.facts}
    except UserError as error:
        return {"error": str(error)}

print(json.dumps([one(entry) for entry in json.loads(sys.argv[2])]))
"""


def news(folder, rows=ROWS, card=True):
    """Parquet files of two configurations, the answers of `default` as class labels."""
    for config in ("default", "small"):
        for split, part in (("train", rows), ("test", rows[:4])):
            path = folder / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(part), path)
    data = [{"split": split, "path": f"default/{split}-*"} for split in ("train", "test")]
    label = {"class_label": {"names": {"0": "World", "1": "Business"}}}
    features = [{"name": "text", "dtype": "string"}, {"name": "label", "dtype": label}]
    card = {
        "configs": [
            {"config_name": "default", "data_files": data},
            {"config_name": "small", "data_files": "small/train-*"},
        ],
        "dataset_info": [{"config_name": "default", "features": features}],
    }
    (folder / "README.md").write_text(f"---\n{quick_yaml.dump(card)}---\n")
    return folder


def big(folder):
    random_bytes = random.Random(0).randbytes
    for number in range(3):
        rows = [{"text": random_bytes(15_000).hex(), "id": n} for n in range(BIG)]
        name = f"train-0000{number}-of-00003.parquet"
        (folder / "data").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / "data" / name, row_group_size=20, compression="zstd")
    return folder


def lines(folder, pack):
    """JSON lines, without a README.md."""
    content = "".join(json.dumps({"title": f"Paper {n}", "abstract": f"On {n}."}) + "\n" for n in range(30)).encode()
    (folder / ("train.jsonl.gz" if pack else "train.jsonl")).write_bytes(gzip.compress(content) if pack else content)
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    made = tmp_path_factory.mktemp
    with FakeHub() as hub:
        hub.first = hub.publish("me/news", news(made("first"), ROWS[::-1]))
        hub.commit = hub.publish("me/news", news(made("second")))
        hub.publish("me/private", news(made("private")), access="private")
        hub.publish("me/gated", news(made("gated")), access="gated")
        hub.publish("me/papers", lines(made("papers"), pack=False))
        hub.publish("me/packed", lines(made("packed"), pack=True))
        hub.big_folder = big(made("big"))
        hub.publish("me/big", hub.big_folder)
        script = made("script")
        (script / "script.py").write_text("raise SystemExit('a script of a data set was run')")
        hub.publish("me/script", script)
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


ENTRY = {
    "hub": "me/news",
    "revision": "main",
    "kind": "instruction",
    "config": "default",
    "splits": {"train": "train"},
    "columns": {"instruction": "Which?\n\n{text}", "answer": "label"},
}
WITH_TEST = {**ENTRY, "splits": {"train": "train", "test": "test"}, "test_share": None}
TEXT = {"hub": "me/big", "revision": "main", "splits": {"train": "train"}, "columns": {"text": "text"}}


def ask(hub, home, *entries, **environment):
    """What open_source gives for each entry, and all that the process printed."""
    return hub.ask(CLIENT, WHERE, entries, home, **environment)


@pytest.fixture(scope="module")
def online(hub, home):
    asked = {
        "first": {**ENTRY, "revision": hub.first},
        "whole": WITH_TEST,
        "streamed": {**WITH_TEST, "rows": 7},
        "papers": {**TEXT, "hub": "me/papers", "columns": {"text": "{title}: {abstract}"}},
        "packed": {**TEXT, "hub": "me/packed", "columns": {"text": "{title}: {abstract}"}, "rows": 30},
        "name": {**ENTRY, "hub": "tatsu-lab/alpacca"},
        "private": {**ENTRY, "hub": "me/private"},
        "gated": {**ENTRY, "hub": "me/gated"},
        "gated streamed": {**ENTRY, "hub": "me/gated", "rows": 3},
        "config": {**ENTRY, "config": "large"},
        "split": {**ENTRY, "splits": {"train": "train", "test": "validation"}, "test_share": None},
        "branch": {**ENTRY, "revision": "v9"},
        "commit": {**ENTRY, "revision": "0" * 40},
        "column": {**ENTRY, "columns": {"instruction": "txt", "answer": "label"}, "rows": 3},
        "script": {**ENTRY, "hub": "me/script", "config": None},
    }
    found, said = ask(hub, home, *asked.values())
    return {**dict(zip(asked, found, strict=True)), "said": said}


def test_whole_and_streamed_rows_are_the_same_and_classes_are_named(online):
    assert online["whole"]["train"] == EXPECTED
    assert online["whole"]["test"] == EXPECTED[:4]
    assert online["streamed"]["train"] == EXPECTED[:7]
    assert online["streamed"]["test"] == EXPECTED[:4]


def test_json_lines_are_read_packed_or_not_and_without_a_card(online):
    assert online["papers"]["train"] == [{"text": f"Paper {n}: On {n}."} for n in range(30)]
    assert online["packed"]["train"] == online["papers"]["train"]


def test_a_branch_is_resolved_to_its_commit_which_is_recorded_and_said(hub, online):
    facts = {"source": "me/news", "config": "default", "commit": hub.commit}
    assert online["whole"]["facts"] == {**facts, "splits": {"train": "train", "test": "test"}}
    assert f"main of me/news is commit {hub.commit} today" in online["said"]


def test_an_older_commit_stays_what_it_was_and_is_not_warned_about(hub, online):
    assert online["first"]["facts"]["commit"] == hub.first
    assert online["first"]["train"] == EXPECTED[::-1]
    assert f"commit {hub.first}" not in online["said"]


def test_what_the_hub_refuses_is_one_message_with_a_way_out(hub, online):
    assert error(online["name"]).startswith(
        f"{WHERE}.hub: no data set 'tatsu-lab/alpacca' on {hub.url} (did you mean tatsu-lab/alpaca?); check the name"
    )
    assert error(online["private"]).startswith(f"{WHERE}.hub: no data set 'me/private' on {hub.url}")
    assert error(online["gated"]).startswith(f"{WHERE}.hub: me/gated is gated, and there is no token here: accept its")
    assert error(online["gated streamed"]) == error(online["gated"])


@pytest.mark.parametrize(("name", "revision"), [("branch", "v9"), ("commit", "0" * 40)])
def test_a_revision_that_is_not_there_or_no_longer_is_named(online, name, revision):
    assert error(online[name]).startswith(f"{WHERE}.revision: me/news has no revision '{revision}', or no longer; give")


def test_a_configuration_split_or_column_that_is_not_there_is_answered_with_those_that_are(online):
    assert error(online["config"]) == (
        f"{WHERE}.config: me/news has no configuration 'large' (there are: default, small)"
    )
    assert error(online["split"]) == (
        f"{WHERE}.splits.test: me/news has no split 'validation' (there are: train, test)"
    )
    assert error(online["column"]) == (
        "me/news: train, row 1: no column 'txt' (did you mean text? there are: text, label)"
    )


def test_no_script_of_a_data_set_is_run(online):
    assert error(online["script"]).startswith(f"{WHERE}.hub: me/script is made by a script of its own, which is never")


def test_of_a_large_data_set_only_what_holds_the_wanted_rows_is_asked_for(hub, tmp_path):
    hub.ranges.clear()
    hub.requests.clear()
    (found,), _ = ask(hub, tmp_path, {**TEXT, "rows": 30})
    first, *others = sorted((hub.big_folder / "data").iterdir())
    assert [row["text"] for row in found["train"]] == pq.read_table(first)["text"].to_pylist()[:30]
    assert not any(other.name in path for other in others for _, path in hub.requests)
    sent = [re.fullmatch(r"bytes=(\d+)-(\d+)", asked) for path, asked in hub.ranges if first.name in path]
    whole = [path for method, path in hub.requests if method == "GET" and first.name in path]
    assert len(sent) == len(whole)  # every request was for a part
    assert sum(int(part[2]) - int(part[1]) + 1 for part in sent) < first.stat().st_size
    assert not list(tmp_path.rglob("*.arrow"))


@pytest.mark.parametrize("rows", [30, None])
@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_cut_in_the_middle_is_taken_up_again(hub, tmp_path, monkeypatch, rows, reset):
    first = sorted((hub.big_folder / "data").iterdir())[0]
    monkeypatch.setattr(hub, "reset", reset)
    monkeypatch.setattr(hub, "cuts", {first.name: [100_000, 50_000]})
    (found,), _ = ask(hub, tmp_path, {**TEXT, "rows": rows})
    assert hub.cuts == {first.name: []}
    expected = pq.read_table(hub.big_folder / "data")["text"].to_pylist()
    assert [row["text"] for row in found["train"]] == expected[:rows]


def test_offline_reads_what_was_downloaded_whole_and_asks_nobody(hub, home, online, tmp_path):
    asked = len(hub.requests)
    (whole, part, other), _ = ask(
        hub, home, WITH_TEST, {**WITH_TEST, "rows": 7}, {**TEXT, "rows": 7}, HF_HUB_OFFLINE="1"
    )
    assert whole == online["whole"]
    assert part["train"] == EXPECTED[:7]
    assert error(other).startswith(f"{WHERE}.hub: me/big is not on this disk")
    (absent,), _ = ask(hub, tmp_path, WITH_TEST, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE keeps it from being downloaded" in error(absent)
    assert len(hub.requests) == asked


def test_a_token_opens_what_is_private_and_is_never_shown(hub, tmp_path):
    private, gated = {**ENTRY, "hub": "me/private"}, {**ENTRY, "hub": "me/gated", "rows": 40}
    (one, other), said = ask(hub, tmp_path, private, gated, HF_TOKEN=TOKEN)
    assert one["train"] == other["train"] == EXPECTED
    (refused,), more = ask(hub, tmp_path, gated, HF_TOKEN=STRANGER)
    assert error(refused).startswith(f"{WHERE}.hub: me/gated is gated, and the account of your token has no access: ")
    assert not any(token in text for token in (TOKEN, STRANGER) for text in (said, more, json.dumps([one, other])))


def test_prepare_of_a_hub_data_set_records_the_commit(hub, home, tmp_path):
    raw = quick_yaml.load((REPO / "params.yaml").read_text())
    entry = {key: value for key, value in WITH_TEST.items() if value is not None}
    raw["datasets"]["mine"] = {**entry, "near_duplicate": 1.0, "seen": 2, "valid": 3, "rows": 30}
    (tmp_path / "params.yaml").write_text(quick_yaml.dump(raw))
    words = ["-m", "stages.prepare", "--dataset", "mine"]
    environment = hub.environment(home, PYTHONPATH=str(REPO))
    done = forked.python(*words, cwd=tmp_path, env=environment, libraries=forked.HUB)
    assert done.returncode == 0, done.stderr
    info = files.read_json(tmp_path / "data/prepared/mine/info.json")
    assert (info["source"], info["commit"], info["config"]) == ("me/news", hub.commit, "default")
    found = {split: files.read_jsonl(tmp_path / f"data/prepared/mine/{split}.jsonl") for split in ("train", "test")}
    assert sorted(row["prompt"] for row in found["test"]) == sorted(row["prompt"] for row in EXPECTED[:4])
    assert not {row["prompt"] for row in found["train"]} & {row["prompt"] for row in found["test"]}


def catalogue():
    """The table of docs/data.md."""
    yield "| name | data set | kind | columns | test rows | rows | licence |"
    yield "| --- | --- | --- | --- | --- | ---: | --- |"
    for name, entry in params.load_all(REPO / "params.yaml").datasets.items():
        if not entry.hub:
            continue
        config = f", `{entry.config}`" if entry.config else ""
        mapped = {key: value for key, value in vars(entry.columns or Columns()).items() if value}
        columns = ", ".join(f"`{value}`".replace("\n", "\\n") for value in mapped.values())
        test = (
            f"split `{entry.splits.test}`" if entry.splits.test else f"{entry.test_share:.0%} of `{entry.splits.train}`"
        )
        link = f"[{entry.hub}](https://huggingface.co/datasets/{entry.hub})"
        rows = f"{entry.rows:,}" if entry.rows else "all"
        yield f"| `{name}` | {link}{config} | {entry.kind} | {columns} | {test} | {rows} | {entry.licence} |"


def test_the_catalogue_in_the_docs_is_that_of_params():
    text = (REPO / "docs/data.md").read_text(encoding="utf-8")
    shown = text.split("<!-- catalogue:begin -->\n")[1].split("<!-- catalogue:end -->")[0]
    assert shown == "".join(f"{line}\n" for line in catalogue())


def test_every_data_set_of_the_catalogue_says_its_licence_and_is_at_a_commit():
    for name, entry in params.load_all(REPO / "params.yaml").datasets.items():
        if entry.hub:
            assert entry.licence, name
            assert re.fullmatch(r"[0-9a-f]{40}", str(entry.revision)), name
