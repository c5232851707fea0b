"""Under which licences an artefact stands: that of its base and those of the data it learned from."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tradeoffs.common.texts import on_a_line
from tradeoffs.export.chosen import Chosen

# Identifiers of the hub that allow to pass on what is made, with no more than a notice; of all others the terms must be
# read by who publishes.
PERMISSIVE = re.compile(
    r"afl-3\.0|apache-2\.0|artistic-2\.0|bsd(-[23]-clause(-clear)?)?|bsl-1\.0|cc-by-(2\.[05]|[34]\.0)|cc0-1\.0|"
    r"cdla-permissive-[12]\.0|ecl-2\.0|isc|mit|ms-pl|ncsa|odc-by|pddl|postgresql|unlicense|wtfpl|zlib"
)
# Others that the hub knows by name; what is none of these is `other` to it.
KNOWN = re.compile(
    r"[al]?gpl(-[23]\.[01])?|gfdl|cc|cc-by-(nc-)?(nd-|sa-)?[234]\.0|cdla-sharing-1\.0|c-uda|e[up]+l-[12]\.[012]|"
    r"llama(2|3|3\.[123]|4)|gemma|mpl-2\.0|odbl|ofl-1\.1|osl-3\.0|(bigscience-|bigcode-|creativeml-)?openrail(-m)?|"
    r"openrail\+\+|bigscience-bloom-rail-1\.0|other"
)


@dataclass(frozen=True)
class Source:
    """What an artefact is made of. `own`: made by this project's code, so nobody else has a say in it."""

    what: str  # base model, data set
    name: str
    kind: str  # of the hub: model, dataset
    licence: str | None
    hub: str | None = None
    revision: str | None = None
    own: bool = False

    @property
    def said(self) -> str:
        if self.own:
            return "made by this project's code"
        return on_a_line(self.licence) if self.licence else "none known"

    @property
    def permissive(self) -> bool:
        return self.own or bool(PERMISSIVE.fullmatch((self.licence or "").strip().lower()))

    @property
    def title(self) -> str:
        return f"{self.what} {self.hub or self.name}"


@dataclass(frozen=True)
class Terms:
    """How something is published: what it is made of, under which licence (None: that of the base), by whom, where."""

    sources: list[Source]
    licence: str | None = None
    author: str | None = None
    repo: str | None = None

    @property
    def stated(self) -> str:
        """The licence of what is published; empty where nobody has said which."""
        return (self.licence or self.sources[0].licence or "").strip()


def sources(chosen: Chosen) -> list[Source]:
    """The base and, where something was trained, the data set."""
    model, dataset = chosen.model, chosen.dataset
    commit = chosen.base.get("commit") if model.hub else None
    found = [
        Source("base model", chosen.variant.model, "model", model.licence, model.hub, commit, bool(model.generate)),
    ]
    if chosen.method.trains:
        own = bool(dataset.generate)
        revision = dataset.revision if dataset.hub else None
        found.append(Source("data set", chosen.variant.dataset, "dataset", dataset.licence, dataset.hub, revision, own))
    return found


def unclear(found: list[Source]) -> Iterator[str]:
    """A line for each source whose licence does not plainly allow to pass on what is made of it."""
    for source in found:
        if not source.permissive:
            yield f"{source.title}: licence {source.said}"


def texts(folder: Path) -> list[str]:
    """Names of the files of a checkpoint that hold its licence."""
    return sorted(
        path.name for pattern in ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*") for path in folder.glob(pattern)
    )


def for_card(terms: Terms) -> dict[str, str]:
    """The card's entry of the licence, as the hub knows it; nothing where none is stated."""
    licence = terms.stated
    if not licence:
        return {}
    if any(names.fullmatch(licence.lower()) for names in (PERMISSIVE, KNOWN)):
        return {"license": licence.lower()}
    return {"license": "other", "license_name": on_a_line(licence)}
