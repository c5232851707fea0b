"""What is asked for and is not there: a TARGET that dvc.yaml lacks, a KEY of -S that params.yaml lacks."""

from collections.abc import Iterator, Sequence

from dvc.utils.hydra import to_hydra_overrides

from tradeoffs.plumbing.errors import near


def no_step(target: str, steps: Sequence[str]) -> str:
    """A message, where `steps` are all names that DVC has for them."""
    stage = target.partition("@")[0]
    of_it = [step for step in steps if step.partition("@")[0] == stage]
    known = of_it or dict.fromkeys(step.partition("@")[0] for step in steps)
    return f"{target}: dvc.yaml has no such stage or step{near(target if of_it else stage, known)}"


def no_keys(changes: Sequence[str], values: object) -> list[str]:
    """A line for each of `changes` (as -S has them) whose key is not among the `values` of params.yaml, though it would
    have to be: all but those that add one."""
    known = list(_keys(values, ""))
    overrides = [one for one in to_hydra_overrides(list(changes)) if not (one.is_add() or one.is_force_add())]
    return [
        f"{one.key_or_group}: params.yaml has no such key{near(one.key_or_group, known)}; a new one is added by "
        f"+{one.key_or_group}=VALUE"
        for one in overrides
        if one.key_or_group not in known
    ]


def _keys(values: object, prefix: str) -> Iterator[str]:
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield f"{prefix}{key}"
        yield from _keys(value, f"{prefix}{key}.")
