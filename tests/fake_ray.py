"""A module in place of Ray, for tests of what happens around it: it starts one process and fails as it is told to."""

from pathlib import Path

import psutil

FAKE = """
import os, subprocess, sys, time
from pathlib import Path
from types import SimpleNamespace

def init(*, _temp_dir, **options):
    notes = Path(__file__).parents[1]
    raylet = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    (Path(_temp_dir) / "socket").touch()
    with (notes / "started").open("a") as started:
        started.write(f"{raylet.pid} {_temp_dir}\\n")
    do = (notes / "plan").read_text().split()[len((notes / "started").read_text().splitlines()) - 1]
    if do == "raise":
        raise Exception("The current node timed out during startup.")
    if do == "abort":
        os.abort()
    if do == "hang":
        time.sleep(1000)
    dead = lambda: [("raylet", raylet)] if raylet.poll() is not None else []
    _private.worker._global_node = SimpleNamespace(gcs_address="127.0.0.1:6379", dead_processes=dead)

_private = SimpleNamespace(worker=SimpleNamespace())
"""


class FakeRay:
    """Instructions to the fake Ray, a word for each attempt, and the processes that it has started."""

    def __init__(self, folder: Path) -> None:
        """Make the module in `folder`, which becomes PYTHONPATH of the process that is to import it."""
        self.folder = folder
        (folder / "ray").mkdir()
        (folder / "ray" / "__init__.py").write_text(FAKE)

    def plan(self, *attempts: str) -> None:
        (self.folder / "plan").write_text(" ".join(attempts))

    def started(self) -> list[tuple[int, Path]]:
        path = self.folder / "started"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(int(pid), Path(folder)) for pid, folder in lines]

    def left(self) -> list[object]:
        return [each for pid, folder in self.started() for each in (pid, folder) if _is_there(each)]


def _is_there(each: int | Path) -> bool:
    if isinstance(each, Path):
        return each.exists()
    return psutil.pid_exists(each) and psutil.Process(each).status() != psutil.STATUS_ZOMBIE
