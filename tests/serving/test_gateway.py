"""The gateway in-process, with real engines behind it."""

import asyncio
import json
import math
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import torch

from sluice.monitoring.traffic.record import TrafficRecord
from sluice.serving import fallback
from sluice.serving.api import ApiError
from sluice.serving.auth import MAX_BODY_BYTES, KeyRing, workspace_key
from sluice.serving.client import Client
from sluice.serving.config import ServeConfig
from sluice.serving.engine.engine import LLMEngine
from sluice.serving.engine.request import GenerationRequest, TokenEvent
from sluice.serving.feedback import KEPT_S, Feedback, FeedbackRequest
from sluice.serving.gateway import create_app
from sluice.serving.release import ReleaseState
from sluice.serving.routing import Routes, RouteTable
from sluice.serving.shadow import KEPT_PAIRS, Shadows
from sluice.serving.slots import Slots

KEY = "k" * 32
WAIT_S = 600.0
CONFIG = ServeConfig(max_batch=4, max_queued=8, max_tokens=48, request_timeout_s=20.0)
CHAT = {"messages": [{"role": "user", "content": "Who answers?"}], "max_tokens": 8, "temperature": 0}


class Backends:
    """Engines by version. `hangs` never answers, `stalls` gives no second token, `slow` waits for each of five."""

    def __init__(self, engines: dict[str, LLMEngine]) -> None:
        self.engines = engines
        self.hanging = 0

    async def generate(self, version: str, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        if version == "stalls":
            yield TokenEvent("Once", 1) if request.stream else TokenEvent("", 0)
        if version == "slow":
            for _ in range(5):
                yield TokenEvent("", 0)
                await asyncio.sleep(0.25)
        if version in ("hangs", "stalls"):
            self.hanging += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.hanging -= 1
        async for event in self.engines["2" if version == "slow" else version].generate(request):
            yield event


class Traffic:
    """Keeps records in a list."""

    def __init__(self) -> None:
        self.lost = 0
        self.records: list[TrafficRecord] = []

    def write(self, record: TrafficRecord) -> None:
        self.records.append(record)

    def close(self) -> None:
        pass


class World:
    """A gateway, what is behind it and a client in front of it."""

    def __init__(self, backends: fallback.Backends, routes: Routes, config: ServeConfig = CONFIG) -> None:
        self.backends, self.traffic, self.routes = backends, Traffic(), RouteTable(routes)
        self.app = create_app(backends, config, KeyRing([workspace_key(KEY)]), self.traffic, self.routes)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://gateway",
            headers={"authorization": f"Bearer {KEY}"},
        )

    def run(self, work: Callable[["World"], Awaitable[None]]) -> None:
        asyncio.run(asyncio.wait_for(work(self), WAIT_S))  # type: ignore[arg-type]

    async def chat(self, arm: str | None = None, source: str = "live", **fields: object) -> httpx.Response:
        headers = {"x-sluice-source": source} | ({"x-sluice-arm": arm} if arm else {})
        return await self.client.post("/v1/chat/completions", json={**CHAT, **fields}, headers=headers)

    @property
    def outcomes(self) -> list[tuple[str, str, int, str]]:
        return [(record.version, record.arm, record.status, record.error) for record in self.traffic.records]


@pytest.fixture(scope="module")
def backends(make_model: Callable[..., Path]) -> Iterator[Backends]:
    folders = {
        "1": make_model(1),
        "2": make_model(2),
        "poisoned": make_model(1, poisoned=True),
        "breaks-late": make_model(1),
        "short": make_model(3, context=16),
    }
    engines = {version: LLMEngine(folder, CONFIG) for version, folder in folders.items()}
    rotary = engines["breaks-late"]._runner.model.rotary
    rotary(torch.tensor([[0]]))
    for table in next(iter(rotary._tables.values())):
        table[25:] = math.nan
    yield Backends(engines)
    for engine in engines.values():
        engine.stop()


@pytest.fixture
def world(backends: Backends) -> World:
    return World(backends, Routes(champion="1", ready=("1",)))


def challenged(backends: Backends, challenger: str, weight: int = 100, config: ServeConfig = CONFIG) -> World:
    return World(backends, Routes(champion="1", challenger=challenger, challenger_weight=weight), config)


