"""What a machine lacks ends a stage with one sentence: file, file system, what is free, what to do."""

import errno
import fcntl
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from tradeoffs.plumbing import cli, clock
from tradeoffs.plumbing.lacking import WAYS_OUT, lacking
from tradeoffs.repro import dvc_gaps

REPO = Path(__file__).parents[1]


def said_of(error: BaseException) -> str:
    with pytest.raises(SystemExit) as ended, cli.explained():
        raise error
    return str(ended.value)


@pytest.mark.parametrize("number", [number for number in WAYS_OUT if number not in (errno.ENOMEM, errno.EAGAIN)])
def test_each_says_which_file_and_what_to_do(number, tmp_path):
    said = said_of(OSError(number, os.strerror(number), str(tmp_path / "out.parquet")))
    what, way_out = WAYS_OUT[number]
    assert said.startswith(f"error: {tmp_path / 'out.parquet'}: {what}") and said.endswith(f"; {way_out}")
    assert "\n" not in said


def test_a_full_disk_is_named_with_what_is_free_there(tmp_path):
    said = said_of(OSError(errno.ENOSPC, "No space", str(tmp_path / "not/there/yet")))
    assert re.search(rf"\(\d+\.\d MB free on that of {re.escape(str(tmp_path))}(, and .*)?\)", said)


def test_where_no_file_is_named_those_that_are_written_to_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(r"error: the disk is full \(\d+\.\d MB free on that of .*\)", said_of(OSError(errno.ENOSPC, "No")))


def test_too_little_memory_says_what_is_free_and_a_limit_of_it():
    assert re.search(r"error: not enough memory: \d+ MB are free; .*batch sizes", said_of(MemoryError()))
    program = (
        "import resource; from tradeoffs.plumbing import cli\n"
        "with cli.explained():\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))\n"
        "    bytearray(2 * 10**9)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: not enough memory: a process may take 1000 MB of address space (ulimit -v)")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(bytes(9000)),
        lambda path: torch.save(torch.zeros(9000), path),
        lambda path: pq.write_table(pa.table({"a": torch.rand(9000).numpy()}), path),
        lambda path: save_file({"a": torch.zeros(9000)}, path),
        lambda path: Tokenizer(models.BPE({f"token{n}": n for n in range(999)}, [])).save(str(path)),
    ],
    ids=["python", "torch", "arrow", "safetensors", "tokenizers"],
)
def test_every_library_that_writes_says_it_in_one_sentence(tmp_path, write):
    """Of a file that may not grow, which is as near to a full disk as a test comes."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        write(tmp_path / "file")
    except Exception as error:
        said = lacking(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "the file would be larger than it may be" in said or "the disk is full (" in said  # as torch has it


@pytest.mark.parametrize(
    "error", [OSError("AF_UNIX path too long"), FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")]
)
def test_without_a_folder_for_temporary_files_it_is_said_how_to_name_one(error):
    assert said_of(error).startswith("error: the") and "; export TMPDIR=FOLDER" in said_of(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        KeyError(28),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        TypeError("got an unexpected positional argument"),
    ],
)
def test_all_else_keeps_its_traceback(error):
    with pytest.raises(type(error)), cli.explained():
        raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError("[Errno 13] Failed to open local file 'a.parquet'.\nDetail: x"),
            "Failed to open local file 'a.parquet'. Detail: x",
        ),
        (RuntimeError("unable to open database file"), "unable to open database file"),
        (RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0"), "unexpected pos 64 vs 0"),
    ],
)
def test_what_names_no_file_keeps_its_own_text_on_the_line(error, said):
    assert said in said_of(error) and "\n" not in said_of(error)


def test_a_process_that_cannot_be_forked_is_known_by_where_it_was_to_be(monkeypatch):
    def full(*_):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "_fork_exec", full)
    with pytest.raises(BlockingIOError) as raised:
        subprocess.run(["true"], close_fds=False, start_new_session=True)
    assert lacking(raised.value).startswith("no process or thread can be started; raise the limit")
    assert lacking(RuntimeError("can't start new thread")).startswith("no process or thread can be started")


def test_times_are_written_one_at_a_time(tmp_path, monkeypatch):
    """What is cut off where they do not fit would else be another stage's."""
    monkeypatch.chdir(tmp_path)
    real = os.write

    def write(file, lines):
        with clock.LOG.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return real(file, lines)

    monkeypatch.setattr(clock.os, "write", write)
    clock.add('{"step": "a"}\n')
    assert clock.LOG.read_text() == '{"step": "a"}\n'


def test_a_stage_whose_times_do_not_fit_stands_and_says_that_they_are_lost(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    clock.add('{"step": "a", "peak_mb": 1}\n')
    before = clock.LOG.read_bytes()
    real = os.write
    for write in (full, lambda file, lines: real(file, lines[:9])):
        monkeypatch.setattr(clock.os, "write", write)
        with clock.stage("prepare"):
            pass
        monkeypatch.setattr(clock.os, "write", real)
        assert "note: .scratch/times.jsonl: No space left on device: the times" in capsys.readouterr().err
        assert clock.LOG.read_bytes() == before


def test_a_line_that_was_cut_short_hides_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = '{"stage": "prepare", "step": "a", "startup": 1, "loading": 0, "work": 1, "cpu": 1, "peak_mb": 7}\n'
    clock.add(f'{{"stage": "base", "st\n{row}')
    assert clock.peak_mb("a") == 7
    assert "prepare" in clock.table() and "base" not in clock.table()


def test_what_the_terminal_cannot_show_is_written_out():
    program = "from tradeoffs.plumbing import cli\nwith cli.explained():\n    print('m\\u00fcller \\udce4')"
    environment = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", program], cwd=REPO, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "m\\xfcller \\udce4\n")


def test_names_that_the_locale_does_not_know_are_said_with_what_to_set(tmp_path):
    folder = tmp_path / "m\u00fcller"
    folder.mkdir()
    program = "from tradeoffs.plumbing import cli\nwith cli.explained():\n    __import__('os').getcwd().encode()"
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: names of files here have letters that this locale")
    assert done.stderr.endswith("; export PYTHONUTF8=1 and run again\n")


@pytest.mark.parametrize("megabytes", [300, 610])
def test_too_little_address_space_for_an_import_is_one_sentence(megabytes):
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({megabytes} * 10**6,) * 2)\n"
        "import stages\nraise ImportError('libtorch.so: failed to map segment from shared object')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: not enough memory: a process may take {megabytes} MB of address space")


def test_without_its_usual_place_dvc_keeps_what_it_knows_in_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dvc_gaps.dvc.dirs, "site_cache_dir", lambda: "/sys/dvc")
    monkeypatch.setattr(dvc_gaps.os, "access", lambda path, _: str(path) != "/sys")
    monkeypatch.setattr(dvc_gaps.os, "environ", found := {})
    dvc_gaps.writable_site_cache()
    assert found == {"DVC_SITE_CACHE_DIR": str(tmp_path / ".dvc/tmp/site")}


def test_the_place_that_dvcs_config_names_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    monkeypatch.setattr(dvc_gaps.os, "access", lambda path, _: False)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    site_cache_dir = /scratch/dvc\n")
    dvc_gaps.writable_site_cache()
    assert "DVC_SITE_CACHE_DIR" not in os.environ
