"""Effect steps: they act on the world outside the workspace, and are never cached."""

import os
import time
import traceback
from collections.abc import Callable
from typing import Any

from sluice.components.artifact import write_metrics
from sluice.components.events import EVENTS_VARIABLE, emit
from sluice.components.workspace import Workspace
from sluice.core.failure import StepFailed, describe


def run_effect_step(workspace: Workspace, step: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a step and write its metrics, which `work` returns; `outcome` among them is its decision.

    Raises StepFailed with one line for the user.
    """
    started = time.perf_counter()
    emit(step, "start")
    try:
        result = work()
    except Exception as error:
        if os.environ.get(EVENTS_VARIABLE):
            # For the run's log; a command shows it with --debug.
            traceback.print_exc()
        message = describe(error)
        emit(step, "failed", message=message)
        raise StepFailed(f"{step}: {message}") from error
    timings = {**result.pop("timings", {}), "work_seconds": time.perf_counter() - started}
    write_metrics(workspace, step, result, timings)
    emit(step, "done", cached=False, outcome=result["outcome"])
    return result
