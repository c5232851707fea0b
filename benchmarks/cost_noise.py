"""Whether costs can be told from the noise of the machine: copies of one file, and a file of twice the layers.

    python -m benchmarks.cost_noise [--quick]

The measuring of the stage `measure` is done 20 times while another process takes cores at random. Two byte-identical
copies of a GGUF must never be told apart, kept apart as they are here; pooled, as the pipeline does with what has the
same shapes, they have one number. A file of twice the layers must be told apart from both each time.
"""

import multiprocessing
import shutil
import time
from argparse import Namespace
from collections import Counter
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import common, ggufs
from benchmarks.common import SCRATCH
from tradeoffs.common import cores, files
from tradeoffs.common.cells import COST, Pair, Variant
from tradeoffs.measure import rounds, waiting
from tradeoffs.measure.things import Asked, Thing
from tradeoffs.params import Cost
from tradeoffs.results import costs

LAYERS, VOCABULARY, CONTEXT = 8, 300, 1024
HOW = Cost(
    rounds=5,
    latency_prompts=10,
    prefill_tokens=192,
    decode_tokens=24,
    batch_sizes=[4, 16],
    scored_sequences=32,
    repetitions=2,
)
PAIR = Pair("noise", "noise")
ONE, COPY, TWICE = (Variant("noise", "noise", name, "q4_0") for name in ("one", "copy", "twice"))
WEIGHED = {"speed": "decode_tokens_per_second", "memory": "model_memory_mb", "size": "size_mb"}
BUSY, IDLE = (0.05, 3.0), (0.05, 3.0)  # seconds that the neighbour works and rests for, drawn evenly between


def main(arguments: Namespace) -> None:
    stages = arguments.stages or (2 if arguments.quick else 20)
    cost = replace(HOW, rounds=3, latency_prompts=2, scored_sequences=2) if arguments.quick else HOW
    workspace = SCRATCH / "cost_noise"
    make(workspace)
    apart: dict[str, Counter[str]] = {name: Counter() for name in ("pooled", "kept_apart", "twice_the_layers")}
    raw, busy = [], []
    begun = time.perf_counter()
    with chdir(workspace):
        for stage in range(stages):
            with Neighbour(seed=stage):
                measured = one_stage(cost, seed=stage)
            pooled, separate = found(measured, pool=True), found(measured, pool=False)
            for name, key in WEIGHED.items():
                apart["pooled"][name] += costs.told_apart(pooled, ONE, COPY, key)
                apart["kept_apart"][name] += costs.told_apart(separate, ONE, COPY, key)
                apart["twice_the_layers"][name] += all(
                    costs.cheaper(each, small, TWICE, key) for each in (pooled, separate) for small in (ONE, COPY)
                )
            raw.append({str(v): {name: separate.cost[v][key] for name, key in WEIGHED.items()} for v in separate.cost})
            busy.append(pooled.costs.machine["busy"])
            print(f"stage {stage + 1} of {stages}: {apart}", flush=True)
    counts = {kind: {f"{kind}_{name}": told[name] for name in WEIGHED} for kind, told in apart.items()}
    common.write(
        "cost_noise",
        None,
        None,
        counts["kept_apart"] | counts["twice_the_layers"],
        quick=arguments.quick,
        stages=["measure"],
        at_most={f"kept_apart_{name}": 0 for name in WEIGHED},
        at_least={f"twice_the_layers_{name}": stages for name in WEIGHED},
        pooled=counts["pooled"] | {"note": "0 by construction: what is pooled has one number"},
        measured_stages=stages,
        stage_seconds=(time.perf_counter() - begun) / stages,
        busy=busy,
        measured=raw,
        tolerances=costs.TOLERANCES,
        compared=f"two copies of a q4_0 of {LAYERS} layers of width 512, one of {2 * LAYERS}; {cost.rounds} rounds a "
        f"stage; beside it a process on {cores.usable()} cores that works for {BUSY[0]} to {BUSY[1]} s and rests for "
        f"{IDLE[0]} to {IDLE[1]} s in turns",
    )


