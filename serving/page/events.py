"""Live updates of the page: the regions that changed, as server-sent events."""

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from sluice.serving.page.render import HISTORY_POINTS, latencies_of, regions, render_region
from sluice.serving.page.view_model import view_model

PERIOD_S = 0.5
"""Shortest time between two events of a stream."""
HEARTBEAT_S = 15.0
"""A stream without a change sends a comment so often, so that proxies keep it open."""
RETRY_MS = 500
"""Time after which the browser opens a stream again that ended."""
HISTORY_PERIOD_S = 2.0
"""Time between two points of the chart."""


class LivePage:
    """The page's regions as HTML, drawn once for all who watch.

    `read_state` returns the answer of /admin/state; `clock` returns seconds that never go back.
    """

    def __init__(
        self,
        read_state: Callable[[], Mapping[str, Any]],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._read_state, self._clock, self._sleep = read_state, clock, sleep
        self._history: deque[dict[str, float | None]] = deque(maxlen=HISTORY_POINTS)
        self._sampled_at = -HISTORY_PERIOD_S
        self._read_at = -PERIOD_S
        self._shown: dict[bool, dict[str, Any]] = {}
        """Content of each region, by whether the viewer may release."""
        self._drawn: dict[tuple[str, bool], tuple[Any, str]] = {}
        """Region, and whether the viewer may release -> what it showed, and its HTML."""

    def shown(self, *, may_release: bool) -> dict[str, Any]:
        """Return what each region shows now."""
        if self._clock() - self._read_at >= PERIOD_S or not self._shown:
            self._read()
        return self._shown[may_release]

    def html(self, *, may_release: bool) -> dict[str, str]:
        """Return the HTML of each region now. A region that shows the same as before is not drawn again."""
        found = {}
        for name, shown in self.shown(may_release=may_release).items():
            before, html = self._drawn.get((name, may_release), (None, None))
            if html is None or before != shown:
                html = render_region(name, shown)
                self._drawn[name, may_release] = shown, html
            found[name] = html
        return found

    async def events(
        self, *, may_release: bool, is_allowed: Callable[[], bool], longest_s: float
    ) -> AsyncGenerator[str, None]:
        """Yield all regions, then those that change, at most one event in PERIOD_S.

        Ends after `longest_s`, and with the event `end` once `is_allowed` says no.
        """
        yield f"retry: {RETRY_MS}\n\n"
        sent: dict[str, str] = {}
        began = sent_at = self._clock()
        while (now := self._clock()) - began < longest_s:
            if not is_allowed():
                yield "event: end\ndata: \n\n"
                return
            html = self.html(may_release=may_release)
            changed = {name: each for name, each in html.items() if sent.get(name) != each}
            if changed:
                yield f"event: regions\ndata: {json.dumps(changed)}\n\n"
            elif now - sent_at >= HEARTBEAT_S:
                yield ": heartbeat\n\n"
            if changed or now - sent_at >= HEARTBEAT_S:
                sent, sent_at = html, now
            await self._sleep(PERIOD_S)

    def _read(self) -> None:
        state = self._read_state()
        view, self._read_at = view_model(state), self._clock()
        if self._read_at - self._sampled_at >= HISTORY_PERIOD_S:
            self._sampled_at = self._read_at
            measured = state.get("versions") or {}
            self._history.append({name: one.get("latency_p95_minute_ms") for name, one in measured.items()})
        latencies = latencies_of(tuple(self._history), view)
        self._shown = {each: regions(view, latencies, may_release=each) for each in (False, True)}
