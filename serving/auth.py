"""Authentication of the gateway: a key, or the page's log-in, for all but a few open paths; a limit on sizes."""

import hashlib
import hmac
from collections.abc import Collection
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
    sha256: str


class AuthMiddleware:
    """ASGI middleware that asks for a key on every path not listed as open, including routes added later.

    The page's cookie opens them too; with a method other than GET only beside the page's token, which no other site
    knows.
    """

    def __init__(self, app: ASGIApp, keys: Collection[Key], sessions: Sessions, open_paths: Collection[str]) -> None:
        assert keys, "a gateway without keys would refuse everyone"
        self._app, self._keys, self._sessions, self._open_paths = app, tuple(keys), sessions, frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers = dict(scope["headers"])
        error = self._refusal(scope["method"], scope["path"], headers)
        if error is not None:
            challenge = {"www-authenticate": "Bearer"} if error.status == 401 else {}
            return await JSONResponse(error.body, error.status, challenge)(scope, receive, send)
        return await self._app(scope, _bounded(receive), send)

    def _refusal(self, method: str, path: str, headers: dict[bytes, bytes]) -> ApiError | None:
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        found = hashlib.sha256(key.strip()).hexdigest()
        # All keys are compared, each in constant time, so that timing reveals nothing.
        known = [hmac.compare_digest(found, each.sha256) for each in self._keys]
        is_known = scheme.lower() == b"bearer" and any(known)
        if path not in self._open_paths and not is_known:
            cookie = _cookie(headers)
            if self._sessions.viewer(cookie) is None:
                return ApiError(401, "send the server's key as `Authorization: Bearer KEY`", code="invalid_api_key")
            token = headers.get(CSRF_HEADER.encode(), b"").decode("latin-1")
            if method not in ("GET", "HEAD") and not self._sessions.may_post(cookie, token):
                return ApiError(403, f"send the page's token as `{CSRF_HEADER}`, or a key", code="invalid_csrf_token")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return _too_large()
        return None


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
