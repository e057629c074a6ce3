"""What the tests share: one Ray head a session, started by the first test that needs it."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is imported anywhere: two threads a process on a two-core machine fight each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a costly fixture stay in one of the test processes: whole runs, Ray's head, a module's own."""
    for item in items:
        room = item.path.parent.name
        shared = "runs" if room == "lifecycle" else "ray" if "ray_head" in item.fixturenames else item.path.name
        item.add_marker(pytest.mark.xdist_group(shared))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout under test."""
    return ROOT


@pytest.fixture(scope="session")
def ray_head() -> Iterator[str]:
    """Address of the session's Ray head, also in RAY_ADDRESS."""
    from pipelines.head import prepare_environment, start_head

    prepare_environment()
    import ray  # fixes its authentication at import, so the token comes first

    # What a test hands to a worker may be defined in the test's own module.
    ours = [str(ROOT), *(path for path in sys.path if path.startswith(str(ROOT / "tests")))]
    os.environ["PYTHONPATH"] = os.pathsep.join(ours)
    address = start_head(cpus=4)
    os.environ["RAY_ADDRESS"] = address
    folder = ray._private.worker._global_node.get_temp_dir_path()
    yield address
    os.environ.pop("RAY_ADDRESS", None)
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
