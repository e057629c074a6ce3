"""Locks between processes that the system lets go by itself when their holder ends, in whatever way."""

import errno
import fcntl
from typing import IO

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""Errors with which some network file systems refuse every lock."""


def try_lock(file: IO[str] | int) -> bool:
    """Whether this process has the open file or folder for itself now; on a file system that knows no locks, always."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    return True
