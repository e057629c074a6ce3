"""How a long function says how far it is: a callable taking (done, total, note)."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]


class Note(str):
    """A note that has to be said: one that comes soon after must not take its place."""


def no_progress(done: int, total: int, note: str) -> None:
    """The listener of callers that do not listen."""
