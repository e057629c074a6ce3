"""Answers that no scorer here can judge: people or a judge have to."""

from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import Scorer


def reviewed(answer: str, sample: SuiteSample) -> None:
    """Return no score, so that the metric is inconclusive until the answers are reviewed."""


SCORERS = (Scorer("reviewed", "text", reviewed, needs="nothing", worst=1.0),)