def events_of(response: httpx.Response) -> list[dict[str, object]]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def text_of(response: httpx.Response) -> str:
    chunks = events_of(response)
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])  # type: ignore


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/chat/completions", "/metrics", "/admin/state", "/openapi.json", "/no/such/path"]
)
@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x"])
def test_nothing_answers_without_the_key(world: World, path: str, authorization: str | None) -> None:
    async def work(world: World) -> None:
        del world.client.headers["authorization"]
        headers = {} if authorization is None else {"authorization": authorization}
        for answer in (await world.client.get(path, headers=headers), await world.client.post(path, headers=headers)):
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"

    world.run(work)


def test_health_and_the_pages_log_in_are_open(world: World) -> None:
    async def work(world: World) -> None:
        del world.client.headers["authorization"]
        assert (await world.client.get("/health")).json() == {"status": "ok"}
        assert (await world.client.get("/ready")).json() == {"ready": True, "champion": "1"}
        page = await world.client.get("/login")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]

    world.run(work)


def test_a_champion_that_cannot_be_loaded_is_said_with_what_leads_out(backends: Backends) -> None:
    release = asdict(ReleaseState(champion="3", previous_champion="2", earlier_champions=("1",)))

    async def work(world: World) -> None:
        del world.client.headers["authorization"]
        assert (await world.client.get("/health")).json() == {"status": "ok"}
        ready = await world.client.get("/ready")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "30")
        # Without a key nobody learns a path.
        assert ready.json()["reason"] == "version 3 cannot be loaded" and "/models/3" not in ready.text
        world.client.headers["authorization"] = f"Bearer {KEY}"
        refused = await world.chat()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
        message = "version 3 cannot be loaded: /models/3 is gone; restore its files, or run `sluice rollback --to 1`"
        assert refused.json()["error"]["message"] == message
        state = (await world.client.get("/admin/state")).json()
        client = Client("http://gateway", KEY)
        client.state = lambda: state  # type: ignore[method-assign]
        assert client.outage() == message

    World(backends, Routes(deploy_errors={"3": "/models/3 is gone", "2": "gone"}, release=release)).run(work)


def test_a_release_that_is_not_followed_is_said_while_the_champion_answers(backends: Backends) -> None:
    async def work(world: World) -> None:
        metrics = (await world.client.get("/metrics")).text
        assert 'sluice_release_error{kind="LedgerBroken"} 1.0' in metrics
        for path in ("/health", "/ready"):
            answer = await world.client.get(path)
            warning = "the release is not followed (LedgerBroken): run `sluice status`"
            assert (answer.status_code, answer.json()["warning"]) == (200, warning)
        assert (await world.chat()).status_code == 200
        world.routes.current = replace(world.routes.current, error="", error_kind="")
        assert "sluice_release_error{" not in (await world.client.get("/metrics")).text

    error = "LedgerBroken: the ledger of sluice is broken at entry 3"
    World(backends, Routes(champion="1", ready=("1",), error=error, error_kind="LedgerBroken")).run(work)


def test_chat_answers_in_openais_shape(world: World) -> None:
    async def work(world: World) -> None:
        answer = await world.client.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "mine-1"})
        body = answer.json()
        assert answer.status_code == 200
        assert (body["object"], body["id"], body["model"]) == ("chat.completion", "chatcmpl-mine-1", "sluice")
        assert body["system_fingerprint"] == "sluice-v1"
        assert body["choices"][0]["message"]["role"] == "assistant"
        assert body["choices"][0]["finish_reason"] in ("stop", "length")
        usage = body["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        names = ("x-request-id", "x-sluice-version", "x-sluice-arm")
        assert [answer.headers[name] for name in names] == ["mine-1", "1", "champion"]
        assert "x-sluice-fell-back" not in answer.headers
        (record,) = world.traffic.records
        assert (record.prompt_text, record.completion_text) == (
            "Who answers?",
            body["choices"][0]["message"]["content"],
        )
        assert (record.prompt_tokens, record.completion_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
        assert record.total_ms is not None
        assert record.first_token_ms is not None
        assert record.total_ms >= record.first_token_ms

    world.run(work)


def test_streamed_answer_is_the_whole_one_in_pieces(world: World) -> None:
    async def work(world: World) -> None:
        whole = (await world.chat(max_tokens=12)).json()
        streamed = await world.chat(max_tokens=12, stream=True, stream_options={"include_usage": True})
        assert streamed.headers["content-type"].startswith("text/event-stream")
        chunks = events_of(streamed)
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"  # type: ignore[index]
        assert text_of(streamed) == whole["choices"][0]["message"]["content"]
        assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]  # type: ignore[index]
        assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], whole["usage"])

    world.run(work)


