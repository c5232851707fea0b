"""Checkpoints of small random models, each damaged in one way, through stage base and then loaded.

The rule for what is accepted: the model that is loaded, its tokenizer and its chat template say the same, number for
number, as those of the checkpoint before it was damaged. So a damage that is accepted was one of a file, or a value,
that has no effect. What is refused leaves nothing behind (else: bytes lost), and what is in HARMLESS, files that nobody
reads and other forms of the same, must be accepted (else: a step by hand that nobody should need).

Not tried is what no reader could tell: files that another sound model would have as well, as with half the heads of
attention, another epsilon, or one weight changed.
"""

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.breaking import Taken, Tries, Try, attempt

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120
VOCABULARY = 340
TEXTS = [
    "A loan of 1200 at 5 percent costs 60 a year.\nThe rate rose to 7 percent.",
    "The bank pays interest on the balance of each account at the end of the year.",
    "What is a bond? A bond is a loan that can be sold.",
]
SAID = [{"role": "user", "content": "What is a loan?"}, {"role": "assistant", "content": "7 percent"}]
TEMPLATE = "{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'assistant' else '\n' }}{% endfor %}"
FAMILIES = ("llama", "tied", "sharded", "gpt2", "gpt_neox", "qwen2", "olmo2", "phi", "gemma")
Damage = Callable[[Path, random.Random], object]


def tries(count: int, seed: int) -> Tries:
    """Damages by turns, each on a family that is drawn; of those that draw a place or a value, another every time."""
    _import_all()
    rng = random.Random(seed)
    order = list(DAMAGES)
    rng.shuffle(order)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sound = {family: _made(family, work / family) for family in FAMILIES}
        for number in range(count):
            name = order[number % len(order)]
            family, drawn = rng.choice(sorted(sound)), rng.randrange(1 << 30)
            yield _tried(name, family, drawn, work / family, sound[family])


