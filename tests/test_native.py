"""Where llama.cpp gives up, the process ends with one sentence and exit code 1, whichever way it gives up."""

import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
ASSERTION = (
    "import ctypes; from llama_cpp import _ggml; abort = _ggml.libggml.ggml_abort;"
    "abort.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p];"
    "abort(b'/home/somebody/src/ggml.c', 12, b'GGML_ASSERT(ne0/nb == n) failed')"
)
# std::bad_alloc on its way out of a function that nobody catches it in
EXCEPTION = "from llama_cpp import _ggml; _ggml.libggml._ZSt17__throw_bad_allocv()"
TERMINATE = "from llama_cpp import _ggml; _ggml.libggml._ZSt9terminatev()"


@pytest.mark.skipif(sys.platform != "linux", reason="names of GCC's C++ library")
@pytest.mark.parametrize(
    ("code", "why"),
    [
        (ASSERTION, "ggml.c:12: GGML_ASSERT(ne0/nb == n) failed"),
        (EXCEPTION, "its program failed (std::bad_alloc)"),
        (TERMINATE, "its program failed (std::terminate)"),
    ],
)
@pytest.mark.parametrize("thread", [False, True])
def test_llama_cpp_gives_up_in_one_sentence(code, why, thread):
    run = f"import threading; t = threading.Thread(target=lambda: exec({code!r})); t.start(); t.join()"
    program = "from tradeoffs.llama_cpp import native; print('before'); native.start_log('models/gguf/a.gguf');"
    done = subprocess.run(
        [sys.executable, "-c", program + (run if thread else code)], cwd=REPO, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stdout == "before\n"
    assert done.stderr.startswith(
        f"error: models/gguf/a.gguf: llama.cpp gave up on it: {why}; this version of it cannot"
    )
    assert done.stderr.count("\n") == 1
