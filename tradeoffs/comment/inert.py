"""What GitHub and GitLab make more of than text: mentions, references, links, commands, drawn blocks."""

import re

NOTHING = "\u200b"  # a space without width: what is on both sides of it is no longer one word
# Of each what is broken is its end. GitHub has @user, #1, GH-1, hashes of commits; GitLab as well !1, ~label, %1, &1,
# $1, ^alert, %{variable}, [issue:1], [[page]], *iteration:1, and a command such as /merge first on a line.
_BROKEN = (
    re.compile(r"@(?=\w)|[#!~%$^](?=[\w\"'{])"),
    re.compile(r"&(?!(?:lt|gt|amp|#124);)(?=[#\w\"'])"),
    re.compile(r"\b[Gg][Hh](?=-\d)"),
    re.compile(r"(?<!\S)/(?=\w)"),
    re.compile(r"(?<=[:\\])(?=//)"),
    re.compile(r"\bwww(?=\.)", re.IGNORECASE),
    re.compile(r"\](?=[(:\[])|\[(?=[!\[]|[a-z_]+:)|\*(?=iteration:)"),  # `> [!NOTE]` is a box
    re.compile(r"<(?!/?(?:details|summary|code|br)>)(?=[/!?a-zA-Z])"),
    re.compile(r"\\(?=[a-zA-Z])"),  # a command in a formula, \href among them
    re.compile(r"``(?=`)|~~(?=~)"),
)
# The digits behind a decimal point are a number's. What is left of a hash in pieces of six is too short for one.
_HASH = re.compile(r"(?<![^\W_])(?!(?<=\d\.)\d+(?![^\W_]))[0-9a-f]{7,}(?![^\W_])", re.IGNORECASE)
_PIECE = re.compile(r".{6}(?=.)")


def inert(text: str) -> str:
    """The same to a reader: it mentions nobody, refers to nothing, links nowhere and commands nothing.

    Markdown stays, and so do the elements that a comment of this project has; of other elements nothing is left but
    their text. Texts in which those too are text are `texts.said` and `texts.shown`.
    """
    text = _HASH.sub(lambda found: _PIECE.sub(rf"\g<0>{NOTHING}", found[0]), text)
    for pattern in _BROKEN:
        text = pattern.sub(rf"\g<0>{NOTHING}", text)
    return text
