"""What PEFT offers and what each of its types can do, without importing it: params.yaml is checked by it in a moment.

Types and the fields of their configuration are read from the installed PEFT's source. `FACTS` was found by trying every
type with PEFT 0.21 and bitsandbytes 0.50: a type trains on a quantised base if its gradients there are those on the
de-quantised one. tests/test_methods.py tries the ready blocks again. A type without a row is allowed: it is just tried.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tradeoffs.plumbing.errors import UserError, near

if TYPE_CHECKING:
    from tradeoffs.params import Method

# Fields that the pipeline sets, or PEFT itself.
SET = {"task_type", "peft_type", "auto_mapping", "base_model_name_or_path", "revision", "peft_version"}
# Initial values of LoRA that are taken out of the base's weights; what is saved goes onto the whole base again.
OUT_OF_THE_BASE = ("pissa", "olora")
INIT = "init_lora_weights"


@dataclass(frozen=True)
class Facts:
    """Whether a type trains on an int8 and on a 4-bit base (nf4, fp4); why it cannot be merged or used, if so."""

    int8: bool = True
    four_bit: bool = True
    unmergeable: str | None = None
    unusable: str | None = None

    def trains_on(self, load: str) -> bool:
        return self.int8 if load == "int8" else self.four_bit


_ANY_BASE = Facts()
_PLAIN_BASE = Facts(int8=False, four_bit=False)
_INT8 = Facts(four_bit=False)
_BESIDE_THE_TEXT = Facts(unmergeable="it trains vectors that are read beside the text, not a change of the weights")
_TASK_NUMBERS = Facts(unusable="it wants a task number with every example, which data sets here do not have")

FACTS = {
    "ADALORA": _ANY_BASE,
    "ADAMSS": _PLAIN_BASE,
    "ADAPTION_PROMPT": Facts(unmergeable="it adds attention to vectors of its own, not a change of the weights"),
    "BEFT": Facts(unmergeable="it trains biases, and most models have no place for them"),
    "BOFT": _ANY_BASE,
    "C3A": _ANY_BASE,
    "CARTRIDGE": _BESIDE_THE_TEXT,
    "CPT": Facts(unusable="its loss is its own, over the logits of all tokens; here only the scored ones are computed"),
    "DEFT": _PLAIN_BASE,
    "DELORA": _PLAIN_BASE,
    "FOURIERFT": _ANY_BASE,
    "FROD": _PLAIN_BASE,
    "GLORA": _PLAIN_BASE,
    "GRALORA": _ANY_BASE,
    "HIRA": _ANY_BASE,
    "HRA": _PLAIN_BASE,
    "IA3": _ANY_BASE,
    "LILY": Facts(unmergeable="what it adds depends on the text that goes through the layer"),
    "LN_TUNING": _ANY_BASE,
    "LOHA": _INT8,
    "LOKR": _INT8,
    "LORA": _ANY_BASE,
    "MISS": _ANY_BASE,
    "MULTITASK_PROMPT_TUNING": _TASK_NUMBERS,
    "OFT": _ANY_BASE,
    "OSF": _PLAIN_BASE,
    "PEANUT": _PLAIN_BASE,
    "POLY": _TASK_NUMBERS,
    "PREFIX_TUNING": _BESIDE_THE_TEXT,
    "PROMPT_TUNING": _BESIDE_THE_TEXT,
    "PSOFT": _PLAIN_BASE,
    "PVERA": _ANY_BASE,
    "P_TUNING": _BESIDE_THE_TEXT,
    "RANDLORA": _ANY_BASE,
    "ROAD": _ANY_BASE,
    "SHADOW": Facts(unusable="it does not run with the installed transformers"),
    "SHIRA": _ANY_BASE,
    "SUPERTUNING": _PLAIN_BASE,
    "TINYLORA": _PLAIN_BASE,
    "TRAINABLE_TOKENS": _ANY_BASE,
    "UNILORA": _PLAIN_BASE,
    "VBLORA": _ANY_BASE,
    "VERA": _ANY_BASE,
    "WAVEFT": _ANY_BASE,
    "XLORA": Facts(unusable="it mixes adapters that were trained before, and a method here begins with none"),
}
# Fields without which PEFT fails later, and not in words.
NEEDED = {
    "ADAPTION_PROMPT": ("adapter_len", "adapter_layers"),
    "TRAINABLE_TOKENS": ("token_indices",),
    **dict.fromkeys(("CARTRIDGE", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"), ("num_virtual_tokens",)),
}


def unmergeable(method: "Method") -> str | None:
    """Why what `method` trains cannot be merged into the weights, and so has no GGUF either; None if it can."""
    if (method.config or {}).get("alora_invocation_tokens"):
        return "it works only after its invocation tokens, which weights cannot tell from other text"
    facts = FACTS.get(method.peft or "")
    return facts.unmergeable if facts else None


def changes_base(method_config: dict) -> bool:
    """Whether a LoRA begins with values that are taken out of the base's weights."""
    return str(method_config.get(INIT)).lower().startswith(OUT_OF_THE_BASE)


