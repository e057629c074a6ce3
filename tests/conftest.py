"""What the tests share: one Ray head a session, started by the first test that needs it."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from sluice.pipelines.ray_head import prepare_environment, start_head

# Before torch is imported anywhere: two threads a process on a two-core machine fight each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# .. and where a run sets its own number: threads that wait sleep, rather than keep the other test process waiting.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# A pool of compilers costs more to start than it saves on what the tests compile.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Ray fixes its authentication at import, which may be in a test of another module: the token comes before all of them.
prepare_environment()

# The same examples in every run: what fails here fails everywhere.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parents[1]


def asks_for_ray(module: Path) -> bool:
    return "ray_head" in module.read_text()


class SharedFixturesTogether(LoadScopeScheduling):
    """Tests that share a costly fixture stay in one of the test processes: whole runs, Ray's head, a module's own."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        if "/lifecycle/" in module:
            return "runs"
        return "ray" if asks_for_ray(ROOT / module) else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedFixturesTogether:
    return SharedFixturesTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: whole runs take one process about as long as all the rest takes the other."""
    items.sort(key=lambda item: item.path.parent.name != "lifecycle")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout under test."""
    return ROOT


@pytest.fixture(autouse=True, scope="module")
def ray_only_where_it_is_asked_for(request: pytest.FixtureRequest) -> Iterator[None]:
    """What takes Ray where RAY_ADDRESS is set does without in other modules, whichever came before."""
    address = None if asks_for_ray(request.path) else os.environ.pop("RAY_ADDRESS", None)
    yield
    if address is not None:
        os.environ["RAY_ADDRESS"] = address


@pytest.fixture(scope="session")
def ray_head() -> Iterator[str]:
    """Address of the session's Ray head, also in RAY_ADDRESS."""
    import ray

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
