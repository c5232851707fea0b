"""The hub's questions are those of the CSV folder, of one commit, and what does not work is one message."""

import json
from pathlib import Path

import forked
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import quick_yaml
from fake_hub import STRANGER, TOKEN, FakeHub, error

from stages import prepare
from tradeoffs.common import files
from tradeoffs.plumbing.errors import UserError
from tradeoffs.prepare import mmlu_files
from tradeoffs.sources import hub as hub_client

REPO = Path(__file__).parents[1]
SUBJECTS = ("anatomy", "virology")
WHERE = "datasets.mine.mmlu"

# Reads each of the argument's requests, in one process, since the libraries take a second to import.
CLIENT = """
import json, sys
from tradeoffs.prepare import hub_mmlu
from tradeoffs.plumbing.errors import UserError

def one(hub, revision, subjects):
    try:
        rows, commit = hub_mmlu.read(hub, revision, subjects, sys.argv[1])
        return {"rows": rows, "commit": commit}
    except UserError as error:
        return {"error": str(error)}

print(json.dumps([one(*request) for request in json.loads(sys.argv[2])]))
"""


def questions(subject, split):
    count = 2 if split == "dev" else 3
    return [
        {
            "question": f"  {subject}, {split} {n}: which, “a” or\nb? ",
            "subject": subject,
            "choices": ["a, b", "", '"c"', f" {n}"],
            "answer": n,
        }
        for n in range(count)
    ]


def write_csv(folder):
    """The same questions as MMLU's own files."""
    for split in ("dev", "test"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for subject in SUBJECTS:
            with (folder / split / f"{subject}_{split}.csv").open("w", newline="", encoding="utf-8") as file:
                for row in questions(subject, split):
                    fields = [row["question"], *row["choices"], "ABCD"[row["answer"]]]
                    file.write(",".join(f'"{field.replace(chr(34), chr(34) * 2)}"' for field in fields) + "\n")
    return folder


def write_hub(folder, splits=("test", "validation", "dev"), configs=(*SUBJECTS, "all"), change=lambda row: row):
    """The same as a repository like cais/mmlu: Parquet files, a configuration per subject, answers as class labels."""
    described = []
    label = {"class_label": {"names": {str(n): letter for n, letter in enumerate("ABCD")}}}
    features = [{"name": "question", "dtype": "string"}, {"name": "subject", "dtype": "string"}]
    features += [{"name": "choices", "sequence": "string"}, {"name": "answer", "dtype": label}]
    for config in configs:
        for split in splits:
            rows = [row for s in (SUBJECTS if config == "all" else (config,)) for row in questions(s, split)]
            path = folder / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist([change(row) for row in rows]), path)
        paths = [{"split": split, "path": f"{config}/{split}-*"} for split in splits]
        described.append({"config_name": config, "data_files": paths})
    infos = [{"config_name": config, "features": features} for config in configs]
    card = quick_yaml.dump({"configs": described, "dataset_info": infos}) if configs else "license: mit\n"
    (folder / "README.md").write_text(f"---\n{card}---\n\n# Questions\n")
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with FakeHub() as hub:
        made = tmp_path_factory.mktemp
        hub.first = hub.publish("cais/mmlu", write_hub(made("first"), change=lambda row: row | {"answer": 3}))
        hub.commit = hub.publish("cais/mmlu", write_hub(made("second")))
        hub.publish("me/private", write_hub(made("private")), access="private")
        hub.publish("me/gated", write_hub(made("gated")), access="gated")
        hub.publish("me/nodev", write_hub(made("nodev"), splits=("test",)))
        hub.publish("me/flat", write_hub(made("flat"), configs=()))
        odd = write_hub(made("odd"), change=lambda row: row | {"choices": row["choices"][:3]})
        hub.publish("me/odd", odd)
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def ask(hub, home, *requests, **environment):
    """What hub_mmlu.read gives for each request, and all that the process printed."""
    return hub.ask(CLIENT, WHERE, requests, home, **environment)


