"""Interleaved rounds: each measures every thing once, in an order drawn anew, so that a slow minute meets all alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from tradeoffs.common import files, unfinished
from tradeoffs.common.cells import COST, Pair
from tradeoffs.measure import processes, things
from tradeoffs.measure.things import Asked, Thing
from tradeoffs.measure.work import Settings, Work
from tradeoffs.params import Cost

NAME = "measure"
Found = dict[str, Any]  # what a process said of a thing


@dataclass(frozen=True)
class How:
    """What holds for all things: `dtype` of models as trained."""

    cost: Cost
    batch_tokens: int | Literal["auto"]
    dtype: str
    seed: int


def measure(some: Sequence[Thing], asked: dict[Pair, Asked], how: How, gpu: str | None) -> list[list[Found]]:
    """Per round, per thing what was found; a run that was killed goes on after the rounds that it had finished.

    `gpu`: see `processes.gpu`. Raises UserError if a model is missing, damaged or cannot be measured.
    """
    members = [member for thing in some for member in thing.members.items()]
    inputs = [path for variant, facts in members for path in (*things.weights(variant, facts), variant.facts)]
    inputs += [pair.tokens for pair in asked]
    # The measuring processes import other code than this one does.
    inputs += sorted(Path(__file__).parents[1].rglob("*.py"))
    folder = unfinished.workplace(NAME, dict.fromkeys(inputs), how, gpu, [(thing.shapes, thing.on) for thing in some])
    kept = [folder / f"round-{number}.json" for number in range(how.cost.rounds)]
    done = sum(path.is_file() for path in kept)
    if done:
        print(f"{NAME}: an earlier run was cut short; going on after its {done} finished rounds")
    for path in sorted({path for path in inputs if path.suffix == ".gguf"}) if done < len(kept) else ():
        files.require_unchanged(path)
    processes.prepare(things.architectures(list(some)))
    with tqdm(total=len(kept) * len(some), initial=done * len(some), desc=NAME) as bar:
        for number, path in enumerate(kept):
            if not path.is_file():
                files.write_json(path, _round(number, some, asked, how, gpu, bar))
    return [files.read_json(path) for path in kept]


def finish() -> None:
    """What was kept of the rounds goes: the result is there."""
    unfinished.remove(NAME)


def _round(
    number: int, some: Sequence[Thing], asked: dict[Pair, Asked], how: How, gpu: str | None, bar: "tqdm[Any]"
) -> list[Found]:
    """Every thing once; of several members that are one thing it is another one's turn in each round."""
    found: list[Found] = [{} for _ in some]
    for place in np.random.default_rng([how.seed, number]).permutation(len(some)):
        thing = some[place]
        member = list(thing.members)[number % len(thing.members)]
        work = _work(things.loaded(member, thing.members[member], how.dtype), asked[thing.pair], how, thing.on)
        found[place] = {"member": str(member)} | processes.measure(work, str(member), afresh=gpu is not None)
        bar.update()
    return found


def _work(loaded: dict[str, Any], asked: Asked, how: How, on: str) -> Work:
    cost = how.cost
    settings = Settings(cost.prefill_tokens, cost.decode_tokens, cost.batch_sizes, cost.repetitions)
    return Work(
        loaded, how.batch_tokens, asked.pad_id, asked.sample, asked.prompts, asked.scored, asked.count, settings, on
    )


def write(some: Sequence[Thing], asked: dict[Pair, Asked], rounds: list[list[Found]], **facts: Any) -> None:
    """data/cost.json: what all rounds found of each thing, as it was found; `results.costs` makes numbers of it."""
    measured = [
        {
            "shapes": thing.shapes,
            "on": thing.on,
            "members": [str(variant) for variant in thing.members],
            "prompts": asked[thing.pair].items,
            "rounds": [found[place] for found in rounds],
        }
        for place, thing in enumerate(some)
    ]
    files.write_json(COST, {**facts, "things": measured})