def _import_all() -> None:
    """Once, since each try is a fork; which has no threads but its own."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    from transformers import AutoModelForCausalLM

    from stages import base  # noqa: F401
    from tradeoffs.base.demo_model import train_tokenizer  # noqa: F401
    from tradeoffs.models import loading  # noqa: F401

    torch.set_num_threads(1)
    for family in FAMILIES:
        AutoModelForCausalLM._model_mapping[type(_config(family))]


def _tried(name: str, family: str, drawn: int, source: Path, sound: Any) -> Try:
    what = f"{family}: {name} ({drawn})"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copytree(source / "own", work / "own")
        DAMAGES[name](work / "own", random.Random(drawn))
        taken, said = attempt(partial(_taken_over, work, "own" if name in OWN else "plain"), SECONDS)
        left = list((work / "models/base").glob("*"))
        if taken is Taken.REFUSED and left:
            taken, said = (Taken.LOST, f"left {left[0].name} behind; {said}")
        elif taken is Taken.REFUSED and name in HARMLESS:
            taken = Taken.MANUAL
        elif taken is Taken.ACCEPTED and (other := _difference(_read(work), sound, name in OWN)):
            taken, said = Taken.SILENT, f"another {other} than before"
    return Try(what, taken, said)


def _taken_over(work: Path, prompt: str) -> None:
    """Stage base, and then what the model, the tokenizer and the template say; run in a fork."""
    import torch

    from stages import base
    from tradeoffs.common import chat_templates
    from tradeoffs.models import checkpoints, loading

    (work / "params.yaml").write_text(_params(prompt), encoding="utf-8")
    os.chdir(work)
    base.main("mine")
    folder = Path("models/base/mine")
    model = loading.load_model(folder, None, torch.float32, torch.device("cpu"))
    with torch.no_grad():
        logits = model(torch.arange(1, 60)[None]).logits
    tokenizer = checkpoints.load_tokenizer(folder, "mine")
    ids = [tokenizer(text)["input_ids"] for text in TEXTS]
    said = {"logits": logits.tolist(), "ids": ids, "prompt": chat_templates.rendered(tokenizer, SAID)}
    Path("said.json").write_text(json.dumps(said), encoding="utf-8")


def _read(work: Path) -> Any:
    return json.loads((work / "said.json").read_text(encoding="utf-8"))


def _difference(found: Any, sound: Any, other_template: bool) -> str:
    """What of a model is not as it was; a template that was changed may say something else. NaN differs from NaN."""
    parts = ["logits", "ids"] if other_template else ["logits", "ids", "prompt"]
    return ", ".join(part for part in parts if found[part] != sound[part])


_TEXT: dict[str, str] = {}


def _params(prompt: str) -> str:
    if prompt not in _TEXT:
        import yaml

        raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        raw["models"], raw["run"]["models"] = {"mine": {"path": "own", "prompt": prompt}}, ["mine"]
        _TEXT[prompt] = yaml.safe_dump(raw)
    return _TEXT[prompt]


def _made(family: str, folder: Path) -> Any:
    """A sound checkpoint in `folder`/own, and what it says."""

    def make() -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(_config(family), dtype=torch.float32)
        size = "40KB" if family == "sharded" else "1GB"
        model.save_pretrained(folder / "own", max_shard_size=size)
        _tokenizer(family, folder / "own")

    folder.mkdir()
    for step in (make, partial(_taken_over, folder, "plain")):
        taken, said = attempt(step, SECONDS)
        if taken is not Taken.ACCEPTED:
            raise RuntimeError(f"{family}, undamaged: {taken}: {said}")
    return _read(folder)


def _config(family: str) -> Any:
    from transformers import AutoConfig

    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 80,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }
    kind = {"tied": "llama", "sharded": "llama"}.get(family, family)
    if kind in ("llama", "qwen2", "olmo2", "gemma"):
        shape["num_key_value_heads"] = 2
    if kind == "gemma":
        shape["head_dim"] = 8
    if family in ("tied", "qwen2"):
        shape["tie_word_embeddings"] = True
    return AutoConfig.for_model(kind, **shape)


def _tokenizer(family: str, folder: Path) -> None:
    """SentencePiece's, or a byte-level BPE."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if family in ("llama", "tied", "sharded"):
        from tradeoffs.base.demo_model import train_tokenizer

        train_tokenizer(TEXTS, VOCABULARY - 10, folder, 64).save_pretrained(folder)
    else:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        special = ["<pad>", "<s>", "</s>"]
        made.train_from_iterator(
            TEXTS,
            trainers.BpeTrainer(
                vocab_size=VOCABULARY - 10,
                special_tokens=special,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            ),
        )
        PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


# How a file is damaged -----------------------------------------------------------------------------------------------


def _file(folder: Path, name: str) -> Path:
    """A file by its name; of weights in shards one of them."""
    return folder / name if (folder / name).exists() else sorted(folder.glob("*.safetensors"))[-1]


def _bytes(name: str, edit: Callable[[bytes, random.Random], bytes]) -> Damage:
    def damage(folder: Path, rng: random.Random) -> None:
        path = _file(folder, name)
        path.write_bytes(edit(path.read_bytes(), rng))

    return damage


def _cut(held: bytes, rng: random.Random) -> bytes:
    return held[: rng.randrange(len(held))]


def _cut_text(held: bytes, rng: random.Random) -> bytes:
    return held.rstrip()[: rng.randrange(1, len(held.rstrip()))]