def test_plain_completion_streams_too(world: World) -> None:
    async def work(world: World) -> None:
        fields = {"prompt": ["The quick"], "max_tokens": 6, "temperature": 0}
        whole = (await world.client.post("/v1/completions", json=fields)).json()
        streamed = events_of(await world.client.post("/v1/completions", json={**fields, "stream": True}))
        assert whole["object"] == "text_completion"
        assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == whole["choices"][0]["text"]  # type: ignore

    world.run(work)


def test_a_request_repeats_by_its_id_or_its_seed(world: World) -> None:
    async def work(world: World) -> None:
        async def text(request_id: str, **fields: object) -> str:
            body = {**CHAT, "temperature": 1.5, "max_tokens": 20, **fields}
            answer = await world.client.post("/v1/chat/completions", json=body, headers={"x-request-id": request_id})
            return answer.json()["choices"][0]["message"]["content"]

        assert await text("a") == await text("a") != await text("b")
        assert await text("a", seed=5) == await text("b", seed=5)

    world.run(work)


LONG = [{"role": "user", "content": "word " * 200}]


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_supported_is_refused_clearly(world: World, stream: bool) -> None:
    """Every field is refused alike (tests/serving/test_api.py); the engine refuses what only it knows."""

    async def work(world: World) -> None:
        for fields, message, param in (
            ({"n": 2}, "n: 2 is not supported; leave it out or send 1", "n"),
            ({"messages": LONG}, "the context holds 64", "messages"),
        ):
            answer = await world.chat(**{"stream": stream, **fields})
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert message in error["message"]
            assert (error["type"], error["param"]) == ("invalid_request_error", param)

    world.run(work)


def test_other_bad_requests(world: World) -> None:
    async def work(world: World) -> None:
        post, get = world.client.post, world.client.get
        cases = [
            (await post("/v1/chat/completions", content=b"{"), 400),
            (await post("/v1/chat/completions", content=b"\xff\xfe"), 400),
            (await post("/v1/chat/completions", json=[1]), 400),
            (await post("/v1/completions", json={"prompt": [1, 2]}), 400),
            (await world.chat(model="other"), 404),
            (await get("/v1/models/other"), 404),
            (await get("/v1/models/meta-llama/Llama-2-7b"), 404),
            (await world.chat(arm="third"), 400),
            (await post("/v1/chat/completions", content=b" " * (MAX_BODY_BYTES + 1)), 413),
            (await post("/v1/chat/completions", content=iter_chunks(MAX_BODY_BYTES + 1)), 413),
            (await get("/v1/nothing"), 404),
            (await get("/v1/chat/completions"), 405),
            (await get("/admin/measurements"), 400),
        ]
        for answer, status in cases:
            assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")

    world.run(work)


async def iter_chunks(size: int) -> AsyncGenerator[bytes, None]:
    for start in range(0, size, 4096):
        yield b" " * min(4096, size - start)


@pytest.mark.parametrize("stream", [False, True])
def test_fields_without_effect_are_read_over_and_named(world: World, stream: bool) -> None:
    async def work(world: World) -> None:
        neutral = {"n": 1, "user": "u", "logit_bias": {}, "metadata": {"a": "b"}, "store": None, "stream": stream}
        answer = await world.chat(**neutral, logprobs=None, max_tokens=None, max_completion_tokens=4)
        assert (answer.status_code, answer.headers["x-sluice-ignored"]) == (200, "metadata")
        assert "x-sluice-ignored" not in (await world.chat(stream=stream)).headers

    world.run(work)


def test_a_conversation_keeps_its_version_by_its_header_or_its_user(backends: Backends) -> None:
    async def work(world: World) -> None:
        async def version(headers: dict[str, str], **fields: object) -> str:
            answer = await world.client.post("/v1/chat/completions", json={**CHAT, **fields}, headers=headers)
            return answer.headers["x-sluice-version"]

        names = [f"user-{number}" for number in range(12)]
        by_header = [await version({"x-sluice-session": name}) for name in names]
        assert set(by_header) == {"1", "2"}
        assert [await version({"x-sluice-session": name}, user="other") for name in names] == by_header
        assert [await version({}, user=name) for name in names] == by_header
        sessions = [record.session for record in world.traffic.records]
        assert sessions[:12] == sessions[12:24] == sessions[24:] and len(set(sessions)) == 12
        assert not any(name in str(record) for name in names for record in world.traffic.records)
        await world.chat()
        assert world.traffic.records[-1].session == ""
        assert "salt" not in (await world.client.get("/admin/state")).text

    routes = Routes(champion="1", challenger="2", challenger_weight=50, salt="of this test")
    World(backends, routes).run(work)


