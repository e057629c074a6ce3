"""How a run can end without a model. Each message is one line for the user."""


class TrainingFailed(RuntimeError):
    """It cannot go on."""


class TrainingInterrupted(RuntimeError):
    """It was asked to end, and can go on from where it stopped."""
