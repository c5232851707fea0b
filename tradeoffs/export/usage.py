"""How an export is used elsewhere: command lines, in which every name is one word, and lines of Python."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tradeoffs.common.texts import on_a_line
from tradeoffs.export import weights
from tradeoffs.export.chosen import Chosen

QUESTION, BEGINNING = "YOUR QUESTION", "THE BEGINNING OF A TEXT"  # where no test item is shown
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM's --max-lora-rank takes
# Settings of a LoRA that vLLM has no code for.
NOT_IN_VLLM = ("use_dora", "modules_to_save", "rank_pattern", "alora_invocation_tokens", "trainable_token_indices")


@dataclass(frozen=True)
class Use:
    what: str
    text: str
    language: str = "sh"


def uses(chosen: Chosen, gguf: str, repo: str | None, template: bool, stops: Sequence[str] = ()) -> list[Use]:
    """The ways to run what is in the folder; `gguf` is the name of the file, `repo` where it is pushed to, `template`
    whether there is a prompt template beside it, `stops` what llama-server must be told to end an answer by."""
    if chosen.form == "gguf":
        return _gguf(chosen, gguf, repo, template, stops)
    here, given = repo or ".", ["--chat-template", "chat_template.jinja"] if template else []
    if chosen.form == "adapter":
        found = [Use("PEFT, with the base below it", _peft(chosen, here, template), "python")]
        return found + ([Use("vLLM", _vllm_adapter(chosen, here, given))] if _in_vllm(chosen) else [])
    found = [Use("transformers", _transformers(chosen, here, template), "python")]
    options = ["--quantization", "bitsandbytes"] if chosen.variant.format == "nf4" else []
    if chosen.variant.format != "int8":  # vLLM quantises by bitsandbytes as it loads, and to 4 bits alone
        serve = ["vllm", "serve", here, "--served-model-name", str(chosen.variant), *options]
        found.append(Use("vLLM", line(*serve)))
    return found


def line(*words: str) -> str:
    """A command line for a shell. Each word is one word to it, whatever characters are in it."""
    return " ".join(shlex.quote(on_a_line(word)) for word in words)


def _gguf(chosen: Chosen, gguf: str, repo: str | None, template: bool, stops: Sequence[str]) -> list[Use]:
    context, name = str(chosen.tokens["context"]), str(chosen.variant).lower()
    server = ["llama-server", "-m", gguf, "--jinja", "--temp", "0", "-c", context]
    found = [
        Use("llama.cpp", line(*server)),
        Use("A request to it, from another terminal", _request(chosen, template, stops)),
        Use(
            "Ollama, in this folder (`params` and, if it is here, `template` are the same for Ollama, which reads them "
            "where a repository of the hub has them)",
            f"{line('ollama', 'create', name, '-f', 'Modelfile')}\n{line('ollama', 'run', name)}",
        ),
    ]
    return found + ([Use("Ollama, from the hub", line("ollama", "run", f"hf.co/{repo}"))] if repo else [])


def _request(chosen: Chosen, template: bool, stops: Sequence[str]) -> str:
    """A test item, asked of llama-server by its own prompt template; of plain text a beginning to go on from."""
    sent: dict[str, Any] = {"temperature": 0} | ({"stop": list(stops)} if stops else {})
    most = chosen.cfg.evaluate.max_new_tokens
    if template:
        path = "v1/chat/completions"
        sent = {"messages": [{"role": "user", "content": _question(chosen)}], "max_tokens": most} | sent
    else:
        path, sent = "completion", {"prompt": BEGINNING, "n_predict": most} | sent
    body = json.dumps(sent).replace("\x7f", "\\u007f")  # all else that a terminal obeys, json writes out
    return f"curl http://127.0.0.1:8080/{path} -H 'Content-Type: application/json' -d {shlex.quote(body)}"


def _question(chosen: Chosen) -> str:
    return chosen.example["prompt"] if chosen.example else QUESTION


def _asks(chosen: Chosen, template: bool) -> list[str]:
    """Lines of Python that ask the model, as evaluation did."""
    if template:
        # ascii(): one line, whatever is in it
        turns = f'[{{"role": "user", "content": {_question(chosen)!a}}}]'
        asked = (
            f'tokenizer.apply_chat_template({turns}, add_generation_prompt=True, return_dict=True, return_tensors="pt")'
        )
    else:
        asked = f'tokenizer({BEGINNING!r}, return_tensors="pt")'
    most, ends = chosen.cfg.evaluate.max_new_tokens, chosen.tokens["stop_ids"]
    return [
        "",
        f"asked = {asked}.to(model.device)",
        f"made = model.generate(**asked, max_new_tokens={most}, do_sample=False, eos_token_id={ends})",
        'print(tokenizer.decode(made[0, asked["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]


def shown(base: str, revision: str | None) -> str:
    """The base of an adapter in a command: of the hub by its name, else a folder that lies somewhere."""
    return base if revision else f"PATH/TO/{base}"


def _in_vllm(chosen: Chosen) -> bool:
    config = chosen.method.config or {}
    return chosen.method.peft == "LORA" and not any(config.get(key) for key in NOT_IN_VLLM)


def _vllm_adapter(chosen: Chosen, here: str, given: list[str]) -> str:
    base, revision = weights.base_of(chosen)
    rank = int((chosen.method.config or {}).get("r", 8))
    largest = next((str(allowed) for allowed in RANKS if allowed >= rank), str(rank))
    words = ["vllm", "serve", shown(base, revision), *(["--revision", revision] if revision else [])]
    words += ["--enable-lora", "--lora-modules", f"{chosen.variant}={here}", "--max-lora-rank", largest, *given]
    return line(*words)


def _peft(chosen: Chosen, here: str, template: bool) -> str:
    base, revision = weights.base_of(chosen)
    at = f", revision={revision!r}" if revision else ""
    how = _quantised(chosen.method.load, bool(chosen.method.double_quant))
    return "\n".join(
        [
            "from peft import PeftModel",
            f"from transformers import AutoModelForCausalLM, AutoTokenizer{how[0]}",
            "",
            f"base = AutoModelForCausalLM.from_pretrained({shown(base, revision)!r}{at}{how[1]})",
            f"model = PeftModel.from_pretrained(base, {here!r})",
            f"tokenizer = AutoTokenizer.from_pretrained({here!r})",
            *_asks(chosen, template),
        ]
    )


def _transformers(chosen: Chosen, here: str, template: bool) -> str:
    form = chosen.variant.format
    how = _quantised(form if form in ("int8", "nf4") else None, False)
    dtype = ', dtype="bfloat16"' if chosen.form == "merged" else ""
    return "\n".join(
        [
            f"from transformers import AutoModelForCausalLM, AutoTokenizer{how[0]}",
            "",
            f"model = AutoModelForCausalLM.from_pretrained({here!r}{dtype}{how[1]})",
            f"tokenizer = AutoTokenizer.from_pretrained({here!r})",
            *_asks(chosen, template),
        ]
    )


def _quantised(load: str | None, double: bool) -> tuple[str, str]:
    """What to import besides, and the argument, for bitsandbytes as it was evaluated."""
    if not load:
        return "", ""
    if load == "int8":
        return ", BitsAndBytesConfig", ", quantization_config=BitsAndBytesConfig(load_in_8bit=True)"
    how = f'load_in_4bit=True, bnb_4bit_quant_type="{load}", bnb_4bit_use_double_quant={double}'
    how += ', bnb_4bit_compute_dtype="bfloat16"'
    return ", BitsAndBytesConfig", f", quantization_config=BitsAndBytesConfig({how})"