def test_an_answer_can_be_sent_back(world: World) -> None:
    """Its model's name, and its message, with the nulls that clients add."""

    async def work(world: World) -> None:
        first = (await world.chat()).json()
        listed = (await world.client.get("/v1/models")).json()["data"]
        assert (await world.client.get(f"/v1/models/{first['model']}")).json() == listed[0]
        nulls = {"refusal": None, "annotations": [], "audio": None, "function_call": None, "tool_calls": None}
        message = first["choices"][0]["message"] | nulls
        again = await world.chat(model=first["model"], messages=[*CHAT["messages"], message, *CHAT["messages"]])
        assert (again.status_code, again.json()["model"]) == (200, first["model"])

    world.run(work)


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        ("550e8400-e29b-41d4-a716-446655440000", True),
        ("Root=1-67891233-abcdef012345678912345678", True),
        ("jane.doe@corp-mail.org", False),
        ("+49-170-1234567", False),
        ("4111111111111111", False),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", False),
        ("<script>", False),
        ("a" * 129, False),
        ("", False),
    ],
)
def test_a_request_id_that_may_be_personal_is_replaced(world: World, given: str, is_kept: bool) -> None:
    async def work(world: World) -> None:
        headers = {"x-request-id": given}
        answer = await world.client.post("/v1/chat/completions", json=CHAT, headers=headers)
        stored = world.traffic.records[0].request_id
        assert answer.json()["id"] == f"chatcmpl-{stored}" and answer.headers["x-request-id"] == stored
        assert (stored == given) == is_kept and (is_kept or len(stored) == 32)

    world.run(work)


def test_before_the_first_champion_only_smoke_tests_are_answered(backends: Backends) -> None:
    async def work(world: World) -> None:
        refused = await world.chat()
        assert refused.status_code == 503
        assert "no version has been promoted yet" in refused.json()["error"]["message"]
        assert refused.headers["retry-after"] == "30"
        answered = await world.chat(arm="challenger", source="smoke")
        assert (answered.status_code, answered.headers["x-sluice-version"]) == (200, "2")
        ready = await world.client.get("/ready")
        assert (ready.status_code, ready.json()["reason"]) == (503, "no version has been promoted yet")

    World(backends, Routes(challenger="2", release=asdict(ReleaseState(challenger="2")))).run(work)


@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_challenger_never_reaches_the_user(backends: Backends, stream: bool) -> None:
    async def work(world: World) -> None:
        champion = (await world.chat(arm="champion")).json()["choices"][0]["message"]["content"]
        answer = await world.chat(stream=stream)
        text = text_of(answer) if stream else answer.json()["choices"][0]["message"]["content"]
        assert (answer.status_code, text) == (200, champion)
        names = ("x-sluice-version", "x-sluice-arm", "x-sluice-fell-back")
        assert [answer.headers[name] for name in names] == ["1", "champion", "1"]
        assert world.outcomes[1:] == [
            ("poisoned", "challenger", 500, "NonFiniteLogits"),
            ("1", "champion", 200, ""),
        ]
        measured = (await world.client.get("/admin/measurements?version=poisoned")).json()
        assert (measured["requests"], measured["errors"]) == (1, 1)
        assert b"sluice_fallbacks_total 1.0" in (await world.client.get("/metrics")).content

    challenged(backends, "poisoned").run(work)


def test_the_champion_goes_on_in_the_middle_of_a_stream(backends: Backends) -> None:
    async def work(world: World) -> None:
        fields = {"prompt": "The quick", "max_tokens": 40, "temperature": 0, "stream": True}
        answer = await world.client.post("/v1/completions", json={**fields, "stream_options": {"include_usage": True}})
        chunks = events_of(answer)
        text = "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"])  # type: ignore
        broken, taken_over = world.traffic.records
        assert (broken.error, broken.status, taken_over.status) == ("NonFiniteLogits", 500, 200)
        assert broken.completion_text
        assert taken_over.completion_text
        assert text == broken.completion_text + taken_over.completion_text
        assert answer.headers["x-sluice-version"] == "breaks-late"
        usage = chunks[-1]["usage"]
        assert usage["completion_tokens"] == broken.completion_tokens + taken_over.completion_tokens  # type: ignore
        again = GenerationRequest("x", "The quick", taken_over.completion_tokens, 0, 0.0, prefix=broken.completion_text)
        continued = [event.text async for event in world.backends.generate("1", again)]
        assert "".join(continued) == taken_over.completion_text

    challenged(backends, "breaks-late").run(work)


