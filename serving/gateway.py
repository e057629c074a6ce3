"""The HTTP server in front of the model versions: OpenAI's API, health, metrics, and state for the release.

It neither loads models nor knows Ray: it calls versions through `Backends`, and a `RouteTable` that the reconciler
keeps up to date selects them.
"""

import asyncio
import hashlib
import logging
import math
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from sluice.data.privacy import mask
from sluice.monitoring.traffic.classify import CLIENT_GONE, AttemptClass, classify_record
from sluice.monitoring.traffic.record import TrafficRecord
from sluice.serving import api
from sluice.serving.api import ApiError, ChatCompletionRequest, CompletionRequest, SamplingRequest
from sluice.serving.auth import SCOPE_KEY, AuthMiddleware, KeyRing
from sluice.serving.config import ServeConfig
from sluice.serving.control import COMMAND_TIMEOUT_S, Action, Command, CommandQueue
from sluice.serving.engine.request import GenerationError, TokenEvent
from sluice.serving.event_stream import EventStream
from sluice.serving.fallback import Backends, FallbackCall
from sluice.serving.feedback import Feedback, FeedbackRequest
from sluice.serving.measurements import Exporter, RecentRequests
from sluice.serving.page.routes import OPEN_PATHS as PAGE_PATHS
from sluice.serving.page.routes import page_router
from sluice.serving.page.sessions import Sessions
from sluice.serving.readiness import Outage, find_outage
from sluice.serving.routing import Arm, Routes, RouteTable, TrafficSource, session_hash, targets
from sluice.serving.shadow import Shadows
from sluice.serving.slots import Slots

OPEN_PATHS = ("/health", "/ready", *PAGE_PATHS)
RETRY_AFTER_S = 1
MAX_REASON, MAX_VERSION = 1000, 64
"""Most characters of a command's reason and version."""
ATTEMPT_CLASS_HEADER = "x-sluice-attempt-class"
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=/+-]{0,127}")

log = logging.getLogger(__name__)
Result = TypeVar("Result")


class TrafficSink(Protocol):
    """Destination of traffic records (sluice.monitoring.traffic.writer.TrafficWriter)."""

    lost: int

    def write(self, record: TrafficRecord) -> None: ...
    def close(self) -> None: ...


