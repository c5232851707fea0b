"""The text of an answer while it grows."""

from collections.abc import Sequence
from functools import cache, lru_cache

from tokenizers import Tokenizer

UNFINISHED = "\ufffd"  # what a decoder writes for a part of a character
LONG = 32  # tokens without a whole character among them: only then and when


class Text:
    """Tokens in, text out. Special tokens are no text, as in an evaluated answer.

    What is said is never taken back: all of it together is what the tokens decode to at once. Each token costs the
    same, however long the answer is: it is decoded together with the few before it that its text depends on.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self.ids: list[int] = []
        self.stopped = False
        self._said = 0  # characters that were given out
        self._held = ""  # that are certain, but may be the beginning of a stop
        self._window: list[int] = []  # tokens that the next one's text may depend on
        self._known = ""  # text of the first tokens of the window, which is in `_held` or said already
        self._special = _special(tokenizer)
        self._bytes = _has_bytes(tokenizer)

    @property
    def whole(self) -> str:
        """All of it until now, up to the first text that ends it."""
        text = self._decoded(self.ids)
        if self.stopped:
            return text[: self._said]
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text

    def add(self, token: int) -> str:
        """What can be said for certain once this token is there."""
        self.ids.append(token)
        self._held += self._grown(token)
        ends = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:
            self.stopped = True
            return self._say(min(ends))
        return self._say(len(self._held) - max((_overlap(self._held, stop) for stop in self._stops), default=0))

    def rest(self) -> str:
        """What was held back, where no more tokens come; `stopped` if a stop was in it."""
        text, whole = self._decoded(self.ids), self.whole
        self._held = whole[self._said :]
        said = self._say(len(self._held))
        self.stopped = self.stopped or len(whole) < len(text)
        return said

    def piece(self, token: int) -> str:
        """One token by itself, with the space before it, special ones written out."""
        return _piece(self._tokenizer, token)

    def _say(self, count: int) -> str:
        said, self._held = self._held[:count], self._held[count:]
        self._said += count
        return said

    def _grown(self, token: int) -> str:
        """The text that is certain now and was not before."""
        piece = self._tokenizer.id_to_token(token)
        if piece is None or token in self._special:
            return ""
        self._window.append(token)
        # Bytes in a row are a text together, or none of them is: llama's byte fallback.
        if self._bytes and _is_byte(piece):
            return ""
        if len(self._window) > LONG and len(self._window) % LONG:
            return ""
        text = self._decoded(self._window)
        if text.endswith(UNFINISHED) or len(text) <= len(self._known):
            return ""
        new = text[len(self._known) :]
        # A token's text depends on its neighbour: most decoders drop the space before the first of all.
        del self._window[:-1]
        self._known = self._decoded(self._window)
        return new

    def _decoded(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of `stop`."""
    longest = min(len(stop) - 1, len(text))
    return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)


@cache
def _special(tokenizer: Tokenizer) -> frozenset[int]:
    return frozenset(at for at, token in tokenizer.get_added_tokens_decoder().items() if token.special)


@lru_cache(maxsize=4096)
def _piece(tokenizer: Tokenizer, token: int) -> str:
    # Most decoders drop the space of the first token, so another one stands before it.
    before = tokenizer.encode("a", add_special_tokens=False).ids[-1:]
    alone, both = (tokenizer.decode(ids, skip_special_tokens=False) for ids in (before, [*before, token]))
    piece: str = both[len(alone) :]
    return piece


@cache
def _has_bytes(tokenizer: Tokenizer) -> bool:
    """Whether its decoder reads `<0x41>` as a byte."""
    return tokenizer.decoder is not None and tokenizer.decoder.decode(["<0x41>"]) == "A"


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
