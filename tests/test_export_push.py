"""What is exported goes to the hub as one commit, and only what may go, to where it may."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fake_hub
import hostile
import huggingface_hub
import pytest
import yaml
from fake_hub import STRANGER, TOKEN, FakeHub

from tradeoffs import metrics, params
from tradeoffs.common import files
from tradeoffs.common.cells import Variant
from tradeoffs.common.texts import on_a_line
from tradeoffs.export import card, gguf_file, licences, push, usage
from tradeoffs.export.chosen import Chosen
from tradeoffs.export.licences import Source, Terms
from tradeoffs.plumbing.errors import UserError

REPO = Path(__file__).parents[1]
CLIENT = """
import json, sys
from tradeoffs.export import push
from tradeoffs.export.licences import Source, Terms
from tradeoffs.plumbing.errors import UserError
found = []
for one in json.loads(sys.argv[2]):
    try:
        if "sources" in one:
            looked = push.looked_up([Source(*values) for values in one["sources"]])
            found.append({"licences": [source.licence for source in looked]})
        else:
            found.append({"url": push.push(sys.argv[1], one["repo"], one.get("public", False), "a model")})
    except UserError as error:
        found.append({"error": str(error)})
print(json.dumps(found))
"""
NO_PARTS = {"uses": [], "notes": [], "again": [], "commands": ""}
NO_XET = {"HF_HUB_DISABLE_XET": "1"}  # the fake hub has no chunks; the hub's client then uploads whole files


def folder_of(where: Path, **more: str) -> Path:
    """An export as far as the hub sees it."""
    held = {
        "README.md": "---\nlicense: mit\n---\n\n# A model\n",
        "x.gguf": "weights",
        ".eval_results/a.yaml": "[]",
        **more,
    }
    for name, text in held.items():
        files.write_text(where / name, text)
    return recorded(where)


def recorded(where: Path) -> Path:
    """The folder, with the record of what lies in it."""
    (where / push.RECORD).unlink(missing_ok=True)
    held = {path.relative_to(where).as_posix(): files.sha256(path) for path in where.rglob("*") if path.is_file()}
    files.write_json(where / push.RECORD, {"made_by": push.MAKER, "files": held})
    return where


def pushed(hub: FakeHub, folder: Path, home: Path, requests: list[dict], token: str | None = TOKEN) -> tuple[list, str]:
    more = NO_XET | ({"HF_TOKEN": token} if token else {})
    return hub.ask(CLIENT, str(folder), requests, home, **more)


@pytest.mark.slow
def test_a_push_is_one_commit_into_a_private_repository(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "made")
    with FakeHub() as hub:
        (done, public), said = pushed(
            hub, folder, tmp_path / "home", [{"repo": "team/new"}, {"repo": "team/open", "public": True}]
        )
        assert done["url"].startswith(f"{hub.url}/team/new/commit/"), done
        access, held = hub.held("team/new")
        assert access == "private"
        assert set(held) == {".gitattributes", ".eval_results/a.yaml", "README.md", "x.gguf", "provenance.json"}
        assert held["x.gguf"] == b"weights"
        assert hub.messages == ["a model, by tradeoffs.export"] * 2
        assert public["url"]
        assert hub.held("team/open")[0] == "public"
        assert TOKEN not in said

        (folder / "x.gguf").unlink()
        files.write_text(folder / "y.gguf", "other weights")
        recorded(folder)
        (again, told), _ = pushed(hub, folder, tmp_path / "home", [{"repo": "team/new"}, {"repo": "team/open"}])
        assert again["url"]
        assert set(hub.held("team/new")[1]) == {
            ".gitattributes",
            ".eval_results/a.yaml",
            "README.md",
            "y.gguf",
            "provenance.json",
        }
        assert "is public; add --public" in fake_hub.error(told)


@pytest.mark.slow
def test_what_users_added_to_a_repository_is_not_lost(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "made")
    with FakeHub() as hub:
        changed = {"README.md": "my own words", "x.gguf": "other weights", "y.gguf": "more weights", "a/\x1b.txt": "x"}
        names = [f"team/r{number}" for number in range(len(changed) + 1)]
        for name, (file, text) in zip(names, changed.items(), strict=False):
            there = folder_of(tmp_path / name)
            files.write_text(there / file, text)
            hub.publish(name, there, kind="model", access="private")
        hub.publish(names[-1], folder_of(tmp_path / names[-1]), kind="model", access="private")
        *refused, taken = pushed(hub, folder, tmp_path / "home", [{"repo": name} for name in names])[0]
        for one, file in zip(refused, changed, strict=True):
            assert f"it would be lost: {file.replace(chr(27), '')}" in fake_hub.error(one).replace("\\x1b", "")
        assert taken["url"]
        assert hub.messages == ["a model, by tradeoffs.export"]


@pytest.mark.slow
def test_a_commit_of_somebody_else_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "made")
    with FakeHub() as hub:
        hub.publish("team/x", folder, kind="model", access="private")
        hub.meanwhile = {"README.md": b"theirs"}
        (refused,), _ = pushed(hub, folder, tmp_path / "home", [{"repo": "team/x"}])
        assert "somebody else wrote there meanwhile" in fake_hub.error(refused)
        assert hub.held("team/x")[1] == {"README.md": b"theirs"}


@pytest.mark.slow
def test_a_push_that_cannot_be_says_why(tmp_path: Path) -> None:
    folder, theirs = folder_of(tmp_path / "made"), tmp_path / "theirs"
    files.write_text(theirs / "config.json", "{}")
    requests = [{"repo": f"team/{name}"} for name in ("theirs", "card")] + [
        {"repo": "others/new"},
        {"repo": "others/x"},
    ]
    with FakeHub() as hub:
        hub.publish("team/theirs", theirs, kind="model")
        hub.publish("others/x", folder, kind="model")
        files.write_text(theirs / "provenance.json", '["not", "ours"]')
        hub.publish("team/card", theirs, kind="model")
        found, said = pushed(hub, folder, tmp_path / "home", [*requests, {"repo": "others/x", "public": True}])
        not_made, not_ours, foreign, open_, foreign_again = map(fake_hub.error, found)
        assert "team/theirs: exists, and was not made by this command (it holds config.json" in not_made
        assert "team/card: exists, and was not made by this command" in not_ours
        assert "others/new" in foreign
        assert "does not let the account of this token write there (403)" in foreign
        assert "others/x: exists and is public" in open_
        assert "does not let the account of this token write there (403)" in foreign_again

        (nobody,), _ = pushed(hub, folder, tmp_path / "nobody", [{"repo": "team/new"}], token=None)
        assert "no token" in fake_hub.error(nobody)
        (unknown, wrong), _ = pushed(hub, folder, tmp_path / "home", requests[2:], token="hf_wrong")
        assert "(401)" in fake_hub.error(unknown), wrong
        (stranger,), _ = pushed(hub, folder, tmp_path / "home", [{"repo": "team/new"}], token=STRANGER)
        assert "(403)" in fake_hub.error(stranger)
        assert not hub.messages, "nothing was pushed"
        assert not {word for word in (TOKEN, STRANGER, "hf_wrong") if word in said}

        files.write_text(folder / "README.md", "---\nlicense: no-such\n---\n")
        (refused,), _ = pushed(hub, folder, tmp_path / "home", [{"repo": "team/new"}])
        assert "does not take the card" in fake_hub.error(refused)
        assert "--licence" in fake_hub.error(refused)
        hub.broken["/api/repos/create"] = 500
    (gone,), _ = pushed(hub, folder, tmp_path / "home", [{"repo": "team/new"}])
    assert "cannot be reached" in fake_hub.error(gone)


@pytest.mark.slow
def test_a_licence_that_params_does_not_state_is_asked_of_the_hub(tmp_path: Path) -> None:
    for name, text in {"stated": "---\nlicense: gemma\n---\n\nx", "silent": "# nothing\n"}.items():
        files.write_text(tmp_path / name / "README.md", text)
    with FakeHub() as hub:
        commit = hub.publish("team/base", tmp_path / "stated", kind="model")
        hub.publish("team/data", tmp_path / "silent")
        sources = [
            ["base model", "a", "model", None, "team/base", commit],
            ["data set", "b", "dataset", None, "team/data"],
            ["data set", "c", "dataset", "mit", "team/data"],
        ]
        (found,), _ = pushed(hub, tmp_path, tmp_path / "home", [{"sources": sources}])
    assert found["licences"] == ["gemma", None, "mit"]


def source(licence: str | None, own: bool = False, hub: str | None = "team/base") -> Source:
    return Source("base model", "base", "model", licence, hub, None, own)


@pytest.mark.parametrize("licence", ["apache-2.0", "MIT", "bsd-3-clause", "cc-by-4.0", "cc0-1.0"])
def test_what_may_plainly_be_passed_on_is_pushed(licence: str) -> None:
    push.require_allowed([source(licence), source(None, own=True)], accepted=False)


@pytest.mark.parametrize(
    "licence",
    [
        None,
        "none stated",
        "gemma",
        "llama3.2",
        "cc-by-nc-4.0",
        "cc-by-sa-3.0",
        "cc",
        "other",
        "qwen-research",
        "mit or gpl",
    ],
)
def test_what_may_not_plainly_be_passed_on_is_named_and_not_pushed(licence: str | None) -> None:
    with pytest.raises(UserError) as stopped:
        push.require_allowed([source("mit"), source(licence, hub="team/terms")], accepted=False)
    assert f"base model team/terms: licence {licence or 'none known'}" in str(stopped.value)
    assert "team/base" not in str(stopped.value)
    push.require_allowed([source(licence)], accepted=True)


def test_a_card_names_a_licence_as_the_hub_knows_it() -> None:
    assert licences.for_card(Terms([source("Apache-2.0")], None)) == {"license": "apache-2.0"}
    assert licences.for_card(Terms([source("llama3.2")], None)) == {"license": "llama3.2"}
    assert licences.for_card(Terms([source("qwen-research")], None)) == {
        "license": "other",
        "license_name": "qwen-research",
    }
    assert licences.for_card(Terms([source("gemma")], "mit")) == {"license": "mit"}
    assert licences.for_card(Terms([source(None)], None)) == {}


@pytest.mark.parametrize(
    "name",
    [
        *("x", "a/b/c", "../x", "a/..", "-a/b", "a/b.git", "a/b c", "a/b\n", "a/" + "b" * 99, ""),
        *("a/-b", "a/.b", "a/b-", "a./b", "datasets/x", "spaces/x", "Models/x"),
    ],
)
def test_what_is_no_name_of_a_repository_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="expected USER/NAME"):
        push.require_name(name)
    push.require_name("team/demo-demo-lora-q8_0")


@pytest.mark.parametrize("text", hostile.HOSTILE)
def test_hostile_names_stay_data(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = hostile_choice(text, tmp_path, monkeypatch)
    terms = Terms(licences.sources(chosen), text, text, text)
    card.write(
        chosen,
        tmp_path,
        {"uses": usage.uses(chosen, "x.gguf", None, True), "notes": [], "again": [], "commands": ""},
        terms,
    )
    written = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert not hostile.harm(written)
    loaded = huggingface_hub.ModelCard(written, ignore_metadata_errors=False)
    plain = hostile_choice("team/base", tmp_path, monkeypatch)
    card.write(plain, tmp_path, NO_PARTS, Terms(licences.sources(plain), "mit"))
    before = huggingface_hub.ModelCard((tmp_path / "README.md").read_text(encoding="utf-8"))
    names = set(before.data.to_dict()) - (set() if text.strip() else {"license"})
    assert set(loaded.data.to_dict()) - {"license_name"} == names
    assert (loaded.data.base_model or "") == on_a_line(text)
    body = loaded.text.partition("## Use")[0]
    assert hostile.of_markdown(body) == hostile.of_markdown(before.text.partition("## Use")[0])
    described = gguf_file.description(chosen, terms, text, [text])
    told = [value for value in described.values() if isinstance(value, str)]
    assert not [value for value in told if "\n" in value or hostile.harm(value)]


def test_a_test_set_of_the_hub_has_its_result_in_the_hubs_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """.eval_results, and no model-index beside it."""
    plain = hostile_choice("team/base", tmp_path, monkeypatch)
    cfg = replace(plain.cfg, datasets={"demo": plain.cfg.datasets["gsm8k"]})
    chosen = Chosen(plain.variant, cfg, {})
    chosen.__dict__.update(plain.__dict__ | {"cfg": cfg, "items": [{"item": "a"}, {"item": "b"}]})
    found = {"test_f1": 0.5, "test_f1_low": 0.25, "test_f1_high": 0.75}
    monkeypatch.setattr(Chosen, "numbers", lambda self, variant=None: found if variant is None else {})
    card.write(chosen, tmp_path, NO_PARTS, Terms(licences.sources(chosen)))
    rows = yaml.safe_load((tmp_path / ".eval_results/demo.yaml").read_text(encoding="utf-8"))
    (entry,) = huggingface_hub.parse_eval_result_entries(rows)
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "main", 0.5)
    assert entry.dataset_revision == cfg.datasets["demo"].revision
    told = "F1, on 2 of its test examples, 95 % interval 0.25 to 0.75; evaluated by who publishes the model"
    assert entry.notes == told
    read = huggingface_hub.ModelCard.load(tmp_path / "README.md")
    assert not read.data.eval_results
    assert read.data.datasets == ["openai/gsm8k"]
    assert (read.data.base_model, read.data.base_model_relation) == ("team/base", "adapter")


def hostile_choice(text: str, folder: Path, patch: pytest.MonkeyPatch) -> Chosen:
    """A variant of a base that is called `text` on the hub, whose licence is that too."""
    cfg = params.load_all(REPO / "params.yaml")
    model = replace(cfg.models["demo"], generate=None, hub=text, revision=text, licence=text)
    cfg = replace(cfg, models=cfg.models | {"demo": model})
    chosen = Chosen(Variant("demo", "demo", "lora", "trained"), cfg, {})
    known = {"base": {"source": text, "commit": text}, "tokens": {"kind": "instruction", "stop_ids": [2], "context": 9}}
    known |= {"facts": {}, "items": [], "decision": {"metric": "test_f1", "margin": 0.02}, "guards": []}
    known["results"] = SimpleNamespace(label=lambda dataset, name: metrics.metric(name)[1].label)
    chosen.__dict__.update(known)  # in place of what would be read from files
    patch.setattr(Chosen, "numbers", lambda self, variant=None: {"test_f1": 0.5} if variant is None else {})
    return chosen
