"""The answers to the user's own prompts, side by side; nothing is expected of them, so nothing is scored."""

from collections.abc import Sequence

from tradeoffs.common.cells import Pair, Variant
from tradeoffs.report.formatting import MANY, Lines, escaped, heading, name_of, short, table
from tradeoffs.report.rendering import render
from tradeoffs.results import prompted
from tradeoffs.results.results import Results


def section(results: Results, drawn: Sequence[str]) -> str:
    """Nothing where params.yaml has no prompts."""
    asked = [group for group in results.groups() if prompted.prompts(results, group)]
    groups = [{"title": heading(group), "prompts": _prompts(results, group)} for group in asked]
    return render("prompts.md.j2", drawn, groups=groups) if groups else ""


def _prompts(results: Results, group: Pair) -> list[dict[str, object]]:
    """Each prompt with a table of all answers; of many, with one of the models as trained and one for each method."""
    everything = results.of(group)
    few = len(everything) <= MANY
    rungs = {} if few else {method: results.of(group, method)[1:] for method in results.run.methods}
    return [
        {
            "text": escaped(prompt),
            "answers": _answers(results, everything if few else results.as_trained(group), item),
            "formats": {method: _answers(results, mine, item) for method, mine in rungs.items() if mine},
        }
        for item, prompt in prompted.prompts(results, group).items()
    ]


def _answers(results: Results, variants: list[Variant], item: str) -> Lines:
    rows, found = [], {variant: prompted.answers(results, variant)[item] for variant in variants}
    on_gpu = any(answer.gpu_mb is not None for answer in found.values())
    for variant, answer in found.items():
        rows.append(
            [
                name_of(variant),
                escaped(answer.text) or "*(empty)*",
                str(answer.tokens),
                short(answer.latency_seconds),
                short(answer.tokens_per_second),
                *([short(answer.gpu_mb)] if on_gpu else []),
                "" if answer.cosine_to_base is None else f"{answer.cosine_to_base:.3f}",
            ]
        )
    memory = ["GPU memory MB"] if on_gpu else []  # above the weights
    header = ["variant", "answer", "tokens", "latency s", "tokens/s", *memory, "cosine to base"]
    return table(header, rows, texts=["answer"])
