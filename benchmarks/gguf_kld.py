"""Divergence of a q4_0 GGUF from its f16: our divergence against llama-perplexity --kl-divergence, whole processes.

    python -m benchmarks.gguf_kld [--quick]

llama-perplexity writes the log-probabilities of the whole vocabulary, 16 bits each, and reads them again; ours keeps
the most likely tokens and a sample of the others, as params.yaml says. They agree if the mean divergence is the same.
"""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import common, ggufs, peers
from benchmarks.common import SCRATCH
from benchmarks.gguf_scoring import SETTINGS, TEXT, WINDOW, excerpt, find, make_targets, perplexity_tool
from tradeoffs import params
from tradeoffs.evaluate import kld
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime

QUANT = "q4_0"


def main(arguments: Namespace) -> None:
    cfg = params.load_all().evaluate
    windows = 4 if arguments.quick else 20
    checkpoint = common.smollm2_135m(SCRATCH / "smollm2-135m")
    base, quantised = ggufs.made(checkpoint, "f16"), ggufs.made(checkpoint, QUANT)
    text = excerpt(windows)
    their_file, our_file = SCRATCH / "llama-perplexity.kld", SCRATCH / "reference.safetensors"
    module = [sys.executable, "-m", "benchmarks.gguf_kld"]
    common_part = [checkpoint, text, windows, our_file]
    kept = ["--kl-divergence-base", their_file]
    commands: dict[str, list[list[object]]] = {
        "ours": [[*module, "reference", base, *common_part], [*module, "divergence", quantised, *common_part]],
        **{
            setting: [
                [*perplexity_tool(base), *options, "-f", text, "--chunks", windows, *kept],
                [*perplexity_tool(quantised), *options, "--kl-divergence", *kept],
            ]
            for setting, options in SETTINGS.items()
        },
    }
    try:
        sides = common.take_turns(commands, arguments.repetitions)
        megabytes = {"ours": our_file.stat().st_size / 1e6, "peer": their_file.stat().st_size / 1e6}
    finally:
        for path in (their_file, our_file):
            path.unlink(missing_ok=True)
    ours = common.said(sides["ours"].output)
    theirs = common.Peer({setting: sides[setting].median for setting in SETTINGS})
    divergences = {setting: float(find(r"Mean +KLD: +([0-9.]+)", sides[setting].output)) for setting in SETTINGS}
    same_top = float(find(r"Same top p: +([0-9.]+)", sides[theirs.best].output)) / 100
    common.write(
        "gguf_kld",
        sides["ours"].median,
        theirs,
        {
            "kld_ours": ours["kld"],
            "kld_peer": divergences[theirs.best],
            "off_by": ours["kld"] / divergences[theirs.best] - 1,
            "same_top_token_ours": ours["same_top_token"],
            "same_top_token_peer": same_top,
        },
        quick=arguments.quick,
        at_most={"off_by": 0.01},
        divergences=divergences,
        kld_standard_error_of_sampling=ours["standard_error"],
        kld_of_top_k_and_rest_alone=ours["kld"] - ours["kld_tail"],
        reference_mb=megabytes,
        kept={"kld_top_k": cfg.kld_top_k, "kld_tail_samples": cfg.kld_tail_samples},
        seconds={side: sides[side].seconds for side in sides},
        compared=f"{QUANT} against f16, {windows} windows of {WINDOW} tokens of {TEXT}, "
        "SmolLM2-135M's shape with random weights",
        peer=f"llama-perplexity of llama-cpp-python {peers.VERSION}",
        threads=peers.threads(),
        same_instructions=peers.instructions(sides[theirs.best].output) == peers.instructions(),
        commands={side: [common.shown(command) for command in commands[side]] for side in commands},
    )


def reference(model: str, checkpoint: str, text: str, windows: str, kept: str) -> None:
    """The first process that is timed: what is kept of the f16 model's distributions."""
    cfg = params.load_all().evaluate
    targets = make_targets(Path(checkpoint), Path(text), int(windows))
    with LlamaCppRuntime(model, batch_tokens=4 * WINDOW) as runtime:
        kld.save(Path(kept), targets, runtime.score(targets, cfg.kld_top_k, cfg.kld_tail_samples))


def divergence(model: str, checkpoint: str, text: str, windows: str, kept: str) -> None:
    """The second process that is timed: the quantised model against what was kept."""
    targets = make_targets(Path(checkpoint), Path(text), int(windows))
    known = kld.load(Path(kept), targets)
    targets = [replace(t, at=k.ids, samples=k.sample_ids) for t, k in zip(targets, known, strict=True)]
    with LlamaCppRuntime(model, batch_tokens=4 * WINDOW) as runtime:
        scores = runtime.score(targets)
    found = [kld.kl_divergence(k, score) for k, score in zip(known, scores, strict=True)]
    total, tail, variance = (
        np.concatenate([getattr(part, name) for part in found]) for name in ("total", "tail", "variance")
    )
    same = np.concatenate([score.argmax == k.ids[:, 0] for k, score in zip(known, scores, strict=True)])
    common.say(
        {
            "kld": total.mean(),
            "kld_tail": tail.mean(),
            "standard_error": variance.sum() ** 0.5 / len(variance),
            "same_top_token": same.mean(),
        }
    )


PROCESSES = {"reference": reference, "divergence": divergence}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PROCESSES:
        PROCESSES[sys.argv[1]](*sys.argv[2:])
    else:
        common.run(main)