IMPATIENT = CONFIG.model_copy(update={"max_first_token_ms": 100.0, "request_timeout_s": 3600.0})


@pytest.mark.parametrize("stream", [False, True])
def test_a_challenger_that_hangs_costs_its_user_the_first_token_budget(backends: Backends, stream: bool) -> None:
    async def work(world: World) -> None:
        answer = await world.chat(stream=stream)
        assert (answer.status_code, answer.headers["x-sluice-version"]) == (200, "1")
        assert world.outcomes == [("hangs", "challenger", 504, "TimeoutError"), ("1", "champion", 200, "")]
        assert backends.hanging == 0
        waited = world.traffic.records[0].wait_ms
        assert waited is not None and 100 <= waited <= (world.traffic.records[0].total_ms or 0)
        measured = (await world.client.get("/admin/measurements?version=hangs")).json()
        assert (measured["requests"], measured["errors"]) == (1, 1)

    challenged(backends, "hangs", config=IMPATIENT).run(work)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_stalls_is_taken_over_too(backends: Backends, stream: bool) -> None:
    async def work(world: World) -> None:
        answer = await world.chat(stream=stream)
        if stream:
            assert text_of(answer).startswith("Once") and len(text_of(answer)) > len("Once")
        else:
            assert answer.json()["choices"] == (await world.chat(arm="champion")).json()["choices"]
        assert [outcome[2] for outcome in world.outcomes[:2]] == [504, 200]
        assert backends.hanging == 0

    challenged(backends, "stalls", config=IMPATIENT).run(work)


def test_an_answer_in_one_piece_may_take_longer_than_its_first_token(backends: Backends) -> None:
    """Signs of life are what the budget is for."""

    async def work(world: World) -> None:
        assert (await world.chat()).headers["x-sluice-version"] == "slow"

    config = CONFIG.model_copy(update={"max_first_token_ms": 700.0, "request_timeout_s": 3600.0})
    challenged(backends, "slow", config=config).run(work)


def test_a_setting_that_no_request_can_reach_is_refused() -> None:
    with pytest.raises(ValueError, match="max_first_token_ms 3000 exceeds 1000: of request_timeout_s 2"):
        ServeConfig(request_timeout_s=2)


