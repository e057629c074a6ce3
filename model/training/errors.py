"""Errors of a run that ends without a model. Each message is one line for the user."""


class TrainingFailed(RuntimeError):
    """The run failed and cannot continue."""


class TrainingInterrupted(RuntimeError):
    """The run stopped on request, and can be resumed."""
