"""The page over HTTP: log-in, cookie, token and live updates, in the real gateway without a browser."""

import asyncio
import hmac
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import httpx
import pytest
from idle_gateway import NoBackends, NoTraffic

from sluice.serving import auth
from sluice.serving.auth import KeyRing, hash_key, workspace_key
from sluice.serving.config import ServeConfig
from sluice.serving.gateway import create_app
from sluice.serving.page.events import HEARTBEAT_S, PERIOD_S, RETRY_MS, LivePage
from sluice.serving.page.sessions import COOKIE, CSRF_HEADER, LIFETIME_S, Sessions
from sluice.serving.routing import Routes, RouteTable

KEY = "k" * 32
WAIT_S = 60.0


@dataclass(frozen=True)
class Key:
    """A key of a given name and role."""

    name: str = "workspace"
    role: str = "release"
    key: str = KEY

    @property
    def sha256(self) -> str:
        return hash_key(self.key)


@pytest.fixture
def client() -> httpx.AsyncClient:
    """A browser without a log-in, in front of a gateway whose champion is version 3."""
    routes = RouteTable(Routes(champion="3", ready=("3",), release={"champion": "3"}))
    app = create_app(NoBackends(), ServeConfig(), KeyRing([workspace_key(KEY)]), NoTraffic(), routes)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://gateway")


def run(work: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(work, WAIT_S))  # type: ignore[arg-type]


