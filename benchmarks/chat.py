"""This project's chat server, llama.cpp's own and that of llama-cpp-python under the same load, and what ours endures.

    python -m benchmarks.chat [--quick] [--repetitions N] [--only default|drawn]

Two models: the default's recommended GGUF, so small that what a server does beside the model counts most, and one of
SmolLM2-135M's shape. 32 clients hold conversations of five turns, with one server after the other while the others
wait; then 200 clients do with ours, and each answer is held against what the model says alone. What follows says
benchmarks/chat_endurance.py. Needs `make run` and benchmarks.fetch.
"""

import json
import os
import statistics
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np

from benchmarks import chat_endurance, chat_models, chat_servers, common, peers
from benchmarks.chat_models import conversations
from benchmarks.chat_servers import Server, Talked
from benchmarks.common import ROOT
from tradeoffs.plumbing.errors import UserError

CLIENTS, MANY, TURNS = 32, 200, 5
BOUNDS = (  # of what benchmarks/chat_endurance.py finds
    ("flat", "server_drift", 0.02),
    ("flat", "model_drift", 0.02),
    ("long", "lost", 0),
    ("leaving", "most_steps", 2.5),
    ("killed", "uninformed", 0),
    ("killed", "seconds_until_all_know", 5),
)
OURS, ALONE = "ours", "the model alone"
LLAMA_SERVER, LLAMA_CPP_SERVER = "llama-server", "llama_cpp.server"
# Each with 32 places; the first ones are the defaults beside that.
LLAMA_SERVER_SETTINGS: dict[str, list[object]] = {
    LLAMA_SERVER: [],
    f"{LLAMA_SERVER}, one cache": ["--kv-unified"],
}
LLAMA_CPP_SERVER_SETTINGS: dict[str, list[object]] = {
    LLAMA_CPP_SERVER: ["--interrupt_requests", "false", "--logits_all", "false", "--verbose", "false"],
}


def main(arguments: Namespace) -> None:
    quick = arguments.quick
    models = {
        "default": (chat_models.default, chat_models.default_questions, 48),
        "drawn": (chat_models.drawn, chat_models.drawn_questions, 64),
    }
    found: dict[str, Any] = {}
    for name, (made, questions, max_tokens) in models.items():
        if arguments.only in (None, name):
            talked, asked = made(), questions()
            found[name] = compared(talked, asked, max_tokens, 2.0 if quick else 8.0, arguments.repetitions)
            many = (MANY if name == "default" and not quick else CLIENTS, TURNS if name == "default" else 1)
            with chat_servers.ours(talked) as server:
                found[name] |= {"many": held(talked, server, conversations(asked, *many), max_tokens)}
                if name == "default":
                    found[name] |= chat_endurance.flat(server, asked, 100 if quick else 1000)
                    found[name] |= chat_endurance.long(server, asked, 20 if quick else 200)
                else:
                    found[name] |= chat_endurance.leaving(server, asked)
                    found[name] |= chat_endurance.killed(server, asked, CLIENTS)
    write(found, quick)


