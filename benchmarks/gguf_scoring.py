"""Scoring a text with a GGUF: LlamaCppRuntime.score against llama.cpp's own llama-perplexity, whole processes.

    python -m benchmarks.gguf_scoring [--quick]

Both read the same f16 file and the same text, tokenise it for themselves, and score the second half of each window of
512 tokens after the first. They agree if they print the same perplexity.
"""

import math
import re
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from benchmarks import assets, common, ggufs, peers
from benchmarks.common import SCRATCH
from tradeoffs.common import files
from tradeoffs.evaluate.runtime import Target
from tradeoffs.llama_cpp.runtime import LlamaCppRuntime
from tradeoffs.plumbing.errors import UserError

WINDOW = 512
TEXT = "data/wikitext2/wikitext2_train_5k.txt"
# What of llama-perplexity is varied: the tokens that it computes at once, and flash attention. Its defaults come first.
SETTINGS: dict[str, list[object]] = {
    "defaults": [],
    "ubatch 2048": ["-ub", 2048],
    "flash attention off": ["-fa", "off"],
    "flash attention on": ["-fa", "on"],
}


def main(arguments: Namespace) -> None:
    windows = 4 if arguments.quick else 40
    checkpoint = common.smollm2_135m(SCRATCH / "smollm2-135m")
    model, text = ggufs.made(checkpoint, "f16"), excerpt(windows)
    commands: dict[str, list[object]] = {
        "ours": [sys.executable, "-m", "benchmarks.gguf_scoring", "ours", model, checkpoint, text, windows],
        **{
            setting: [*perplexity_tool(model), "-f", text, "--chunks", windows, *options]
            for setting, options in SETTINGS.items()
        },
    }
    sides = common.take_turns({side: [command] for side, command in commands.items()}, arguments.repetitions)
    ours = common.said(sides["ours"].output)
    perplexities = {setting: perplexity(sides[setting].output) for setting in SETTINGS}
    theirs = common.Peer({setting: sides[setting].median for setting in SETTINGS})
    best = perplexities[theirs.best]
    common.write(
        "gguf_scoring",
        sides["ours"].median,
        theirs,
        {"perplexity_ours": ours["perplexity"], "perplexity_peer": best, "off_by": ours["perplexity"] / best - 1},
        quick=arguments.quick,
        at_least={"ratio": 0.9},
        at_most={"off_by": 0.001},
        perplexities=perplexities,
        seconds={side: sides[side].seconds for side in sides},
        parts_of_ours={key: value for key, value in ours.items() if key.endswith("_seconds")},
        compared=f"{windows} windows of {WINDOW} tokens of {TEXT}, SmolLM2-135M's shape with random weights, f16",
        peer=f"llama-perplexity of llama-cpp-python {peers.VERSION}",
        threads=peers.threads(),
        same_instructions=peers.instructions(sides[theirs.best].output) == peers.instructions(),
        commands={side: common.shown(command) for side, command in commands.items()},
    )


def ours(model: str, checkpoint: str, text: str, windows: str) -> None:
    """The process that is timed: everything from reading the text to its perplexity."""
    begun = time.perf_counter()
    targets = make_targets(Path(checkpoint), Path(text), int(windows))
    tokenised = time.perf_counter()
    with LlamaCppRuntime(model, batch_tokens=4 * WINDOW) as runtime:
        loaded = time.perf_counter()
        scores = runtime.score(targets)
    found = {
        "perplexity": math.exp(-np.concatenate([score.logprob for score in scores]).mean(dtype=np.float64)),
        "tokenise_seconds": tokenised - begun,
        "load_seconds": loaded - tokenised,
        "score_seconds": time.perf_counter() - loaded,
    }
    common.say(found)


def excerpt(windows: int) -> Path:
    """A text file that holds that many windows and not much more, so that neither side tokenises in vain.

    Only ASCII words, a single space apart: for SmolLM2 llama.cpp sets digits apart before it looks at spaces, and the
    its own tokenizer.json does not. So they cut line breaks before a digit, or a superscript, into other tokens,
    and one such place moves all that follows.
    """
    characters = 6 * WINDOW * windows  # SmolLM2's tokenizer makes a token of four to five characters
    path = SCRATCH / f"wikitext2-{windows}.txt"
    words = [word for word in assets.find(TEXT).read_text(encoding="utf-8").split() if word.isascii()]
    files.write_text(path, " ".join(words)[:characters])
    return path


def make_targets(checkpoint: Path, text: Path, windows: int) -> list[Target]:
    """The windows as llama-perplexity cuts and scores them (tools/perplexity/perplexity.cpp).

    Windows do not overlap. Scored are the tokens that follow positions WINDOW / 2 to WINDOW - 2, so that each has at
    least half a window before it. It would replace the first token of each by BOS, if this tokenizer added one.
    """
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.no_truncation()  # SmolLM2's file asks for 128 tokens at most
    ids = np.array(tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False).ids, np.int32)
    if len(ids) < WINDOW * windows:
        raise UserError(f"{text.name}: holds {len(ids)} tokens, {windows} windows need {WINDOW * windows}")
    scored = np.arange(WINDOW) > WINDOW // 2
    return [Target(part, scored) for part in ids[: WINDOW * windows].reshape(windows, WINDOW)]


def perplexity_tool(model: Path) -> list[object]:
    """llama-perplexity, four windows in one decode as by default, and as many threads as ours."""
    return [peers.tool("llama-perplexity"), "-m", model, "-c", WINDOW, "-t", peers.threads()]


def perplexity(output: str) -> float:
    return float(find(r"Final estimate: PPL = ([0-9.]+)", output))


def find(pattern: str, output: str) -> str:
    """What llama-perplexity printed. Raises UserError if it is not there."""
    match = re.search(pattern, output)
    if not match:
        raise UserError(f"llama-perplexity: printed nothing like {pattern!r}\n{output[-2000:]}")
    return match[1]


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        ours(*sys.argv[2:])
    else:
        common.run(main)