@pytest.mark.parametrize(("gives_events", "faults"), [(True, 1), (False, 2)])
def test_a_wait_in_the_queue_is_not_the_versions_while_that_gives_events(
    monkeypatch: pytest.MonkeyPatch, gives_events: bool, faults: int
) -> None:
    """One slot: both requests wait 10 s for a version that is silent, or answers the first one then."""
    now, asked = 0.0, list[str]()
    both_asked, ten_seconds_later, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(fallback, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))

    class OneSlot:
        async def generate(self, version: str, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
            asked.append(request.request_id)
            if len(asked) == 2:
                both_asked.set()
            elif gives_events:
                await ten_seconds_later.wait()
                yield TokenEvent("", 0)
                answered.set()
            await asyncio.Event().wait()

    async def work(world: World) -> None:
        nonlocal now
        asking = [asyncio.create_task(world.chat()) for _ in range(2)]
        await both_asked.wait()
        now = 10.0
        ten_seconds_later.set()
        if gives_events:
            await answered.wait()
        for task in reversed(asking):
            task.cancel()
        await asyncio.wait(asking)
        measured = (await world.client.get("/admin/measurements?version=1")).json()
        assert (measured["requests"], measured["errors"]) == (faults, faults)

    config = CONFIG.model_copy(update={"max_first_token_ms": 3000.0, "max_batch": 1})
    World(OneSlot(), Routes(champion="1"), config).run(work)


def test_nobody_behind_a_champion_that_hangs(backends: Backends) -> None:
    async def work(world: World) -> None:
        answer = await world.chat()
        assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout_error")

    World(backends, Routes(champion="hangs"), CONFIG.model_copy(update={"request_timeout_s": 0.2})).run(work)


def test_a_failing_backend_says_nothing_of_its_inside(backends: Backends) -> None:
    async def work(world: World) -> None:
        answer = await world.chat()
        assert answer.status_code == 502
        assert answer.json()["error"]["message"] == "the model server failed (KeyError)"

    World(backends, Routes(champion="missing")).run(work)


def test_what_only_the_challenger_refuses_is_its_error(backends: Backends) -> None:
    async def work(world: World) -> None:
        messages = [{"role": "user", "content": "The quick brown fox jumps over the lazy dog, and nobody"}]
        assert (await world.chat(messages=messages)).status_code == 200
        assert [outcome[2:] for outcome in world.outcomes] == [(500, "PromptTooLong"), (200, "")]
        too_long = [{"role": "user", "content": "word " * 100}]
        assert (await world.chat(messages=too_long)).status_code == 400
        assert [outcome[2:] for outcome in world.outcomes[2:]] == [(400, "PromptTooLong")] * 2
        measured = (await world.client.get("/admin/measurements?version=short")).json()
        assert (measured["requests"], measured["errors"]) == (1, 1)

    challenged(backends, "short").run(work)


@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "after the objective"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_its_request(backends: Backends, stream: bool, is_late: bool) -> None:
    async def work(world: World) -> None:
        asking = asyncio.create_task(world.chat(stream=stream))
        while not backends.hanging:
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        assert backends.hanging == 0
        assert world.outcomes == [("hangs", "champion", 499, "ClientGone")]
        measured = (await world.client.get("/admin/measurements?version=hangs")).json()
        assert (measured["requests"], measured["errors"]) == (int(is_late), int(is_late))

    config = CONFIG.model_copy(update={"max_first_token_ms": 1e-6}) if is_late else CONFIG
    World(backends, Routes(champion="hangs"), config).run(work)


def test_a_disconnect_while_waiting_cancels_too(backends: Backends) -> None:
    """As a server tells it: by a message, not by cancelling the handler."""

    async def work(world: World) -> None:
        body = json.dumps(CHAT).encode()
        messages = asyncio.Queue[dict[str, object]]()
        messages.put_nowait({"type": "http.request", "body": body, "more_body": False})
        headers = [(b"authorization", f"Bearer {KEY}".encode())]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": headers,
            "query_string": b"",
        }

        async def send(message: object) -> None:
            pass

        handling = asyncio.ensure_future(world.app(scope, messages.get, send))  # type: ignore[arg-type]
        while not backends.hanging:
            await asyncio.sleep(0)
        messages.put_nowait({"type": "http.disconnect"})
        await handling
        assert backends.hanging == 0
        assert world.outcomes[0][2:] == (499, "ClientGone")

    World(backends, Routes(champion="hangs")).run(work)


def test_a_full_queue_is_503_with_retry_after(make_model: Callable[..., Path]) -> None:
    config = CONFIG.model_copy(update={"max_batch": 1, "max_queued": 1})
    engine = LLMEngine(make_model(1), config)

    async def work(world: World) -> None:
        answers = await asyncio.gather(*(world.chat(max_tokens=40) for _ in range(12)))
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert all(answer.status_code in (200, 503) for answer in answers)
        assert {answer.headers["retry-after"] for answer in refused} == {"1"}
        assert {answer.json()["error"]["code"] for answer in refused} == {"QueueFull"}
        assert (await world.chat()).status_code == 200

    try:
        World(Backends({"1": engine}), Routes(champion="1"), config).run(work)
    finally:
        engine.stop()


def test_measurements_are_totals_by_source_and_class(world: World) -> None:
    async def work(world: World) -> None:
        live = await world.chat()
        replay = await world.chat(source="replay")
        mistake = await world.chat(source="replay", messages=[{"role": "user", "content": "word " * 100}])
        told = [answer.headers.get("x-sluice-attempt-class") for answer in (live, replay, mistake)]
        assert told == [None, "answered", "client_mistake"]
        measured = (await world.client.get("/admin/measurements", params={"version": "1"})).json()
        counts = {"live": {"answered": 1}, "replay": {"answered": 1, "client_mistake": 1}}
        assert (measured["version"], measured["counts"]) == ("1", counts)
        state = (await world.client.get("/admin/state")).json()
        assert (state["versions"]["1"]["requests"], state["versions"]["1"]["not_judged"]) == (2, 1)
        assert state["champion"] == "1"
        assert [record.source for record in world.traffic.records] == ["live", "replay", "replay"]
        text = (await world.client.get("/metrics")).text
        labels = 'arm="champion",class="client_mistake",source="replay",status="400",version="1"'
        assert f"sluice_requests_total{{{labels}}} 1.0" in text
        assert 'sluice_version_ready{version="1"} 1.0' in text

    world.run(work)


