"""From the engine's thread to those who wait for answers."""

import asyncio
from collections.abc import Callable
from itertools import groupby

from sluice.serving.engine.request import GenerationError, TokenEvent
from sluice.serving.engine.scheduler import Sequence

Delivery = Callable[[TokenEvent | GenerationError], None]


class Outbox:
    """Events of one step, handed over together.

    Waking an event loop costs a system call and a change of threads, more than a small model needs for a token: so it
    is woken once a step, not once a request.
    """

    def __init__(self) -> None:
        self._events: list[tuple[Sequence, TokenEvent | GenerationError]] = []

    def add(self, sequence: Sequence, event: TokenEvent | GenerationError) -> None:
        """Keeps an event until `send`."""
        self._events.append((sequence, event))

    def send(self) -> None:
        """Delivers what was kept, in order."""
        events, self._events = self._events, []
        for _, group in groupby(events, key=lambda entry: id(entry[0].loop)):
            batch = list(group)
            loop = batch[0][0].loop
            if loop is None:
                _deliver(batch)
            else:
                _wake(loop, batch)


def _deliver(batch: list[tuple[Sequence, TokenEvent | GenerationError]]) -> None:
    for sequence, event in batch:
        sequence.deliver(event)


def _wake(loop: asyncio.AbstractEventLoop, batch: list[tuple[Sequence, TokenEvent | GenerationError]]) -> None:
    try:
        loop.call_soon_threadsafe(_deliver, batch)
    except RuntimeError:
        if not loop.is_closed():  # a loop that is closed has nobody left to tell
            raise
