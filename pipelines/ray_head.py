"""The run's embedded Ray head: started at the first request, shared by all steps, stopped with the run."""

import json
import os
import secrets
import tempfile
import threading
import traceback
from pathlib import Path

from sluice.components.ray_head import wanted_file
from sluice.core.files import atomic_write

_POLL_S = 0.1
_ATTEMPTS = 4


def prepare_environment() -> None:
    """Before any process of the run starts: one token for the head and everybody who connects to it."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray Serve kills a proxy that has not come up within 5 s, which on a busy machine it may not have.
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")


def prepare_own_ray() -> None:
    """The same for a command that starts Ray only for itself; a cluster that RAY_ADDRESS names has its own token."""
    if not os.environ.get("RAY_ADDRESS"):
        prepare_environment()


def start_on_request(address_file: Path, cpus: int) -> threading.Thread:
    """Watch for the first request in the background; then start the head and publish its address."""

    def serve_request() -> None:
        pause = threading.Event()
        while not wanted_file(address_file).exists():
            pause.wait(_POLL_S)
        try:
            found = {"RAY_ADDRESS": start_head(cpus)}
        except Exception as error:
            found = {"error": f"Ray did not start: {' '.join(str(error).split())}"}
        publish(found, address_file)
        # Ray's processes are told to die with the thread that started them (PR_SET_PDEATHSIG), so it has to live on.
        pause.wait()

    thread = threading.Thread(target=serve_request, name="ray-head", daemon=True)
    thread.start()
    return thread


def start_head(cpus: int) -> str:
    """Start Ray in this process and return its address. Its processes end when this one does."""
    attempts = 0
    while True:
        attempts += 1
        try:
            import ray

            ray.shutdown()
            ray.init(
                address="local",
                num_cpus=cpus,
                # Ray Train polls the State API for minutes where the dashboard is off.
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                # Short: the sockets below it may have no more than 107 characters.
                _temp_dir=tempfile.mkdtemp(prefix="sluice-ray-"),
            )
            return str(ray.get_runtime_context().gcs_address)
        except Exception:
            # Ray gives its own processes 30 s to start, which a machine busy with the first steps may exceed.
            if attempts == _ATTEMPTS:
                raise
            traceback.print_exc()


def publish(found: dict[str, str], address_file: Path) -> None:
    """Write the head's address or error, atomically, where the steps look for it."""
    with atomic_write(address_file) as partial:
        partial.write_text(json.dumps(found))
