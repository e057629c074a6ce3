"""Failures as one line for the user."""

from sluice.core.files import with_file_system


class Failure(Exception):
    """Something failed that is no fault of the code. The message is one line for the user."""


class RefusedLines(ValueError):
    """Lines of a user's file are wrong. The message has one line for each."""


class StepFailed(Failure):
    """A step ended without a result."""


def describe(error: BaseException) -> str:
    """An exception as one line, or as one for each refused line of a file.

    The class is named only where that is what a developer needs to know.
    """
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str):
        named = with_file_system(error)
        return f"{named.filename}: {named.strerror}"
    if isinstance(error, RefusedLines):
        return str(error)
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, ValueError | Failure) else f"{type(error).__name__}: {text}"
