"""Shadow requests: what the champion answers to a user, the challenger answers too, for the rollout's eyes alone.

They begin after the champion's answer has begun or failed, a few at a time, and only while the challenger has a free
slot. Nobody else sees them: no user, no traffic record, no metric, no usage count.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from sluice.data.privacy import mask
from sluice.monitoring.traffic.classify import AttemptClass, classify_record
from sluice.monitoring.traffic.record import TrafficRecord
from sluice.serving.config import ServeConfig
from sluice.serving.engine.request import GenerationRequest
from sluice.serving.fallback import Backends, FallbackCall
from sluice.serving.routing import Target
from sluice.serving.slots import Slots

MOST_IN_FLIGHT = 2
KEPT_PAIRS = 5_000
MOST_RETURNED = 100
"""Pairs of one answer, so that a poll holds up no user."""

log = logging.getLogger(__name__)


class ShadowPair:
    """A request with its two answers, as they come."""

    def __init__(self, shadows: "Shadows", request: GenerationRequest, challenger: str, session: str) -> None:
        self._shadows, self.session = shadows, session
        self.request, self.challenger = request, challenger
        self.answers: dict[str, tuple[TrafficRecord, AttemptClass]] = {}
        self._has_begun = False

    def begin(self) -> None:
        """Send the request to the challenger, if it has a free slot: the champion's answer has begun, or failed."""
        self._has_begun = True
        self._shadows.send(self)

    def noting(self, record: Callable[[TrafficRecord], AttemptClass]) -> Callable[[TrafficRecord], AttemptClass]:
        """Return `record`, which also notes the champion's answer here."""

        def recorded(found: TrafficRecord) -> AttemptClass:
            attempt_class = record(found)
            self.note(found, attempt_class)
            if attempt_class == "model_fault" and not self._has_begun:
                # Without these pairs, failures before the first token would count against the challenger alone, and a
                # cause that both share would drop it.
                self.begin()
            return attempt_class

        return recorded

    def note(self, record: TrafficRecord, attempt_class: AttemptClass) -> None:
        """Note one arm's answer."""
        self.answers[record.arm] = record, attempt_class
        if len(self.answers) == 2:
            self._shadows.keep(self)


class Shadows:
    """Shadow requests in flight, and the newest pairs of answers. Belongs to one event loop."""

    def __init__(self, backends: Backends, slots: Slots, config: ServeConfig) -> None:
        self._backends, self._slots, self._config = backends, slots, config
        self._tasks: set[asyncio.Task[None]] = set()
        self._pairs: deque[dict[str, Any]] = deque(maxlen=KEPT_PAIRS)
        self._counted = 0
        self._skipped = 0

    def pair(self, request: GenerationRequest, challenger: str, session: str) -> ShadowPair:
        """Return the pair of a request that the champion is about to answer."""
        return ShadowPair(self, request, challenger, session)

    def send(self, pair: ShadowPair) -> None:
        if len(self._tasks) >= MOST_IN_FLIGHT or not self._slots.is_free(pair.challenger):
            self._skipped += 1
            return
        task = asyncio.get_running_loop().create_task(self._answer(pair))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def keep(self, pair: ShadowPair) -> None:
        self._counted += 1
        arms = {arm: _reply(*answer) for arm, answer in pair.answers.items()}
        version = pair.challenger
        self._pairs.append({"n": self._counted, "version": version, "session": pair.session, **arms})

    def after(self, number: int) -> dict[str, Any]:
        """Return the oldest kept pairs with a number above `number`, and how many requests were skipped."""
        first = self._counted - len(self._pairs) + 1
        start = max(0, number + 1 - first)
        found = [self._pairs[index] for index in range(start, min(len(self._pairs), start + MOST_RETURNED))]
        # Masked as they are read: most are never.
        pairs = [{**pair, **{arm: _masked(pair[arm]) for arm in ("champion", "challenger")}} for pair in found]
        return {"pairs": pairs, "last": self._counted, "skipped": self._skipped, "in_flight": len(self._tasks)}

    async def _answer(self, pair: ShadowPair) -> None:
        def record(found: TrafficRecord) -> AttemptClass:
            attempt_class = classify_record(found, self._config.max_first_token_ms)
            pair.note(found, attempt_class)
            return attempt_class

        call = FallbackCall(
            self._backends,
            pair.request,
            (Target("challenger", pair.challenger),),
            source="replay",
            session=pair.session,
            timeout_s=self._config.request_timeout_s,
            max_wait_ms=self._config.max_first_token_ms,
            slots=self._slots,
            record=record,
        )
        try:
            async for _ in call.events():
                pass
        except Exception as error:
            # It is in the pair; nobody waits for the answer.
            log.debug("a shadow request failed: %s", type(error).__name__)


def _reply(record: TrafficRecord, attempt_class: AttemptClass) -> dict[str, Any]:
    is_answered = record.status < 400 and record.first_token_ms is not None
    first_token_ms = (record.first_token_ms or 0.0) - (record.queue_ms or 0.0) if is_answered else None
    return {
        "attempt_class": attempt_class,
        "first_token_ms": first_token_ms,
        "between_tokens_ms": record.per_token_ms if is_answered else None,
        "finish_reason": record.finish_reason,
        "text": record.completion_text,
    }


def _masked(reply: dict[str, Any]) -> dict[str, Any]:
    return {**reply, "text": mask(reply["text"])[0]}
