"""The page's addresses: the page itself, log-in and log-out, its files, and its live updates.

The page, its form and its files answer without a key, and show nothing of the release to who is not logged in.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response

from sluice.serving.auth import SCOPE_KEY
from sluice.serving.event_stream import EventStream
from sluice.serving.page.events import LivePage
from sluice.serving.page.render import FOLDER, render_login, render_page
from sluice.serving.page.sessions import COOKIE, LIFETIME_S, Sessions, Viewer

FILES = {"page.css": "text/css", "page.js": "text/javascript"}
OPEN_PATHS = ("/", "/login", *(f"/page/{name}" for name in FILES))
"""Paths that answer without a key."""
MAX_STREAM_S = 300.0
"""The browser opens a longer stream anew, so that none holds up the end of the server for ever."""
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def page_router(read_state: Callable[[], Mapping[str, Any]], sessions: Sessions) -> APIRouter:
    """Return the page's routes. `read_state` returns the answer of /admin/state.

    The gateway's authentication guards all of them but `OPEN_PATHS`.
    """
    router, live = APIRouter(include_in_schema=False), LivePage(read_state)

    def viewer(request: Request) -> Viewer | None:
        found = sessions.viewer(request.cookies.get(COOKIE, ""))
        return found if found is not None and found.role != "use" else None

    @router.get("/")
    async def page(request: Request) -> Response:
        found = viewer(request)
        if found is None:
            return RedirectResponse("/login", 303, _HEADERS)
        shown = live.shown(may_release=found.role == "release")
        return HTMLResponse(render_page(shown, csrf=found.csrf, key_name=found.name, role=found.role), 200, _HEADERS)

    @router.get("/login")
    async def form() -> Response:
        return HTMLResponse(render_login(), 200, _HEADERS)

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        # Otherwise a page of another site could log its visitor in with a key of its own.
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return HTMLResponse(render_login("The form was sent by another site. Send it from here."), 403, _HEADERS)
        fields = parse_qs((await request.body()).decode(errors="replace"))
        cookie = sessions.log_in(fields.get("key", [""])[0])
        found = sessions.viewer(cookie) if cookie else None
        if cookie is None or found is None:
            return HTMLResponse(render_login("The server does not know this key."), 401, _HEADERS)
        if found.role == "use":
            message = f"The key {found.name} may use the API alone: the page needs one of the role watch or release."
            return HTMLResponse(render_login(message), 403, _HEADERS)
        answer = RedirectResponse("/", 303, _HEADERS)
        is_secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(COOKIE, cookie, LIFETIME_S, httponly=True, samesite="strict", secure=is_secure)
        return answer

    @router.post("/logout")
    async def log_out() -> Response:
        answer = JSONResponse({"logged_out": True})
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    @router.get("/page/{name}")
    async def file(name: str) -> Response:
        if name not in FILES:
            return Response(status_code=404)
        headers = {name: each for name, each in _HEADERS.items() if name != "cache-control"}
        return FileResponse(
            FOLDER / "static" / name, media_type=FILES[name], headers={**headers, "cache-control": "no-cache"}
        )

    @router.get("/admin/events")
    async def events(request: Request) -> Response:
        """Live updates. A client without the cookie, which has the key in its header, gets those of who may watch."""
        cookie, key = request.cookies.get(COOKIE, ""), request.scope[SCOPE_KEY]
        found = viewer(request)
        return EventStream(
            live.events(
                may_release=found is not None and found.role == "release",
                is_allowed=lambda: sessions.viewer(cookie) == found if found else sessions.is_in_force(key),
                longest_s=MAX_STREAM_S,
            ),
            {"cache-control": "no-store"},
        )

    return router