@pytest.fixture(scope="module")
def online(hub, home):
    """Everything that a newcomer without a token meets, asked in one process."""
    requests = {
        "all": ("cais/mmlu", None, None),
        "first": ("cais/mmlu", hub.first, ["virology"]),
        "name": ("cais/mmul", None, None),
        "revision": ("cais/mmlu", "v9", None),
        "subject": ("cais/mmlu", None, ["anatomy", "virolgy"]),
        "mixture": ("cais/mmlu", None, ["all"]),
        "private": ("me/private", None, None),
        "gated": ("me/gated", None, None),
        "nodev": ("me/nodev", None, ["anatomy"]),
        "flat": ("me/flat", None, None),
        "odd": ("me/odd", None, ["anatomy"]),
        "nonsense": ("a/b/c", None, None),
    }
    found, _ = ask(hub, home, *requests.values())
    return dict(zip(requests, found, strict=True))


def test_the_hub_gives_the_questions_of_the_csv_folder(online, tmp_path):
    expected = mmlu_files.read(write_csv(tmp_path), None, WHERE)
    assert len(expected) == 10
    assert online["all"]["rows"] == expected


def test_a_branch_is_resolved_to_its_commit_and_an_older_commit_stays_what_it_was(hub, online):
    assert online["all"]["commit"] == hub.commit
    assert online["first"]["commit"] == hub.first
    assert {row["answer"] for row in online["first"]["rows"]} == {3}


def test_what_the_hub_refuses_is_one_message_with_a_way_out(hub, online):
    assert error(online["name"]) == (
        f"{WHERE}.hub: no data set 'cais/mmul' on {hub.url} (did you mean cais/mmlu?); check the name "
        "(owner/name), or if it is private, log in with `hf auth login` or set HF_TOKEN"
    )
    assert error(online["private"]).startswith(f"{WHERE}.hub: no data set 'me/private' on {hub.url}; ")
    assert error(online["gated"]) == (
        f"{WHERE}.hub: me/gated is gated, and there is no token here: accept its terms on "
        f"{hub.url}/datasets/me/gated (some are granted after hours), then log in with `hf auth login` or set HF_TOKEN"
    )
    assert error(online["revision"]).startswith(f"{WHERE}.revision: cais/mmlu has no revision 'v9', or no longer; ")
    assert error(online["nonsense"]).startswith(f"{WHERE}.hub: 'a/b/c' is no name of a data set; ")


def test_an_unknown_subject_is_named_with_the_near_match_or_what_there_is(online):
    assert error(online["subject"]) == (
        f"{WHERE}.subjects[1]: no subject 'virolgy' in cais/mmlu (did you mean virology?)"
    )
    assert error(online["mixture"]) == (
        f"{WHERE}.subjects[0]: no subject 'all' in cais/mmlu (there are: anatomy, virology)"
    )


def test_a_data_set_of_another_kind_is_refused(online):
    assert error(online["nodev"]).startswith(
        f"{WHERE}.subjects: anatomy of me/nodev has no split dev (there are: test); "
    )
    assert error(online["flat"]).startswith(f"{WHERE}.hub: me/flat has no configurations in its README.md; ")
    assert error(online["odd"]).startswith(
        "me/odd anatomy, dev row 1: expected question (a text), choices (four texts) and answer (0 to 3), "
        "has {'question': '  anatomy, dev 0: which, "
    )


def test_a_token_opens_what_is_private_and_is_never_shown(hub, tmp_path):
    (private, gated), said = ask(
        hub, tmp_path, ("me/private", None, ["anatomy"]), ("me/gated", None, ["anatomy"]), HF_TOKEN=TOKEN
    )
    assert len(private["rows"]) == len(gated["rows"]) == 5
    (known,), more = ask(hub, tmp_path, ("me/gated", "other", ["anatomy"]), HF_TOKEN=STRANGER)
    assert error(known).startswith(f"{WHERE}.hub: me/gated is gated, and the account of your token has no access: ")
    (refused,), rest = ask(hub, tmp_path, ("cais/mmlu", None, ["anatomy"]), HF_TOKEN="hf_mistyped")
    assert error(refused) == (
        f"{WHERE}.hub: cais/mmlu: {hub.url} refused the token (401); log in with `hf auth login` or set HF_TOKEN"
    )
    assert not any(token in said + more + rest for token in (TOKEN, STRANGER, "hf_mistyped"))


