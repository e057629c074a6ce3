"""Delivery of events from the engine's thread to the waiting requests."""

from itertools import groupby

from sluice.serving.engine.request import GenerationError, TokenEvent
from sluice.serving.engine.sequence import Sequence

SequenceEvent = tuple[Sequence, TokenEvent | GenerationError]


class Outbox:
    """Events of one step, delivered together.

    Waking an event loop costs a system call and a thread switch, more than a small model needs for a token, so each
    loop is woken once per step and not once per request.
    """

    def __init__(self) -> None:
        self._events: list[SequenceEvent] = []

    def add(self, sequence: Sequence, event: TokenEvent | GenerationError) -> None:
        """Keep an event until `send`."""
        self._events.append((sequence, event))

    def send(self) -> None:
        """Deliver the kept events in order."""
        events, self._events = self._events, []
        for _, group in groupby(events, key=lambda entry: id(entry[0].loop)):
            batch = list(group)
            loop = batch[0][0].loop
            if loop is None:
                _deliver(batch)
                continue
            try:
                loop.call_soon_threadsafe(_deliver, batch)
            except RuntimeError:
                if not loop.is_closed():  # a closed loop has no receivers left
                    raise


def _deliver(batch: list[SequenceEvent]) -> None:
    for sequence, event in batch:
        sequence.deliver(event)
