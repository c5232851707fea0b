"""What the command line of a chat may say, and what of it goes together."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tradeoffs.chat.terminal.conversation import Settings
from tradeoffs.plumbing import cli
from tradeoffs.plumbing.errors import UserError

HOST = "127.0.0.1"
SIDES = 2  # most variants that answer in a terminal


def parser() -> argparse.ArgumentParser:
    found = cli.parser()
    found.add_argument("names", nargs="*", metavar="VARIANT", help="one, or two to compare; none: the recommended one")
    talking = found.add_argument_group("in the terminal, or through a pipe")
    talking.add_argument("--stateless", action="store_true", help="each question alone, as in an evaluation")
    talking.add_argument(
        "--window", type=cli.count, metavar="N", help="keep the last N questions (default: as many as fit the context)"
    )
    talking.add_argument("--system", metavar="TEXT", help="a system message, which stays")
    talking.add_argument(
        "--temperature", type=_from_0, metavar="T", default=0.0, help="of a draw of tokens; 0: the likeliest"
    )
    talking.add_argument(
        "--top-p", type=_share, metavar="P", default=1.0, help="of it: of the likeliest that have P together"
    )
    talking.add_argument("--seed", type=_seed, metavar="S", help="of it: the same seed, the same answer")
    talking.add_argument(
        "--max-tokens", type=cli.count, metavar="N", help="of an answer (default: as many as evaluated ones may have)"
    )
    talking.add_argument("--together", action="store_true", help="two answer at a time, not one after the other")
    talking.add_argument(
        "--text",
        dest="plain",
        action=argparse.BooleanOptionalAction,
        help="complete what is typed as it is, without the prompt template (default: where it was evaluated so, on "
        "a data set of plain text)",
    )
    talking.add_argument("--json", action="store_true", help="one JSON object per answer")
    talking.add_argument("--history", type=Path, metavar="FILE", help="keep typed lines there, for the next time")
    serving = found.add_argument_group("as a server")
    serving.add_argument(
        "--serve", action="store_true", help="a page in the browser, and OpenAI's API; prints one address with a token"
    )
    serving.add_argument("--host", metavar="ADDRESS", help=f"default: {HOST}; another one needs --token-file")
    serving.add_argument("--port", type=_port, metavar="N", help="default: 0, any that is free")
    serving.add_argument("--token-file", type=Path, metavar="FILE", help="holds the token (default: a new one)")
    found.add_argument(
        "--max-memory",
        type=_above_0,
        metavar="MB",
        help="of all models together; those that were not used for longest leave (default: a share of the machine's)",
    )
    return found


def settings(given: Mapping[str, Any]) -> Settings:
    """How a chat asks. Raises UserError for what does not go together."""
    if given["stateless"] and given["window"] is not None:
        raise UserError("--stateless is a window of one question: give it, or --window, not both")
    if not given["temperature"] and (given["seed"] is not None or given["top_p"] < 1):
        raise UserError("--seed and --top-p are for tokens that are drawn; give a --temperature above 0, too")
    return Settings(
        given["system"] or None,
        1 if given["stateless"] else given["window"],
        given["temperature"],
        given["top_p"],
        given["seed"],
        given["max_tokens"],
        given["plain"],
        given["together"],
    )


def check(names: Sequence[str], serve: bool, given: Mapping[str, Any]) -> None:
    """Raises UserError for options of the terminal beside --serve, and the other way round."""
    plain = parser()
    alone = {"host", "port", "token_file"}
    talking = set(given) - alone
    wrong = [name for name in (talking if serve else alone) if given[name] != plain.get_default(name)]
    flags = {action.dest: action.option_strings[0] for action in plain._actions if action.option_strings}
    if wrong and serve:
        raise UserError(f"{flags[min(wrong)]}: for a chat in the terminal; with --serve each request says it")
    if wrong:
        raise UserError(f"{flags[min(wrong)]}: for a server; add --serve")
    if not serve and len(names) > SIDES:
        raise UserError(f"{len(names)} variants: in the terminal one answers, or two; all can with --serve")


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not abs(found) < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return found


def _from_0(text: str) -> float:
    if (found := _number(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is below 0")
    return found


def _above_0(text: str) -> float:
    if (found := _number(text)) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return found


def _share(text: str) -> float:
    if not 0 < (found := _number(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no part of a whole, above 0 and up to 1")
    return found


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text!r} is no port, from 0 to 65535")
    return int(text)
