"""A served URL is evaluated like a folder: its greedy answers, through gateway and engine, are the folder's."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from suites.suite_fixtures import sums, write_suite
from test_gateway import KEY, Backends, Traffic

from sluice.model.evaluation.evaluated import AnswerRequest, Message
from sluice.model.evaluation.open_model import open_model
from sluice.model.evaluation.served_model import ServedModel
from sluice.pipelines.cli import main
from sluice.serving.auth import KeyRing, workspace_key
from sluice.serving.config import ServeConfig
from sluice.serving.engine.engine import LLMEngine
from sluice.serving.gateway import create_app
from sluice.serving.routing import Routes, RouteTable

CONFIG = ServeConfig(max_batch=4, max_queued=8, max_tokens=24, request_timeout_s=20.0)
PROMPTS = (
    "A request joins",
    "",
    "Größe, naïve",
    "日本語の",
    (Message("user", "Who answers?"),),
    (Message("system", "Be brief."), Message("user", "Why?")),
    "dog " * 100,
)
REQUESTS = [
    *(AnswerRequest(prompt, 16) for prompt in PROMPTS),
    *(AnswerRequest(prompt, 16, ("e", "1", "a", "o")) for prompt in PROMPTS),
]


@pytest.fixture(scope="module")
def folder(make_model: Callable[..., Path]) -> Path:
    return make_model(1)


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture
def server(folder: Path, traffic: Traffic) -> Iterator[TestClient]:
    engine = LLMEngine(folder, CONFIG)
    routes = RouteTable(Routes(champion="1", ready=("1",)))
    app = create_app(Backends({"1": engine}), CONFIG, KeyRing([workspace_key(KEY)]), traffic, routes)
    with TestClient(app, base_url="http://gateway", headers={"authorization": f"Bearer {KEY}"}) as client:
        yield client
    engine.stop()


def test_greedy_answers_of_a_url_are_those_of_the_folder(server: TestClient, folder: Path) -> None:
    served = ServedModel(server, "sluice")
    ours, theirs = open_model(folder).generate(REQUESTS), served.generate(REQUESTS)
    for mine, other in zip(ours, theirs, strict=True):
        if mine.finish_reason == "error":
            assert other.finish_reason == "error"
            assert "the prompt has" in mine.error and "the prompt has" in other.error
        else:
            assert mine == other
    assert len({answer.text for answer in ours}) > 4
    assert {answer.finish_reason for answer in ours} == {"stop", "length", "error"}


def test_the_name_is_the_server_s_and_the_traffic_no_user_s(server: TestClient, traffic: Traffic) -> None:
    served = ServedModel(server)
    first = served.model_hash
    served.generate(REQUESTS[:2])
    assert served.model_hash == first
    assert {record.source for record in traffic.records} == {"replay"}


def test_a_limit_of_the_server_is_an_error_of_one_answer(server: TestClient) -> None:
    (found,) = ServedModel(server, "sluice").generate([AnswerRequest("A request", 25)])
    assert found.finish_reason == "error"
    assert "max_tokens 25 exceeds this server's limit of 24" in found.error


def test_the_command_evaluates_a_url_like_its_folder(
    server: TestClient, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServedModel, "connect", lambda url, key=None: ServedModel(server, "sluice"))
    suite = write_suite(tmp_path / "suite", sums(), max_tokens=8, stop=["e"])
    found = {}
    for name in (str(folder), "http://gateway"):
        out = tmp_path / hashlib.sha256(name.encode()).hexdigest()
        command = ["evaluate", name, "--suite", str(suite), "--suite", "facts", "--no-cache", "--out", str(out)]
        assert main(command) == 0
        results = json.loads((out / "results.json").read_text())
        answers = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
        found[name] = [row["answer"] for row in answers if row["suite"] == "sums"]
    assert found[str(folder)] == found["http://gateway"] and len(found["http://gateway"]) == 4
    # A URL gives no likelihoods: its choices are planned and have no rows, which is inconclusive.
    assert results["planned"]["facts.choice_byte"] == 30 and results["metrics"]["facts.choice_byte"]["n"] == 0
    assert "likelihoods" in results["suites"]["facts"]["unscored"]["facts.choice_byte"]
