"""Downloads on disk: whole or absent, known by their hash."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile


@contextmanager
def complete_or_nothing(path: Path) -> Iterator[Path]:
    """A temporary file that becomes `path` only if the block succeeds."""
    with NamedTemporaryFile(dir=path.parent, prefix=".partial-", delete=False) as file:
        partial = Path(file.name)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
