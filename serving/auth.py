"""Authentication of the gateway: a key for all but a few open paths, and a limit on the size of requests."""

import hashlib
import hmac
from collections.abc import Collection

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sluice.serving.api import ApiError

MAX_BODY_BYTES = 256 * 1024


def hash_key(key: str) -> str:
    """Return the sha256 hex of a key, which is all that the gateway stores (keys are long and random)."""
    return hashlib.sha256(key.encode()).hexdigest()


class AuthMiddleware:
    """ASGI middleware that asks for a key on every path not listed as open, including routes added later."""

    def __init__(self, app: ASGIApp, key_hashes: Collection[str], open_paths: Collection[str]) -> None:
        assert key_hashes, "a gateway without keys would refuse everyone"
        self._app, self._key_hashes, self._open_paths = app, tuple(key_hashes), frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        headers = dict(scope["headers"])
        error = self._refusal(scope["path"], headers)
        if error is not None:
            challenge = {"www-authenticate": "Bearer"} if error.status == 401 else {}
            return await JSONResponse(error.body, error.status, challenge)(scope, receive, send)
        return await self._app(scope, _bounded(receive), send)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> ApiError | None:
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        found = hashlib.sha256(key.strip()).hexdigest()
        # All keys are compared, each in constant time, so that timing reveals nothing.
        known = [hmac.compare_digest(found, key_hash) for key_hash in self._key_hashes]
        is_known = scheme.lower() == b"bearer" and any(known)
        if path not in self._open_paths and not is_known:
            return ApiError(401, "send the server's key as `Authorization: Bearer KEY`", code="invalid_api_key")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return _too_large()
        return None


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