class Gateway:
    """State shared by the endpoints."""

    def __init__(
        self,
        backends: Backends,
        config: ServeConfig,
        traffic: TrafficSink,
        routes: RouteTable,
        *,
        sets_request_id: bool,
        feedback: Feedback,
    ) -> None:
        self.backends, self.config, self.traffic, self.routes = backends, config, traffic, routes
        self._sets_request_id = sets_request_id
        self.recent, self.exporter, self.slots = RecentRequests(), Exporter(routes), Slots(config.max_batch)
        self.feedback, self.shadows = feedback, Shadows(backends, self.slots, config)
        self.started = int(time.time())

    def open(self, request: Request, parsed: SamplingRequest) -> FallbackCall:
        """Select the versions that may answer; raise ApiError if there is none."""
        header = request.headers.get
        given = header("x-request-id", "")
        # It is stored: one that may quote personal data, or is no plain name, is replaced.
        is_plain = _REQUEST_ID.fullmatch(given) and mask(given)[0] == given
        request_id = given if is_plain else uuid.uuid4().hex
        arm = _one_of(header("x-sluice-arm"), "x-sluice-arm", ("champion", "challenger"))
        source = cast(
            TrafficSource, _one_of(header("x-sluice-source", "live"), "x-sluice-source", ("live", "replay", "smoke"))
        )
        routes = self.routes.current
        session = header("x-sluice-session") or parsed.user
        chosen = targets(routes, session or request_id, cast(Arm | None, arm), source)
        if not chosen:
            outage = find_outage(routes)
            if arm == "challenger" or outage is None:
                outage = Outage("no challenger is ready")
            raise ApiError(503, outage.message, code="no_model", retry_after_s=outage.retry_after_s)
        # Derived from the id, so that a request without a seed can be repeated.
        seed = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:6])
        wanted = parsed.to_engine(request_id, self.config.max_tokens, seed)
        record: Callable[[TrafficRecord], AttemptClass] = self.record
        begun, hashed = _nothing, session_hash(session, routes.salt)
        if routes.shadow and source == "live" and arm is None and routes.challenger and chosen[0].arm == "champion":
            pair = self.shadows.pair(wanted, routes.challenger, hashed)
            begun, record = pair.begin, pair.noting(self.record)
        return FallbackCall(
            self.backends,
            wanted,
            chosen,
            source=source,
            session=hashed,
            timeout_s=self.config.request_timeout_s,
            max_wait_ms=self.config.max_first_token_ms,
            slots=self.slots,
            record=record,
            begun=begun,
        )

    def record(self, record: TrafficRecord) -> AttemptClass:
        """Keep one attempt, in memory and on disk; return its class."""
        attempt_class = classify_record(record, self.config.max_first_token_ms)
        self.recent.add(record, attempt_class)
        self.exporter.add(record, attempt_class)
        self.traffic.write(record)
        self.feedback.note(record)
        return attempt_class

    async def vote(self, body: bytes) -> dict[str, Any]:
        """Count and keep a user's vote."""
        given = api.parse_strict(FeedbackRequest, body)
        answered = self.feedback.vote(given)
        if given.vote != "neutral":
            self.recent.add_vote(answered.version, given.vote)
        await asyncio.to_thread(self.feedback.write, given, answered)
        return {"request_id": given.request, "version": answered.version, "vote": given.vote}

    def headers(self, call: FallbackCall, ignored: Sequence[str]) -> dict[str, str]:
        """Return the headers that name the version and arm of an answer, and the ignored fields of its request."""
        target = call.target
        found = {"x-sluice-version": target.version, "x-sluice-arm": target.arm}
        if self._sets_request_id:
            found["x-request-id"] = call.request_id
        if call.fell_back:
            found["x-sluice-fell-back"] = "1"
        if ignored:
            found["x-sluice-ignored"] = ", ".join(ignored)
        return found | _attempt_headers(call)

    async def answer(self, request: Request, kind: type[SamplingRequest]) -> Response:
        """Answer one completion request, streamed or complete."""
        parsed, ignored = api.parse(kind, await request.body(), self.config.max_tokens)
        call = self.open(request, parsed)
        events = call.events()
        try:
            # Wait for the first event before sending headers: failures until then get their own HTTP status.
            event = await _while_connected(request, anext(events) if parsed.stream else _last(events))
        except Exception as error:
            failure = _api_error(error)
            failure.more_headers |= _attempt_headers(call)
            raise failure from error
        reply = api.ResponseBuilder(parsed, call.request_id, call.target.version, int(time.time()))
        if parsed.stream:
            return EventStream(self._stream(call, event, events, reply), headers=self.headers(call, ignored))
        assert event.finish is not None, "the last event of an answer has its finish"
        self._count(call)
        finish = event.finish
        durations = {"queue": finish.queue_ms, "first": finish.first_token_ms, "token": finish.per_token_ms}
        timing = ", ".join(f"{name};dur={value:.3f}" for name, value in durations.items() if value is not None)
        headers = self.headers(call, ignored) | {"server-timing": timing}
        return JSONResponse(reply.complete(event.text, finish), headers=headers)

    async def _stream(
        self,
        call: FallbackCall,
        event: TokenEvent,
        events: AsyncGenerator[TokenEvent, None],
        reply: api.ResponseBuilder,
    ) -> AsyncGenerator[str, None]:
        opening = reply.opening()
        try:
            while event.finish is None:
                if chunk := opening + reply.chunk(event.text):
                    yield chunk
                opening = ""
                event = await anext(events)
            yield opening + reply.chunk(event.text) + reply.closing(event.finish)
        except Exception as error:
            yield api.stream_error(_api_error(error))
        finally:
            await events.aclose()
            self._count(call)

    def _count(self, call: FallbackCall) -> None:
        if call.fell_back:
            self.exporter.add_fallback()


