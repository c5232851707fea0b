"""The text of an answer while it grows."""

from collections.abc import Sequence

from tokenizers import Tokenizer

UNFINISHED = "\ufffd"  # what a decoder writes for a part of a character


class Text:
    """Tokens in, text out. Special tokens are no text, as in an evaluated answer."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self.ids: list[int] = []
        self._said = 0  # characters of `whole` that were given out
        self.stopped = False

    @property
    def whole(self) -> str:
        """All of it until now, up to the first text that ends it."""
        text: str = self._tokenizer.decode(self.ids, skip_special_tokens=True)
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text

    def add(self, token: int) -> str:
        """What can be said for certain once this token is there."""
        self.ids.append(token)
        text: str = self._tokenizer.decode(self.ids, skip_special_tokens=True)
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            return self._up_to(text[: min(ends)])
        if text.endswith(UNFINISHED):
            return ""
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        return self._up_to(text[: len(text) - held])

    def piece(self, token: int) -> str:
        """One token by itself, special ones written out."""
        piece: str = self._tokenizer.decode([token], skip_special_tokens=False)
        return piece

    def rest(self) -> str:
        """What was held back."""
        return self._up_to(self.whole)

    def _up_to(self, text: str) -> str:
        new = text[self._said :]
        self._said = max(self._said, len(text))
        return new


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of `stop`."""
    return next((count for count in range(len(stop) - 1, 0, -1) if text.endswith(stop[:count])), 0)
