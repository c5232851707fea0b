"""What `decide` asks for must be there: metrics by their names, each with a better end, and margins to judge by."""

from collections.abc import Iterator, Sequence

from tradeoffs import metrics
from tradeoffs.params.schema import Decide
from tradeoffs.params.tasks import of_a_task
from tradeoffs.plumbing.errors import near

# What the tables of the report judge by, so that each needs a margin.
JUDGED = ("f1", "exact_match", "loss", "bits_per_byte", "mmlu_accuracy")


def decide_checks(decide: Decide, tasks: Sequence[str]) -> Iterator[str]:
    """Names of metrics, all of which have a better end and a margin; what decides is there for every variant.

    What may be a metric of a task is looked at where the results are: see results.tasks.
    """
    full = _with_a_better_end()
    everywhere = [name for name in full if not name.startswith("general_") and metrics.metric(name)[1].kind != "ladder"]
    bare = [metric.name for metric in metrics.every() if metric.better]
    known = ["auto", *everywhere]
    if of_a_task(decide.metric, tasks):
        if decide.metric not in decide.margins:
            yield f"decide.metric: {decide.metric} has no margin; give decide.margins.{decide.metric}"
    elif decide.metric not in known and decide.metric in full:
        yield f"decide.metric: {decide.metric} is not measured of every variant; name a metric that is, or auto"
    elif decide.metric not in known:
        yield f"decide.metric: unknown metric {decide.metric!r}{near(decide.metric, known)}"
    for name in decide.margins:
        if name not in full and name not in bare and not of_a_task(name, tasks):
            yield f"decide.margins.{name}: unknown metric{near(name, [*bare, *full])}"
    for name in decide.guards:
        if of_a_task(name, tasks):
            if name not in decide.margins:
                yield f"decide.guards.{name}: {name} has no margin; give decide.margins.{name}"
        elif name not in full:
            yield f"decide.guards.{name}: unknown metric{near(name, full)}"
    for name in JUDGED:
        if name not in decide.margins:
            yield f"decide.margins.{name}: missing; the report judges by it"
    asked = [("metric", decide.metric)] if decide.metric in everywhere else []
    for where, name in [*asked, *((f"guards.{name}", name) for name in decide.guards)]:
        if name in full and not {name, metrics.metric(name)[1].name} & set(decide.margins):
            yield f"decide.{where}: {name} has no margin; give decide.margins.{metrics.metric(name)[1].name}"

    for name in decide.limits.max_loss_of or {}:
        if name not in (known := limitable()) and not of_a_task(name, tasks):
            yield f"decide.limits.max_loss_of.{name}: no metric that can have a limit{near(name, known)}"


def limitable() -> list[str]:
    """Metrics of which a loss can be limited: what is measured of every variant, or of every training.

    Not what compares a format with its model as trained, which the latter has none of.
    """
    return [name for name in _with_a_better_end() if metrics.metric(name)[1].kind != "ladder"]


def _with_a_better_end() -> list[str]:
    found = [*metrics.names("quality"), *metrics.names("summary")]
    return [name for name in found if metrics.metric(name)[1].better]