def create_app(
    backends: Backends,
    config: ServeConfig,
    keys: KeyRing,
    traffic: TrafficSink,
    routes: RouteTable,
    *,
    commands: CommandQueue | None = None,
    sets_request_id: bool = True,
    feedback_folder: Path | None = None,
) -> FastAPI:
    """The gateway as an ASGI application.

    The traffic sink is closed with the application. Changes of the release wait in `commands` for who carries them
    out. Behind a proxy that gives every request and answer its `x-request-id`, as Ray Serve's does, `sets_request_id`
    is False. Votes are written into `feedback_folder`.
    """
    feedback = Feedback(feedback_folder)
    gateway = Gateway(backends, config, traffic, routes, sets_request_id=sets_request_id, feedback=feedback)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(traffic.close)

    app = FastAPI(title="sluice", lifespan=lifespan, docs_url=None, redoc_url=None)
    sessions = Sessions(lambda: keys.current)
    app.add_middleware(AuthMiddleware, keys=keys, sessions=sessions, open_paths=OPEN_PATHS)
    _add_error_handlers(app)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Liveness: the gateway answers, whether or not a champion does."""
        return {"status": "ok", **_warning(routes.current)}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """Readiness: 503 with the reason if no champion answers."""
        outage = find_outage(routes.current)
        if outage is None:
            return JSONResponse({"ready": True, "champion": routes.current.champion, **_warning(routes.current)})
        body = {"ready": False, "reason": outage.reason, "next_step": outage.next_step}
        return JSONResponse(body, 503, {"retry-after": str(outage.retry_after_s)})

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(gateway.exporter.text(traffic.lost), media_type="text/plain; version=0.0.4; charset=utf-8")

    shown: tuple[Routes | None, dict[str, Any]] = None, {}

    def read_state() -> dict[str, Any]:
        nonlocal shown
        current = routes.current
        if shown[0] is not current:
            shown = current, {name: _finite(value) for name, value in asdict(current).items() if name != "salt"}
        return {
            **shown[1],
            "versions": gateway.recent.overview(time.time()),
            "traffic_records_lost": traffic.lost,
            "started": gateway.started,
            "time": time.time(),
        }

    @app.get("/admin/state")
    async def state() -> JSONResponse:
        # A response of our own: FastAPI's encoder would hold up the users' requests for milliseconds.
        return JSONResponse(read_state())

    app.include_router(page_router(read_state, sessions))

    @app.get("/admin/measurements")
    async def measurements(version: str) -> JSONResponse:
        found = gateway.recent.measurements(version)
        return JSONResponse({**vars(found), "requests": found.requests, "errors": found.errors})

    @app.get("/admin/shadow")
    async def shadow(after: int = 0) -> JSONResponse:
        """Return pairs of answers with a number above `after`."""
        return JSONResponse(gateway.shadows.after(after))

    @app.post("/v1/feedback")
    async def feedback_vote(request: Request) -> JSONResponse:
        """Vote on an answer."""
        return JSONResponse(await gateway.vote(await request.body()))

    add_control(app, commands or CommandQueue())

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return api.model_list(gateway.started)

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        api.check_model(name)
        return api.model_entry(gateway.started)

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await gateway.answer(request, CompletionRequest)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        return await gateway.answer(request, ChatCompletionRequest)

    return app


class ControlRequest(api.Strict):
    """Body of a change of the release. `version` is the one that the client expects to act on."""

    reason: str = Field("", max_length=MAX_REASON)
    version: str | None = Field(None, max_length=MAX_VERSION)
    to: str | None = Field(None, max_length=MAX_VERSION)


def add_control(app: FastAPI, commands: CommandQueue) -> None:
    """Add the addresses that change the release."""

    async def answer(request: Request, action: Action) -> JSONResponse:
        wanted = api.parse_strict(ControlRequest, await request.body())
        if action == "load" and not wanted.version:
            raise ApiError(400, "version: is missing; send the version to load", param="version")
        if action != "load" and not wanted.reason.strip():
            raise ApiError(400, "reason: is missing; it is written into the history", param="reason")
        command = Command(
            action=action,
            actor=f"key:{request.scope[SCOPE_KEY].name}",
            reason=wanted.reason.strip(),
            version=wanted.version or None,
            to=wanted.to or None,
        )
        try:
            result = await commands.result(command)
        except TimeoutError:
            limit = f"{COMMAND_TIMEOUT_S:.0f} s"
            message = f"{action} was not carried out within {limit}; `sluice history` shows whether it is now"
            raise ApiError(504, message, code="timeout") from None
        if result.error:
            raise ApiError(409, result.error, code="refused")
        return JSONResponse({"state": dict(result.state)})

    @app.post("/admin/rollout/{action}")
    async def rollout(request: Request, action: Literal["pause", "resume", "promote", "abort"]) -> JSONResponse:
        """Steer the challenger's rollout."""
        return await answer(request, action)

    @app.post("/admin/rollback")
    async def rollback(request: Request) -> JSONResponse:
        """Restore an earlier champion."""
        return await answer(request, "rollback")

    @app.post("/admin/load")
    async def load(request: Request) -> JSONResponse:
        """Load a version, as for a rollback to it, and answer once it is ready."""
        return await answer(request, "load")


