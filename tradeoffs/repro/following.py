"""What steps that write to logs say for people while they run: the questions of --print-questions."""

from pathlib import Path

from tradeoffs.common.texts import harmless
from tradeoffs.plumbing.asked import BAR


class Followed:
    """A log while it grows; lines that are shown, each once and whole."""

    def __init__(self, log: Path) -> None:
        self._log, self._read = log, 0

    def lines(self) -> list[str]:
        """Those that have come since this was last asked."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        # Of a line that a progress bar was on before, what stands there in the end.
        lines = (line.rsplit("\r", 1)[-1] for line in whole.decode("utf-8", errors="replace").split("\n"))
        return [harmless(line) for line in lines if line.startswith(BAR.rstrip())]
