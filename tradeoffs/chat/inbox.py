"""The events of one answer between the model that says them and whoever reads them, who may be slow."""

import asyncio
from collections.abc import Sequence

from tradeoffs.chat.messages import Begun, Ended, Event, Failed, Queued, Said

MOST = 64  # events that wait; more of an answer become one


class Inbox:
    """Holds at most MOST events and the text of one answer, however long nobody reads. `put` never waits."""

    def __init__(self) -> None:
        self.begun = False  # the model works on it
        self.ended = False  # nothing follows
        self._events: list[Event] = []
        self._reader: asyncio.Future[None] | None = None

    def put(self, event: Event) -> None:
        kind, waiting = type(event), self._events
        if self.ended:
            return
        if kind is not Said:
            self.begun = self.begun or kind is Begun
            self.ended = kind is Ended or kind is Failed
            if waiting and kind is type(waiting[-1]) is Queued:
                waiting.pop()  # another place in the queue
        waiting.append(event)
        if len(waiting) > MOST:
            self._events = merged(waiting)
        if self._reader and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> list[Event]:
        """All that wait, at least one."""
        while not self._events:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        found, self._events = self._events, []
        return found if len(found) == 1 else merged(found)


def merged(events: Sequence[Event]) -> list[Event]:
    """The same with what was said at a stretch as one event."""
    found, stretch = list[Event](), list[Said]()
    for event in [*events, None]:
        if isinstance(event, Said):
            stretch.append(event)
            continue
        if stretch:
            found.append(_one(stretch))
            stretch = []
        if event:
            found.append(event)
    return found


def _one(stretch: list[Said]) -> Said:
    if len(stretch) == 1:
        return stretch[0]
    logprobs = tuple(logprob for said in stretch for logprob in said.logprobs)
    return Said(stretch[-1].id, "".join(said.text for said in stretch), stretch[-1].tokens, logprobs)