def problems(where: str, method: "Method") -> Iterator[str]:
    """`where.key: what is wrong`: type and fields that PEFT does not have, and what the type cannot do."""
    kind, config = method.peft or "", method.config or {}
    if kind not in types():
        yield f"{where}.peft: unknown type {kind!r}{near(kind, types())}"
        return
    facts = FACTS.get(kind, _ANY_BASE)
    if facts.unusable:
        yield f"{where}.peft: {kind} cannot be used here: {facts.unusable}"
    for key in config:
        if key in SET:
            yield f"{where}.config.{key}: is set by the pipeline; leave it out"
        elif key not in fields(kind):
            yield f"{where}.config.{key}: unknown key{near(key, sorted(fields(kind) - SET))}"
    for key in NEEDED.get(kind, ()):
        if config.get(key) is None:
            yield f"{where}.config.{key}: missing; {kind} needs it"
    if kind == "ADALORA" and "total_step" in config:
        yield f"{where}.config.total_step: is always train.steps; leave it out"
    if kind == "LORA":
        yield from _lora_problems(where, method)
    if method.load and not facts.trains_on(method.load):
        able = sorted(name for name, known in FACTS.items() if known.trains_on(method.load) and not known.unusable)
        yield f"{where}.load: {kind} cannot train on an {method.load} base (these can: {', '.join(able)})"


def _lora_problems(where: str, method: "Method") -> Iterator[str]:
    config = method.config or {}
    init = config.get(INIT)
    if init in ("eva", "corda", "lora_ga"):
        yield f"{where}.config.{INIT}: {init} looks at data before training, which is not done here; use pissa or olora"
    if init == "loftq":
        yield f"{where}.config.{INIT}: loftq quantises the base in its own way; use load: nf4"
    if method.load and (changes_base(config) or init == "orthogonal"):
        yield f"{where}.config.{INIT}: {init} needs the weights as they are, not {method.load} ones; leave load out"
    if method.load == "int8" and config.get("use_dora"):
        yield f"{where}.load: LORA with use_dora cannot train on an int8 base; use nf4"
    if (
        changes_base(config)
        and config.get("use_rslora")
        and (config.get("rank_pattern") or config.get("alpha_pattern"))
    ):
        yield f"{where}.config.{INIT}: {init} with use_rslora takes no rank_pattern or alpha_pattern"


@cache
def types() -> tuple[str, ...]:
    """The types of the installed PEFT: it keeps each in a folder of its name."""
    return tuple(sorted(path.parent.name.upper() for path in (_peft() / "tuners").glob("*/config.py")))


@cache
def fields(kind: str) -> set[str]:
    """The fields of the configuration class of a PEFT type."""
    return set(annotations(kind))


@cache
def annotations(kind: str) -> dict[str, ast.AnnAssign]:
    """The same with what its source says of each: its type and its default."""
    folder, tuners = _peft() / "tuners" / kind.lower(), _peft() / "tuners"
    # What types outside of this folder are derived from lies in the first four.
    shared = ("../config.py", "lycoris_utils.py", "lora/config.py", "prompt_tuning/config.py")
    sources = (*(tuners / name for name in shared), folder / "config.py")
    classes = {name: found for source in sources for name, found in _classes(source).items()}
    registered = re.search(r"config_cls=(\w+)", (folder / "__init__.py").read_text(encoding="utf-8"))
    found: dict[str, ast.AnnAssign] = {}
    todo = [registered[1]] if registered else []
    while todo:
        bases, own = classes.get(todo.pop(), ((), {}))
        found = {**own, **found}
        todo += bases
    return found


@cache
def _classes(source: Path) -> dict[str, tuple[list[str], dict[str, ast.AnnAssign]]]:
    """The classes of a source file: the names of their bases, and their annotated fields."""
    found = {}
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            annotated = [item for item in node.body if isinstance(item, ast.AnnAssign)]
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            found[node.name] = (bases, {one.target.id: one for one in annotated if isinstance(one.target, ast.Name)})
    return found


@cache
def _peft() -> Path:
    spec = find_spec("peft")  # looks for the package, does not import it
    if spec is None or spec.origin is None:
        raise UserError("the package peft is not installed; run make again")
    return Path(spec.origin).parent