async def log_in(client: httpx.AsyncClient) -> str:
    """Log in and return the page's token."""
    answer = await client.post("/login", data={"key": f" {KEY}\n"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    found = re.search(r'name="csrf" content="([0-9a-f]{64})"', (await client.get("/")).text)
    assert found is not None
    return found[1]


def test_the_page_asks_for_a_key_first(client: httpx.AsyncClient) -> None:
    async def work() -> None:
        first = await client.get("/")
        assert (first.status_code, first.headers["location"]) == (303, "/login")
        assert (await client.get("/admin/events")).status_code == 401
        form = await client.get("/login")
        assert form.status_code == 200 and 'type="password"' in form.text
        refused = await client.post("/login", data={"key": "wrong"})
        assert (refused.status_code, "set-cookie" in refused.headers) == (401, False)
        assert "does not know this key" in refused.text
        for body in ("", "key=", "key=%ff%fe", "%", "x" * 300_000):
            assert (await client.post("/login", content=body)).status_code in (401, 413)
        token = await log_in(client)
        page = await client.get("/")
        assert page.status_code == 200 and "v3" in page.text and KEY not in page.text
        assert (await client.post("/logout", headers={CSRF_HEADER: token})).status_code == 200
        assert (await client.get("/")).status_code == 303

    run(work())


def test_the_cookie_is_no_use_to_scripts_and_other_sites(client: httpx.AsyncClient) -> None:
    async def work() -> None:
        answer = await client.post("/login", data={"key": KEY})
        flags = answer.headers["set-cookie"].lower()
        assert "httponly" in flags and "samesite=strict" in flags and "secure" not in flags and KEY not in flags
        safe = await client.post("/login", data={"key": KEY}, headers={"x-forwarded-proto": "https"})
        assert "secure" in safe.headers["set-cookie"].lower()
        other_site = await client.post("/login", data={"key": KEY}, headers={"sec-fetch-site": "cross-site"})
        assert (other_site.status_code, "set-cookie" in other_site.headers) == (403, False)

    run(work())


@pytest.mark.parametrize("path", ["/", "/login"])
def test_pages_allow_no_inline_script_and_no_frame(client: httpx.AsyncClient, path: str) -> None:
    async def work() -> None:
        await log_in(client)
        answer = await client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "unsafe-inline" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<script(?! src=)|\sstyle=|<style|\son\w+=", answer.text)
        for file in re.findall(r'(?:src|href)="(/page/[^"]+)"', answer.text):
            found = await client.get(file)
            assert (found.status_code, found.headers["x-content-type-options"]) == (200, "nosniff")

    run(work())


def test_what_changes_something_needs_the_pages_token(client: httpx.AsyncClient) -> None:
    """Whatever the path, as a browser sends the cookie by itself."""

    async def work() -> None:
        token = await log_in(client)
        for path in ("/v1/chat/completions", "/admin/rollout/abort", "/logout"):
            for headers in ({}, {CSRF_HEADER: ""}, {CSRF_HEADER: "0" * 64}, {CSRF_HEADER: token[:-1]}):
                answer = await client.post(path, json={}, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "invalid_csrf_token")
            assert (await client.post(path, json={}, headers={CSRF_HEADER: token})).status_code != 403

    run(work())


@pytest.mark.parametrize(
    "cookie", ["", "x", "..", "d29ya3NwYWNl.1.00", f"d29ya3NwYWNl.99999999999.{'0' * 64}", f"{'=' * 9}.1.{'0' * 64}"]
)
def test_a_forged_cookie_opens_nothing(client: httpx.AsyncClient, cookie: str) -> None:
    async def work() -> None:
        client.headers["cookie"] = f"{COOKIE}={cookie}; other=1"
        assert (await client.get("/")).status_code == 303
        assert (await client.get("/admin/state")).status_code == 401

    run(work())


def test_a_log_in_ends_with_its_key_and_its_time() -> None:
    keys, now = [Key(), Key("ann", "watch", "a" * 32)], [1000.0]
    sessions = Sessions(lambda: keys, lambda: now[0])
    cookie = sessions.log_in("a" * 32)
    assert cookie is not None and sessions.log_in("b" * 32) is None
    viewer = sessions.viewer(cookie)
    assert viewer is not None and (viewer.name, viewer.role) == ("ann", "watch")
    assert sessions.may_post(cookie, viewer.csrf) and not sessions.may_post(cookie, "ü")
    other = sessions.log_in(KEY)
    assert other is not None and not sessions.may_post(other, viewer.csrf)
    for seconds in (-1.0, LIFETIME_S + 1.0):
        now[0] = 1000.0 + seconds
        assert sessions.viewer(cookie) is None
    now[0] = 1000.0
    assert sessions.viewer(cookie) == viewer
    # Another key of the same name is another log-in.
    keys[1] = replace(keys[1], key="c" * 32)
    assert sessions.viewer(cookie) is None


def test_what_the_database_has_of_a_key_makes_no_cookie() -> None:
    ann = Key("ann", "release", "a" * 32)
    sessions = Sessions(lambda: [Key(), ann], lambda: 1000.0)
    signed = f"{urlsafe_b64encode(b'ann').decode()}.1000"
    for secret in (ann.sha256, ann.sha256 * 2):
        mac = hmac.digest(secret.encode(), f"session:{signed}".encode(), "sha256").hex()
        assert sessions.viewer(f"{signed}.{mac}") is None
    cookie = sessions.log_in(ann.key)
    assert cookie is not None and cookie.startswith(signed) and sessions.viewer(cookie) is not None


def test_a_stream_opened_by_a_header_ends_once_its_key_is_revoked() -> None:
    own, ann = workspace_key(KEY), auth.Key("ann", "watch", hash_key("a" * 32))

    class Revoking(KeyRing):
        """Ann's key is revoked just after it has opened something."""

        def find(self, sha256: str) -> auth.Key | None:
            found = super().find(sha256)
            self.current = (own,)
            return found

    async def work() -> None:
        app = create_app(NoBackends(), ServeConfig(), Revoking([own, ann]), NoTraffic(), RouteTable(Routes()))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")
        answer = await client.get("/admin/events", headers={"authorization": f"Bearer {'a' * 32}"})
        assert answer.status_code == 200 and answer.text.endswith("event: end\ndata: \n\n")

    run(work())


class Watched:
    """A page whose clock runs only while a stream sleeps."""

    def __init__(self) -> None:
        self.now, self.reads, self.allowed = 100.0, 0, True
        self.state: dict[str, Any] = {"champion": "3", "release": {"champion": "3"}}
        self.page = LivePage(self.read, lambda: self.now, self.sleep)

    def read(self) -> dict[str, Any]:
        self.reads += 1
        return self.state

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def events(self, longest_s: float = 1000.0, may_release: bool = True) -> AsyncGenerator[str, None]:
        """A stream after its first line, which tells the browser how soon to come back."""
        events = self.page.events(may_release=may_release, is_allowed=lambda: self.allowed, longest_s=longest_s)
        async with aclosing(events):
            assert await anext(events) == f"retry: {RETRY_MS}\n\n"
            async for event in events:
                yield event


def regions_of(event: str) -> dict[str, str]:
    name, data = event.strip().split("\n")
    assert name == "event: regions"
    return json.loads(data.removeprefix("data: "))


def test_an_event_has_the_regions_that_changed() -> None:
    async def work(watched: Watched) -> None:
        events = watched.events()
        first = regions_of(await anext(events))
        assert {"health", "traffic", "entries"} <= first.keys()
        watched.state = {**watched.state, "challenger": "4", "ready": ["4"]}
        assert regions_of(await anext(events)).keys() == {"versions"}
        watched.state = {**watched.state, "error": "<b>locked</b>"}
        changed = regions_of(await anext(events))
        assert changed.keys() == {"health", "notices"} and "&lt;b&gt;locked" in changed["notices"]
        await events.aclose()

    run(work(Watched()))


def test_a_stream_without_changes_beats_and_ends() -> None:
    async def work(watched: Watched) -> None:
        found = [event async for event in watched.events(longest_s=3 * HEARTBEAT_S + 1)]
        assert [event.split("\n")[0] for event in found] == ["event: regions", *[": heartbeat"] * 3]
        watched.allowed = False
        assert [event async for event in watched.events()] == ["event: end\ndata: \n\n"]

    run(work(Watched()))


def test_events_come_at_most_twice_a_second_and_are_read_once_for_all() -> None:
    async def work(watched: Watched) -> None:
        streams = [watched.events(), watched.events(), watched.events(may_release=False)]
        for stream in streams:
            await anext(stream)
        assert watched.reads == 1
        times = []
        for number in range(5):
            watched.state = {**watched.state, "error": f"error {number}"}
            await anext(streams[0])
            times.append(watched.now)
        assert min(later - sooner for sooner, later in pairwise(times)) >= PERIOD_S
        for stream in streams:
            await stream.aclose()

    run(work(Watched()))


def test_the_chart_keeps_the_last_minutes() -> None:
    async def work(watched: Watched) -> None:
        watched.state = {**watched.state, "versions": {"3": {"latency_p95_minute_ms": 4.0}}}
        events = watched.events()
        assert "<path" in regions_of(await anext(events))["latency"]
        watched.state = {**watched.state, "versions": {"3": {"latency_p95_minute_ms": None}}}
        changed = regions_of(await anext(events))
        assert "<path" in changed["latency"] and "no request in the last minute" in changed["latency"]
        await events.aclose()

    run(work(Watched()))
