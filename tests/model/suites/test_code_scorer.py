"""Generated code, run in the sandbox against a sample's tests."""

import pytest

from sluice.model import sandbox
from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorers import SCORERS
from sluice.model.evaluation.suites.scorers.code import code

PROBLEM = SuiteSample(
    "p",
    {
        "prompt": 'from typing import List\n\n\ndef total(numbers: List[int]) -> int:\n    """Sum up."""\n',
        "entry_point": "total",
        "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
    },
)
RIGHT = "    return sum(numbers)\n"
WHOLE = "def total(numbers: List[int]) -> int:\n    return sum(numbers)\n"


@pytest.mark.process
@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (RIGHT, 1),
        (f"```python\n{PROBLEM.fields['prompt']}{RIGHT}```", 1),
        (f"Sure!\n\n```py\n{WHOLE}```\nIt adds them.\n```\ntotal([1])\n```", 1),
        (WHOLE, 1),
        ("    return None\n", 0),
        ("    return sum(numbers) or 1\n", 0),
        ("    return sum(numbers", 0),
        ("", 0),
        ("    raise SystemExit(0)\n", 0),
        ("    import os; os._exit(0)\n", 0),
        ("    return open('/etc/hostname').read()\n", 0),
    ],
)
def test_code_passes_only_where_its_last_test_passes(answer: str, score: float):
    try:
        sandbox.available_backend()
    except sandbox.SandboxUnavailable as error:
        pytest.skip(str(error))
    assert code(answer, PROBLEM) == score


def test_without_isolation_there_is_no_score(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox, "why_not", lambda backend: "not permitted")
    sandbox.available_backend.cache_clear()
    try:
        assert code(RIGHT, PROBLEM) is None
    finally:
        sandbox.available_backend.cache_clear()


def test_the_scorer_is_registered_under_its_name():
    assert SCORERS["code"].score is code and SCORERS["code"].reads == "text"