def _no_text(held: bytes, rng: random.Random) -> bytes:
    at = held.index(b'"', rng.randrange(len(held) // 2)) + 1
    return held[:at] + b"\xff" + held[at:]


def _header_flipped(held: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(int.from_bytes(held[:8], "little") + 8)
    return held[:at] + bytes([held[at] ^ 1 << rng.randrange(8)]) + held[at + 1 :]


BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "empty": lambda held, rng: b"",
    "a page of HTML": lambda held, rng: b"<!DOCTYPE html><html>404</html>\n" * rng.randrange(1, 99),
    "a pointer of Git LFS": lambda held, rng: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "zeros": lambda held, rng: bytes(len(held)),
    "noise": lambda held, rng: rng.randbytes(len(held)),
}
TEXT_BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": _cut_text,
    "a list": lambda held, rng: b"[" + held + b"]",
    "null": lambda held, rng: b"null",
    "a number": lambda held, rng: b"7",
    "no UTF-8": _no_text,
    "UTF-16": lambda held, rng: held.decode().encode("utf-16"),
    "deep": lambda held, rng: b'{"a":' * rng.randrange(2000, 200_000),
    "long digits": lambda held, rng: b'{"a": ' + b"9" * rng.randrange(4400, 100_000) + b"}",
    "NaN": lambda held, rng: b'{"a": NaN, ' + held.lstrip()[1:],
}
WEIGHT_BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": _cut,
    "longer": lambda held, rng: held + rng.randbytes(rng.randrange(1, 99)),
    "a header without end": lambda held, rng: rng.randrange(1 << 27, 1 << 63).to_bytes(8, "little") + held[8:],
    "a bit of the header": _header_flipped,
    "another bit of the header": _header_flipped,
    "one more bit of the header": _header_flipped,
}

# How weights are damaged ---------------------------------------------------------------------------------------------


def _weights(edit: Callable[[dict[str, Any], str], None]) -> Damage:
    """Edits the tensors of a file of weights; the second argument is the name of one that was drawn."""

    def damage(folder: Path, rng: random.Random) -> None:
        from safetensors.torch import load_file, save_file

        path = _file(folder, WEIGHTS)
        held = load_file(path)
        edit(held, rng.choice(sorted(held)))
        save_file({name: value.clone().contiguous() for name, value in held.items()}, path, {"format": "pt"})

    return damage


def _number(held: dict[str, Any], name: str, value: float) -> None:
    held[name].view(-1)[-1] = value


def _set(held: dict[str, Any], name: str, make: Callable[[Any], Any]) -> None:
    held[name] = make(held[name])


def _torch(name: str) -> Any:
    import torch

    return getattr(torch, name)


def _renamed(held: dict[str, Any], make: Callable[[str], str]) -> None:
    for name in [*held]:
        held[make(name)] = held.pop(name)


TENSORS: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "a tensor lost": lambda held, name: held.pop(name),
    "another tensor lost": lambda held, name: held.pop(name),
    "a tensor renamed": lambda held, name: held.update({f"{name}_": held.pop(name)}),
    "a tensor too many": lambda held, name: held.update({f"{name}_2": held[name]}),
    "a tensor of an adapter": lambda held, name: held.update({f"base_model.{name}.lora_A": held[name]}),
    "a prefix": lambda held, name: _renamed(held, lambda key: f"net.{key}"),
    "module. of a parallel training": lambda held, name: _renamed(held, lambda key: f"module.{key}"),
    "_orig_mod. of a compiled model": lambda held, name: _renamed(held, lambda key: f"_orig_mod.{key}"),
    "capital names": lambda held, name: _renamed(held, str.upper),
    "a row less": lambda held, name: _set(held, name, lambda value: value[:-1]),
    "a dimension more": lambda held, name: _set(held, name, lambda value: value[None]),
    "flat": lambda held, name: _set(held, name, lambda value: value.flatten() if value.dim() > 1 else value[None]),
    "no rows": lambda held, name: _set(held, name, lambda value: value[:0]),
    "NaN": lambda held, name: _number(held, name, float("nan")),
    "infinity": lambda held, name: _number(held, name, float("inf")),
    "whole numbers": lambda held, name: _set(held, name, lambda value: value.to(_torch("int32"))),
    "bytes": lambda held, name: _set(held, name, lambda value: value.to(_torch("uint8"))),
    "truths": lambda held, name: _set(held, name, lambda value: value > 0),
    "8-bit floats": lambda held, name: _set(held, name, lambda value: value.to(_torch("float8_e4m3fn"))),
    "complex numbers": lambda held, name: _set(held, name, lambda value: value.to(_torch("complex64"))),
    "a second layer 1 as layer 2": lambda held, name: held.update(
        {key.replace(".1.", ".2."): held[key] for key in [*held] if ".1." in key}
    ),
    "the same without its prefix": lambda held, name: held.update(
        {key.partition(".")[2]: held[key] + 1 for key in [*held] if key.count(".") > 2}
    ),
}

