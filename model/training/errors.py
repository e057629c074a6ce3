"""How a run can end without a model. Each message is one line for the user."""


class TrainingFailed(RuntimeError):
    """It cannot go on."""


class TrainingInterrupted(RuntimeError):
    """The run stopped on request, and can be resumed."""
