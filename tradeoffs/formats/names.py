"""The formats a merged model can be evaluated in: precisions of transformers and bitsandbytes, quants of llama.cpp; and
the devices that they can be measured on."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Precision:
    """How transformers loads a merged checkpoint, whose weights are bfloat16.

    dtype: of the weights that are not quantised, and of the arithmetic, by torch's name. load: how bitsandbytes
    quantises the linear layers as it loads them, if at all.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    load: Literal["int8", "nf4"] | None = None


PRECISIONS = {
    "float32": Precision("float32"),
    "bf16": Precision(),
    "fp16": Precision("float16"),
    "int8": Precision(load="int8"),
    "nf4": Precision(load="nf4"),
}
# What a model's cost is measured on. `auto`: transformers on the GPU where there is one, llama.cpp on the CPU.
AUTO, CPU, CUDA = "auto", "cpu", "cuda"
DEVICES = (AUTO, CPU, CUDA)
# llama.cpp's file types by the name users know them by (enum llama_ftype in llama.h).
QUANTS = {
    "f16": "LLAMA_FTYPE_MOSTLY_F16",
    "q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
    "q6_k": "LLAMA_FTYPE_MOSTLY_Q6_K",
    "q5_k_m": "LLAMA_FTYPE_MOSTLY_Q5_K_M",
    "q5_k_s": "LLAMA_FTYPE_MOSTLY_Q5_K_S",
    "q5_1": "LLAMA_FTYPE_MOSTLY_Q5_1",
    "q5_0": "LLAMA_FTYPE_MOSTLY_Q5_0",
    "q4_k_m": "LLAMA_FTYPE_MOSTLY_Q4_K_M",
    "q4_k_s": "LLAMA_FTYPE_MOSTLY_Q4_K_S",
    "q4_1": "LLAMA_FTYPE_MOSTLY_Q4_1",
    "q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0",
    "iq4_nl": "LLAMA_FTYPE_MOSTLY_IQ4_NL",
    "iq4_xs": "LLAMA_FTYPE_MOSTLY_IQ4_XS",
    "q3_k_m": "LLAMA_FTYPE_MOSTLY_Q3_K_M",
    "q2_k": "LLAMA_FTYPE_MOSTLY_Q2_K",
}
