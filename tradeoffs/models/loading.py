"""Loading a checkpoint in one of the forms it is measured in, and a trained model exactly as it left training."""

import re
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from tradeoffs.models import checkpoints, weights
from tradeoffs.params import Method
from tradeoffs.params.fields import Load
from tradeoffs.plumbing.errors import UserError

AS_LOADED = ("full", "peft", "load", "double_quant")  # of a Method: what load_trained reads
AGAIN = "remove the folder and run `dvc repro`, which brings it back or trains it again"
ADAPTER = "adapter_model.safetensors"
OF_MEMORY = re.compile("out of memory|can(no|')t allocate memory|bad_alloc", re.IGNORECASE)
# PEFT still asks transformers by the old name.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def training_dtype() -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32: emulated bfloat16 is slower than float32."""
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        fast = any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last one is ARM's
    return torch.bfloat16 if fast else torch.float32


def compute_dtype(method: Method) -> torch.dtype:
    """What the layers compute in while `method` trains. Raises UserError for float16 where there is no GPU."""
    if method.compute_dtype in (None, "auto"):
        return training_dtype()
    if method.compute_dtype == "float16" and device().type == "cpu":
        raise UserError("params.yaml: compute_dtype: float16 trains on a GPU only; use auto, bfloat16 or float32")
    return getattr(torch, str(method.compute_dtype))


def load_model(
    folder: Path,
    load: Load | None,
    dtype: torch.dtype,
    place: torch.device | None = None,
    attention: str | None = None,
    double_quant: bool = True,
) -> PreTrainedModel:
    """A checkpoint in evaluation mode; its linear layers quantised by bitsandbytes if `load` says so.

    It lies on `device()` if no other `place` is asked for. `double_quant`: nf4 and fp4 quantise the scales of their
    blocks too; the evaluation always does. `attention` None: sdpa, or eager where there is no other (Gemma 2).

    `dtype` is that of the weights that are not quantised, and of the arithmetic. Raises UserError if the folder holds
    no checkpoint, if its weights are not those that its config asks for, or if the attention asked for is not
    installed.
    """
    folder = Path(folder)
    checkpoints.require(folder, "config.json")
    for path in checkpoints.weight_files(folder):
        checkpoints.require(folder, path.name)
    headers = checkpoints.headers(folder)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            quantization_config=_quantisation(load, dtype, double_quant),
            device_map={"": place or device()},
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # which are told by their names below
        )
    except ImportError as error:
        raise UserError(f"params.yaml: train.attention: {attention} cannot be used here: {error}") from error
    model, info = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
    weights.require_all(info, headers, str(folder))
    if load in ("nf4", "fp4") and device().type == "cpu":
        _keep_exact_scales(model)
    return model.eval()


def load_trained(base_folder: Path, trained_folder: Path, method: Method, dtype: torch.dtype) -> PreTrainedModel:
    """The model as it left training: the adapter, unmerged, on the base in the form it was trained on; or all weights.

    For a method that trains nothing this is the base. Raises UserError if one of the folders lacks its files.
    """
    if method.full:
        return load_model(trained_folder, None, dtype)
    model = load_model(base_folder, method.load, dtype, double_quant=bool(method.double_quant))
    return attach(model, trained_folder) if method.peft else model


def attach(model: PreTrainedModel, trained_folder: Path) -> PreTrainedModel:
    """`model` with the trained adapter of a folder on it, unmerged, in evaluation mode.

    Raises UserError if the folder lacks a file of it, or the file a tensor.
    """
    from peft import PeftModel  # takes a second to import, and only adapters need it

    checkpoints.require(Path(trained_folder), "adapter_config.json")
    checkpoints.require(Path(trained_folder), ADAPTER)
    with checkpoints.opened(Path(trained_folder, ADAPTER)) as held:
        names = set(held.keys())
    with warnings.catch_warnings():
        # PEFT takes AdaLoRA's rank pattern for one of LoRA's; the ranks are set right all the same.
        warnings.filterwarnings("ignore", message="The following rank_pattern keys did not match")
        warnings.filterwarnings("ignore", message="Found missing adapter keys")  # said below
        try:
            adapted = PeftModel.from_pretrained(model, trained_folder)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:  # of modules_to_save, of another shape
            if isinstance(error, torch.AcceleratorError) or OF_MEMORY.search(str(error)):  # a fault of the machine
                raise
            said = checkpoints.first_line(error)
            raise UserError(f"{trained_folder}: its adapter does not fit its base: {said}; {AGAIN}") from error
    _require_adapter(adapted, names, str(Path(trained_folder, ADAPTER)))
    # A PeftModel hands everything on to the model in it.
    return cast(PreTrainedModel, adapted.eval())


def _require_adapter(adapted: Any, names: set[str], where: str) -> None:
    """Raises UserError unless the file held what would be written of the adapter now: what is missing is as random as
    before its training."""
    from peft import get_peft_model_state_dict

    asked = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if problems := [
        f"{verb} {', '.join(sorted(found)[:3])}"
        for verb, found in (("lacks", asked - names), ("has", names - asked))
        if found
    ]:
        raise UserError(
            f"{where}: not the adapter that adapter_config.json describes: it {'; it '.join(problems)}; {AGAIN}"
        )


def _quantisation(load: Load | None, dtype: torch.dtype, double_quant: bool) -> BitsAndBytesConfig | None:
    if load == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    if load in ("nf4", "fp4"):
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=load,
            bnb_4bit_use_double_quant=double_quant,
            bnb_4bit_compute_dtype=dtype,
        )
    return None


def _keep_exact_scales(model: PreTrainedModel) -> None:
    """Keeps bitsandbytes on the weights that were trained on.

    On CPUs with AVX512-BF16 its first inference repacks them in place with scales rounded to bfloat16: another
    model than training saw, and an error where a row is no multiple of the block size.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
