"""Lock of a run's folder: two runs would overwrite each other's files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sluice.core.files import try_lock
from sluice.model.training.errors import TrainingFailed

LOCK = "lock"
"""Name of the file."""
_PATIENCE_S, _AGAIN_S = 30.0, 0.2
"""A killed process releases its lock only once the system has torn it down, which a restart may precede."""


@contextmanager
def locked(folder: Path, *, patience_s: float | None = None) -> Iterator[None]:
    """Hold the lock of the folder; the OS releases it if the process dies. No effect on a file system without locks.

    Raises TrainingFailed where another process holds it, or where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / LOCK).open("w")
    except OSError as error:
        raise TrainingFailed(f"{folder} cannot be written to ({error.strerror}): name another folder") from None
    with opened as file:
        last = time.monotonic() + (_PATIENCE_S if patience_s is None else patience_s)
        while not try_lock(file):
            if time.monotonic() > last:
                raise TrainingFailed(
                    f"another process trains in {folder}: end it, or wait until it has ended, and start again"
                )
            time.sleep(_AGAIN_S)
        yield
