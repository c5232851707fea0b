"""A model of the hub arrives as it is there, only what is safe of it, also over a line that breaks; what does not work
is one message, before the long download."""

import hashlib
import json
from pathlib import Path

import forked
import pytest
import quick_yaml
from fake_hub import STRANGER, TOKEN, FakeHub, error
from needs import needs
from tiny_gguf import make_checkpoint
from transformers import AutoModelForCausalLM

from benchmarks import assets
from tradeoffs import params
from tradeoffs.common import files
from tradeoffs.models import checkpoints

REPO = Path(__file__).parents[1]
STORIES = assets.FOLDER / "models/stories260k"
WHERE = "models.mine"
WEIGHTS = "model.safetensors"
SMALL = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"}

# Fetches each of the argument's requests (repository, revision, folder), in one process, since imports take a second.
# Nobody waits for a second try, and what arrives is written in pieces that are small beside these models. Where nothing
# is wrong with the architecture it is not looked at, since that imports torch.
UNSEEN = "checkpoints.check_architecture = weights.check_names = lambda *_: None"
CLIENT = f"""
import json, sys, time
from pathlib import Path
time.sleep = lambda seconds: None
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 1 << 16
from tradeoffs.models import checkpoints, weights
from tradeoffs.base import hub_downloads, hub_models, hub_space
from tradeoffs.plumbing.errors import UserError
{UNSEEN}

def one(repo, revision, folder):
    try:
        found = hub_models.find(repo, revision, sys.argv[1])
        hub_space.announce(found, Path(folder))
        Path(folder).mkdir(parents=True, exist_ok=True)
        hub_downloads.copy(found, Path(folder))
        return dict(commit=found.commit)
    except UserError as error:
        return dict(error=str(error))

print(json.dumps([one(*request) for request in json.loads(sys.argv[2])]))
"""


def ask(hub, home, *requests, change=("", ""), **environment):
    """What each request gives, and all that the process printed; `change` replaces a part of the client."""
    return hub.ask(CLIENT.replace(*change), WHERE, requests, home, **environment)


