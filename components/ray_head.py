"""Ray in a step: its environment, and the run's one Ray head, requested by the steps and started by the runner.

The request is a file, so it crosses KFP and DVC; starting overlaps with the first steps, and a run with all steps
cached never pays for it. Where RAY_ADDRESS is set, nothing is requested; a step in a pod of
its own starts its own Ray.
"""

import json
import os
import secrets
import time
from pathlib import Path

from sluice.core.failure import StepFailed
from sluice.core.local_ray import START_S

HEAD_VARIABLE = "SLUICE_RAY_HEAD"
"""Path of the file that will hold the head's address."""
_TIMEOUT_S = START_S + 30.0
"""More than all attempts to start it take together."""
_POLL_S = 0.1


def prepare_environment() -> None:
    """Before any process of the run starts: one token for the head and everybody who connects to it."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray Serve kills a proxy that has not come up within 5 s, which on a busy machine it may not have.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    # Ray's own handler of SIGTERM prints a C++ stack and aborts, where the command would end in order.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")


def prepare_own_ray() -> None:
    """The same for a command that starts Ray only for itself; a cluster that RAY_ADDRESS names has its own token."""
    if not os.environ.get("RAY_ADDRESS"):
        prepare_environment()


def wanted_file(head: Path) -> Path:
    return head.with_suffix(".wanted")


def request_head() -> None:
    """Request Ray for this run, without waiting for it."""
    if (path := os.environ.get(HEAD_VARIABLE)) and not os.environ.get("RAY_ADDRESS"):
        wanted_file(Path(path)).touch()


def use_head_if_up() -> None:
    """Set RAY_ADDRESS where the head is up already; a step that can also work without Ray does not wait for it."""
    request_head()
    if (path := os.environ.get(HEAD_VARIABLE)) and Path(path).is_file():
        found = json.loads(Path(path).read_text())
        if "RAY_ADDRESS" in found:
            os.environ["RAY_ADDRESS"] = found["RAY_ADDRESS"]


def connect_to_head(timeout_s: float = _TIMEOUT_S) -> None:
    """Set RAY_ADDRESS to the run's head, waiting for it to come up. Outside a run, the package's launcher starts Ray.

    Raises StepFailed when it does not come up, or not in time.
    """
    if not (head := os.environ.get(HEAD_VARIABLE)):
        return
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        use_head_if_up()
        if os.environ.get("RAY_ADDRESS"):
            return
        if Path(head).is_file() and (failure := json.loads(Path(head).read_text()).get("error")):
            raise StepFailed(f"{failure} (see the run's log)")
        time.sleep(_POLL_S)
    raise StepFailed(f"the run's Ray head did not come up within {timeout_s:.0f} s: see the run's log")
