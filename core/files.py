"""Files and folders that are whole or absent, and errors of the disk that name their file."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
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


@contextmanager
def whole_or_absent(path: Path) -> Iterator[Path]:
    """Where to write a file or a folder that becomes `path`, in the place of an earlier one, if the block succeeds.

    If it does not, nothing of it is left. OSError naming the file where the disk is full.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
            yield partial
            if partial.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            partial.replace(path)
    finally:
        remove(partial)


def copy_tree(source: Path, target: Path, copy: Callable[[Path, Path], object] = shutil.copyfile) -> None:
    """Copy the files below a folder into a new one. Unlike shutil's, it ends at the first error, which names a file."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            copy_tree(path, target / path.name, copy)
        else:
            copy(path, target / path.name)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