def _add_error_handlers(app: FastAPI) -> None:
    """Give every error OpenAI's format."""

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path}: {error.detail}"
        return JSONResponse(ApiError(error.status_code, message).body, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name = str(first["loc"][-1])
        return JSONResponse(ApiError(400, f"{name}: {first['msg']}", param=name).body, 400)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        log.error("unexpected %s", type(error).__name__)
        return JSONResponse(ApiError(500, "the gateway failed").body, 500)


def _nothing() -> None:
    pass


def _finite(value: Any) -> Any:
    """Return a value for JSON, in which infinity and NaN, as of an e-value, are texts."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _attempt_headers(call: FallbackCall) -> dict[str, str]:
    """Return the class of the first attempt, for a rollout's replays: a fallback may have hidden it."""
    is_told = call.source != "live" and call.attempt_classes
    return {ATTEMPT_CLASS_HEADER: call.attempt_classes[0]} if is_told else {}


async def _last(events: AsyncGenerator[TokenEvent, None]) -> TokenEvent:
    """Return the last event, which has the whole text of an answer that does not stream."""
    async with aclosing(events):
        async for event in events:
            last = event
    return last


async def _while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """Return the result of `work`; cancel it if the client disconnects first."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ApiError(CLIENT_GONE, "the client disconnected")
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _api_error(error: Exception) -> ApiError:
    """Convert an error for the client: messages of our own only, because others may reveal internals."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, TimeoutError):
        return ApiError(504, "the model did not answer in time (serve.request_timeout_s)", code="timeout")
    if isinstance(error, GenerationError):
        retry_after_s = RETRY_AFTER_S if error.status == 503 else 0
        param = "messages" if error.status == 400 else None
        return ApiError(error.status, str(error), param=param, code=type(error).__name__, retry_after_s=retry_after_s)
    log.error("a backend failed: %s", type(error).__name__)
    return ApiError(502, f"the model server failed ({type(error).__name__})", code="backend_failed")


def _one_of(value: str | None, header: str, allowed: tuple[str, ...]) -> str | None:
    if value is not None and value not in allowed:
        raise ApiError(400, f"header {header} is '{value}', but must be one of {', '.join(allowed)}", param=header)
    return value


def _warning(current: Routes) -> dict[str, str]:
    """Return a warning if the release is not followed. The error itself may name paths, so it is not for everybody."""
    if not current.error:
        return {}
    return {"warning": f"the release is not followed ({current.error_kind}): run `sluice status`"}
