"""What every variant costs on this machine: speed and memory, measured alone and in interleaved rounds.

IN   data/facts/    data/tokens/    and the models that the facts are about
OUT  data/cost.json
     python -m stages.measure

Leave the machine alone while it runs. On another machine, or once more: `dvc repro -f -s measure`, then `dvc repro`,
which score nothing anew.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from tradeoffs import params
from tradeoffs.common import cores, files, machine
from tradeoffs.common.cells import pairs, variants
from tradeoffs.measure import rounds
from tradeoffs.measure.processes import gpu
from tradeoffs.measure.things import asked, things
from tradeoffs.measure.waiting import BUSY
from tradeoffs.params.fields import Dtype, Precisions, Quants
from tradeoffs.plumbing import cli


@dataclass(frozen=True)
class Reads:
    # Not the whole run list: of a method only the first seed is measured.
    models: Annotated[list[str], "run.models"]
    datasets: Annotated[list[str], "run.datasets"]
    methods: Annotated[list[str], "run.methods"]
    precisions: Annotated[Precisions, "run.precisions"]
    quants: Annotated[Quants, "run.quants"]
    seed: int
    cost: Annotated[params.Cost, "evaluate.cost"]
    test: Annotated[int, "evaluate.splits.test"]
    batch_tokens: Annotated[int | Literal["auto"], "evaluate.batch_tokens"]
    reference_dtype: Annotated[Dtype, "evaluate.reference_dtype"]


def main() -> None:
    cfg = params.load(Reads)
    run = params.Run(cfg.models, cfg.datasets, cfg.methods, cfg.precisions, cfg.quants, seeds=[])
    remove_leftovers(run)
    some = things(run)
    answered = min(cfg.cost.latency_prompts, cfg.test)  # latency needs the length of each answer
    given = {pair: asked(pair, answered, cfg.cost.scored_sequences) for pair in pairs(run)}
    how = rounds.How(cfg.cost, cfg.batch_tokens, cfg.reference_dtype, cfg.seed)
    alike = sum(len(thing.members) for thing in some)
    print(f"{alike} variants are {len(some)} things, of {cfg.cost.rounds} rounds each, by {cores.usable()} threads")
    found = rounds.measure(some, given, how, gpu())
    print(f"measured on {', '.join(sorted({one['device'] for one in found[0]}))}")
    rounds.write(some, given, found, hardware=machine.used(), busy=BUSY)
    rounds.finish()


def remove_leftovers(run: params.Run) -> None:
    """What longer run lists left in the folders that this stage depends on would be taken for a change of them."""
    for wanted in ([pair.tokens for pair in pairs(run)], [variant.facts for variant in variants(run)]):
        files.remove_leftovers(wanted, only_kept_by_dvc=True)


if __name__ == "__main__":
    cli.run(main)
