"""What the tests share: one Ray head a session, started by the first test that needs it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is imported anywhere: two threads a process on a two-core machine fight each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]


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

    os.environ["PYTHONPATH"] = str(ROOT)
    address = start_head(cpus=4)
    os.environ["RAY_ADDRESS"] = address
    folder = ray._private.worker._global_node.get_temp_dir_path()
    yield address
    os.environ.pop("RAY_ADDRESS", None)
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
