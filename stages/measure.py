"""What every variant costs on this machine: speed and memory, measured alone and in interleaved rounds; on each of
run.devices.

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
from tradeoffs.measure import devices, rounds
from tradeoffs.measure.processes import gpu
from tradeoffs.measure.things import asked, things
from tradeoffs.measure.waiting import BUSY
from tradeoffs.params.fields import Devices, Dtype, Precisions, Quants
from tradeoffs.plumbing import cli


@dataclass(frozen=True)
class Reads:
    # Not the whole run list: of a method only the first seed is measured.
    models: Annotated[list[str], "run.models"]
    datasets: Annotated[list[str], "run.datasets"]
    methods: Annotated[list[str], "run.methods"]
    precisions: Annotated[Precisions, "run.precisions"]
    quants: Annotated[Quants, "run.quants"]
    devices: Annotated[Devices, "run.devices"]
    seed: int
    cost: Annotated[params.Cost, "evaluate.cost"]
    test: Annotated[int, "evaluate.splits.test"]
    batch_tokens: Annotated[int | Literal["auto"], "evaluate.batch_tokens"]
    reference_dtype: Annotated[Dtype, "evaluate.reference_dtype"]


def main() -> None:
    cfg = params.load(Reads)
    run = params.Run(cfg.models, cfg.datasets, cfg.methods, cfg.precisions, cfg.quants, seeds=[], devices=cfg.devices)
    remove_leftovers(run)
    there = gpu()
    some, left_out = devices.on_each(things(run), cfg.devices, there)
    for device, why in left_out.items():
        print(f"note: no format of llama.cpp is measured on {device}: {why}")
    answered = min(cfg.cost.latency_prompts, cfg.test)  # latency needs the length of each answer
    given = {pair: asked(pair, answered, cfg.cost.scored_sequences) for pair in pairs(run)}
    how = rounds.How(cfg.cost, cfg.batch_tokens, cfg.reference_dtype, cfg.seed)
    alike = len({variant for thing in some for variant in thing.members})
    print(f"{alike} variants are {len(some)} things, of {cfg.cost.rounds} rounds each, by {cores.usable()} threads")
    found = rounds.measure(some, given, how, there)
    print(f"measured on {', '.join(sorted({one['device'] for one in found[0]}))}")
    rounds.write(some, given, found, hardware=machine.used(), busy=BUSY, left_out=left_out)
    rounds.finish()


def remove_leftovers(run: params.Run) -> None:
    """What longer run lists left in the folders that this stage depends on would be taken for a change of them."""
    for wanted in ([pair.tokens for pair in pairs(run)], [variant.facts for variant in variants(run)]):
        files.remove_leftovers(wanted, only_kept_by_dvc=True)


if __name__ == "__main__":
    cli.run(main)