def test_offline_uses_what_was_downloaded_and_nothing_else(hub, home, online):
    asked = len(hub.requests)
    (same, branch, other, absent), _ = ask(
        hub,
        home,
        ("cais/mmlu", hub.commit, ["anatomy"]),
        ("cais/mmlu", None, ["anatomy"]),
        ("cais/mmlu", hub.first, ["anatomy"]),
        ("cais/another", None, None),
        HF_HUB_OFFLINE="1",
    )
    assert same == branch
    assert same["commit"] == hub.commit and len(same["rows"]) == 5
    assert error(other).startswith(
        f"{WHERE}.revision: anatomy of cais/mmlu could not be downloaded at commit {hub.first}, and the newest on this "
        f"disk is that of {hub.commit}; "
    )
    assert error(absent).startswith(
        f"{WHERE}.hub: cais/another is not on this disk, or not whole, and HF_HUB_OFFLINE keeps"
    )
    assert len(hub.requests) == asked


def test_without_a_network_the_endpoint_is_named(hub, tmp_path):
    # The library waits longer and longer between its tries; here not at all.
    client = CLIENT.replace("import json, sys\n", "import json, sys, time\ntime.sleep = lambda seconds: None\n")
    (found,), _ = hub.ask(client, WHERE, [("cais/mmlu", None, None)], tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert error(found).startswith(f"{WHERE}.hub: http://127.0.0.1:9 cannot be reached (")
    assert "cais/mmlu is not on this disk; check the network and HF_ENDPOINT" in error(found)


def test_what_says_nothing_of_itself_is_named_by_its_kind():
    from huggingface_hub.utils import httpx

    for said, message in ((httpx.ReadError(""), "cannot be reached (ReadError)"), (ValueError(), "read: ValueError")):
        with pytest.raises(UserError) as caught, hub_client.explained("cais/mmlu", None, "dataset", WHERE):
            raise said
        assert message in str(caught.value)


def test_prepare_records_the_commit_and_gives_the_same_questions_as_the_folder(hub, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps({"q": f"What is {n}?", "a": str(n)}) + "\n" for n in range(40)))
    write_csv(Path("csv"))

    def params(mmlu):
        raw = quick_yaml.load((REPO / "params.yaml").read_text())
        entry = {"path": "rows.jsonl", "kind": "instruction", "columns": {"instruction": "q", "answer": "a"}}
        entry |= {"test_share": 0.2, "near_duplicate": 1.0, "seen": 2, "valid": 1}
        entry |= {"mmlu": {**mmlu, "subjects": ["virology"]}}
        raw["datasets"]["mine"] = entry
        Path("params.yaml").write_text(quick_yaml.dump(raw))

    def prepared():
        return Path("data/prepared/mine/mmlu.jsonl").read_bytes(), files.read_json("data/prepared/mine/info.json")

    params({"path": "csv"})
    prepare.main("mine")
    expected, info = prepared()
    assert info["mmlu"] == {"source": "csv"}
    for revision in (None, hub.commit):
        params({"hub": "cais/mmlu", **({"revision": revision} if revision else {})})
        words = ["-m", "stages.prepare", "--dataset", "mine"]
        environment = hub.environment(home, PYTHONPATH=str(REPO))
        done = forked.python(*words, env=environment, libraries=forked.HUB)
        assert done.returncode == 0, done.stderr
        found, info = prepared()
        assert found == expected
        assert info["mmlu"] == {"source": "cais/mmlu", "commit": hub.commit}
        assert (f"or set revision: {hub.commit}" in done.stdout) == (revision is None)