def make(workspace: Path) -> None:
    """The three files, unless they are there; random weights: time does not depend on what weights say."""
    if all((workspace / variant.gguf).is_file() for variant in (ONE, COPY, TWICE)):
        return
    for variant, layers in ((ONE, LAYERS), (TWICE, 2 * LAYERS)):
        checkpoint = workspace / "checkpoints" / variant.method
        if not checkpoint.is_dir():
            _checkpoint(checkpoint, layers)
        target = workspace / variant.gguf
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ggufs.made(checkpoint, "q4_0"), target)
    shutil.copyfile(workspace / ONE.gguf, workspace / COPY.gguf)


def _checkpoint(folder: Path, layers: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tradeoffs.base.demo_model import train_tokenizer

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    with files.new_folder(folder) as unfinished:
        sentences = [f"A loan of {n} costs {n * 7 % 113} a year." for n in range(500)]
        train_tokenizer(sentences, VOCABULARY, unfinished, CONTEXT).save_pretrained(unfinished)
        model: Any = LlamaForCausalLM(config)
        model.to(torch.bfloat16).save_pretrained(unfinished)


def one_stage(cost: Cost, seed: int) -> dict[str, Any]:
    """data/cost.json of one stage, in which each of the three files is a thing of its own."""
    from tradeoffs.llama_cpp.runtime import LlamaCppRuntime

    things = []
    for variant in (ONE, COPY, TWICE):
        with LlamaCppRuntime(variant.gguf, "auto") as runtime:
            facts = {"shapes": f"{runtime.shapes} {variant.method}", "size_mb": runtime.size_mb}
        files.write_json(variant.facts, facts)
        things.append(Thing(PAIR, facts["shapes"], {variant: facts}))
    luck = np.random.default_rng(0)
    prompts = [luck.integers(3, VOCABULARY, length).tolist() for length in luck.integers(20, 60, cost.scored_sequences)]
    scored = [(ids, [False, *[True] * (len(ids) - 1)]) for ids in prompts]
    short = prompts[: cost.latency_prompts]
    given = {PAIR: Asked(0, prompts[0], [], short, scored, len(scored))}  # nothing is answered
    PAIR.tokens.mkdir(parents=True, exist_ok=True)
    measured = rounds.measure(things, given, rounds.How(cost, "auto", "float32", seed), gpu=None)
    rounds.write(things, given, measured, hardware={}, busy=waiting.BUSY)
    rounds.finish()
    return files.read_json(COST)


def found(measured: dict[str, Any], pool: bool) -> Any:
    """What the report makes of it, and all that `told_apart` asks of Results; with `pool` the copies are one thing."""
    things = [
        {**thing, "shapes": thing["shapes"].split()[0] if pool else thing["shapes"]} for thing in measured["things"]
    ]
    facts = {variant: files.read_json(variant.facts) for variant in (ONE, COPY, TWICE)}
    if pool:
        facts = {variant: {**known, "shapes": known["shapes"].split()[0]} for variant, known in facts.items()}
    answers = {"split": np.array([]), "item": np.array([]), "generated_tokens": np.array([])}
    files.write_json(COST, {**measured, "things": things})
    read = costs.read(facts, dict.fromkeys(facts, answers))
    return SimpleNamespace(cost=read.numbers, costs=read)


class Neighbour:
    """A process that takes all cores and rests in turns, for times that are drawn."""

    def __init__(self, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._processes = [context.Process(target=work_and_rest, args=(seed,)) for _ in range(cores.usable())]

    def __enter__(self) -> None:
        for process in self._processes:
            process.start()

    def __exit__(self, *_error: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()


def work_and_rest(seed: int) -> None:
    """Until it is ended. Those of one seed work and rest at the same time, as the threads of one program."""
    luck = np.random.default_rng(seed)
    while True:
        end = time.perf_counter() + luck.uniform(*BUSY)
        while time.perf_counter() < end:
            sum(range(1000))
        time.sleep(luck.uniform(*IDLE))


if __name__ == "__main__":
    common.run(main, stages={"type": int, "help": "how many stages (default: 20; 2 with --quick)"})
