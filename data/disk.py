"""Errors of the disk that name their file: a write that is refused does not say where."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name `path` in an OSError from inside that names no file, whether it is the system's, numpy's or Arrow's."""
    try:
        yield
    except OSError as error:
        if error.filename:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
