"""Keys of the server: made, listed, revoked, and what each role may ask of the gateway."""

import asyncio
from pathlib import Path

import httpx
import pytest
from idle_gateway import NoBackends, NoTraffic
from release_fixtures import postgresql  # noqa: F401

from sluice.serving.auth import Key, KeyRing, hash_key, needed_role
from sluice.serving.config import ServeConfig
from sluice.serving.gateway import create_app
from sluice.serving.keys import KeyTable
from sluice.serving.routing import Routes, RouteTable


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.process)])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> KeyTable:
    if request.param == "sqlite":
        return KeyTable(f"sqlite:///{tmp_path / 'keys.db'}", clock=iter(range(100)).__next__)
    return KeyTable(request.getfixturevalue("postgresql"), clock=iter(range(100)).__next__)


def test_a_key_is_in_force_until_it_is_revoked_and_its_name_may_be_given_again(table: KeyTable) -> None:
    first, other = table.issue("anna", "use"), table.issue("ben", "release")
    assert first != other and len(first) >= 40
    assert table.in_force() == (Key("anna", "use", hash_key(first)), Key("ben", "release", hash_key(other)))
    with pytest.raises(ValueError, match="key 'anna' exists: revoke it first"):
        table.issue("anna", "watch")
    table.revoke("anna")
    with pytest.raises(ValueError, match="no key 'anna' is in force"):
        table.revoke("anna")
    assert [key.name for key in table.in_force()] == ["ben"]
    again = table.issue("anna", "watch")
    assert {key.sha256 for key in table.in_force()} == {hash_key(other), hash_key(again)}
    assert [(key.name, key.role, key.revoked is None) for key in table.stored()] == [
        ("anna", "use", False),
        ("ben", "release", True),
        ("anna", "watch", True),
    ]
    for key in list(table.in_force()):
        table.revoke(key.name)


@pytest.mark.parametrize(
    ("name", "role", "message"),
    [
        ("anna", "admin", "role 'admin' must be one of use, watch, release"),
        ("workspace", "use", "that of the workspace's own key"),
        ("", "use", "must be 1 to 64 letters"),
        ("a" * 65, "use", "must be 1 to 64 letters"),
        ("x'; DROP TABLE sluice_keys; --", "use", "must be 1 to 64 letters"),
        ("two\nlines", "use", "must be 1 to 64 letters"),
    ],
)
def test_a_wrong_name_or_role_is_refused(tmp_path: Path, name: str, role: str, message: str) -> None:
    table = KeyTable(f"sqlite:///{tmp_path / 'keys.db'}")
    with pytest.raises(ValueError, match=message):
        table.issue(name, role)
    assert table.stored() == []


def test_revoking_the_workspaces_own_key_says_where_it_is(tmp_path: Path) -> None:
    table = KeyTable(f"sqlite:///{tmp_path / 'keys.db'}")
    with pytest.raises(ValueError, match=r"in \.sluice/api_key: remove that file and start the server again"):
        table.revoke("workspace")


ALLOWED = [
    ("GET", "/v1/models", {}, "use"),
    ("POST", "/v1/chat/completions", {}, "use"),
    ("POST", "/v1/completions", {"x-sluice-source": "live"}, "use"),
    ("POST", "/v1/feedback", {}, "use"),
    ("GET", "/metrics", {}, "watch"),
    ("GET", "/admin/state", {}, "watch"),
    ("GET", "/admin/measurements", {}, "watch"),
    ("GET", "/admin/events", {}, "watch"),
    ("GET", "/admin/shadow", {}, "release"),
    ("POST", "/logout", {}, "watch"),
    ("GET", "/no/such/path", {}, "watch"),
    ("POST", "/v1/completions", {"x-sluice-source": "smoke"}, "release"),
    ("POST", "/v1/completions", {"x-sluice-source": "replay"}, "release"),
    ("POST", "/v1/completions", {"x-sluice-arm": "champion"}, "release"),
    ("POST", "/admin/rollback", {}, "release"),
    ("POST", "/admin/rollout/pause", {}, "release"),
    ("PUT", "/admin/anything", {}, "release"),
]


@pytest.mark.parametrize(("method", "path", "headers", "role"), ALLOWED)
def test_each_request_needs_its_role(method: str, path: str, headers: dict[str, str], role: str) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert needed_role(method, path, raw)[0] == role


KEYS = {role: f"{role}-{role * 8}" for role in ("use", "watch", "release")}


def gateway(ring: KeyRing) -> httpx.AsyncClient:
    app = create_app(NoBackends(), ServeConfig(), ring, NoTraffic(), RouteTable(Routes()))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://gateway")


def test_a_lesser_key_is_refused_with_the_role_it_lacks() -> None:
    ring = KeyRing([Key(f"my-{role}", role, hash_key(key)) for role, key in KEYS.items()])

    async def work() -> None:
        async def status(role: str, method: str, path: str, *headers: tuple[str, str]) -> tuple[int, str]:
            sent = [("authorization", f"Bearer {KEYS[role]}"), *headers]
            answer = await client.request(method, path, headers=sent, json={})
            return answer.status_code, answer.json()["error"]["message"] if answer.status_code != 200 else ""

        client = gateway(ring)
        for role in KEYS:
            assert (await status(role, "GET", "/v1/models"))[0] == 200
        refused = 403, "/admin/state needs a key of role watch, and key my-use has role use"
        assert await status("use", "GET", "/admin/state") == refused
        assert (await status("watch", "GET", "/admin/state"))[0] == 200
        refused = 403, "/admin/load needs a key of role release, and key my-watch has role watch"
        assert await status("watch", "POST", "/admin/load") == refused
        assert (await status("release", "POST", "/admin/load"))[0] == 400
        pinned = ("x-sluice-arm", "champion")
        refused = 403, "header x-sluice-arm needs a key of role release, and key my-watch has role watch"
        assert await status("watch", "POST", "/v1/completions", pinned) == refused
        # The gateway would read the first of two headers, and a proxy might read the other.
        twice = ("x-sluice-source", "smoke"), ("x-sluice-source", "live")
        assert (await status("use", "POST", "/v1/completions", *twice))[0] == 403
        assert (await status("use", "POST", "/v1/completions", *reversed(twice)))[0] == 403
        # 400: the body has no prompt.
        assert (await status("use", "POST", "/v1/completions", twice[1]))[0] == 400

    asyncio.run(work())


def test_a_revoked_key_stops_working_also_in_the_page() -> None:
    release = Key("workspace", "release", hash_key(KEYS["release"]))
    ring = KeyRing([release, Key("anna", "watch", hash_key(KEYS["watch"]))])

    async def work() -> None:
        client, bearer = gateway(ring), {"authorization": f"Bearer {KEYS['watch']}"}
        assert (await client.post("/login", data={"key": KEYS["watch"]})).status_code == 303
        assert (await client.get("/admin/state")).status_code == 200
        assert (await client.post("/admin/rollback", json={})).status_code == 403, "no token of the page"
        ring.current = (release,)
        assert (await client.get("/admin/state")).status_code == 401
        assert (await client.get("/admin/state", headers=bearer)).status_code == 401

    asyncio.run(work())
