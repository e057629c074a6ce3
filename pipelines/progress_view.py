"""Terminal view of a step's progress, wherever the step runs: its processes append to a file that is tailed here."""

import threading
import time
from contextlib import suppress
from pathlib import Path

from sluice.components.events import EventProgress, Tail
from sluice.pipelines.terminal import View

_POLL_S = 0.1


class Followed:
    """Shows a step in `view` while it lasts. As a context it returns the step's `Progress`.

    `events` has to lie where all processes of the step can write.
    """

    def __init__(self, step: str, events: Path, view: View) -> None:
        self._step, self._events, self._view = step, events, view
        self._tail, self._ended = Tail(events), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="followed", daemon=True)

    def __enter__(self) -> EventProgress:
        self._events.unlink(missing_ok=True)
        self._say("start")
        self._thread.start()
        return EventProgress(self._step, str(self._events))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        # If the reader has gone, the next print fails; the step keeps its result.
        with suppress(BrokenPipeError):
            self._show()
            self._say("failed" if kind else "done")
        with suppress(BrokenPipeError):
            self._view.close()
        self._events.unlink(missing_ok=True)

    def _follow(self) -> None:
        with suppress(BrokenPipeError):
            while not self._ended.wait(_POLL_S):
                self._show()

    def _show(self) -> None:
        for event in self._tail.read():
            self._view.show(event)

    def _say(self, kind: str) -> None:
        self._view.show({"step": self._step, "kind": kind, "time": time.time()})
