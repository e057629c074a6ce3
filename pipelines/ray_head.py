"""The run's Ray head: started at the first request, shared by all steps, stopped with the run."""

import json
import threading
from pathlib import Path

from sluice.components.ray_head import wanted_file
from sluice.core.failure import describe
from sluice.core.files import atomic_write
from sluice.core.local_ray import LocalRay

_POLL_S = 0.1


class HeadOnRequest:
    """Starts Ray in the background at a step's first request, and publishes its address where the steps look for it."""

    def __init__(self, address_file: Path, cpus: int) -> None:
        self._address_file = address_file
        # Ray Train polls the State API for minutes where the dashboard is off.
        self._ray = LocalRay(cpus, dashboard=True)
        threading.Thread(target=self._serve_request, name="ray-head", daemon=True).start()

    def why_ended(self, timeout_s: float) -> str | None:
        """Return why Ray ended under the steps, within `timeout_s` of now; None if it is up or was never started."""
        return self._ray.why_ended(timeout_s)

    def stop(self) -> None:
        self._ray.stop()

    def _serve_request(self) -> None:
        pause = threading.Event()
        while not wanted_file(self._address_file).exists():
            pause.wait(_POLL_S)
        try:
            self._ray.start()
        except Exception as error:
            publish({"error": describe(error)}, self._address_file)
        else:
            publish({"RAY_ADDRESS": self._ray.address}, self._address_file)


def publish(found: dict[str, str], address_file: Path) -> None:
    """Write the head's address or error, atomically, where the steps look for it."""
    with atomic_write(address_file) as partial:
        partial.write_text(json.dumps(found))
