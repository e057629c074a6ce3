"""One run at a time in a folder: two would remove and overwrite each other's files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sluice.core.locks import try_lock
from sluice.model.training.errors import TrainingFailed

_NAME = "lock"
_PATIENCE_S, _AGAIN_S = 30.0, 0.2
"""A process that was killed lets go when the system has taken it down, which a start behind it may be ahead of."""


@contextmanager
def locked(folder: Path, *, patience_s: float | None = None) -> Iterator[None]:
    """The folder for this process alone, until it ends in whatever way; on a file system that knows no locks, for
    whoever comes. TrainingFailed where another process keeps it, or where nothing can be written.
    """
    with _lock_file(folder) as file:
        last = time.monotonic() + (_PATIENCE_S if patience_s is None else patience_s)
        while not try_lock(file):
            if time.monotonic() > last:
                raise TrainingFailed(
                    f"another process trains in {folder}: end it, or wait until it has ended, and start again"
                )
            time.sleep(_AGAIN_S)
        yield


def _lock_file(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / _NAME).open("w")
    except OSError as error:
        raise TrainingFailed(f"{folder} cannot be written to ({error.strerror}): name another folder") from None