def test_routes_are_replaced_while_requests_run(backends: Backends) -> None:
    async def work(world: World) -> None:
        async def one() -> str:
            answer = await world.chat()
            assert answer.status_code == 200
            return answer.headers["x-sluice-version"]

        before = [asyncio.create_task(one()) for _ in range(4)]
        await asyncio.sleep(0)
        world.routes.current = Routes(champion="2")
        assert await one() == "2"
        assert set(await asyncio.gather(*before)) <= {"1", "2"}

    World(backends, Routes(champion="1")).run(work)


async def settled(world: World, pairs: int) -> dict[str, object]:
    """Return the shadow pairs once there are so many."""
    while (found := (await world.client.get("/admin/shadow")).json())["last"] < pairs or found["in_flight"]:
        await asyncio.sleep(0)
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_the_challenger_answers_what_the_champion_does_and_nobody_sees_it(backends: Backends, stream: bool) -> None:
    async def work(world: World) -> None:
        answer = await world.chat(stream=stream, user="anna")
        assert answer.headers["x-sluice-version"] == "1" and "x-sluice-fell-back" not in answer.headers
        (pair,) = (await settled(world, 1))["pairs"]  # type: ignore[misc]
        text = text_of(answer) if stream else answer.json()["choices"][0]["message"]["content"]
        assert (pair["n"], pair["version"], pair["champion"]["text"]) == (1, "2", text)
        own = (await world.chat(arm="challenger", source="replay")).json()["choices"][0]["message"]["content"]
        assert pair["challenger"]["text"] == own
        assert {pair[arm]["attempt_class"] for arm in ("champion", "challenger")} == {"answered"}
        assert all(pair[arm]["first_token_ms"] >= 0 for arm in ("champion", "challenger"))
        assert all(pair[arm]["between_tokens_ms"] >= 0 for arm in ("champion", "challenger"))
        assert pair["session"] == world.traffic.records[0].session != ""
        # Only the replay of this test is counted for the challenger.
        assert [record.source for record in world.traffic.records if record.version == "2"] == ["replay"]
        measured = (await world.client.get("/admin/measurements?version=2")).json()
        assert measured["counts"] == {"replay": {"answered": 1}}
        metrics = (await world.client.get("/metrics")).text
        assert 'sluice_requests_total{arm="challenger",class="answered",source="live"' not in metrics
        for after in (1, sys.maxsize):
            found = (await world.client.get(f"/admin/shadow?after={after}")).json()
            assert (found["pairs"], found["last"]) == ([], 1)

    World(backends, Routes(champion="1", challenger="2", shadow=True)).run(work)


def test_a_shadow_that_fails_harms_nobody_and_one_without_a_slot_is_skipped(backends: Backends) -> None:
    async def work(world: World) -> None:
        assert (await world.chat()).status_code == 200
        (pair,) = (await settled(world, 1))["pairs"]  # type: ignore[misc]
        assert pair["challenger"]["attempt_class"] == "model_fault"
        assert pair["challenger"]["first_token_ms"] is None and pair["champion"]["attempt_class"] == "answered"
        world.routes.current = replace(world.routes.current, challenger="hangs")
        for _ in range(4):
            assert (await world.chat()).status_code == 200
        found = (await world.client.get("/admin/shadow")).json()
        assert (found["in_flight"], found["skipped"], found["last"]) == (2, 2, 1)
        # Replays and pinned requests are no users, and no shadow is sent for them.
        assert (await world.chat(arm="champion")).status_code == 200
        assert (await world.chat(source="replay")).status_code == 200
        assert (await world.client.get("/admin/shadow")).json()["skipped"] == 2

    World(backends, Routes(champion="1", challenger="poisoned", shadow=True)).run(work)


