"""One comment for each pipeline and base: found again by its marker, updated, never there twice."""

import re
from urllib.parse import quote

from tradeoffs.comment.forges import Forge, TooLongError
from tradeoffs.comment.inert import inert
from tradeoffs.plumbing.errors import UserError

LONGEST = 65_000  # characters: GitHub takes 65,536
SHORTER = (LONGEST, 30_000, 10_000)  # what is tried in turn where a platform takes less
CUT = "\n\n*Cut here, since a comment takes no more; the whole is in the artefact of the job.*\n"
MARKER = re.compile(r"<!-- llm-tradeoffs: [\w.~/%-]{1,300} -->")
FORKED = "\n*Made by a job of a fork, so these are the words of its author.*\n"


def marker(pipeline: str, base: str) -> str:
    """By which the comment of a pipeline (its folder in the repository) against a base is found again.

    A base that is named by its hash or from HEAD is not part of it: another push has another one.
    """
    name = pipeline if re.fullmatch(r"[0-9a-f]{7,64}|(HEAD|@)([~^@].*)?", base) else f"{pipeline}/{base}"
    return f"<!-- llm-tradeoffs: {quote(name, safe='/').replace('--', '-%2D')[:300]} -->"


def marker_of(body: str) -> str:
    """The marker that a comment begins with. Raises UserError if it has none."""
    if not (found := MARKER.match(body)):
        raise UserError(
            "the comment does not begin with its marker; `python -m tradeoffs.comment --out FILE` makes one"
        )
    return found[0]


def cut(body: str, limit: int) -> str:
    """A comment of at most `limit` characters, whole lines, with what was open closed."""
    if len(body) <= limit:
        return body
    kept = body[: limit - len(CUT) - 200]
    kept = kept[: kept.rfind("\n") + 1] or kept
    lines = kept.split("\n")  # whole ones: within a line it is a text that somebody wrote
    left_open = min(lines.count("<details>") - lines.count("</details>"), 10)
    return kept + "\n\n</details>" * left_open + CUT


def defanged(body: str, pictures: str = "") -> str:
    """A comment that anybody may have written, as text that mentions nobody, refers to nothing, and links nowhere.

    Its marker stays, and so do pictures whose address begins with `pictures`. What this project itself writes looks as
    it did. Raises UserError if it has no marker.
    """
    end = len(marker_of(body))
    parts = [body[:end]]
    shown = rf"!\[[\w ,.:-]*\]\({re.escape(pictures)}(?:(?!\.\.)[\w./-])+\)"
    for picture in re.finditer(shown, body, re.ASCII) if pictures else ():
        if picture.start() >= end:
            parts += [inert(body[end : picture.start()]), picture[0]]
            end = picture.end()
    return "".join([*parts, inert(body[end:])])


def post(forge: Forge, body: str) -> str:
    """Puts the comment there; what was done, in words. Raises UserError if the platform does not take it."""
    first = marker_of(body)
    for limit in SHORTER:
        try:
            return _once(forge, first, cut(body, limit))
        except TooLongError:
            continue
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{forge.where}: its API answers in another form ({type(error).__name__}: {error}); is it there?"
            ) from error
    raise UserError(f"{forge.where} takes no comment of {SHORTER[-1]:,} characters")


def _once(forge: Forge, first: str, body: str) -> str:
    """Updates the oldest own comment with the marker, or makes one.

    Two jobs that run at once may each find none and make one: so it is looked again, and all but the oldest removed.
    """
    before = _own(forge, first)
    if before:
        if before[0].body.strip() != body.strip():
            forge.update(before[0].id, body)
        left = before[1:]
    else:
        forge.create(body)
        now = _own(forge, first)
        if now and now[0].body.strip() != body.strip():
            forge.update(now[0].id, body)
        left = now[1:]
    for one in left:
        forge.delete(one.id)
    return f"{forge.where}: comment {'updated' if before else 'posted'}"


def _own(forge: Forge, first: str) -> list:
    return [one for one in forge.mine() if one.body.startswith(first)]
