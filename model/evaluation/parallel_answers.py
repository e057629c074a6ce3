"""Requests to a server, some at a time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from sluice.core.progress import Progress
from sluice.model.evaluation.evaluated import AnswerRequest, GeneratedAnswer

_WORKERS = 4


def answer_in_parallel(
    answer: Callable[[AnswerRequest], GeneratedAnswer],
    requests: Sequence[AnswerRequest],
    progress: Progress,
    note: str,
) -> list[GeneratedAnswer]:
    """Return the answers in the order of the requests."""
    answers: list[GeneratedAnswer] = []
    with ThreadPoolExecutor(_WORKERS) as pool:
        for each in pool.map(answer, requests):
            answers.append(each)
            progress(len(answers), len(requests), note)
    return answers