def held(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def downloads(hub, name):
    """How often a file was asked for as a whole or from somewhere on, its first bytes apart."""
    return sum(method == "GET" and path.endswith(f"/{name}") for method, path in hub.requests) - len(
        [header for path, header in hub.ranges if path.endswith(f"/{name}") and header.startswith("bytes=0-")]
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint as it lies on the hub: with a licence, and with much that is not to be fetched."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_checkpoint(folder)
    (folder / "run_info.json").unlink()
    (folder / "LICENSE").write_text("Do as you like.\n")
    for name in ("pytorch_model.bin", "rust_model.ot", "modeling_tiny.py", "tiny.gguf", "README.md"):
        (folder / name).write_text("not wanted")
    for name in ("onnx/model.onnx", "original/consolidated.safetensors"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("not wanted")
    return folder


@pytest.fixture(scope="module")
def variants(checkpoint, tmp_path_factory):
    """The same with files changed or taken away (None), each in a folder of its own."""

    def make(name, **changes):
        folder = tmp_path_factory.mktemp(name)
        for path in checkpoint.iterdir():
            if path.is_file() and changes.get(path.name, "") is not None:
                (folder / path.name).write_bytes(path.read_bytes())
        for file, content in changes.items():
            if content is not None:
                (folder / file).write_text(content)
        return folder

    return make


@pytest.fixture
def hub(checkpoint):
    with FakeHub() as hub:
        hub.commit = hub.publish("me/tiny", checkpoint, kind="model")
        yield hub


@pytest.fixture(scope="module")
def broken(checkpoint, variants, tmp_path_factory):
    """Every repository that a newcomer without a token fails with, and what they are told."""
    config = json.loads((checkpoint / "config.json").read_text())
    coded = json.dumps({"model_type": "tiny_own", "auto_map": {"AutoConfig": "modeling_tiny.TinyConfig"}})
    index = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
    made = {
        "pickled": variants("pickled", **{WEIGHTS: None}),
        "adapter": variants("adapter", **{"config.json": None, "adapter_config.json": "{}", WEIGHTS: None}),
        "speechless": variants("speechless", **{"tokenizer.json": None, "tokenizer.model": None}),
        "coded": variants("coded", **{"config.json": coded}),
        "odd": variants("odd", **{"config.json": json.dumps(config | {"model_type": "bert_like"})}),
        "deeper": variants("deeper", **{"config.json": json.dumps(config | {"num_hidden_layers": 3})}),
        "halved": variants("halved", **{checkpoints.INDEX: index}),
        "outside": variants("outside", **{checkpoints.INDEX: index.replace("model-", "../../model-")}),
    }
    with FakeHub() as hub:
        for name, folder in made.items():
            hub.publish(f"me/{name}", folder, kind="model")
        hub.publish("me/gated", checkpoint, kind="model", access="gated")
        hub.publish("me/private", checkpoint, kind="model", access="private")
        gone = hub.publish("me/rewritten", made["pickled"], kind="model")
        hub.publish("me/rewritten", checkpoint, kind="model")
        hub.forget("me/rewritten", gone, kind="model")
        cases = {name: (f"me/{name}", "main") for name in [*made, "gated", "private"]}
        cases |= {"branch": ("me/rewritten", "v9"), "gone": ("me/rewritten", gone)}
        cases |= {"name": ("gogle/gemma-2b", "main"), "nonsense": ("a/b/c", "main")}
        folder = tmp_path_factory.mktemp("broken")
        requests = [(*case, str(folder / name)) for name, case in cases.items()]
        found, _ = ask(hub, tmp_path_factory.mktemp("home"), *requests, change=(UNSEEN, ""))
        assert not downloads(hub, WEIGHTS)
        assert not list(folder.iterdir())
        yield {name: error(one) for name, one in zip(cases, found, strict=True)} | {"url": hub.url, "commit": gone}


def test_a_model_arrives_as_it_is_there_without_pickles_and_code(hub, checkpoint, tmp_path):
    (found,), said = ask(hub, tmp_path / "home", ("me/tiny", "main", str(tmp_path / "made")))
    assert found == {"commit": hub.commit}
    wanted = {*SMALL, WEIGHTS, "chat_template.jinja", "LICENSE"}
    assert held(tmp_path / "made") == {name: (checkpoint / name).read_bytes() for name in wanted}
    asked = {path.rsplit("/", 1)[-1] for _, path in hub.requests if "/resolve/" in path}
    assert asked == wanted
    assert "Fetching" in said  # the progress bar of huggingface_hub


def test_what_the_model_takes_is_said_before_the_download(hub, checkpoint, tmp_path):
    _, said = ask(hub, tmp_path / "home", ("me/tiny", "main", str(tmp_path / "made")))
    count, size = checkpoints.parameters(checkpoint), (checkpoint / WEIGHTS).stat().st_size
    assert f"me/tiny at {hub.commit}: {count / 1e6:.1f} million parameters\n" in said
    assert (
        f"  disk: {size / 1e6:.1f} MB to download into {tmp_path / 'home/hub'}, up to {2 * size / 1e6:.1f} MB" in said
    )
    assert f"{2 * count / 1e6:.1f} MB to run (bf16)" in said and f"{16 * count / 1e6:.1f} MB to tune in full" in said
    header, first = hub.ranges[0]
    assert header.endswith(WEIGHTS) and first.startswith("bytes=0-")
    assert downloads(hub, WEIGHTS) == 1


def test_where_the_header_cannot_be_read_the_size_of_the_file_gives_an_estimate(hub, checkpoint, tmp_path):
    change = (UNSEEN, UNSEEN + NO_HEADER)
    (found,), said = ask(hub, tmp_path / "home", ("me/tiny", "main", str(tmp_path / "made")), change=change)
    assert found == {"commit": hub.commit}
    half = (checkpoint / WEIGHTS).stat().st_size // 2
    assert f"me/tiny at {hub.commit}: about {half / 1e6:.1f} million parameters\n" in said


NO_HEADER = """
import huggingface_hub
def no(*_, **__):
    raise huggingface_hub.errors.SafetensorsParsingError("no header")
huggingface_hub.HfApi.parse_safetensors_file_metadata = no
"""


def test_shards_are_those_that_the_index_names(hub, checkpoint, tmp_path):
    sharded = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(checkpoint).save_pretrained(sharded, max_shard_size="2MB")
    checkpoints.copy_companions(checkpoint, sharded)
    (sharded / "consolidated.safetensors").write_text("not wanted")
    hub.publish("me/sharded", sharded, kind="model")
    ask(hub, tmp_path / "home", ("me/sharded", "main", str(tmp_path / "made")))
    names = {path.name for path in checkpoints.weight_files(sharded)}
    assert len(names) > 1 and {*names, checkpoints.INDEX} <= set(held(tmp_path / "made"))
    assert checkpoints.weights_id(tmp_path / "made") == checkpoints.weights_id(sharded)
    assert not downloads(hub, "consolidated.safetensors")


def test_a_download_that_broke_off_goes_on_where_it_was_in_the_next_run(hub, checkpoint, tmp_path):
    hub.cuts[WEIGHTS] = [300_000, *[0] * 6]
    request = ("me/tiny", hub.commit, str(tmp_path / "made"))
    (found,), _ = ask(hub, tmp_path / "home", request)
    size = (checkpoint / WEIGHTS).stat().st_size
    begun = 300_000 // 65_536 * 65_536
    assert error(found).startswith(
        f"{WHERE}.hub: the download of {WEIGHTS} from me/tiny broke off after {begun / 1e6:.1f} MB of {size / 1e6:.1f} "
    )
    assert error(found).endswith("run again, and it goes on")
    hub.ranges.clear()
    hub.cuts.clear()
    (found,), said = ask(hub, tmp_path / "home", request)
    assert found == {"commit": hub.commit}
    assert held(tmp_path / "made")[WEIGHTS] == (checkpoint / WEIGHTS).read_bytes()
    later = [header for path, header in hub.ranges if path.endswith(WEIGHTS) and not header.startswith("bytes=0-")]
    assert later == [f"bytes={begun}-"]
    assert f"{WEIGHTS}: going on after {begun / 1e6:.1f} MB of {size / 1e6:.1f} MB" in said
    assert f"disk: {(size - begun) / 1e6:.1f} MB to download" in said
    assert not list((tmp_path / "home").rglob("*.incomplete"))


@pytest.mark.parametrize("reset", [False, True])
def test_a_line_that_is_cut_again_and_again_still_brings_every_byte_once(hub, checkpoint, tmp_path, reset):
    hub.reset, hub.cuts[WEIGHTS] = reset, [400_000, 500_000, 1_000_000]
    (found,), _ = ask(hub, tmp_path / "home", ("me/tiny", "main", str(tmp_path / "made")))
    assert found == {"commit": hub.commit}
    assert held(tmp_path / "made")[WEIGHTS] == (checkpoint / WEIGHTS).read_bytes()
    starts = [int(header.split("=")[1].split("-")[0]) for path, header in hub.ranges if path.endswith(WEIGHTS)][1:]
    # What was on its way when a reset came may be lost, but never what was written.
    assert starts == sorted(starts) and (reset or (len(starts) == 3 and starts[0] > 300_000))


def test_a_hub_that_says_nothing_for_too_long_is_asked_again(hub, checkpoint, tmp_path):
    hub.silent[WEIGHTS] = 1
    # Impatient with the first answer only, since between the tries the library sleeps: a slow machine fails nothing.
    copy = "hub_downloads.copy(found, Path(folder))"
    impatient = """time.sleep = lambda seconds: setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 10)
        constants.HF_HUB_DOWNLOAD_TIMEOUT = 0.1
        """
    change = (copy, impatient + copy)
    (found,), said = ask(hub, tmp_path / "home", ("me/tiny", "main", str(tmp_path / "made")), change=change)
    assert found == {"commit": hub.commit} and "Trying to resume download" in said
    assert held(tmp_path / "made")[WEIGHTS] == (checkpoint / WEIGHTS).read_bytes()


def test_a_part_that_is_no_part_of_the_file_is_found_out_and_taken_away(hub, checkpoint, tmp_path):
    blobs = tmp_path / "home/hub/models--me--tiny/blobs"
    blobs.mkdir(parents=True)
    digest = hashlib.sha256((checkpoint / WEIGHTS).read_bytes()).hexdigest()
    (blobs / f"{digest}.incomplete").write_bytes(b"something else")
    first, second = (("me/tiny", "main", str(tmp_path / name)) for name in ("first", "second"))
    (damaged, whole), _ = ask(hub, tmp_path / "home", first, second)
    assert f"{WEIGHTS} of me/tiny arrived damaged" in error(damaged) and error(damaged).endswith("run again")
    assert whole == {"commit": hub.commit}
    assert held(tmp_path / "second")[WEIGHTS] == (checkpoint / WEIGHTS).read_bytes()


def test_what_was_fetched_once_needs_no_network_and_is_the_same_to_the_byte(hub, tmp_path):
    home, made = tmp_path / "home", [str(tmp_path / name) for name in ("first", "pinned", "branch", "absent", "down")]
    ask(hub, home, ("me/tiny", "main", made[0]))
    asked = len(hub.requests)
    ask(hub, home, ("me/tiny", hub.commit, made[4]))
    requests = [("me/tiny", hub.commit, made[1]), ("me/tiny", "main", made[2]), ("me/other", "main", made[3])]
    (pinned, branch, absent), _ = ask(hub, home, *requests, HF_HUB_OFFLINE="1")
    assert pinned == branch == {"commit": hub.commit}
    assert held(tmp_path / "first") == held(tmp_path / "pinned") == held(tmp_path / "branch") == held(tmp_path / "down")
    assert error(absent).startswith(
        f"{WHERE}.hub: me/other is not on this disk, or not whole, and HF_HUB_OFFLINE keeps it from being downloaded; "
    )
    assert len(hub.requests) == asked


def test_offline_with_half_of_it_says_that_it_is_not_whole(hub, tmp_path):
    request = ("me/tiny", hub.commit, str(tmp_path / "made"))
    hub.cuts[WEIGHTS] = [0] * 6
    ask(hub, tmp_path / "home", request)
    (found,), _ = ask(hub, tmp_path / "home", request, HF_HUB_OFFLINE="1")
    assert "is not on this disk, or not whole" in error(found)


def test_a_branch_that_moved_is_its_new_commit_and_the_old_commit_stays_what_it_was(hub, variants, tmp_path):
    first = hub.commit
    second = hub.publish("me/tiny", variants("newer", LICENSE="Do not.\n"), kind="model")
    requests = [("me/tiny", revision, str(tmp_path / revision)) for revision in ("main", first)]
    assert ask(hub, tmp_path / "home", *requests)[0] == [{"commit": second}, {"commit": first}]
    assert (tmp_path / "main/LICENSE").read_text() == "Do not.\n"
    assert (tmp_path / first / "LICENSE").read_text() == "Do as you like.\n"


def test_a_change_of_the_copy_leaves_the_cache_of_the_hub_alone(hub, tmp_path):
    ask(hub, tmp_path / "home", ("me/tiny", hub.commit, str(tmp_path / "made")))
    blobs = {path: path.read_bytes() for path in (tmp_path / "home").rglob("blobs/*")}
    for path in (tmp_path / "made").iterdir():
        assert not path.is_symlink() and path.stat().st_nlink == 1
        with path.open("r+b") as file:
            file.write(b"changed")
    assert {path: path.read_bytes() for path in blobs} == blobs


def test_a_disk_that_is_too_small_stops_it_before_the_download(hub, checkpoint, tmp_path):
    small = "\nimport shutil, types\nshutil.disk_usage = lambda path: types.SimpleNamespace(free=9_000_000)"
    change = (UNSEEN, UNSEEN + small)
    (found,), _ = ask(hub, tmp_path / "home", ("me/tiny", "main", str(tmp_path / "base/made")), change=change)
    size = (checkpoint / WEIGHTS).stat().st_size / 1e6
    assert error(found).startswith(f"{WHERE}.hub: the disk is too small for me/tiny: ")
    assert f"download {size:.1f} MB in {tmp_path / 'home/hub'}" in error(found)
    assert f"copy {size:.1f} MB in {tmp_path / 'base'}" in error(found) and "9.0 MB free; make room" in error(found)
    assert not downloads(hub, WEIGHTS) and not (tmp_path / "base").exists()


@pytest.mark.parametrize("written", [300_000, None])
def test_a_disk_that_becomes_full_keeps_the_part_and_the_next_run_goes_on(hub, checkpoint, tmp_path, written):
    request = ("me/tiny", "main", str(tmp_path / "base/made"))
    (found,), _ = ask(hub, tmp_path / "home", request, change=(UNSEEN, UNSEEN + FULL % written))
    assert error(found).startswith(
        f"{WHERE}.hub: no room left on the disk (No space left on device) while me/tiny was fetched into "
        f"{tmp_path / 'home'} and copied from there; what was downloaded stays: make room (`hf cache ls`"
    )
    assert error(found).endswith("run again, and it goes on")
    hub.ranges.clear()
    hub.requests.clear()
    (found,), _ = ask(hub, tmp_path / "home", request)
    assert found == {"commit": hub.commit}
    assert held(tmp_path / "base/made")[WEIGHTS] == (checkpoint / WEIGHTS).read_bytes()
    later = [header for path, header in hub.ranges if path.endswith(WEIGHTS) and not header.startswith("bytes=0-")]
    assert later == ([f"bytes={written}-"] if written else [])
    assert downloads(hub, WEIGHTS) == bool(written)


# A disk with room for so many bytes of the download, or for all of it and not for the copy.
FULL = """
import errno, os
from huggingface_hub import file_download
full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
download = file_download.http_get
def write(url, file, **more):
    if not url.endswith(".safetensors"):
        return download(url, file, **more)
    file.write(httpx.get(url).content[:room])
    raise full
def clone(source, target):
    raise full
room = %s
from huggingface_hub.utils import httpx
if room:
    file_download.http_get = write
else:
    hub_downloads._clone = clone
"""


def test_only_parts_of_the_files_that_are_missing_make_the_download_smaller(hub, checkpoint, tmp_path):
    blobs = tmp_path / "home/hub/models--me--tiny/blobs"
    blobs.mkdir(parents=True)
    size = (checkpoint / WEIGHTS).stat().st_size
    digest = hashlib.sha256((checkpoint / WEIGHTS).read_bytes()).hexdigest()
    (blobs / f"{digest}.incomplete").write_bytes((checkpoint / WEIGHTS).read_bytes()[:500_000])
    (blobs / f"{'0' * 64}.incomplete").write_bytes(bytes(700_000))  # of another revision
    _, said = ask(hub, tmp_path / "home", ("me/tiny", "main", str(tmp_path / "made")))
    assert f"  disk: {(size - 500_000) / 1e6:.1f} MB to download into" in said


def test_the_folder_of_dvcs_cache_is_the_one_that_dvc_was_told(tmp_path, monkeypatch):
    from tradeoffs.base import hub_space

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    monkeypatch.delenv("DVC_GLOBAL_CONFIG_DIR", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    assert hub_space._dvc_cache() == Path(".dvc/cache")
    for level, place in (("system", "/mnt/shared"), ("user/dvc", "caches")):
        Path(level).mkdir(parents=True)
        Path(level, "config").write_text(f"[cache]\n    dir = {place}\n")
        assert hub_space._dvc_cache() == tmp_path / level / place
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text(
        "[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://b\n[cache]\n    dir = ../a\n"
    )
    assert hub_space._dvc_cache().resolve() == tmp_path / "a"
    Path(".dvc/config.local").write_text("[cache]\n    dir = /mnt/b\n")
    assert hub_space._dvc_cache() == Path("/mnt/b")


def test_a_token_opens_what_is_gated_and_is_written_nowhere(hub, checkpoint, tmp_path):
    hub.publish("me/gated", checkpoint, kind="model", access="gated")
    said = ""
    for token in (STRANGER, "hf_mistyped", TOKEN):
        (found,), more = ask(
            hub, tmp_path / "home", ("me/gated", "main", str(tmp_path / "made")), HF_TOKEN=token, HF_DEBUG="1"
        )
        said += more
        if token == STRANGER:
            assert "me/gated is gated, and the account of your token has no access" in error(found)
        elif token == TOKEN:
            assert "commit" in found
        else:
            assert f"{hub.url} refused the token (401)" in error(found)
    files_made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files_made) > 10
    for token in (STRANGER, "hf_mistyped", TOKEN):
        assert token not in said
        assert not any(token.encode() in path.read_bytes() for path in files_made)


def test_a_gated_model_without_a_token_says_how_to_get_access(broken):
    assert broken["gated"] == (
        f"{WHERE}.hub: me/gated is gated, and there is no token here: accept its terms on {broken['url']}/me/gated "
        "(some are granted after hours), then log in with `hf auth login` or set HF_TOKEN"
    )


def test_an_unknown_name_gets_the_near_match_of_the_catalogue(broken):
    assert broken["name"].startswith(
        f"{WHERE}.hub: no model 'gogle/gemma-2b' on {broken['url']} (did you mean google/gemma-2b?); check the name"
    )
    assert broken["private"].startswith(f"{WHERE}.hub: no model 'me/private' on {broken['url']}; check the name ")
    assert broken["nonsense"].startswith(f"{WHERE}.hub: 'a/b/c' is no name of a model; expected owner/name")


def test_a_revision_that_is_not_there_or_no_longer_is_named(broken):
    for name, revision in (("branch", "v9"), ("gone", broken["commit"])):
        assert broken[name].startswith(f"{WHERE}.revision: me/rewritten has no revision '{revision}', or no longer; ")


def test_a_repository_that_holds_no_model_to_read_says_what_there_is_and_what_to_do(broken):
    assert broken["pickled"].startswith(
        f"{WHERE}.hub: me/pickled has no safetensors weights, only pickles (pytorch_model.bin), which can run code when"
    )
    assert "give that folder as `path`" in broken["pickled"]
    assert broken["adapter"].startswith(f"{WHERE}.hub: me/adapter is an adapter, not a model (there: ")
    assert broken["speechless"].startswith(
        f"{WHERE}.hub: me/speechless has neither tokenizer.json nor tokenizer.model (there: "
    )
    assert broken["halved"].startswith(
        f"{WHERE}.hub: me/halved lacks model-00001-of-00002.safetensors, which {checkpoints.INDEX} names"
    )


def test_weights_outside_of_the_repository_are_refused(broken):
    assert "weight_map names '../../model-00001-of-00002.safetensors'; expected the name of" in broken["outside"]


def test_an_architecture_that_needs_code_of_its_own_is_refused(broken):
    assert (
        "knows no causal language model of type 'tiny_own', and code that comes with a checkpoint is never run"
        in (broken["coded"])
    )
    assert "knows no causal language model of type 'bert_like'; take" in broken["odd"]
    assert (
        f"{WHERE}.hub: me/deeper: the weights are not those of the model in config.json: it lacks " in broken["deeper"]
    )


STAGE = """
import os, sys
from pathlib import Path
from stages import base
from tradeoffs.plumbing.errors import UserError
for folder in sys.argv[1:]:
    os.chdir(folder)
    try:
        base.main("mine")
    except UserError as error:
        Path("error").write_text(str(error))
"""


def run_stage(hub, home, folder, *entries):
    """Runs the stage for each entry, all in one process; the folders, and what was printed."""
    made = []
    for number, entry in enumerate(entries):
        made.append(folder / str(number))
        made[-1].mkdir()
        raw = quick_yaml.load((REPO / "params.yaml").read_text())
        raw["models"], raw["run"]["models"] = {"mine": entry}, ["mine"]
        (made[-1] / "params.yaml").write_text(quick_yaml.dump(raw))
    environment = hub.environment(home, PYTHONPATH=str(REPO))
    words = ["-c", STAGE, *map(str, made)]
    done = forked.python(*words, env=environment, libraries=forked.HUB)
    assert done.returncode == 0, done.stderr
    return made, done.stdout


@pytest.mark.slow
def test_the_stage_records_the_commit_and_pinning_it_changes_no_byte(hub, checkpoint, tmp_path):
    known_code = json.loads((checkpoint / "config.json").read_text()) | {"auto_map": {"AutoConfig": "modeling_tiny.T"}}
    coded = tmp_path / "coded"
    coded.mkdir()
    for path in checkpoint.iterdir():
        if path.is_file():
            (coded / path.name).write_bytes(path.read_bytes())
    files.write_json(coded / "config.json", known_code)
    (coded / "chat_template.jinja").unlink()
    hub.publish("me/coded", coded, kind="model")
    entries = [
        {"hub": "me/tiny", "revision": "main", "prompt": "own"},
        {"hub": "me/tiny", "revision": hub.commit, "prompt": "own", "licence": "mit", "gated": False},
        {"path": str(checkpoint), "prompt": "own"},
        {"hub": "me/coded", "revision": "main", "prompt": "plain"},
        {"hub": "me/coded", "revision": "main", "prompt": "own"},
    ]
    (branch, pinned, local, code, untold), said = run_stage(hub, tmp_path / "home", tmp_path, *entries)
    first, second = (held(folder / "models/base/mine") for folder in (branch, pinned))
    assert first == second
    info = json.loads(first["run_info.json"])
    assert (info["source"], info["commit"]) == ("me/tiny", hub.commit)
    assert info["base_id"] == checkpoints.weights_id(checkpoint)
    from_path = held(local / "models/base/mine")
    assert {**from_path, "run_info.json": b""} == {**first, "run_info.json": b""}
    warning = f"warning: models.mine.revision: main of me/tiny is commit {hub.commit} today"
    assert said.count(warning) == 1 and "run `python -m tradeoffs.pin models.mine`" in said
    # Code beside a model that transformers knows is left where it is.
    assert (code / "models/base/mine/config.json").is_file()
    assert not (code / "models/base/mine/modeling_tiny.py").exists()
    assert "has no chat template" in (untold / "error").read_text()
    assert not (untold / "models/base/mine").exists()


@pytest.mark.slow
def test_a_tokenizer_that_needs_code_of_its_own_is_refused_before_the_weights_are_downloaded(
    hub, checkpoint, variants, tmp_path
):
    coded = json.loads((checkpoint / "tokenizer_config.json").read_text())
    coded |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["modeling_tiny.Own", None]}}
    folder = variants("tokenizer", **{"tokenizer_config.json": json.dumps(coded)})
    hub.publish("me/coded", folder, kind="model")
    entry = {"prompt": "plain"}
    made, _ = run_stage(
        hub,
        tmp_path / "home",
        tmp_path,
        entry | {"hub": "me/coded", "revision": "main"},
        entry | {"path": str(folder)},
    )
    told = [(folder / "error").read_text() for folder in made]
    for message, source in zip(told, ("hub: me/coded", f"path: {folder}"), strict=True):
        assert message.startswith(f"models.mine.{source}: its tokenizer needs code of its own (auto_map in tokenizer_")
    assert not downloads(hub, WEIGHTS)


@pytest.mark.slow
def test_no_template_to_keep_is_found_before_the_weights_are_downloaded(hub, variants, tmp_path):
    hub.publish("me/plain", variants("plain", **{"chat_template.jinja": None}), kind="model")
    entry = {"hub": "me/plain", "revision": "main", "prompt": "own"}
    (folder,), _ = run_stage(hub, tmp_path / "home", tmp_path, entry)
    assert "has no chat template" in (folder / "error").read_text()
    assert not downloads(hub, WEIGHTS)


@needs("models/stories260k")
@pytest.mark.slow
def test_a_real_checkpoint_is_the_same_from_the_hub_as_from_its_folder(tmp_path):
    with FakeHub() as hub:
        hub.publish("karpathy/stories260k", STORIES, kind="model")
        entries = [{"hub": "karpathy/stories260k", "revision": "main"}, {"path": str(STORIES)}]
        made, _ = run_stage(hub, tmp_path / "home", tmp_path, *[entry | {"prompt": "plain"} for entry in entries])
        first, second = (held(folder / "models/base/mine") for folder in made)
        assert {**first, "run_info.json": b""} == {**second, "run_info.json": b""}
        assert WEIGHTS in first


def test_every_model_of_the_catalogue_is_described_whole():
    for name, model in params.load_all(REPO / "params.yaml").models.items():
        if model.hub:
            assert model.licence and model.gated is not None, name
            assert len(str(model.revision)) == 40, f"{name}: not pinned"


def test_the_documentation_has_the_catalogue_as_it_is():
    models = params.load_all(REPO / "params.yaml").models
    expected = [
        f"| `{name}` | [{model.hub}](https://huggingface.co/{model.hub}) | {model.licence} | "
        f"{'yes' if model.gated else 'no'} | {model.prompt} |"
        for name, model in models.items()
        if model.hub
    ]
    rows = [line for line in (REPO / "docs/models.md").read_text().splitlines() if line.startswith("| `")]
    assert [row for row in rows if "huggingface.co" in row] == expected
