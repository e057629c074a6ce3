"""The suites that come with the package: sound, and answered right by who knows the answers."""

from datetime import date
from pathlib import Path

import pytest
from suites.suite_fixtures import RuleModel, asked

from sluice.model.evaluation.suites.run import run_suite
from sluice.model.evaluation.suites.suite import load_suite

SUITES = sorted((Path(__file__).parents[3] / "conf" / "suites").glob("*.yaml"))
OWN = ("arithmetic", "facts", "instructions")


def test_the_built_in_suites_are_there() -> None:
    assert {path.stem for path in SUITES} >= set(OWN)


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_built_in_suite_is_sound(path: Path) -> None:
    suite = load_suite(path)
    assert suite.settings.name == path.stem
    assert not suite.settings.is_overdue(suite.settings.created)


@pytest.mark.parametrize("name", OWN)
def test_right_answers_score_one_and_no_answer_nothing(name: str) -> None:
    suite = load_suite(next(path for path in SUITES if path.stem == name))
    right = {sample.fields["question"]: sample for sample in suite.samples}
    assert len(right) == len(suite.samples) >= 30
    knows = RuleModel(
        lambda request: right[asked(request)].targets[0],
        lambda request: 1.0 if _is_right(right.get(asked(request)), request.continuation) else 99.0,
    )
    found = run_suite(knows, suite, today=date(2026, 12, 1))
    assert len(found.items) == len(suite.samples) * len(suite.settings.scorers)
    assert all(item.value == 1 for item in found.items)
    silent = run_suite(RuleModel(), suite, today=date(2026, 12, 1))
    assert all(item.value == 0 for item in silent.items)


def _is_right(sample: object, choice: str) -> bool:
    return sample is not None and sample.choices[sample.key] == choice  # type: ignore[attr-defined]