def compared(
    talked: Talked, asked: Sequence[str], max_tokens: int, seconds: float, repetitions: int
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """What 32 clients get from each server, and what the model gives alone; of each a row per repetition."""
    rows: dict[str, list[dict[str, Any]]] = {}
    work: dict[str, Any] = {
        "conversations": conversations(asked, min(len(asked), 4 * CLIENTS), TURNS),
        "max_tokens": max_tokens,
    }
    with ExitStack() as stack:
        servers = {side: stack.enter_context(server) for side, server in sides(talked).items()}
        for server in servers.values():
            server.load(clients=1, **work | {"conversations": work["conversations"][:1]})  # the model loads
        for repetition in range(repetitions):
            for side in common.turns([*servers, ALONE], repetition):
                row = (
                    alone(talked, sample=asked[0], sequences=CLIENTS)
                    if side == ALONE
                    else summary(servers[side].load(clients=CLIENTS, seconds=seconds, **work), seconds)
                )
                rows.setdefault(side, []).append(row)
                print(f"{side}: {json.dumps({key: row[key] for key in list(row)[:4]})}", flush=True)
    return {"sides": rows}


def sides(talked: Talked) -> dict[str, AbstractContextManager[Server]]:
    """Every server in its settings, to be started."""
    found: dict[str, AbstractContextManager[Server]] = {OURS: chat_servers.ours(talked)}
    for side, options in LLAMA_SERVER_SETTINGS.items():
        found[side] = chat_servers.llama_server(talked, CLIENTS, *options)
    for side, options in LLAMA_CPP_SERVER_SETTINGS.items():
        found[side] = chat_servers.llama_cpp_server(talked, *options)
    return found


def summary(found: dict[str, Any], until: float | None = None) -> dict[str, Any]:
    """Speeds in tokens of answers per second, times in seconds, processor time as a share of the cores."""
    whole = [answer for answer in found["answers"] if not answer["problem"]]
    first = [answer["first"] - answer["sent"] for answer in whole if answer["first"]]
    seconds = until or found["took"]
    cores = peers.threads()
    return {
        "tokens_per_second": sum(answer["tokens"] * within(answer, seconds) for answer in whole) / seconds,
        "first_token_p50_seconds": float(np.quantile(first, 0.5)) if first else None,
        "first_token_p95_seconds": float(np.quantile(first, 0.95)) if first else None,
        "answers": len(found["answers"]),
        "not_whole": dict(problems(found["answers"])),
        "refused": sum(answer["refused"] for answer in found["answers"]),
        "tokens_per_answer": statistics.fmean([answer["tokens"] for answer in whole] or [0]),
        "tokens_per_piece": sum(a["tokens"] for a in whole) / max(sum(a["pieces"] for a in whole), 1),
        "prompt_tokens_per_answer": statistics.fmean([answer["prompt_tokens"] for answer in whole] or [0]),
        "cached_tokens_per_answer": statistics.fmean([cached(answer) for answer in whole] or [0]),
        "cpu": {side: used / (found["took"] * cores) for side, used in found["cpu"].items()},
        "seconds": found["took"],
    }


def within(answer: dict[str, Any], seconds: float) -> float:
    """How much of an answer came in the first so many seconds, as if its tokens came evenly."""
    took = answer["done"] - answer["first"]
    return float(np.clip((seconds - answer["first"]) / took, 0, 1)) if took > 0 else float(answer["done"] <= seconds)


def cached(answer: dict[str, Any]) -> int:
    """Tokens of its prompt that were not computed again, where the server says so."""
    found: int = answer["said"].get("begun", {}).get("cached_tokens", 0)
    return found


def problems(answers: Sequence[dict[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for answer in answers:
        if answer["problem"]:
            found[answer["problem"]] = found.get(answer["problem"], 0) + 1
    return found


def held(talked: Talked, server: Server, held: list[list[str]], max_tokens: int) -> dict[str, Any]:
    """One client per conversation, and each answer held against that of the model alone."""
    found = server.load(conversations=held, clients=len(held), max_tokens=max_tokens)
    answers = found["answers"]
    whole = [answer for answer in answers if not answer["problem"]]
    asked = [{"history": answer["history"], "said": answer["said"]["ended"]["ids"]} for answer in whole]
    same = alone(talked, answers=asked, max_tokens=max_tokens)
    expected = sum(map(len, held))
    return summary(found) | {
        "clients": len(held),
        "expected_answers": expected,
        "lost": expected - len(whole),
        "other_than_alone": same["different"],
        "rounding_ties": len(same["ties"]),
        "widest_tie": max((abs(tie["gaps"][0]) for tie in same["ties"]), default=0.0),  # of logits
    }


def alone(talked: Talked, **asked: Any) -> dict[str, Any]:
    """What benchmarks.chat_alone says."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chat_alone", talked.variant],
        cwd=talked.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=json.dumps(asked),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UserError(f"benchmarks.chat_alone: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return common.said(done.stdout)


def write(found: dict[str, Any], quick: bool) -> None:
    """The result. Targets that a model was not measured for (--only) are left out."""
    facts: dict[str, Any] = {}
    for model, parts in found.items():
        by_side = {side: median(rows) for side, rows in parts["sides"].items()}
        ours = by_side[OURS]["tokens_per_second"]
        best = {
            kind: max(settings, key=lambda side: by_side[side]["tokens_per_second"])
            for kind, settings in (("peer", LLAMA_SERVER_SETTINGS), ("slow", LLAMA_CPP_SERVER_SETTINGS))
        }
        facts |= {
            f"{model}_ratio": ours / by_side[best["peer"]]["tokens_per_second"],
            f"{model}_peer_best": best["peer"],
            f"{model}_first_token_p95_ratio": by_side[best["peer"]]["first_token_p95_seconds"]
            / by_side[OURS]["first_token_p95_seconds"],
            f"{model}_llama_cpp_server_ratio": ours / by_side[best["slow"]]["tokens_per_second"],
            f"{model}_batch_ratio": ours / by_side[ALONE]["decode_tokens_per_second"],
            f"{model}_work_ratio": worked(by_side[OURS], by_side[ALONE]),
            f"{model}_medians": by_side,
        }
    at_least = {f"{model}_ratio": 0.9 for model in found}
    at_least |= {f"{model}_llama_cpp_server_ratio": 3 for model in found}
    at_least |= {f"{model}_batch_ratio": 0.8 for model in found}
    at_most: dict[str, float] = {}
    for name, key, aim in BOUNDS:
        for parts in found.values():
            if name in parts:
                facts[f"{name}_{key}"] = parts[name][key]
                at_most[f"{name}_{key}"] = aim
    many = {model: parts["many"] for model, parts in found.items()}
    common.write(
        "chat",
        None,
        None,
        {
            f"{model}_{key}": len(row[key]) if isinstance(row[key], list) else row[key]
            for model, row in many.items()
            for key in ("lost", "other_than_alone")
        },
        quick=quick,
        at_least=at_least,
        at_most=at_most | {f"{model}_{key}": 0 for model in found for key in ("lost", "other_than_alone")},
        scripts=("benchmarks/chat_alone.py", "tradeoffs/chat/__main__.py", "tradeoffs/chat/worker/__main__.py"),
        **facts,
        models=found,
        compared=f"{CLIENTS} clients at a time, conversations of {TURNS} turns, streamed, greedy; tokens of answers "
        "per second, time to first token over all turns; batch_ratio: to LlamaCppRuntime.decode of as many sequences, "
        "which reads no prompts (work_ratio counts what was read); agreement: answers that did not come whole, or are "
        "neither what the model says alone nor parted from it by rounding",
        peer=f"llama-server and llama_cpp.server of llama-cpp-python {peers.VERSION}",
        settings={**LLAMA_SERVER_SETTINGS, **LLAMA_CPP_SERVER_SETTINGS},
        threads=peers.threads(),
    )


def median(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of each number over the repetitions."""
    return {
        key: statistics.median(row[key] for row in rows) for key, value in rows[0].items() if isinstance(value, float)
    }


def worked(ours: dict[str, float], alone: dict[str, float]) -> float:
    """How long the model alone takes for what it read and said for us, over how long it took."""
    read = ours["prompt_tokens_per_answer"] - ours["cached_tokens_per_answer"]
    of_a_token = read / ours["tokens_per_answer"] / alone["prefill_tokens_per_second"]
    return ours["tokens_per_second"] * (of_a_token + 1 / alone["decode_tokens_per_second"])


if __name__ == "__main__":
    common.run(main, only={"choices": ["default", "drawn"], "help": "this model alone"})
