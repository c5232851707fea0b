"""Which of two answers people found better: kept line by line in a file that is theirs, and counted for each pair."""

import fcntl
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scipy.special import betaincinv

from tradeoffs.common.texts import harmless
from tradeoffs.plumbing.errors import UserError

VOTES = Path("data/votes.jsonl")
LEVEL = 0.95
LEFT, RIGHT, TIE = "left", "right", "tie"
ROLES = ("system", "user", "assistant")
NAME = re.compile(r"\w+(-\w+){3,4}")  # of a variant
SHOWN = 5  # damaged lines that a message names


@dataclass(frozen=True)
class Vote:
    """One judgement. `left` and `right` are where the answers stood; `blind`: without the names in sight."""

    left: str
    right: str
    better: str
    blind: bool


def record(vote: dict[str, Any], known: Collection[str]) -> None:
    """Adds one to the file, whole or not at all, and returns when it is on the disk.

    `messages` is the conversation that was answered; `messages_right`, if it is there, that of the right side, whose
    earlier answers were others; `known`: names of variants. Raises UserError for what is no vote, and where it cannot
    be written.
    """
    if problem := _problem(vote) or _unknown(vote, known):
        raise UserError(f"no vote: {problem}")
    keys = ("left", "right", "better", "blind", "messages", "messages_right", "answers")
    kept = {"at": datetime.now(UTC).isoformat(timespec="seconds")} | {key: vote[key] for key in keys if key in vote}
    try:
        VOTES.parent.mkdir(exist_ok=True)
        _append(json.dumps(kept).encode() + b"\n")
    except OSError as error:
        raise UserError(f"{VOTES}: {error.strerror}: the vote is not kept") from error


def _append(line: bytes) -> None:
    """All of it or nothing. Readable by its owner alone: people write in it what they like."""
    new = not VOTES.exists()
    file = os.open(VOTES, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        _lock(file, fcntl.LOCK_EX)
        before = os.fstat(file).st_size
        # A line that a kill or an editor has left without its end must not take this one with it.
        ended = not before or os.pread(file, 1, before - 1) == b"\n"
        line = line if ended else b"\n" + line
        try:
            left = line
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, before)
            raise
    finally:
        os.close(file)
    if new:
        folder = os.open(VOTES.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # that there is such a file
        finally:
            os.close(folder)


def _lock(file: int, kind: int) -> None:
    """Until the file is closed."""
    with suppress(OSError):  # a file system that has no locks
        fcntl.flock(file, kind)


def votes() -> list[Vote]:
    """All that were cast; none where there is no file. Raises UserError that names the lines that are damaged."""
    found, damaged = [], []
    for number, read in _lines():
        if isinstance(read, Vote):
            found.append(read)
        else:
            damaged.append(f"line {number}: {read}")
    if damaged:
        more = [f"and {len(damaged) - SHOWN} more"] if len(damaged) > SHOWN else []
        raise UserError(
            f"{VOTES}: {'; '.join([*damaged[:SHOWN], *more])}; mend or delete what is damaged: until then nothing is "
            "counted"
        )
    return found


def _lines() -> Iterator[tuple[int, Vote | str]]:
    """Of each line its number, and the vote or what is wrong with it; empty ones are passed over."""
    try:
        with VOTES.open("rb") as file:
            _lock(file.fileno(), fcntl.LOCK_SH)
            text = file.read()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{VOTES}: {error.strerror}: the votes cannot be read") from error
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            read = json.loads(line, object_pairs_hook=_once)
        except _TwiceError:
            yield number, "a key stands twice in an object"
            continue
        except (ValueError, RecursionError):
            yield number, "no JSON, or not all of it"
            continue
        yield number, _problem(read) or Vote(*(read[key] for key in (LEFT, RIGHT, "better", "blind")))


def _problem(vote: Any) -> str | None:
    """What is wrong with one, if anything is. A name need not be of the run list: that changes."""
    if not isinstance(vote, dict):
        return "it is no object"
    for side in (LEFT, RIGHT):
        if not (isinstance(name := vote.get(side), str) and NAME.fullmatch(name)):
            return f"{side} is {_short(name)}, no name of a variant"
    if vote[LEFT] == vote[RIGHT]:
        return f"both sides are {vote[LEFT]}"
    if vote.get("better") not in (LEFT, RIGHT, TIE):
        return f"better is {_short(vote.get('better'))}, not {LEFT}, {RIGHT} or {TIE}"
    if not isinstance(vote.get("blind"), bool):
        return f"blind is {_short(vote.get('blind'))}, not true or false"
    for key in ("messages", *(["messages_right"] if "messages_right" in vote else [])):
        if not (isinstance(vote.get(key), list) and all(map(_is_message, vote[key]))):
            return f"{key} is no list of messages, each a role and a content"
    answers = vote.get("answers")
    if not (isinstance(answers, list) and len(answers) == 2 and all(isinstance(one, str) for one in answers)):
        return "answers are not two texts"
    return None


def _unknown(vote: dict[str, Any], known: Collection[str]) -> str | None:
    names = [f"{side} is {vote[side]}, no variant of the run list" for side in (LEFT, RIGHT) if vote[side] not in known]
    return names[0][:200] if names else None


class _TwiceError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _TwiceError
    return found


def _is_message(found: Any) -> bool:
    return isinstance(found, dict) and found.get("role") in ROLES and isinstance(found.get("content"), str)


def _short(value: Any) -> str:
    return harmless(json.dumps(value, default=str))[:60]


def summary() -> list[dict[str, Any]]:
    """Of all votes; see `counted`. Raises UserError as `votes` does."""
    return counted(votes())


def counted(cast: Sequence[Vote]) -> list[dict[str, Any]]:
    """Of each pair that was voted on, by name: how often `variant` was better than `other`, worse, or neither.

    `win_rate` is of the votes that name a winner: a tie is counted, but is for nobody. There is none where all were
    ties.
    """
    pairs: dict[tuple[str, str], list[Vote]] = {}
    for vote in cast:
        first, second = sorted((vote.left, vote.right))
        pairs.setdefault((first, second), []).append(vote)
    return [_counted(*pair, pairs[pair]) for pair in sorted(pairs)]


def _counted(variant: str, other: str, cast: list[Vote]) -> dict[str, Any]:
    ties = sum(vote.better == TIE for vote in cast)
    wins = sum(vote.better == (LEFT if vote.left == variant else RIGHT) for vote in cast)
    losses = len(cast) - ties - wins
    found = {"variant": variant, "other": other, "votes": len(cast), "wins": wins, "losses": losses, "ties": ties}
    found["blind"] = sum(vote.blind for vote in cast)
    return found | (rate(wins, losses) if wins + losses else {})


def rate(wins: int, losses: int) -> dict[str, float]:
    """The share of wins with its exact 95 % interval, at six significant digits: Clopper and Pearson 1934."""
    tail = (1 - LEVEL) / 2
    low = float(betaincinv(wins, losses + 1, tail)) if wins else 0.0
    high = float(betaincinv(wins + 1, losses, 1 - tail)) if losses else 1.0
    found = {"win_rate": wins / (wins + losses), "win_rate_low": low, "win_rate_high": high}
    return {name: float(f"{value:.6g}") for name, value in found.items()}
