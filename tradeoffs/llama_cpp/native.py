"""What llama-cpp-python leaves out: a log that is quiet until something fails, and the types of a GGUF's tensors.

Where llama.cpp gives up (GGML_ASSERT, a C++ exception that nobody catches) it ends the process, with a debugger's stack
where it finds one. From the import of this module on, that is one sentence and exit code 1.
"""

import ctypes
import os
import sys
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

os.environ["GGML_NO_BACKTRACE"] = "1"  # read when the library is loaded

import llama_cpp
from llama_cpp import _ggml

from tradeoffs.plumbing.errors import UserError

REASON = "error loading model: "
GAVE_UP = "llama.cpp gave up on it"
WARNING, ERROR, CONTINUED = 3, 4, 5  # enum ggml_log_level in ggml.h; 5 goes on with the line before
_warnings: deque[str] = deque(maxlen=10_000)
_file: str | Path = "llama.cpp"  # what it is at work on


@llama_cpp.llama_log_callback
def _collect(level: int, text: bytes, _user_data: object) -> None:
    if level in (WARNING, ERROR, CONTINUED):
        _warnings.append(text.decode("utf-8", errors="replace"))


def start_log(path: str | Path) -> None:
    """From here on llama.cpp prints nothing; its warnings and errors are kept for `log`. It is at work on `path`."""
    global _file
    _file = path
    _warnings.clear()
    llama_cpp.llama_log_set(_collect, ctypes.c_void_p(0))


def log() -> str:
    """llama.cpp's warnings and errors since `start_log`."""
    return "".join(_warnings)


def last_lines(count: int = 3) -> str:
    """The end of the log, indented to stand below a message of ours."""
    lines = [line for line in log().splitlines() if line.strip()]
    return "".join(f"\n  llama.cpp: {line.strip()}" for line in lines[-count:])


def last_error() -> str:
    """The end of the log in one line, without what only says that something failed."""
    said = [line.strip() for line in log().splitlines() if line.strip()]
    reasons = [line.partition(REASON)[2] for line in said if REASON in line]
    return (reasons or said or ["it does not say why"])[-1]


def _give_up(reason: str) -> NoReturn:
    """Ends the process, which llama.cpp is about to abort; no Python of the caller's can run any more."""
    said = f"error: {_file}: {GAVE_UP}: {reason}; this version of it cannot run such a model, or the file is damaged"
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        os.write(2, f"{said}\n".encode(errors="replace"))
    os._exit(1)


@ctypes.CFUNCTYPE(None, ctypes.c_char_p)  # ggml_abort_callback_t in ggml.h
def _on_abort(message: bytes) -> None:
    where, colon, what = message.decode(errors="replace").partition(": ")
    _give_up(where.rpartition("/")[2] + colon + what)


@ctypes.CFUNCTYPE(None)  # std::terminate_handler
def _on_terminate() -> None:
    _give_up(f"its program failed ({_exception()})")


def _exception() -> str:
    """The type of the C++ exception that is on its way, by the C++ ABI of Itanium (cxxabi.h)."""
    kind = function("__cxa_current_exception_type", ctypes.POINTER(ctypes.c_void_p))()
    if not kind:
        return "std::terminate"
    name = ctypes.string_at(kind[1])  # after the table of its methods
    demangled = function("__cxa_demangle", ctypes.c_char_p, ctypes.c_char_p, *[ctypes.c_void_p] * 3)
    return (demangled(name, None, None, None) or name).decode()


class _GgufInitParams(ctypes.Structure):  # struct gguf_init_params in gguf.h
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.POINTER(ctypes.c_void_p))]


class Tensor(NamedTuple):
    """A tensor of a GGUF: rows of so many numbers, in one of ggml's types (q4_K, f32, ...)."""

    name: str
    rows: int
    row_length: int
    type: str


def function(name: str, result: object, *arguments: object) -> Callable[..., Any]:
    """One of ggml's own, by the types of ctypes that its header says."""
    function = getattr(_ggml.libggml, name)
    function.restype, function.argtypes = result, arguments
    return function


function("ggml_set_abort_callback", ctypes.c_void_p, type(_on_abort))(_on_abort)
with suppress(AttributeError):  # another C++ library than those of GCC and LLVM
    function("_ZSt13set_terminatePFvvE", ctypes.c_void_p, type(_on_terminate))(_on_terminate)


def tensors(path: str | Path) -> list[Tensor]:
    """All tensors of a GGUF, in its order.

    Reads the header only. Raises UserError if the file is no GGUF.
    """
    read = function("gguf_init_from_file", ctypes.c_void_p, ctypes.c_char_p, _GgufInitParams)
    count = function("gguf_get_n_tensors", ctypes.c_int64, ctypes.c_void_p)
    name_of = function("gguf_get_tensor_name", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64)
    kind = function("gguf_get_tensor_type", ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
    kind_name = function("ggml_type_name", ctypes.c_char_p, ctypes.c_int)
    tensor = function("ggml_get_tensor", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
    numbers = function("ggml_nelements", ctypes.c_int64, ctypes.c_void_p)
    rows = function("ggml_nrows", ctypes.c_int64, ctypes.c_void_p)
    start_log(path)
    shapes = ctypes.c_void_p()  # a ggml_context, which holds the tensors without their numbers
    header = read(str(path).encode(), _GgufInitParams(True, ctypes.pointer(shapes)))
    if not header:
        raise UserError(f"{path}: no readable GGUF file{last_lines()}")
    found = []
    for index in range(count(header)):
        name: bytes = name_of(header, index)
        one = tensor(shapes, name)
        across = numbers(one) // max(rows(one), 1)
        found.append(Tensor(name.decode(), rows(one), across, kind_name(kind(header, index)).decode()))
    function("ggml_free", None, ctypes.c_void_p)(shapes)
    function("gguf_free", None, ctypes.c_void_p)(header)
    return found


def tensor_types(path: str | Path) -> dict[str, int]:
    """How many tensors of each type a GGUF holds, e.g. {"q4_K": 24, "q6_K": 5, "f32": 9}; most frequent first.

    Raises UserError if the file is no GGUF.
    """
    return dict(Counter(tensor.type for tensor in tensors(path)).most_common())


def description(model: Any) -> str:
    """What llama.cpp calls a loaded model: its architecture, size and file type."""
    buffer = ctypes.create_string_buffer(128)
    llama_cpp.llama_model_desc(model, buffer, len(buffer))
    return buffer.value.decode()
