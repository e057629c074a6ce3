"""Users' votes on answers: one vote for each live request of the last days, counted by the version that answered."""

import json
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from sluice.data.privacy import mask
from sluice.monitoring.traffic.record import TrafficRecord
from sluice.serving.api import ApiError, Strict

KEPT_REQUESTS, KEPT_S = 200_000, 7 * 86_400.0
"""Requests that can be voted on: so many, and so old, in seconds."""
Vote = Literal["good", "neutral", "bad"]
_SCORES: dict[Any, Vote] = {1: "good", 0: "neutral", -1: "bad", "good": "good", "bad": "bad"}


class FeedbackRequest(Strict):
    """Body of POST /v1/feedback: the answer by its request's id or its own, and the vote."""

    request_id: str = Field("", max_length=128)
    id: str = Field("", max_length=160)
    """The answer's id, such as chatcmpl-..."""
    score: int | str
    """1 or "good", 0, -1 or "bad"."""
    comment: str = Field("", max_length=2000)

    @field_validator("score")
    @classmethod
    def _known(cls, score: int | str) -> int | str:
        if score not in _SCORES:
            raise ValueError('must be 1, 0, -1, "good" or "bad"')
        return score

    @model_validator(mode="after")
    def _names_one(self) -> "FeedbackRequest":
        if bool(self.request_id) == bool(self.id):
            raise ValueError("send either request_id or id")
        return self

    @property
    def request(self) -> str:
        """Id of the request."""
        return self.request_id or self.id.removeprefix("chatcmpl-").removeprefix("cmpl-")

    @property
    def vote(self) -> Vote:
        return _SCORES[self.score]


@dataclass
class Answered:
    """A live request that was answered."""

    version: str
    time: float
    session: str
    has_vote: bool = False


class Feedback:
    """The answers that can be voted on, and the file of votes in `folder` (None: none is written).

    `clock` returns seconds since the epoch.
    """

    def __init__(self, folder: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._answers: OrderedDict[str, Answered] = OrderedDict()
        self._file = folder / f"feedback-{uuid.uuid4().hex}.jsonl" if folder else None
        self.lost = 0
        """Votes that are counted and could not be written."""

    def note(self, record: TrafficRecord) -> None:
        """Remember the version that answered a live request."""
        if record.source != "live" or record.status >= 400:
            return
        self._answers.pop(record.request_id, None)
        self._answers[record.request_id] = Answered(record.version, record.time, record.session)
        while len(self._answers) > KEPT_REQUESTS:
            self._answers.popitem(last=False)

    def vote(self, given: FeedbackRequest) -> Answered:
        """Return the answer voted on. Raises ApiError 404 for an unknown or old request, and 409 for a second vote."""
        found = self._answers.get(given.request)
        if found is None or self._clock() - found.time > KEPT_S:
            message = f"no live request {given.request[:128]!r} was answered within the last {KEPT_S / 86_400:.0f} days"
            raise ApiError(404, message, code="unknown_request")
        if found.has_vote:
            raise ApiError(409, f"request {given.request!r} has a vote: there is one for each", code="has_vote")
        found.has_vote = True
        return found

    def write(self, given: FeedbackRequest, answered: Answered) -> None:
        """Append a vote to the file, its comment masked; any thread."""
        if self._file is None:
            return
        row = {
            "time": self._clock(),
            "request_id": given.request,
            "version": answered.version,
            "session": answered.session,
            "vote": given.vote,
            "comment": mask(given.comment)[0],
        }
        try:
            with self._lock:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        except OSError:
            # As for traffic records: a full disk takes nobody's answer away.
            self.lost += 1
