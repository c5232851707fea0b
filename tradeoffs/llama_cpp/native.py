"""What llama-cpp-python leaves out: a log that is quiet until something fails, and the types of a GGUF's tensors."""

import ctypes
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp
from llama_cpp import _ggml

from tradeoffs.plumbing.errors import UserError

WARNING, ERROR, CONTINUED = 3, 4, 5  # enum ggml_log_level in ggml.h; 5 goes on with the line before
_warnings: deque[str] = deque(maxlen=10_000)


@llama_cpp.llama_log_callback
def _collect(level: int, text: bytes, _user_data: object) -> None:
    if level in (WARNING, ERROR, CONTINUED):
        _warnings.append(text.decode("utf-8", errors="replace"))


def start_log() -> None:
    """From here on llama.cpp prints nothing; its warnings and errors are kept for `log`."""
    _warnings.clear()
    llama_cpp.llama_log_set(_collect, ctypes.c_void_p(0))


def log() -> str:
    """llama.cpp's warnings and errors since `start_log`."""
    return "".join(_warnings)


def last_lines(count: int = 3) -> str:
    """The end of the log, indented to stand below a message of ours."""
    lines = [line for line in log().splitlines() if line.strip()]
    return "".join(f"\n  llama.cpp: {line.strip()}" for line in lines[-count:])


class _GgufInitParams(ctypes.Structure):  # struct gguf_init_params in gguf.h
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.POINTER(ctypes.c_void_p))]


class Tensor(NamedTuple):
    """A tensor of a GGUF: rows of so many numbers, in one of ggml's types (q4_K, f32, ...)."""

    name: str
    rows: int
    row_length: int
    type: str


def _function(name: str, result: object, *arguments: object) -> Callable[..., Any]:
    function = getattr(_ggml.libggml, name)
    function.restype, function.argtypes = result, arguments
    return function


def tensors(path: str | Path) -> list[Tensor]:
    """All tensors of a GGUF, in its order.

    Reads the header only. Raises UserError if the file is no GGUF.
    """
    read = _function("gguf_init_from_file", ctypes.c_void_p, ctypes.c_char_p, _GgufInitParams)
    count = _function("gguf_get_n_tensors", ctypes.c_int64, ctypes.c_void_p)
    name_of = _function("gguf_get_tensor_name", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64)
    kind = _function("gguf_get_tensor_type", ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
    kind_name = _function("ggml_type_name", ctypes.c_char_p, ctypes.c_int)
    tensor = _function("ggml_get_tensor", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
    numbers = _function("ggml_nelements", ctypes.c_int64, ctypes.c_void_p)
    rows = _function("ggml_nrows", ctypes.c_int64, ctypes.c_void_p)
    start_log()
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
    _function("ggml_free", None, ctypes.c_void_p)(shapes)
    _function("gguf_free", None, ctypes.c_void_p)(header)
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
