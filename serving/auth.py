"""Authentication of the gateway: a key or the page's log-in with a sufficient role; a limit on sizes."""

import hashlib
import hmac
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sluice.serving.api import ApiError
from sluice.serving.page.sessions import COOKIE, CSRF_HEADER, Sessions

MAX_BODY_BYTES = 256 * 1024


def hash_key(key: str) -> str:
    """Return the sha256 hex of a key, which is all that the gateway stores (keys are long and random)."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True)
class Key:
    """A key that opens the gateway."""

    name: str
    role: str
    """One of ROLES."""
    sha256: str


ROLES = ("use", "watch", "release")
"""Roles of keys; each may do what those before it may: ask the model, see the release, change it."""
WORKSPACE = "workspace"
"""Name of the workspace's own key (.sluice/api_key), which has the role release."""
SCOPE_KEY = "sluice.key"
"""Entry of a request's ASGI scope with the Key that opened it."""


def workspace_key(key: str) -> Key:
    """Return the workspace's own key."""
    return Key(WORKSPACE, "release", hash_key(key))


class KeyRing:
    """Keys that open the gateway now; replaced as a whole."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.current = tuple(keys)
        assert self.current, "a gateway without keys would refuse everyone"

    def find(self, sha256: str) -> Key | None:
        """Return the key with this hash."""
        # All keys are compared, each in constant time, so that timing reveals nothing.
        found = [key for key in self.current if hmac.compare_digest(sha256, key.sha256)]
        return found[0] if found else None


def needed_role(method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str]:
    """Return the least role that may send a request, and what of the request needs it."""
    for name, value in headers:
        # Each occurrence counts, whichever of them is read. Such requests are measured apart, so that of anybody's a
        # version's failures could be hidden, or brought about.
        if name == b"x-sluice-arm" or (name == b"x-sluice-source" and value != b"live"):
            return "release", f"header {name.decode()}"
    if path.startswith("/v1/"):
        return "use", path
    if path == "/admin/shadow":  # it has users' texts
        return "release", path
    return ("release" if path.startswith("/admin/") and method not in ("GET", "HEAD") else "watch"), path


class AuthMiddleware:
    """ASGI middleware that asks for a key on every path not listed as open, including routes added later.

    The page's cookie opens them too; with a method other than GET only beside the page's token, which no other site
    knows.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing, sessions: Sessions, open_paths: Collection[str]) -> None:
        self._app, self._keys, self._sessions, self._open_paths = app, keys, sessions, frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers = dict(scope["headers"])
        try:
            if scope["path"] not in self._open_paths:
                scope[SCOPE_KEY] = key = self._key(scope["method"], headers)
                role, subject = needed_role(scope["method"], scope["path"], scope["headers"])
                if ROLES.index(key.role) < ROLES.index(role):
                    message = f"{subject} needs a key of role {role}, and key {key.name} has role {key.role}"
                    raise ApiError(403, message, code="insufficient_role")
            length = headers.get(b"content-length", b"0")
            if not length.isdigit() or int(length) > MAX_BODY_BYTES:
                raise _too_large()
        except ApiError as error:
            challenge = {"www-authenticate": "Bearer"} if error.status == 401 else {}
            return await JSONResponse(error.body, error.status, challenge)(scope, receive, send)
        return await self._app(scope, _bounded(receive), send)

    def _key(self, method: str, headers: dict[bytes, bytes]) -> Key:
        """Return the key of a request, or of its cookie. Raises ApiError for one without either."""
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        key = self._keys.find(hashlib.sha256(given.strip()).hexdigest())
        if key is not None and scheme.lower() == b"bearer":
            return key
        cookie = _cookie(headers)
        viewer = self._sessions.viewer(cookie)
        if viewer is None:
            raise ApiError(401, "send the server's key as `Authorization: Bearer KEY`", code="invalid_api_key")
        token = headers.get(CSRF_HEADER.encode(), b"").decode("latin-1")
        if method not in ("GET", "HEAD") and not self._sessions.may_post(cookie, token):
            raise ApiError(403, f"send the page's token as `{CSRF_HEADER}`, or a key", code="invalid_csrf_token")
        return Key(viewer.name, viewer.role, "")


def _cookie(headers: dict[bytes, bytes]) -> str:
    """Return the page's cookie of a request; empty if it has none."""
    try:
        found = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _bounded(receive: Receive) -> Receive:
    """Limit bodies of undeclared length, too."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            raise _too_large()
        return message

    return bounded


def _too_large() -> ApiError:
    return ApiError(413, f"the request is longer than {MAX_BODY_BYTES} bytes, the most allowed: shorten it")