# How JSON is damaged -------------------------------------------------------------------------------------------------


def _json(name: str, edit: Callable[[dict[str, Any], random.Random], Any]) -> Damage:
    def damage(folder: Path, rng: random.Random) -> None:
        held = json.loads((folder / name).read_text(encoding="utf-8"))
        edit(held, rng)
        (folder / name).write_text(json.dumps(held), encoding="utf-8")

    return damage


SHAPE = (
    *("num_hidden_layers", "n_layer", "hidden_size", "n_embd", "intermediate_size", "num_attention_heads", "n_head"),
    *("vocab_size", "max_position_embeddings", "n_positions", "num_key_value_heads"),
)
EFFECT = (*SHAPE, "model_type", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rope_parameters", "dtype")


def _of_shape(config: dict[str, Any], rng: random.Random, keys: tuple[str, ...] = SHAPE) -> str:
    return rng.choice([key for key in keys if key in config])


def _value(value: Any, keys: tuple[str, ...] = SHAPE) -> Callable[[dict[str, Any], random.Random], Any]:
    return lambda config, rng: config.update({_of_shape(config, rng, keys): value})


def _layers(more: int) -> Callable[[dict[str, Any], random.Random], Any]:
    def edit(config: dict[str, Any], rng: random.Random) -> None:
        config[_of_shape(config, rng, ("num_hidden_layers", "n_layer"))] += more
        config.pop("layer_types", None)

    return edit


CONFIG: dict[str, Callable[[dict[str, Any], random.Random], Any]] = {
    "a layer more": _layers(1),
    "a layer less": _layers(-1),
    "5,000 layers": _layers(5000),
    "10**9 layers": _layers(10**9),
    "no layers": lambda config, rng: config.update({_of_shape(config, rng, ("num_hidden_layers", "n_layer")): 0}),
    "a key lost": lambda config, rng: config.pop(rng.choice(sorted(config))),
    "another key lost": lambda config, rng: config.pop(rng.choice(sorted(config))),
    "model_type a list": lambda config, rng: config.update(model_type=[config["model_type"]]),
    "model_type another": lambda config, rng: config.update(
        model_type=rng.choice([kind for kind in ("gpt_neox", "bloom", "opt", "falcon") if kind != config["model_type"]])
    ),
    "model_type unknown": lambda config, rng: config.update(model_type="../../llama"),
    "code of its own": lambda config, rng: config.update(model_type="own", auto_map={"AutoConfig": "own.Config"}),
    "quantised": lambda config, rng: config.update(quantization_config={"quant_method": "awq", "bits": 4}),
    "quantised in no known way": lambda config, rng: config.update(quantization_config=7),
    "tied or not, the other way": lambda config, rng: config.update(
        tie_word_embeddings=not config.get("tie_word_embeddings", config["model_type"] in ("gpt2", "gemma"))
    ),
    "a size as text": lambda config, rng: [config.update({key: str(config[key])}) for key in [_of_shape(config, rng)]],
    "a size a fraction": lambda config, rng: [
        config.update({key: config[key] + 0.5}) for key in [_of_shape(config, rng)]
    ],
    "a width one more": lambda config, rng: [
        config.update({key: config[key] + 1})
        for key in [_of_shape(config, rng, ("hidden_size", "n_embd", "vocab_size", "intermediate_size"))]
        if config[key]
    ],
    "a size 10**18": _value(10**18, tuple(key for key in SHAPE if "position" not in key)),
    "a size 10**9": _value(10**9, tuple(key for key in SHAPE if "position" not in key)),
    "a size below 0": _value(-4),
    "a size 0": _value(0, tuple(key for key in SHAPE if "position" not in key)),
    "text": _value("x", EFFECT),
    "a list": _value([], EFFECT),
    "an object": _value({"a": 1}, EFFECT),
    "true": _value(True, SHAPE),
    "a path": _value("../../etc/passwd", EFFECT),
    "rope of no known kind": lambda config, rng: config.update(rope_parameters={"rope_type": "x", "rope_theta": 1e4}),
    "rope without its numbers": lambda config, rng: config.update(
        rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}
    ),
}
INDICES: dict[str, Any] = {
    "no weight_map": lambda index, rng: index.pop("weight_map"),
    "weight_map a list": lambda index, rng: index.update(weight_map=[*index["weight_map"]]),
    "weight_map empty": lambda index, rng: index.update(weight_map={}),
    "a shard that is not there": lambda index, rng: index["weight_map"].update(x="model-9.safetensors"),
    "a shard outside": lambda index, rng: index["weight_map"].update(x="../own/model-00001-of-00002.safetensors"),
    "a shard that is a pickle": lambda index, rng: index["weight_map"].update(x="pytorch_model.bin"),
    "a shard that is a number": lambda index, rng: index["weight_map"].update(x=7),
    "a shard with NUL": lambda index, rng: index["weight_map"].update(x="a\0.safetensors"),
    "only one of the shards": lambda index, rng: index.update(
        weight_map={key: name for key, name in index["weight_map"].items() if "-00001-" in name}
    ),
}


