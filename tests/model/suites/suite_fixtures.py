"""Suites on disk, and a model whose answers are a function of the prompt."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.evaluated import AnswerRequest, Continuation, ContinuationRequest, GeneratedAnswer


class RuleModel:
    """An EvaluatedModel that answers by a rule; counts what it was asked."""

    def __init__(
        self,
        answer: Callable[[AnswerRequest], str | GeneratedAnswer] = lambda request: "",
        nats: Callable[[ContinuationRequest], float] = lambda request: float(len(request.continuation)),
        *,
        name: str = "rule",
        can_score: bool = True,
    ) -> None:
        self._answer, self._nats = answer, nats
        self.model_hash = hashlib.sha256(name.encode()).hexdigest()
        self.can_score = can_score
        self.generated: list[AnswerRequest] = []
        self.scored: list[ContinuationRequest] = []

    def score(self, requests: Sequence[ContinuationRequest], progress: Progress = no_progress) -> list[Continuation]:
        self.scored += requests
        found = []
        for request in requests:
            tokens = tuple(request.continuation.split())
            size = len(request.continuation.encode())
            found.append(Continuation(self._nats(request), (), tokens, size, is_greedy=False))
        return found

    def generate(self, requests: Sequence[AnswerRequest], progress: Progress = no_progress) -> list[GeneratedAnswer]:
        self.generated += requests
        answers = [self._answer(request) for request in requests]
        return [each if isinstance(each, GeneratedAnswer) else GeneratedAnswer(each, 1, "stop") for each in answers]


def asked(request: AnswerRequest | ContinuationRequest) -> str:
    """The last turn of a prompt, or its text."""
    return request.prompt if isinstance(request.prompt, str) else request.prompt[-1].content


def write_suite(folder: Path, rows: Sequence[dict[str, Any]] | bytes, **settings: Any) -> Path:
    """Write suite.yaml and suite.jsonl with their pinned hash."""
    content = rows if isinstance(rows, bytes) else "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "suite.jsonl").write_bytes(content)
    values = {
        "name": "sums",
        "version": 1,
        "source": "made for this test",
        "licence": "CC0-1.0",
        "created": "2026-01-01",
        "refresh_by": "2027-01-01",
        "data": "suite.jsonl",
        "sha256": hashlib.sha256(content).hexdigest(),
        "scorers": ["numeric"],
        **settings,
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(values))
    return folder / "suite.yaml"


def sums(count: int = 4) -> list[dict[str, Any]]:
    """Rows that ask for `n + n`."""
    return [{"id": f"s{n}", "question": f"{n} + {n} =", "target": 2 * n} for n in range(count)]
