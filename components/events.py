"""Events of a running step, as lines of one file.

A file, because it is the one channel that KFP, DVC and Ray leave alone: their standard output belongs to the log.
Appending a short line is atomic on a local disk, so the processes of a step need no lock; the terminal follows the
file.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sluice.core.progress import Note

EVENTS_VARIABLE = "SLUICE_EVENTS"
_SECONDS_BETWEEN = 0.2


def emit(step: str, kind: str, **fields: Any) -> None:
    """Append one event to the run's file; does nothing outside a run."""
    if path := os.environ.get(EVENTS_VARIABLE):
        _append(Path(path), {"time": round(time.time(), 3), "step": step, "kind": kind, **fields})


def read_events(path: Path) -> list[dict[str, Any]]:
    """All complete lines of an events file; a line cut off by a kill is skipped."""
    if not path.is_file():
        return []
    return list(parse(path.read_bytes()))


def parse(chunk: bytes) -> Iterator[dict[str, Any]]:
    for line in chunk.split(b"\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


class Tail:
    """Reader of the complete lines that other processes append to an events file."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._rest = path, 0, b""

    def read(self) -> list[dict[str, Any]]:
        """The events since the last call."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            chunk = file.read()
        self._offset += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return list(parse(b"\n".join(lines)))


@dataclass
class EventProgress:
    """A `sluice.core.progress.Progress` that appends to the events file, notes at once and numbers at most every
    `_SECONDS_BETWEEN`. Picklable, so it may travel to a Ray worker.
    """

    step: str
    path: str = field(default_factory=lambda: os.environ.get(EVENTS_VARIABLE, ""))
    _last: float = 0.0

    def __call__(self, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        if self.path and isinstance(note, Note):
            self._tell({"kind": "note", "message": note})
            return
        if not self.path or (now - self._last < _SECONDS_BETWEEN and done < total):
            return
        self._last = now
        self._tell({"kind": "progress", "done": done, "total": total, "note": note})

    def _tell(self, said: dict[str, Any]) -> None:
        # A failure to report, such as a full disk, must not end the work.
        with suppress(OSError):
            _append(Path(self.path), {"time": round(time.time(), 3), "step": self.step, **said})


def _append(path: Path, event: dict[str, Any]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, json.dumps(event).encode() + b"\n")
    finally:
        os.close(descriptor)