def _sharded(damage: Damage) -> Damage:
    """On weights in two shards, whatever the checkpoint had."""

    def on_shards(folder: Path, rng: random.Random) -> None:
        if (folder / WEIGHTS).exists():
            from safetensors.torch import load_file, save_file

            held = load_file(folder / WEIGHTS)
            names = sorted(held)
            parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
            for file, part in parts.items():
                save_file({name: held[name] for name in part}, folder / file, {"format": "pt"})
            index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
            (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
            (folder / WEIGHTS).unlink()
        damage(folder, rng)

    return on_shards


def _twice(folder: Path, rng: random.Random) -> None:
    """A tensor of one shard in another one, with other numbers."""
    from safetensors.torch import load_file, save_file

    first, second, *_ = sorted(folder.glob("model-*.safetensors"))
    held, name = load_file(second), rng.choice(sorted(one := load_file(first)))
    save_file({**held, name: one[name] + 1}, second, {"format": "pt"})


# How a folder is damaged ---------------------------------------------------------------------------------------------


def _lost(name: str) -> Damage:
    return lambda folder, rng: _file(folder, name).unlink()


def _a_folder(name: str) -> Damage:
    def damage(folder: Path, rng: random.Random) -> None:
        path = _file(folder, name)
        path.unlink()
        path.mkdir()

    return damage


def _a_pipe(name: str) -> Damage:
    def damage(folder: Path, rng: random.Random) -> None:
        path = _file(folder, name)
        path.unlink()
        os.mkfifo(path)

    return damage


def _a_link(name: str, to: str | None = None, into: str | None = None) -> Damage:
    """To a file like it outside of the folder, there at the path `into`; or to anything."""

    def damage(folder: Path, rng: random.Random) -> None:
        path = folder / name if name.startswith(("LICENSE", "NOTICE", "merges")) else _file(folder, name)
        outside = folder.parent / (into or f"outside-{path.name}")
        outside.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            shutil.move(path, outside)
        else:
            outside.write_text("secret", encoding="utf-8")
        path.symlink_to(to or outside)

    return damage


def _pickled(folder: Path, rng: random.Random) -> None:
    path = _file(folder, WEIGHTS)
    path.rename(folder / "pytorch_model.bin")


def _text(name: str, text: str) -> Damage:
    return lambda folder, rng: (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")


def _named(*names: str) -> Damage:
    """Chat templates by name, as tokenizer_config.json had them, in place of the one file."""

    def damage(folder: Path, rng: random.Random) -> None:
        (folder / "chat_template.jinja").unlink()
        named = [{"name": name, "template": TEMPLATE} for name in names]
        _json("tokenizer_config.json", lambda held, _: held.update(chat_template=named))(folder, rng)

    return damage


TOKENIZER: dict[str, Callable[[dict[str, Any], random.Random], Any]] = {
    "no model": lambda held, rng: held.pop("model"),
    "another kind": lambda held, rng: held["model"].update(type="Own"),
    "no vocabulary": lambda held, rng: held["model"].pop("vocab"),
    "a vocabulary of text": lambda held, rng: held["model"].update(vocab="abc"),
    "ids of text": lambda held, rng: held["model"].update(vocab={"a": "b"}),
    "ids below 0": lambda held, rng: held["model"].update(vocab={"a": -1}),
    "merges of what is no token": lambda held, rng: held["model"].update(merges=[["qqq", "zzz"]]),
    "added tokens of text": lambda held, rng: held.update(added_tokens="abc"),
    "another model's, with more tokens": lambda held, rng: held["model"]["vocab"].update(
        {f"more{number}": 400 + number for number in range(9)}
    ),
}
TOKENIZER_CONFIG: dict[str, Callable[[dict[str, Any], random.Random], Any]] = {
    "tokenizer_class a number": lambda held, rng: held.update(tokenizer_class=7),
    "tokenizer_class of code of its own": lambda held, rng: held.update(
        tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", None]}
    ),
    "bos_token a number": lambda held, rng: held.update(bos_token=7),
    "eos_token an object": lambda held, rng: held.update(eos_token={"a": 1}),
    "eos_token of another model": lambda held, rng: held.update(eos_token="<|none such|>"),
    "added_tokens_decoder a list": lambda held, rng: held.update(added_tokens_decoder=[1]),
    "added_tokens_decoder without ids": lambda held, rng: held.update(added_tokens_decoder={"x": {"content": "a"}}),
}
GENERATION: dict[str, Any] = {
    "eos_token_id text": lambda held, rng: held.update(eos_token_id="</s>"),
    "eos_token_id a list of text": lambda held, rng: held.update(eos_token_id=["a"]),
    "temperature text": lambda held, rng: held.update(temperature="hot"),
    "max_length below 0": lambda held, rng: held.update(max_length=-1),
}
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a * b %}{% endfor %}{% endfor %}"
TEMPLATES = {
    f"a template: {what}": _text("chat_template.jinja", text)
    for what, text in {
        "loops in loops": LOOP,
        "loops for an answer only": "{% if messages | length > 1 %}" + LOOP + "{% endif %}a",
        "10 GB of text": "{{ 'a' * 10000000000 }}",
        "10 MB of text": "{% for a in range(99999) %}{{ 'a' * 100 }}{% endfor %}",
        "a list without end": "{% set x = range(99999) | list * 99999 %}",
        "itself": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
        "no Jinja": "{% for %}{{",
        "deep": "{{ " + "(" * 5000,
        "1 / 0": "{{ 1 / 0 }}",
        "refuses": "{{ raise_exception('no') }}",
        "what is not there": "{{ messages[7].content.a.b }}",
        "out of the sandbox": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "another file": "{% include '/etc/passwd' %}",
        "a surrogate": "{{ '\\ud800' }}",
        "nothing": "",
        "a power": "{{ 9 ** 9 ** 9 }}",
        "a long format": "{{ '%01000000000d' % 7 }}",
    }.items()
}
HARMLESS: dict[str, Damage] = {
    "weights a link to another disk": _a_link(WEIGHTS),
    "config.json a link into the hub's cache": _a_link("config.json", into="models--me--own/blobs/0a1b"),
    "weights a link into the hub's cache": _a_link(WEIGHTS, into="models--me--own/blobs/0a1b"),
    "config.json a link into git-annex": _a_link("config.json", into=".git/annex/objects/aB/MD5E-s9--0a"),
    "quantization_config null": _json("config.json", lambda held, rng: held.update(quantization_config=None)),
    "chat templates by name": _named("default", "tool_use"),
    "a README that is no text": lambda folder, rng: (folder / "README.md").write_bytes(rng.randbytes(99)),
    "a LICENSE that is no text": lambda folder, rng: (folder / "LICENSE").write_bytes(rng.randbytes(99)),
    "a pickle and code beside": lambda folder, rng: (
        [
            (folder / name).write_bytes(b"cos\nsystem\n")
            for name in ("training_args.bin", "modeling_own.py", "optimizer.pt")
        ]
    ),
    "a link outside that nobody reads": lambda folder, rng: (folder / "notes.md").symlink_to("/etc/hostname"),
    "weights in two shards": _sharded(lambda folder, rng: None),
    "a key that nobody knows": _json("config.json", lambda held, rng: held.update(own={"a": [None, 10**12]})),
    "no generation_config": lambda folder, rng: (folder / "generation_config.json").unlink(missing_ok=True),
    "torch_dtype, as it was called": _json("config.json", lambda held, rng: held.update(torch_dtype=held.pop("dtype"))),
    "an old version": _json("config.json", lambda held, rng: held.update(transformers_version="4.0.0")),
    "indented otherwise": _bytes("config.json", lambda held, rng: json.dumps(json.loads(held), indent=9).encode()),
}
OWN = {*TEMPLATES, "chat templates by name", "no chat template of a name that is meant"}
DAMAGES: dict[str, Damage] = {
    **{
        f"{name} {what}": _bytes(name, edit)
        for name in ("config.json", "tokenizer.json")
        for what, edit in BYTES.items()
    },
    **{f"weights {what}": _bytes(WEIGHTS, edit) for what, edit in (BYTES | WEIGHT_BYTES).items()},
    **{
        f"{name} {what}": _bytes(name, edit)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
        for what, edit in TEXT_BYTES.items()
    },
    **{f"index {what}": _sharded(_bytes(INDEX, edit)) for what, edit in TEXT_BYTES.items()},
    **{f"index: {what}": _sharded(_json(INDEX, edit)) for what, edit in INDICES.items()},
    "a tensor in two shards": _sharded(_twice),
    **{f"weights: {what}": _weights(edit) for what, edit in TENSORS.items()},
    **{f"config: {what}": _json("config.json", edit) for what, edit in CONFIG.items()},
    **{f"tokenizer: {what}": _json("tokenizer.json", edit) for what, edit in TOKENIZER.items()},
    "no chat template of a name that is meant": _named("tool_use", "rag"),
    **{f"tokenizer_config: {what}": _json("tokenizer_config.json", edit) for what, edit in TOKENIZER_CONFIG.items()},
    **{f"generation_config: {what}": _json("generation_config.json", edit) for what, edit in GENERATION.items()},
    **{f"{name} lost": _lost(name) for name in ("config.json", WEIGHTS)},
    **{f"{name} a folder": _a_folder(name) for name in ("config.json", WEIGHTS, "tokenizer.json")},
    **{f"{name} a pipe": _a_pipe(name) for name in ("config.json", WEIGHTS, "tokenizer.json")},
    **{f"{name} a link outside": _a_link(name) for name in ("config.json", "LICENSE", "NOTICE.txt")},
    "LICENSE a link to /dev/zero": _a_link("LICENSE", "/dev/zero"),
    "config.json a link to itself": _a_link("config.json", "config.json"),
    "config.json a link to nothing": _a_link("config.json", "none"),
    "only a pickle": _pickled,
    **TEMPLATES,
    **HARMLESS,
}
