"""Peak resident memory of evaluation at a vocabulary of 151 k, with few items and with ten times as many.

    python -m benchmarks.memory [--quick]

Runs the pipeline's own stages on the small Qwen2 of the zoo: `reference` keeps the float32 model's distributions, and
`evaluate_gpu` (bf16) and `evaluate_cpu` (q4_0) score against them. There is no peer: the bound is what the weights take
and 1.5 GB, whatever the number of items.
"""

import os
import shutil
import subprocess
import sys
from argparse import Namespace

import yaml

from benchmarks import assets, common, zoo
from benchmarks.common import ROOT, SCRATCH
from benchmarks.gguf_scoring import TEXT
from tradeoffs.common import files
from tradeoffs.common.cells import Cell
from tradeoffs.plumbing.errors import UserError

WORKSPACE = SCRATCH / "memory"
CELL = {"model": "qwen2", "dataset": "text", "method": "base"}
ONCE: tuple[tuple[str, dict[str, str]], ...] = (
    ("prepare", {"dataset": "text"}),
    ("base", {"model": "qwen2"}),
    ("tokenize", {"model": "qwen2", "dataset": "text"}),
    ("finetune", CELL | {"seed": "42"}),
    ("merge", CELL | {"seed": "42"}),
    ("convert", CELL),
    ("quantize", CELL | {"quant": "q4_0"}),
)
# Stage, its arguments, and the name of the variant that it measures.
MEASURED: tuple[tuple[str, dict[str, str], str], ...] = (
    ("reference", CELL, "trained"),
    ("evaluate_gpu", CELL | {"precision": "bf16"}, "bf16"),
    ("evaluate_cpu", CELL | {"quant": "q4_0"}, "q4_0"),
)
BOUND_MB = 1500


def main(arguments: Namespace) -> None:
    few, window = (6, 32) if arguments.quick else (60, 128)  # ten times as many are more than one chunk of items
    # In a process of its own: the kernel counts what a parent had in memory as its children's too.
    common.output_of([sys.executable, "-m", "benchmarks.zoo", "--make"])
    shutil.rmtree(WORKSPACE, ignore_errors=True)
    WORKSPACE.mkdir(parents=True)
    write_params(few, window)
    for name, options in ONCE:
        stage(name, options)
    found: dict[str, dict[str, float]] = {format_: {} for _, _, format_ in MEASURED}
    for items in (few, 10 * few):
        write_params(items, window)
        for name, options, format_ in MEASURED:
            peak = stage(name, options)
            variant = Cell(**CELL).variant(format_)
            rows = files.read_table(WORKSPACE / variant.items)
            scored = len({row["document"] for row in rows if row["split"] == "test"})
            if scored != items:
                raise UserError(f"{variant}: {scored} documents were scored, not {items}; {TEXT} is too short")
            weights = files.read_json(WORKSPACE / variant.facts)["size_mb"]
            found[format_] |= {"weights_mb": weights, f"peak_mb_{items}_items": peak}
            print(f"{name}, {items} items: {peak:.0f} MB at most, {weights:.0f} MB of weights", flush=True)
    shutil.rmtree(WORKSPACE)
    peaks = {format_: [mb for key, mb in row.items() if key.startswith("peak")] for format_, row in found.items()}
    common.write(
        "memory",
        None,
        None,
        {
            "most_beside_the_weights_mb": max(max(peaks[f]) - found[f]["weights_mb"] for f in found),
            "most_growth_mb": max(more - less for less, more in peaks.values()),
        },
        quick=arguments.quick,
        at_most={"most_beside_the_weights_mb": BOUND_MB},
        stages=[*dict(ONCE), *(name for name, _, _ in MEASURED)],
        processes=found,
        compared=f"{few} and {10 * few} documents of {TEXT} in windows of {window} tokens, the Qwen2 of "
        "benchmarks.families; peaks as the kernel reports them for each whole process, libraries included",
    )


def write_params(items: int, window: int) -> None:
    """The project's params.yaml with the model, the text and the number of items of this benchmark."""
    changed = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    changed["run"] |= {"models": ["qwen2"], "datasets": ["text"], "methods": ["base"], "precisions": [], "quants": []}
    changed["run"]["seeds"] = [42]
    changed["models"]["qwen2"] = {"path": str(zoo.MODELS / "qwen2"), "prompt": "own"}
    changed["datasets"]["text"] = {
        "path": str(assets.find(TEXT)),
        "kind": "text",
        "test_share": 0.5,
        "near_duplicate": 1.0,
        "seen": 1,
        "valid": 1,
    }
    changed["tokenize"]["window"] = window
    changed["evaluate"]["splits"] = {"test": items, "seen": 1, "general": 0}
    files.write_text(WORKSPACE / "params.yaml", yaml.safe_dump(changed))


def stage(name: str, options: dict[str, str]) -> float:
    """Runs a stage in the workspace; its most resident memory in 1e6 bytes.

    Asked of the kernel and not of the stage: what it needs after it has noted its own peak counts too. Raises UserError
    with the end of its output if it fails.
    """
    log = WORKSPACE / "log.txt"
    command = [sys.executable, "-m", f"stages.{name}", *(part for k, v in options.items() for part in (f"--{k}", v))]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=WORKSPACE, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise UserError(f"{common.shown(command)}: exit code {process.returncode}\n{log.read_text()[-2000:]}")
    return usage.ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    common.run(main)
