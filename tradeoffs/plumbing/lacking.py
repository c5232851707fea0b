"""One sentence for what this machine, not the input, lacks: room, rights, open files, memory, threads."""

import errno
import os
import re
import resource
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from tradeoffs.common.texts import on_a_line

LEAST = 600e6  # bytes of address space
MOST = 500  # letters of an exception's own text
ROOM = (errno.ENOSPC, errno.EDQUOT)
# What is wrong, and what to do about it.
WAYS_OUT = {
    errno.ENOSPC: ("the disk is full", "free some space and run again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or ask for more, and run again"),
    errno.EFBIG: ("the file would be larger than it may be", "raise the limit (ulimit -f unlimited), and run again"),
    errno.EROFS: ("the file system is read-only", "mount it for writing, or work in a copy elsewhere"),
    errno.EACCES: ("permission denied", "give this user the right to it, or work in a copy that is yours"),
    errno.EPERM: ("operation not permitted", "give this user the right to it, or work in a copy that is yours"),
    errno.EMFILE: ("too many open files", "raise the limit (ulimit -n 4096) and run again"),
    errno.ENFILE: ("too many open files on this machine", "end what has them open, and run again"),
    errno.ENAMETOOLONG: ("the name is too long", "shorten the names in params.yaml, or work in a folder nearer to /"),
    errno.EIO: ("the disk cannot be read or written", "look at the machine's log (dmesg), and at the disk"),
    errno.ESTALE: ("the network file system has lost the file", "mount it again, and run again"),
    errno.ENOMEM: ("not enough memory", ""),
    errno.EAGAIN: ("no process or thread can be started", "raise the limit (ulimit -u), or end other processes"),
}
# In exceptions without a number.
TEMPORARY = {
    "AF_UNIX path too long": "the folder for temporary files has too long a name for a socket",
    "No usable temporary directory found": "there is no folder for temporary files that can be written to",
}
# How libraries in Rust (safetensors, tokenizers), Arrow and torch say it, in exceptions of other types.
NUMBER = re.compile(r"\(os error (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)
UNEXPECTED_POS = re.compile(r"unexpected pos \d")  # of torch, where a file could not be written to its end
STARTING = {"_execute_child", "_launch", "spawnv_passfds"}  # in subprocess and multiprocessing
SAID = {
    "can't allocate memory": errno.ENOMEM,
    "cannot allocate memory": errno.ENOMEM,
    "failed to map segment from shared object": errno.ENOMEM,
    "std::bad_alloc": errno.ENOMEM,
    "can't start new thread": errno.EAGAIN,
    "no space left on device": errno.ENOSPC,
    "pytorchstreamwriter failed writing": errno.ENOSPC,  # of torch, which gives no number
    "database or disk is full": errno.ENOSPC,  # of SQLite, in which DVC keeps what it knows of files
    "attempt to write a readonly database": errno.EROFS,
    "unable to open database file": errno.EACCES,
}


def lacking(error: BaseException) -> str:
    """What the machine lacked when `error` was raised: file, file system, what is free, what to do; "" if nothing."""
    if isinstance(error, UnicodeEncodeError) and sys.getfilesystemencoding() != "utf-8":
        return (
            f"names of files here have letters that this locale, of {sys.getfilesystemencoding()} alone, does not "
            f"know: {str(Path.cwd())!a}; export PYTHONUTF8=1 and run again"
        )
    if found := next((said for text, said in TEMPORARY.items() if text in str(error)), ""):
        return f"{found}; export TMPDIR=FOLDER, one with a short name that can be written to, and run again"
    number = _number(error)
    if number not in WAYS_OUT or (number == errno.EAGAIN and not _of_a_start(error)):
        return ""
    what, way_out = WAYS_OUT[number]
    where = _where(error)
    said = "" if where else _as_said(error, number)
    if number == errno.ENOMEM:
        return f"{where}{what}: {_memory()}{said}"
    free = f" ({_free(error)})" if number in ROOM else ""
    return f"{where}{what}{free}; {way_out}{said}"


def while_importing() -> None:
    """From here on what is lacking ends this process with its sentence, where it stops an import, too.

    Raises SystemExit where so little address space is allowed that numpy's own threads end the process while it is
    imported.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST:
        sys.exit(f"error: not enough memory: {_memory()}")

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        said = lacking(error) if isinstance(error, Exception) else ""
        if said:
            print(f"error: {said}", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = hook


def _number(error: BaseException) -> int:
    """That of errno(3), 0 if it says none: the number of an OSError, else what its text says."""
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno:
        return error.errno
    text = str(error)
    if found := NUMBER.search(text):
        return int(found[1] or found[2])
    if UNEXPECTED_POS.search(text):
        return errno.ENOSPC
    return next((number for said, number in SAID.items() if said in text.lower()), 0)


def _of_a_start(error: BaseException) -> bool:
    """Whether a thread or a process was to be started: who waits for nothing, for a lock say, gets the same number."""
    called = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
    return "thread" in str(error).lower() or not STARTING.isdisjoint(called)


def _as_said(error: BaseException, number: int) -> str:
    """What the exception itself says, on a line, where that is more than the number: which file it was, for one."""
    text = on_a_line(str(error))
    known = ("", os.strerror(number), f"[Errno {number}] {os.strerror(number)}")
    return "" if text in known else f" (as it was said: {text if len(text) <= MOST else text[:MOST] + '...'})"


def _where(error: BaseException) -> str:
    found = [os.fsdecode(name) for name in _names(error)]
    return f"{' -> '.join(found)}: " if found else ""


def _names(error: BaseException) -> list[str | bytes]:
    names = (getattr(error, "filename", None), getattr(error, "filename2", None))
    return [name for name in names if isinstance(name, str | bytes) and name]


def _free(error: BaseException) -> str:
    """What is free on the file system of the file; of one that is not named, where this process writes."""
    named = [Path(os.fsdecode(name)) for name in _names(error)]
    found: dict[int, str] = {}
    for path in named or [Path.cwd(), Path(".dvc/cache"), Path(".scratch"), _temporary()]:
        with suppress(OSError):
            there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
            stat = os.statvfs(there)
            megabytes = stat.f_bavail * stat.f_frsize / 1e6
            rest = "" if stat.f_favail or not stat.f_files else ", and no more files can be made"
            found.setdefault(there.stat().st_dev, f"{megabytes:.1f} MB free on that of {there}{rest}")
    return "; ".join(found.values()) or "nobody knows how much is free"


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except OSError:
        return Path.cwd()


def _memory() -> str:
    free = psutil.virtual_memory().available / 1e6
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        return (
            f"a process may take {limit / 1e6:.0f} MB of address space (ulimit -v), and what libraries map counts, "
            "too; raise the limit (ulimit -v unlimited) and run again"
        )
    return f"{free:.0f} MB are free; end other processes, or ask for less in params.yaml (batch sizes, a smaller model)"
