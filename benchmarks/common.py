"""What every comparison needs: the same model and data for all sides, fair timing, and the file with the result."""

import argparse
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import assets, measured
from tradeoffs.common import files
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError

ROOT = assets.ROOT
SCRATCH = ROOT / ".scratch" / "benchmarks"  # models made once, and the results of quick runs
RESULTS = ROOT / "benchmarks" / "results"
# Weight of the random model's last norm, so that its logits spread by about 4 and a prediction has about the entropy of
# a trained model's. As flat as random weights leave it, every token would be nearly as likely as every other: rounding
# would decide which is the most likely one, and a divergence would lie in the tail alone.
SHARPNESS = 4.0
Command = Sequence[object]  # its parts, as `str` writes them


def run(main: Callable[[argparse.Namespace], None], **options: Mapping[str, Any]) -> None:
    """Starts a benchmark: `--quick` and `--repetitions`, and `options` as further arguments (of add_argument)."""
    parser = cli.parser()
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few windows, prompts or questions: shows that it works; the result goes to .scratch/benchmarks",
    )
    parser.add_argument("--repetitions", type=int, help="runs of each side, in turns (default: 3; 1 with --quick)")
    for name, option in options.items():
        parser.add_argument(f"--{name}", **option)
    arguments = parser.parse_args()
    arguments.repetitions = arguments.repetitions or (1 if arguments.quick else 3)
    with cli.explained():
        main(arguments)


def smollm2_135m(folder: Path, context: int = 8192) -> Path:
    """A checkpoint of SmolLM2-135M's shape with its real tokenizer, made in `folder` unless it is there; `folder`.

    Random weights of a fixed seed, bf16 on disk. Time does not depend on what weights say, and agreement shows on any.
    """
    if folder.is_dir():
        return folder
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(assets.find("tokenizers/smollm2"))
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=context,
        initializer_range=1 / 24,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config)
    model.model.norm.weight.data.fill_(SHARPNESS)
    for layer in model.model.layers[1:]:
        # As GPT-2 was begun, and the first layer left to lead: so many equal random layers in a row blow up each
        # rounding until a q4_0 has nothing in common with its f16.
        for branch in (layer.self_attn.o_proj, layer.mlp.down_proj):
            branch.weight.data /= (2 * config.num_hidden_layers) ** 0.5
    with files.new_folder(folder) as unfinished:
        model.to(torch.bfloat16).save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return folder


@dataclass(frozen=True)
class Side:
    """One side of a comparison: seconds of each repetition, and what each printed (stdout and stderr)."""

    seconds: list[float]
    outputs: list[str]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def output(self) -> str:
        """That of the last repetition."""
        return self.outputs[-1]


@dataclass(frozen=True)
class Peer:
    """The peer's median seconds by the name of its setting; the first one is its defaults.

    `not_counted` are settings that do not do the same work as ours, and why.
    """

    seconds: Mapping[str, float]
    not_counted: Mapping[str, str] = field(default_factory=dict)

    @property
    def defaults(self) -> str:
        return next(iter(self.seconds))

    @property
    def best(self) -> str:
        """The fastest setting of those that count; the defaults, where none does."""
        counted = [name for name in self.seconds if name not in self.not_counted]
        return min(counted or [self.defaults], key=lambda name: self.seconds[name])


def take_turns(commands: Mapping[str, Sequence[Command]], repetitions: int) -> dict[str, Side]:
    """Times whole processes. `commands`: per side the processes that follow each other, as argument lists.

    Sides take turns, in the order of `turns`. Raises UserError with the end of its output if a process fails.
    """
    seconds: dict[str, list[float]] = {side: [] for side in commands}
    outputs: dict[str, list[str]] = {side: [] for side in commands}
    for repetition in range(repetitions):
        for side in turns(commands, repetition):
            begun = time.perf_counter()
            outputs[side].append("".join(output_of(command) for command in commands[side]))
            seconds[side].append(time.perf_counter() - begun)
            print(f"{side}: {seconds[side][-1]:.2f} s", flush=True)
    return {side: Side(seconds[side], outputs[side]) for side in commands}


