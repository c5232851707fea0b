"""The assets arrive whole and as the table says, over a line that breaks, and nothing wrong is left in their place."""

import hashlib
import io
import tarfile
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from loopback import Loopback

from benchmarks import assets, fetch, making
from benchmarks.fetch import Download, File
from tradeoffs.plumbing.errors import UserError

COMMIT = "0123456789" * 4
CONTENT = bytes(range(256)) * 1000
LICENCE = "CC-BY-4.0"


class Server(Loopback):
    """Files by path on loopback. `asked` are path and Range header of every request, `sent` the bytes of each answer.

    `cuts` are the bytes after which the next answers break off; without `parts` it gives only whole files.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.sent: list[int] = []
        self.cuts: list[int] = []
        self.parts = True

    def address(self, name: str) -> str:
        return f"{self.url}/{COMMIT}/{name}"


class _Handler(BaseHTTPRequestHandler):
    of: Server

    def do_GET(self) -> None:
        name, wanted = self.path.rsplit("/", 1)[-1], self.headers.get("Range")
        self.of.asked.append((name, wanted))
        content = self.of.files.get(name)
        if content is None:
            self.send_error(404)
            return
        begun = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.of.parts else 0
        if begun >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begun else 200)
        if begun:
            self.send_header("Content-Range", f"bytes {begun}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begun))
        self.end_headers()
        answer = content[begun:]
        if self.of.cuts:
            answer = answer[: self.of.cuts.pop(0)]
        self.of.sent.append(len(answer))
        with suppress(ConnectionError):
            self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    with Server() as held:
        held.files["content.bin"] = CONTENT
        yield held


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entry(server: Server, content: bytes = CONTENT, name: str = "content.bin", **more: object) -> File:
    published = Download(server.address(name), len(content), sha256(content))
    facts = {"size": len(content), "sha256": sha256(content), "download": published} | more
    return File("thing", LICENCE, f"data/{name}", **facts)


def get(into: Path, *held: File, names: tuple[str, ...] = ()) -> None:
    table: dict[str, list[File]] = {}
    for file in held:
        table.setdefault(file.asset, []).append(file)
    fetch.bring(names, into, table)


def problem(into: Path, *held: File, names: tuple[str, ...] = ()) -> str:
    with pytest.raises(UserError) as error:
        get(into, *held, names=names)
    return str(error.value)


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_arrives_whole_and_what_it_is_is_said(server, tmp_path, capsys):
    get(tmp_path, entry(server))
    assert (tmp_path / "data/content.bin").read_bytes() == CONTENT
    assert names_in(tmp_path) == ["data/content.bin"] and not (tmp_path / ".parts").exists()
    assert server.asked == [("content.bin", None)] and server.sent == [len(CONTENT)]
    assert f"data/content.bin: 0.3 MB, {LICENCE}, {server.address('content.bin')}\n" in capsys.readouterr().out


def test_what_is_there_and_right_is_not_asked_for_again(server, tmp_path, capsys):
    get(tmp_path, entry(server))
    server.asked.clear()
    get(tmp_path, entry(server))
    assert server.asked == [] and "data/content.bin: already there\n" in capsys.readouterr().out


def test_what_is_there_and_wrong_is_refused_and_stays(server, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/content.bin").write_bytes(b"mine")
    said = problem(tmp_path, entry(server), File("other", LICENCE, "other.txt", 1, sha256(b"a"), text="a"))
    assert said == (
        f"{tmp_path} holds other files than the table says; nothing was fetched\n"
        f"  data/content.bin: its SHA-256 is {sha256(b'mine')}, not {sha256(CONTENT)}; move it away and fetch again"
    )
    assert names_in(tmp_path) == ["data/content.bin"] and server.asked == []
    assert (tmp_path / "data/content.bin").read_bytes() == b"mine"


def test_what_arrives_damaged_is_removed_and_the_others_are_fetched(server, tmp_path):
    server.files |= {"content.bin": b"x" * len(CONTENT), "second.bin": b"second"}
    said = problem(tmp_path, entry(server), entry(server, b"second", "second.bin"))
    assert said.startswith("1 of 2 files are missing\n  ")
    assert f"its SHA-256 is {sha256(b'x' * len(CONTENT))}, not {sha256(CONTENT)}" in said and "was removed" in said
    assert names_in(tmp_path) == ["data/second.bin"]


def test_a_broken_line_is_taken_up_where_it_broke(server, tmp_path):
    server.cuts = [100_000, 50_000]
    get(tmp_path, entry(server))
    assert (tmp_path / "data/content.bin").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert sum(server.sent) == len(CONTENT)


def test_a_later_run_goes_on_with_what_an_earlier_one_left(server, tmp_path):
    server.cuts = [100_000, 0]
    said = problem(tmp_path, entry(server))
    assert "broke off after 0.1 MB of 0.3 MB" in said and "run again, and it goes on" in said
    assert not (tmp_path / "data").exists()
    get(tmp_path, entry(server))
    assert (tmp_path / "data/content.bin").read_bytes() == CONTENT
    assert server.asked[-1] == ("content.bin", "bytes=100000-") and sum(server.sent) == len(CONTENT)


def test_a_server_that_gives_no_parts_is_asked_for_the_whole(server, tmp_path):
    server.cuts, server.parts = [100_000], False
    get(tmp_path, entry(server))
    assert (tmp_path / "data/content.bin").read_bytes() == CONTENT
    assert server.sent == [100_000, len(CONTENT)]


def test_a_part_that_is_whole_already_is_not_asked_for_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))  # killed just before
    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, entry(server))
    monkeypatch.undo()
    server.asked.clear()
    get(tmp_path, entry(server))
    assert server.asked == [] and names_in(tmp_path) == ["data/content.bin"]


def test_of_unknown_size_a_whole_part_is_known_by_the_servers_answer(server, tmp_path):
    part = tmp_path / "a.part"
    part.write_bytes(CONTENT)
    fetch.download(Download(server.address("content.bin"), None, sha256(CONTENT)), part)
    assert server.asked == [("content.bin", f"bytes={len(CONTENT)}-")] and part.read_bytes() == CONTENT


def test_a_longer_part_is_begun_anew(server, tmp_path):
    part = tmp_path / "a.part"
    part.write_bytes(CONTENT + b"more")
    fetch.download(Download(server.address("content.bin"), len(CONTENT), sha256(CONTENT)), part)
    assert server.asked == [("content.bin", None)] and part.read_bytes() == CONTENT


def test_what_the_server_does_not_have_is_said_with_its_address(server, tmp_path):
    said = problem(tmp_path, entry(server, name="gone.bin"))
    assert f"{server.address('gone.bin')}: 404 Not Found" in said and not (tmp_path / "data").exists()


def test_a_server_that_does_not_answer_is_a_message(tmp_path):
    with Server() as gone:
        file = entry(gone)
    assert "cannot be reached" in problem(tmp_path, file)
    assert not list(tmp_path.rglob("*.part"))


def test_a_name_that_is_not_in_the_table_gets_near_matches(tmp_path):
    with pytest.raises(UserError, match=r"^gpt: no such asset \(did you mean gpt2\?\)$"):
        fetch.bring(["gpt"], tmp_path, fetch.read_table())


def test_what_is_not_published_or_not_pinned_is_left_out_and_refused_by_name(server, tmp_path, capsys):
    branch = Download(server.address("content.bin").replace(COMMIT, "main"), len(CONTENT), sha256(CONTENT))
    moving = File("moving", LICENCE, "moving.bin", len(CONTENT), sha256(CONTENT), download=branch)
    own = File("own", LICENCE, "own.txt", 3, sha256(b"abc"), unpublished="nobody knows how it was cut")
    get(tmp_path, own, moving, entry(server))
    assert "own.txt: left out: nobody knows how it was cut\n" in capsys.readouterr().out
    assert names_in(tmp_path) == ["data/content.bin"]
    assert problem(tmp_path, own, names=("own",)) == "own: own.txt: nobody knows how it was cut"
    assert "names no commit" in problem(tmp_path, moving, names=("moving",))


def test_a_file_is_made_from_the_published_one_and_checked(server, tmp_path):
    server.files["lines.txt"] = b"one\ntwo\n"
    made = {
        "download": Download(server.address("lines.txt"), 8, sha256(b"one\ntwo\n")),
        "make": "without_last_line_break",
    }
    get(tmp_path, entry(server, b"one\ntwo", "lines.txt", **made))
    assert (tmp_path / "data/lines.txt").read_bytes() == b"one\ntwo" and names_in(tmp_path) == ["data/lines.txt"]
    said = problem(tmp_path, File("thing", LICENCE, "wrong.txt", 5, sha256(b"three"), **made))
    assert f"what was made (SHA-256 {sha256(b'one' + bytes([10]) + b'two')}) is not what it should be" in said
    assert names_in(tmp_path) == ["data/lines.txt"]


def test_a_folder_comes_out_of_an_archive_whole(server, tmp_path):
    held = {"dev/a_dev.csv": b"1\n", "test/a_test.csv": b"2\n", "val/a_val.csv": b"3\n"}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in (held | {"auxiliary_train/a.csv": b"4\n", "README.txt": b"5"}).items():
            member = tarfile.TarInfo(f"data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    server.files["data.tar"] = stream.getvalue()
    listing = "".join(f"{sha256(content)}  {name}\n" for name, content in held.items())
    published = Download(server.address("data.tar"), len(stream.getvalue()), sha256(stream.getvalue()))
    file = File(
        "questions", "MIT", "data/questions", 6, sha256(listing.encode()), download=published, make="mmlu_folder"
    )
    get(tmp_path, file)
    assert names_in(tmp_path) == [f"data/questions/{name}" for name in held]
    get(tmp_path, file)
    (tmp_path / "data/questions/dev/a_dev.csv").write_bytes(b"9\n")
    assert "data/questions: its SHA-256 is" in problem(tmp_path, file)


def test_a_mirror_of_the_hub_is_asked_in_its_stead(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.address("").rsplit("/", 2)[0])
    download = Download(f"{fetch.HUB}/me/thing/resolve/{COMMIT}/content.bin", len(CONTENT), sha256(CONTENT))
    get(tmp_path, entry(server, download=download))
    assert (tmp_path / "data/content.bin").read_bytes() == CONTENT


TABLE = fetch.read_table()
FILES = [file for held in TABLE.values() for file in held]


def test_every_file_of_the_table_has_a_pinned_source_or_says_why_not():
    for file in FILES:
        assert len(file.sha256) == 64 and file.size > 0 and file.licence, file.path
        assert [bool(file.download), file.text is not None, bool(file.unpublished)].count(True) == 1, file.path
        assert fetch.refusal(file) in (None, file.unpublished), file.path
        assert not file.make or file.make in making.MAKERS, file.path
        assert not file.download or file.download.url.startswith("https://"), file.path
        assert not file.download or len(file.download.sha256) == 64, file.path
    assert len({file.path for file in FILES}) == len(FILES)
    assert {file.asset for file in FILES if file.unpublished} == {"tinystories"}


@pytest.mark.parametrize("file", [file for file in FILES if file.text is not None], ids=lambda file: file.path)
def test_a_text_of_the_table_is_the_file(file, tmp_path):
    fetch.fetch(file, tmp_path)
    assert (tmp_path / file.path).stat().st_size == file.size


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path)
def test_the_table_is_right_about_what_is_there(file):
    if not (assets.FOLDER / file.path).exists():
        pytest.skip(assets.lacking(file.path) or "")
    assert fetch.mistake(file, assets.FOLDER) is None
    assert size(assets.FOLDER / file.path) == file.size


def size(path: Path) -> int:
    return sum(one.stat().st_size for one in path.glob("*/*.csv")) if path.is_dir() else path.stat().st_size


def test_the_list_says_source_licence_and_size():
    said = fetch.listed(TABLE)
    assert (
        "\ngpt2: 1.5 MB, MIT\n  tokenizers/gpt2/merges.txt: 0.5 MB, https://huggingface.co/openai-community/gpt2/"
        in said
    )
    assert "made from it by llama2c_weights of benchmarks/making.py" in said
    assert "tinystories_200KB.txt: 0.2 MB, not fetched: it is cut from" in said
    assert all(f"{name}: " in said for name in TABLE)
