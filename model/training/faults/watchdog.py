"""End a process that hangs, with the stacks of all threads."""

import faulthandler
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

EXIT_CODE = 70
"""EX_SOFTWARE."""


class Watchdog:
    """Ends the process where `beat` was not called for `timeout_s`, after writing the stacks of all threads to `path`.

    A rank that waits forever in a collective cannot be woken, so it is ended; torchrun and Ray Train then end the
    others. If the interpreter itself is stuck, in a C call that holds its lock, faulthandler's own thread does the same
    after twice the time.
    """

    def __init__(self, timeout_s: float, path: Path, *, name: str = "this process") -> None:
        self.timeout_s, self.path, self.name = timeout_s, path, name
        self._last = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def beat(self) -> None:
        """Report progress."""
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("w", encoding="utf-8")
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        # Empty: a file that remains after a run has stacks.
        self.path.unlink(missing_ok=True)

    def _watch(self) -> None:
        while not self._done.is_set():
            # Postponed for as long as this thread gets the interpreter's lock.
            faulthandler.dump_traceback_later(2 * self.timeout_s, exit=True, file=self._file)
            left = self._last + self.timeout_s - time.monotonic()
            if left <= 0:
                message = (
                    f"{self.name} made no step for {self.timeout_s:g} s: it is ended; the stacks are in {self.path}; "
                    "where a step takes so long, raise pretrain.watchdog_s\n"
                )
                for stream in (self._file, sys.__stderr__):
                    if stream is not None:
                        stream.write(message)
                        stream.flush()
                        faulthandler.dump_traceback(stream, all_threads=True)
                os._exit(EXIT_CODE)
            self._done.wait(min(left, self.timeout_s / 4))