def turns(sides: Iterable[str], repetition: int) -> list[str]:
    """The order of the sides in a repetition: drawn for every second one, and that one backwards for the next.

    What slows the machine down for a while, or warms its file cache, then meets them all. Same arguments, same order.
    """
    order = sorted(sides)
    random.Random(repetition // 2).shuffle(order)
    return order[::-1] if repetition % 2 else order


def output_of(command: Command) -> str:
    """Runs a process in the checkout; its stdout and stderr. Raises UserError with their end if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        raise UserError(f"{shown(command)}: exit code {done.returncode}\n{done.stdout[-2000:]}")
    return done.stdout


def shown(command: Command) -> str:
    """A command as it would be typed in the checkout, with its environment activated."""
    return _relative(shlex.join("python" if part == sys.executable else str(part) for part in command))


def say(found: Mapping[str, Any]) -> None:
    """How a timed process of ours reports: one line of JSON, its last."""
    print(json.dumps(found), flush=True)


def said(output: str) -> dict[str, Any]:
    """What a process of ours reported with `say`."""
    return json.loads(output.strip().splitlines()[-1])


def machine() -> dict[str, Any]:
    """Processor, cores and memory of this machine, Python and library versions."""
    info = files.run_info()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {"hardware": info["hardware"] | {"memory_gb": memory_gb}, "python": info["python"]} | {
        "versions": info["versions"]
    }


def write(
    name: str,
    ours_seconds: float | None,
    theirs: Peer | None,
    agreement: Any,
    quick: bool = False,
    at_least: Mapping[str, float] | None = None,
    at_most: Mapping[str, float] | None = None,
    stages: Iterable[str] = (),
    scripts: Iterable[str] = (),
    **facts: Any,
) -> Path:
    """Writes `results/<name>.json`, or the scratch copy of a quick run; prints its head. The file.

    `ratio` is the peer in its best setting / ours: above 1, ours is faster; `ratio_defaults` the same of its defaults.
    What is None is left out. `at_least` and `at_most` (of the absolute value) are the targets, of `agreement` (or of
    parts of it by name), of the ratios and of `facts`. `facts` say what was compared. `stages` are the names of those
    that ran as processes, `scripts` other files that did. Paths in the checkout become relative ones, so that the file
    holds for any machine.

    Raises UserError, once the file is written, if a target of `agreement` is missed: the other figures then mean
    nothing. Any other one, a speed, that is missed is printed: it depends on the machine.
    """
    head: dict[str, Any] = {"ours_seconds": ours_seconds, "agreement": agreement}
    if ours_seconds and theirs:
        head |= {
            "peer_seconds": theirs.seconds[theirs.best],
            "peer_best": theirs.best,
            "ratio": theirs.seconds[theirs.best] / ours_seconds,
            "ratio_defaults": theirs.seconds[theirs.defaults] / ours_seconds,
            "not_counted": theirs.not_counted or None,
        }
    at_least, at_most = at_least or {}, at_most or {}
    head = {key: value for key, value in head.items() if value is not None} | {"target": {**at_least, **at_most}}
    path = (SCRATCH if quick else RESULTS) / f"{name}.json"
    code = {"code": measured.facts(f"benchmarks/{name}.py", *(f"stages/{stage}.py" for stage in stages), *scripts)}
    files.write_json(path, json.loads(_relative(json.dumps(head | facts | code | machine(), default=str))))
    print(f"{name}: {json.dumps(files.rounded(head))}\n{path.relative_to(ROOT)}")

    parts = agreement if isinstance(agreement, Mapping) else {"agreement": agreement}
    found = {**head, **facts, **parts}
    missed = {key: f"at least {aim:g}" for key, aim in at_least.items() if found[key] < aim}
    missed |= {key: f"at most {aim:g}" for key, aim in at_most.items() if abs(found[key]) > aim}
    wrong = []
    for key, aim in missed.items():
        text = f"{key} is {found[key]:.6g}, the target {aim}"
        if key in parts:
            wrong.append(text)
        else:
            print(f"{name}: missed: {text}")
    if wrong:
        raise UserError(f"{name}: {'; '.join(wrong)}; {path.relative_to(ROOT)} says what was compared")
    return path


def _relative(text: str) -> str:
    return assets.shown(text).replace(f"{ROOT}/", "")
