"""Probes of a rollout: through the real gateway and engine, and the counts that their answers make."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from starlette.testclient import TestClient
from suites.suite_fixtures import sums, write_suite
from test_gateway import KEY, Backends, Traffic

from sluice.model.evaluation.evaluated import (
    AnswerRequest,
    Continuation,
    ContinuationRequest,
    GeneratedAnswer,
    Message,
)
from sluice.model.evaluation.judging.pairwise import AnswerPair, Winner
from sluice.model.evaluation.judging.rubric import find_rubric, load_rubric
from sluice.model.evaluation.model_folder import ModelFolder
from sluice.model.evaluation.parity import KeptAnswer
from sluice.model.evaluation.suites.suite import load_suite
from sluice.monitoring.traffic.classify import AttemptClass
from sluice.serving.auth import KeyRing, workspace_key
from sluice.serving.client import Client
from sluice.serving.config import QualityConfig, ServeConfig
from sluice.serving.engine.engine import LLMEngine
from sluice.serving.evidence import Pairs
from sluice.serving.gateway import create_app
from sluice.serving.quality.judge import LabelledPair, ReplayJudge, read_labelled_pairs
from sluice.serving.quality.known import KnownItem, known_items
from sluice.serving.quality.probes import Probe, QualityProbes, RolloutQuality
from sluice.serving.quality.surprisal import surprisal_under
from sluice.serving.routing import Arm, Routes, RouteTable

CONFIG = QualityConfig.model_validate({})
PROMPTS = [
    "A request joins",
    "Größe, naïve",
    (Message("user", "Who answers?"),),
    "日本語の",
    "The quick",
    "The champion",
]


@pytest.fixture(scope="module")
def folders(make_model: Callable[..., Path]) -> Mapping[str, Path]:
    return {"1": make_model(1), "2": make_model(2)}


@pytest.fixture(scope="module")
def client(folders: Mapping[str, Path]) -> Iterator[Client]:
    """A gateway in front of both models: version 1 is champion, version 2 challenger."""
    config = ServeConfig(max_batch=4, max_queued=32, max_tokens=24, request_timeout_s=20.0)
    engines = {version: LLMEngine(folder, config) for version, folder in folders.items()}
    routes = RouteTable(Routes(champion="1", challenger="2", ready=("1", "2")))
    app = create_app(Backends(engines), config, KeyRing([workspace_key(KEY)]), Traffic(), routes)
    client = Client("http://gateway", KEY)
    with TestClient(app, base_url="http://gateway", headers={"authorization": f"Bearer {KEY}"}) as http:
        client._http = http
        yield client
    for engine in engines.values():
        engine.stop()


def run(client: Client, probes: QualityProbes) -> None:
    quality = RolloutQuality(client, probes, CONFIG)
    while quality.poll(timeout_s=20.0):
        pass
    quality.close()


def test_the_served_version_gives_the_answers_that_were_kept(client: Client, folders: Mapping[str, Path]) -> None:
    kept = ModelFolder(folders["2"]).keep_greedy(PROMPTS, 12)
    assert len(kept) == len(PROMPTS)
    probes = QualityProbes(kept, [])
    run(client, probes)
    found = probes.totals
    assert (found.parity_different, found.parity_compared, found.parity_kept) == (0, 6, 6)


def test_a_version_that_is_another_model_than_the_kept_one_differs(client: Client, folders: Mapping[str, Path]) -> None:
    probes = QualityProbes(ModelFolder(folders["1"]).keep_greedy(PROMPTS, 12), [])
    run(client, probes)
    assert probes.totals.parity_different >= 5


def test_known_items_are_scored_as_offline(client: Client, folders: Mapping[str, Path], tmp_path: Path) -> None:
    answers = {
        version: ModelFolder(folder).generate([AnswerRequest((Message("user", "Say it."),), 8)])[0].text
        for version, folder in folders.items()
    }
    assert answers["1"] != answers["2"]
    rows = [{"id": version, "question": "Say it.", "target": text} for version, text in answers.items()]
    suite = load_suite(write_suite(tmp_path / "suite", rows, scorers=["exact"], max_tokens=8))
    items, notes = known_items(None, [suite], 64, max_tokens=8, has_chat=True)
    assert len(items) == 2 and notes == ()
    probes = QualityProbes([], items)
    run(client, probes)
    assert probes.totals.known == Pairs(challenger=1, champion=1)


def test_golden_prompts_want_a_sound_text(tmp_path: Path) -> None:
    golden = tmp_path / "golden.yaml"
    golden.write_text(yaml.safe_dump([{"id": name, "kind": name, "prompt": "Why?"} for name in ("chat", "completion")]))
    items, _ = known_items(golden, [], 64, max_tokens=8, has_chat=True)
    assert [item.request.prompt for item in items] == [(Message("user", "Why?"),), "Why?"]
    plain, _ = known_items(golden, [], 64, max_tokens=8, has_chat=False)
    assert plain[0].request.prompt == "Why?\n\n"
    score = items[0].score
    assert [score("Because.", "stop"), score(" ", "stop"), score("a\ufffdb", "length")] == [1.0, 0.0, 0.0]
    assert (score("cut in a character\ufffd", "length"), score("not cut\ufffd", "stop")) == (1.0, 0.0)


def test_suites_scored_by_likelihood_are_left_out_and_named(tmp_path: Path) -> None:
    facts = load_suite(Path(__file__).parents[2] / "conf" / "suites" / "facts.yaml")
    suite = load_suite(write_suite(tmp_path / "suite", sums()))
    items, notes = known_items(None, [facts, suite], 3, max_tokens=8, has_chat=False)
    assert len(items) == 3 and all(isinstance(item.request.prompt, str) for item in items)
    assert notes == ("suites not asked, for want of a scorer of text: facts",)
    again, _ = known_items(None, [facts, suite], 3, max_tokens=8, has_chat=False)
    assert [item.request for item in again] == [item.request for item in items]


def test_a_scorer_that_disagrees_with_people_decides_nothing() -> None:
    suite = load_suite(Path(__file__).parents[2] / "conf" / "suites" / "refusal-harmful.yaml")
    assert known_items(None, [suite], 64, max_tokens=8, has_chat=True).items == []


@dataclass(frozen=True)
class Answer:
    text: str = "yes"
    attempt_class: AttemptClass = "answered"
    status: int = 200
    finish_reason: str = "stop"
    fell_back: bool = False


ITEM = KnownItem(AnswerRequest("p", 4, stop=("1", "2", "3", "4", "!")), lambda text, _: float(text == "yes"))
FAULT, FULL = Answer("", "model_fault", 500, ""), Answer("", "capacity", 503, "")
REFUSED = Answer("", "client_mistake", 400, "")


def counted(kind: str, champion: Answer, challenger: Answer) -> QualityProbes:
    probes = QualityProbes([KeptAnswer("p", 4, ("yes", ""), (1.0, 1.0))], [ITEM])
    assert [probes.next(), probes.next(), probes.next()][2] is None
    probes.score(Probe(kind, 0, ITEM.request), champion, challenger)  # type: ignore[arg-type]
    return probes


@pytest.mark.parametrize(
    ("champion", "challenger", "known", "different"),
    [
        (Answer(), Answer(), Pairs(neither=1), 0),
        (Answer(), Answer("yes!", finish_reason="length"), Pairs(neither=1), 1),
        (Answer(), Answer("no"), Pairs(challenger=1), 1),
        (Answer("no"), Answer(), Pairs(champion=1), 0),
        (Answer("no"), Answer("no"), Pairs(both=1), 1),
        (Answer(), FAULT, Pairs(challenger=1), 1),
        (Answer(), REFUSED, Pairs(challenger=1), 1),
        (Answer(), replace(Answer(), attempt_class="model_fault", fell_back=True), Pairs(challenger=1), 1),
    ],
    ids=["right", "beyond a fifth stop", "wrong", "champion wrong", "both", "fault", "refused", "fallback"],
)
def test_answers_are_counted(champion: Answer, challenger: Answer, known: Pairs, different: int) -> None:
    assert counted("known", champion, challenger).totals.known == known
    assert counted("parity", champion, challenger).totals.parity_different == different


@pytest.mark.parametrize("pair", [(FULL, Answer()), (Answer(), FULL)])
def test_what_judges_no_version_is_asked_again(pair: tuple[Answer, Answer]) -> None:
    probes = counted("known", *pair)
    assert probes.totals.known.n == 0 and probes.totals.known_items == 1
    again = probes.next()
    assert again is not None and again.kind == "known"


def test_a_request_that_no_version_takes_is_left_out_and_noted() -> None:
    found = counted("parity", REFUSED, REFUSED).totals
    assert (found.parity_kept, found.parity_compared) == (0, 0)
    assert found.notes == ("1 parity probes were refused by the server",)


class Silent:
    """A server that no probe is sent to."""

    def ask(self, request: AnswerRequest, arm: Arm) -> Answer:
        raise AssertionError


def test_texts_of_replays_are_compared_unless_a_fallback_answered() -> None:
    quality = RolloutQuality(Silent(), QualityProbes([], []), CONFIG)
    quality.add_replay("p", Answer(), Answer(""))
    quality.add_replay("p", Answer(), replace(Answer(""), fell_back=True))
    quality.add_replay("p", FAULT, Answer(""))
    assert quality.totals.text["empty"] == Pairs(challenger=1)
    off = RolloutQuality(Silent(), QualityProbes([], []), CONFIG.model_copy(update={"text": "off"}))
    off.add_replay("p", Answer(), Answer(""))
    assert off.totals.text == {}
    assert not off.poll()


def test_a_server_that_does_not_answer_is_an_error() -> None:
    class Dead:
        def ask(self, request: AnswerRequest, arm: Arm) -> Answer:
            raise ConnectionError("refused")

    with pytest.raises(ConnectionError, match="refused"):
        run(Dead(), QualityProbes([], [ITEM]))  # type: ignore[arg-type]


def read_all(quality: RolloutQuality, *texts: tuple[str, str, str]) -> None:
    for prompt, champion, challenger in texts:
        quality.add_replay(prompt, Answer(champion), Answer(challenger))
        while quality.poll(timeout_s=20.0):
            pass
    quality.close()


def test_surprisal_is_the_mean_nats_of_an_answer_under_the_champion(folders: Mapping[str, Path]) -> None:
    (scored,) = ModelFolder(folders["1"]).score([ContinuationRequest("A request", " joins the batch")])
    assert surprisal_under(folders["1"])("A request", [" joins the batch"]) == pytest.approx(
        [scored.nats / len(scored.tokens)]
    )


def test_unlikely_answers_are_counted_once_a_prompt_and_without_a_number_not_at_all() -> None:
    nats = {"likely": 1.0, "unlikely": 2.0, "broken": math.nan}
    quality = RolloutQuality(
        Silent(),
        QualityProbes([], []),
        CONFIG,
        surprisal=lambda prompt, answers: [nats[answer] for answer in answers],
    )
    pairs = [(f"{number}", "likely", "unlikely") for number in range(12)]
    read_all(quality, *pairs, *pairs, ("nan", "likely", "broken"), ("empty", "likely", ""))
    assert quality.totals.text["surprising"] == Pairs(challenger=2), "the first ten tell the champion's quantile"


class Preferring:
    """A judge that prefers the longer answer, in either order; or always the first one."""

    model_hash, can_score = "", False

    def __init__(self, always: str = "") -> None:
        self.always, self.asked = always, 0

    def score(self, requests: object, progress: object = None) -> list[Continuation]:
        raise NotImplementedError

    def generate(self, requests: Sequence[AnswerRequest], progress: object = None) -> list[GeneratedAnswer]:
        self.asked += len(requests)
        return [GeneratedAnswer(self._verdict(request), 1, "stop") for request in requests]

    def _verdict(self, request: AnswerRequest) -> str:
        shown = request.prompt[-1].content if not isinstance(request.prompt, str) else ""
        is_first = shown.index("long answer") < shown.index("brief")
        return json.dumps({"better": self.always or ("first" if is_first else "second"), "reason": "r"})


SIDES: list[tuple[tuple[str, str], Winner]] = [
    (("a long answer", "brief"), "candidate"),
    (("brief", "a long answer"), "baseline"),
]
LABELLED = [
    LabelledPair(AnswerPair(f"{number}", f"p{number}", *SIDES[number % 2][0]), SIDES[number % 2][1])
    for number in range(40)
]
BETTER = load_rubric(find_rubric("better"))


def test_a_judge_that_agrees_with_people_counts_each_prompt_once() -> None:
    judge = ReplayJudge(Preferring(), BETTER, LABELLED)
    quality = RolloutQuality(Silent(), QualityProbes([], []), CONFIG, judge=judge)
    worse, better = ("p", "a long answer", "brief"), ("q", "brief", "a long answer")
    read_all(quality, worse, worse, better, ("r", "same", "same"))
    assert quality.totals.judged == Pairs(neither=1, challenger=1, champion=1) and quality.totals.notes == ()


def test_a_judge_of_the_place_does_not_agree_with_people_and_is_not_counted() -> None:
    model = Preferring("first")
    quality = RolloutQuality(Silent(), QualityProbes([], []), CONFIG, judge=ReplayJudge(model, BETTER, LABELLED))
    read_all(quality, ("p", "a long answer", "brief"), ("q", "a long answer", "brief"))
    assert quality.totals.judged == Pairs() and model.asked == 80, "it is asked no replay"
    (note,) = quality.totals.notes
    assert note.startswith("judge not counted: its kappa with people is 0.00") and "0.6 is needed" in note


def test_a_judge_that_fails_is_not_counted() -> None:
    quality = RolloutQuality(
        Silent(), QualityProbes([], []), CONFIG, judge=ReplayJudge(Preferring("neither"), BETTER, LABELLED)
    )
    read_all(quality, ("p", "a long answer", "brief"))
    assert quality.totals.notes == ("judge not counted: it failed on 40 of 40 labelled pairs",)


def test_labels_are_read_and_a_wrong_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"prompt": "p", "first": "a", "second": "b", "better": "second"}\n\n')
    (found,) = read_labelled_pairs(path)
    assert (found.pair.candidate, found.pair.baseline, found.winner) == ("a", "b", "baseline")
    path.write_text('{"prompt": "p", "first": "a", "second": "b", "better": "left"}\n')
    with pytest.raises(ValueError, match=r"labels.jsonl, line 1: give prompt, first, second, and better"):
        read_labelled_pairs(path)
    with pytest.raises(ValueError, match=r"cannot be read .*: correct rollout.quality.judge_labels"):
        read_labelled_pairs(tmp_path / "none.jsonl")
