"""The class of an attempt to answer: whether it is evidence about the version that was called, and which.

Canary, monitor, metrics and alerts all judge a version by its answered attempts and its faults alone. Otherwise an
overload would roll a good version back, clients' mistakes would dilute the errors of a bad one, and a version that
hangs until its clients leave would have none.

| class | the attempt | judges the version |
|---|---|---|
| `answered` | a complete answer, without a wait beyond the objective | yes |
| `model_fault` | a failure, or a wait beyond the objective, also if the client left during it | yes |
| `capacity` | refused because the server was full or stopping, or late because of the queue | no |
| `client_mistake` | a request that no version can answer (4xx) | no |
| `client_left` | the client left while it had not waited beyond the objective | no |

Standard library only: the gateway imports this.
"""

import math
from typing import Literal, get_args

from sluice.monitoring.traffic.record import TrafficRecord

AttemptClass = Literal["answered", "model_fault", "capacity", "client_mistake", "client_left"]
CLASSES: tuple[AttemptClass, ...] = get_args(AttemptClass)
JUDGED: tuple[AttemptClass, ...] = ("answered", "model_fault")
"""The classes that are evidence about a version."""
UNAVAILABLE, TIMED_OUT = 503, 504
CLIENT_GONE = 499
"""Status of a request whose client disconnected (nginx's code; it is never sent)."""


def classify(
    status: int,
    error: str,
    *,
    first_token_ms: float | None,
    wait_ms: float | None,
    queue_ms: float | None,
    objective_ms: float,
) -> AttemptClass:
    """Return the class of an attempt with these fields of its traffic record; a missing number is None or NaN.

    `objective_ms` is the longest wait that a version may cause; time in the queue is not its own.
    """
    wait, queue = max(_number(first_token_ms), _number(wait_ms)), _number(queue_ms)
    is_late = wait - queue > objective_ms
    # A request that began to be answered had its time taken by the queue only if it was long.
    least_queue_ms = objective_ms if _number(first_token_ms) else 0.0
    if status == UNAVAILABLE or (status == TIMED_OUT and not is_late and queue > least_queue_ms):
        return "capacity"
    if status >= 500 or (status < 400 and error):
        return "model_fault"
    if status >= 400 and status != CLIENT_GONE:
        return "client_mistake"
    if is_late:
        return "model_fault"
    if status == CLIENT_GONE:
        return "client_left"
    return "capacity" if wait > objective_ms else "answered"


def classify_record(record: TrafficRecord, objective_ms: float) -> AttemptClass:
    """Return the class of a recorded attempt."""
    return classify(
        record.status,
        record.error,
        first_token_ms=record.first_token_ms,
        wait_ms=record.wait_ms,
        queue_ms=record.queue_ms,
        objective_ms=objective_ms,
    )


def _number(value: float | None) -> float:
    return 0.0 if value is None or math.isnan(value) else value
