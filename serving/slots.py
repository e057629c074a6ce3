"""How long an attempt waits for a slot of its engine, as the gateway sees it.

An engine computes `max_batch` requests together, in the order of their arrival, and reports the time in its queue with
the answer. For an attempt that ends without one, the gateway counts: an attempt is queued while as many earlier ones
of its version are unfinished, and the version gives events. Behind an engine that hangs nothing moves, so the wait is
the version's own.
"""

from collections import defaultdict
from dataclasses import dataclass


@dataclass(eq=False)
class Place:
    """One attempt's place in the line for a slot. Times are seconds of a monotonic clock."""

    version: str
    entered: float
    began: float | None = None
    """When a slot was free for it."""


class Slots:
    """The lines of all versions, each for `size` slots."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lines: defaultdict[str, list[Place]] = defaultdict(list)
        self._last_event: dict[str, float] = {}

    def enter(self, version: str, now: float) -> Place:
        """Return the last place in the version's line."""
        line = self._lines[version]
        place = Place(version, now, now if len(line) < self._size else None)
        line.append(place)
        return place

    def is_free(self, version: str) -> bool:
        """Return whether an attempt of the version would begin at once."""
        return len(self._lines[version]) < self._size

    def leave(self, place: Place, now: float) -> None:
        """Free the place, and give its slot to the next in line."""
        line = self._lines[place.version]
        line.remove(place)
        for following in line[: self._size]:
            following.began = now if following.began is None else following.began

    def note_event(self, version: str, now: float) -> None:
        """Note an event of any attempt of the version."""
        self._last_event[version] = now

    def queue_ms(self, place: Place, now: float) -> float:
        """Return the time in the queue until `now`, or until the version's last event."""
        ended = min(now if place.began is None else place.began, self._last_event.get(place.version, place.entered))
        return 1e3 * max(0.0, ended - place.entered)
