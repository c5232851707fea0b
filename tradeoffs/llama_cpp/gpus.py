"""The GPUs that llama.cpp, as it is installed here, can put a model's layers on."""

import ctypes
from dataclasses import dataclass
from typing import Any

from tradeoffs.llama_cpp.native import function, llama_cpp
from tradeoffs.plumbing.errors import UserError

ALL_LAYERS = -1  # n_gpu_layers in llama.h: a negative value means all layers
GPUS = (1, 2)  # enum ggml_backend_dev_type in ggml-backend.h: with memory of their own, and with the host's
CUDA = ("CUDA", "ROCm")  # what devices are called by the builds for what torch calls cuda
REBUILD = (
    'CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir --no-deps '
    f"llama-cpp-python=={llama_cpp.__version__}"
)


@dataclass(frozen=True)
class Gpu:
    """One that ggml knows: by its name (CUDA0), and what its driver calls it (NVIDIA H100)."""

    name: str
    description: str
    handle: Any

    def free_mb(self) -> float:
        """Memory that nobody uses now, in 1e6 bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        pointer = ctypes.POINTER(ctypes.c_size_t)
        memory = function("ggml_backend_dev_memory", None, ctypes.c_void_p, pointer, pointer)
        memory(self.handle, ctypes.byref(free), ctypes.byref(total))
        return free.value / 1e6


def known() -> list[Gpu]:
    """All GPUs that llama.cpp was built for and finds, in its order."""
    count = function("ggml_backend_dev_count", ctypes.c_size_t)
    get = function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    kind = function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
    name, described = (
        function(f"ggml_backend_dev_{what}", ctypes.c_char_p, ctypes.c_void_p) for what in ("name", "description")
    )
    handles = [get(number) for number in range(count())]
    return [
        Gpu(name(one).decode(), described(one).decode(errors="replace"), one) for one in handles if kind(one) in GPUS
    ]


def lacking() -> str:
    """Why llama.cpp can run nothing on a CUDA GPU here, and what to do; "" if it can."""
    if not llama_cpp.llama_supports_gpu_offload():
        return f"llama.cpp was installed here without support for a GPU; {REBUILD} builds it with CUDA"
    found = known()
    if any(gpu.name.startswith(CUDA) for gpu in found):
        return ""
    others = ", ".join(f"{gpu.name} ({gpu.description})" for gpu in found) or "none"
    return f"llama.cpp as it is installed here finds no CUDA GPU (GPUs that it finds: {others})"


def first() -> Gpu:
    """The first CUDA GPU. Raises UserError where llama.cpp has none."""
    if why := lacking():
        raise UserError(why)
    return next(gpu for gpu in known() if gpu.name.startswith(CUDA))