def test_a_champion_that_fails_before_its_first_token_is_part_of_a_pair_too(backends: Backends) -> None:
    async def work(world: World) -> None:
        assert (await world.chat()).status_code == 500
        (pair,) = (await settled(world, 1))["pairs"]  # type: ignore[misc]
        assert pair["champion"]["attempt_class"] == "model_fault"
        assert pair["challenger"]["attempt_class"] == "answered"

    World(backends, Routes(champion="poisoned", challenger="2", shadow=True)).run(work)


def test_texts_of_shadow_pairs_are_masked_and_the_oldest_go_first(backends: Backends) -> None:
    shadows = Shadows(backends, Slots(1), CONFIG)
    for number in range(KEPT_PAIRS + 10):
        pair = shadows.pair(GenerationRequest(request_id="r", prompt="x", max_tokens=1, seed=1), "2", "")
        for arm in ("champion", "challenger"):
            text = f"{number} jane.doe@corp-mail.org"
            record = TrafficRecord(
                request_id="r",
                time=1.0,
                version="1",
                arm=arm,
                status=200,
                completion_text=text,  # type: ignore[arg-type]
            )
            pair.note(record, "answered")
    assert [pair["n"] for pair in shadows.after(0)["pairs"]] == list(range(11, 111))
    last = shadows.after(KEPT_PAIRS + 9)
    assert [pair["n"] for pair in last["pairs"]] == [KEPT_PAIRS + 10] == [last["last"]]
    assert "jane.doe" not in str(last) and last["pairs"][0]["champion"]["text"].startswith(f"{KEPT_PAIRS + 9} ")


def test_a_vote_counts_once_for_the_version_that_answered(backends: Backends) -> None:
    async def work(world: World) -> None:
        async def vote(**fields: object) -> tuple[int, str]:
            answer = await world.client.post("/v1/feedback", json=fields)
            return answer.status_code, answer.json().get("version") or answer.json()["error"]["message"]

        first = (await world.chat()).json()["id"]
        assert await vote(id=first, score="bad", comment="ask jane.doe@corp-mail.org") == (200, "1")
        assert (await vote(id=first, score=1))[0] == 409
        second = await world.client.post("/v1/completions", json={"prompt": "x"}, headers={"x-request-id": "mine"})
        assert await vote(request_id="mine", score=1) == (200, "1") and second.status_code == 200
        third = (await world.chat()).json()["id"]
        assert await vote(id=third, score=0) == (200, "1")
        smoke = await world.client.post(
            "/v1/completions", json={"prompt": "x"}, headers={"x-request-id": "smoke", "x-sluice-source": "smoke"}
        )
        assert smoke.status_code == 200
        assert (await vote(request_id="smoke", score=1))[0] == (await vote(request_id="stranger", score=1))[0] == 404
        for wrong, message in (
            ({"score": 1}, "send either request_id or id"),
            ({"score": 1, "id": "a", "request_id": "b"}, "send either request_id or id"),
            ({"id": first}, "score"),
            ({"id": first, "score": 2}, "score: must be 1, 0"),
            ({"id": first, "score": True}, "score"),
            ({"id": first, "score": 1, "comment": "x" * 2001}, "comment"),
        ):
            status, said = await vote(**wrong)
            assert status == 400 and message in said
        measured = (await world.client.get("/admin/measurements?version=1")).json()
        assert measured["votes"] == {"bad": 1, "good": 1}
        assert (await world.client.get("/admin/state")).json()["versions"]["1"]["votes"] == {"bad": 1, "good": 1}

    World(backends, Routes(champion="1")).run(work)


def test_votes_are_written_masked_and_old_requests_get_none(tmp_path: Path) -> None:
    now = 1000.0
    feedback = Feedback(tmp_path / "traffic", clock=lambda: now)
    for name in ("a", "b"):
        feedback.note(
            TrafficRecord(request_id=name, time=now, version="1", arm="champion", status=200, session="f" * 16)
        )
    given = FeedbackRequest(request_id="a", score=-1, comment="call +49 170 1234567, jane.doe@corp-mail.org")
    feedback.write(given, feedback.vote(given))
    (path,) = (tmp_path / "traffic").glob("feedback-*.jsonl")
    row = json.loads(path.read_text())
    assert (row["request_id"], row["version"], row["vote"], row["session"]) == ("a", "1", "bad", "f" * 16)
    assert "jane.doe" not in row["comment"] and "1234567" not in row["comment"]
    now += KEPT_S + 1
    with pytest.raises(ApiError, match="no live request 'b' was answered within the last 7 days"):
        feedback.vote(FeedbackRequest(request_id="b", score=1))
