"""A suite's run: its prompts, and the rows, answers and entry in results that are gathered."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sluice.model.evaluation.evaluated import GeneratedAnswer, Prompt
from sluice.model.evaluation.results import Item
from sluice.model.evaluation.suites.requests import item_id, properties
from sluice.model.evaluation.suites.suite import Suite

LONGEST_ERROR = 200  # characters


@dataclass
class SuiteRun:
    """Measurements of a suite: the same for the same model and suite, to the byte."""

    items: list[Item] = field(default_factory=list)
    """Rows of all metrics. A sample without a score has none, so that there are fewer than planned."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Rows of answers.jsonl: suite, id, item, prompt, answer, scores, and which of them measure harm."""
    entry: dict[str, Any] = field(default_factory=dict)
    """The suite's entry in results.json; `planned` has the number of samples by metric."""


@dataclass(frozen=True)
class Asked:
    """A suite with its prompts and what every row of a sample has in common."""

    suite: Suite
    prompts: Sequence[Prompt]

    def item(self, index: int, metric: str, value: float, error: str = "") -> Item:
        sample, prompt = self.suite.samples[index], self.prompts[index]
        metadata = properties(self.suite, sample, prompt) | ({"error": error} if error else {})
        return Item(metric, item_id(self.suite, sample, prompt), value, cluster=sample.cluster, metadata=metadata)

    def rows(
        self, metric: str, scores: Sequence[float | None], answers: Sequence[GeneratedAnswer] | None = None
    ) -> list[Item]:
        """Return the rows of a metric, none for a sample without a score; an answer that failed names its error."""
        errors = [answer.error if answer.finish_reason == "error" else "" for answer in answers or ()]
        return [
            self.item(index, metric, score, error[:LONGEST_ERROR])
            for index, (score, error) in enumerate(zip(scores, errors or [""] * len(scores), strict=True))
            if score is not None
        ]
