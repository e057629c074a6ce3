"""How a step or a command fails: one line for the user."""


class StepFailed(Exception):
    """A step ended without a result. The message is one line for the user."""


def describe(error: BaseException) -> str:
    """An exception as one line; the class is named unless the exception is a user's mistake."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, ValueError | StepFailed) else f"{type(error).__name__}: {text}"
