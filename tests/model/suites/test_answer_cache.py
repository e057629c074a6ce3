"""The cache of answers: asked once, resumed after a kill, and never another model's."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from suites.suite_fixtures import RuleModel, asked

from sluice.model.evaluation.evaluated import (
    AnswerRequest,
    ContinuationRequest,
    EvaluatedModel,
    GeneratedAnswer,
    Message,
)
from sluice.model.evaluation.suites.cache import AnswerCache, CachedModel, code_hash

REQUESTS = [AnswerRequest((Message("user", f"question {n}"),), 8, ("\n",)) for n in range(40)]


def cached(folder: Path, model: RuleModel, code: str | None = None) -> CachedModel:
    def opened() -> EvaluatedModel:
        return model

    return CachedModel(model.model_hash, model.can_score, opened, AnswerCache(folder, model.model_hash, code))


def test_an_answer_is_asked_once(tmp_path: Path) -> None:
    first = RuleModel(lambda request: asked(request).upper())
    with cached(tmp_path, first).cache as store:
        answers = CachedModel(first.model_hash, True, lambda: first, store).generate(REQUESTS)
    again = RuleModel(lambda request: "another")
    model = cached(tmp_path, again)
    assert model.generate(REQUESTS) == answers and again.generated == []
    assert [answer.text for answer in answers] == [f"QUESTION {n}" for n in range(40)]


def test_likelihoods_are_kept_too_with_nan(tmp_path: Path) -> None:
    requests = [ContinuationRequest("a", f" {n}") for n in range(3)]
    first = RuleModel(nats=lambda r: float("nan") if r.continuation == " 1" else 1.5)
    model = cached(tmp_path, first)
    found = model.score(requests)
    model.cache.close()
    again = cached(tmp_path, RuleModel())
    assert repr(again.score(requests)) == repr(found) and "nan" in repr(found)


@pytest.mark.parametrize(
    "changed",
    [
        AnswerRequest((Message("user", "question 0"),), 9, ("\n",)),
        AnswerRequest((Message("user", "question 0"),), 8, ()),
        AnswerRequest((Message("user", "question 0"),), 8, ("\n",), temperature=0.5),
        AnswerRequest((Message("user", "question 0"),), 8, ("\n",), seed=1),
        AnswerRequest((Message("system", "question 0"),), 8, ("\n",)),
        AnswerRequest("question 0", 8, ("\n",)),
    ],
)
def test_another_prompt_or_setting_is_asked_again(tmp_path: Path, changed: AnswerRequest) -> None:
    model = RuleModel(lambda request: "answer")
    found = cached(tmp_path, model)
    found.generate(REQUESTS[:1])
    found.generate([changed])
    assert model.generated == [REQUESTS[0], changed]


def test_another_model_or_other_code_finds_nothing(tmp_path: Path) -> None:
    cached(tmp_path, RuleModel(lambda request: "one")).generate(REQUESTS[:1])
    other = RuleModel(lambda request: "two", name="other")
    assert cached(tmp_path, other).generate(REQUESTS[:1])[0].text == "two"
    newer = RuleModel(lambda request: "three")
    assert cached(tmp_path, newer, code="f" * 64).generate(REQUESTS[:1])[0].text == "three"


def test_another_models_cache_is_refused_by_name(tmp_path: Path) -> None:
    theirs = cached(tmp_path, RuleModel(lambda request: "one"))
    theirs.generate(REQUESTS[:1])
    theirs.cache.close()
    ours = RuleModel(name="other")
    theirs.cache.path.rename(tmp_path / f"{ours.model_hash[:16]}-{code_hash()[:16]}.jsonl")
    with pytest.raises(
        ValueError, match=f"holds answers of model {theirs.model_hash[:12]}, not of {ours.model_hash[:12]}"
    ):
        cached(tmp_path, ours)


def test_a_damaged_line_and_those_after_it_are_asked_again(tmp_path: Path) -> None:
    model = cached(tmp_path, RuleModel(lambda request: "one"))
    model.generate(REQUESTS[:20])
    model.cache.close()
    lines = model.cache.path.read_bytes().splitlines(keepends=True)
    row = json.loads(lines[17])
    row["answer"]["text"] = "two"
    model.cache.path.write_bytes(b"".join([*lines[:17], json.dumps(row).encode() + b"\n", *lines[18:]])[:-5])
    again = RuleModel(lambda request: "one")
    assert [answer.text for answer in cached(tmp_path, again).generate(REQUESTS[:20])] == ["one"] * 20
    assert again.generated == REQUESTS[16:20]


def test_an_error_is_asked_again(tmp_path: Path) -> None:
    failing = RuleModel(lambda request: GeneratedAnswer("", 0, "error", "time-out"))
    model = cached(tmp_path, failing)
    assert model.generate(REQUESTS[:2])[0].error == "time-out"
    model.cache.close()
    working = RuleModel(lambda request: "fine")
    assert cached(tmp_path, working).generate(REQUESTS[:2])[0].text == "fine"


def test_a_cache_in_use_is_one_line(tmp_path: Path) -> None:
    first = cached(tmp_path, RuleModel())
    with pytest.raises(ValueError, match="in use by another evaluation"):
        cached(tmp_path, RuleModel())
    first.cache.close()
    cached(tmp_path, RuleModel()).cache.close()


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from suites.test_answer_cache import REQUESTS, cached, RuleModel, asked

def answer(request):
    if asked(request) == "question 37":
        os.kill(os.getpid(), signal.SIGKILL)
    return asked(request).upper()

cached(Path(sys.argv[1]), RuleModel(answer)).generate(REQUESTS)
"""


@pytest.mark.process
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parents[1])]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    model = RuleModel(lambda request: asked(request).upper())
    answers = cached(tmp_path, model).generate(REQUESTS)
    assert [answer.text for answer in answers] == [f"QUESTION {n}" for n in range(40)]
    assert model.generated == REQUESTS[32:]  # chunks of 16
