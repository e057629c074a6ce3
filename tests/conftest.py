"""Shared by all tests: their kinds, their order over the xdist workers, and one Ray head a session."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from kinds import FOLDERS, forbid_processes, kind_of
from xdist.scheduler import LoadScopeScheduling

from sluice.components.ray_head import prepare_environment
from sluice.components.workspace import Workspace
from sluice.core.local_ray import LocalRay
from sluice.pipelines.compose import compose, write_params

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
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parents[1]


SHARED = ("rank_pool", "ray_head")
"""Session fixtures that cost seconds to start: all modules that use one run in the same xdist worker."""
ORDER = ("lifecycle", *SHARED)
"""Groups of modules by their length, the longest first: what comes last evens the two workers out."""


def uses(fixture: str, module: Path) -> bool:
    return re.search(rf"\b{fixture}\b", module.read_text(encoding="utf-8")) is not None


@cache
def group_of(module: Path) -> str:
    """Name of the modules that run in one xdist worker: all that share a costly fixture, or one module alone."""
    if module.parent.name == "lifecycle":
        return "lifecycle"
    return next((fixture for fixture in reversed(SHARED) if uses(fixture, module)), str(module))


class SharedFixturesTogether(LoadScopeScheduling):
    """Hands whole groups of modules to the workers, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(ROOT / nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedFixturesTogether:
    return SharedFixturesTogether(config, log)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import a folder of the matrix only to deselect its tests: benchmarks import transformers and datasets."""
    folder = collection_path.name
    deselected = config.option.markexpr == "not matrix" and FOLDERS.get(folder) == "matrix"
    return True if deselected and not any(folder in argument for argument in config.args) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with its kind, and sort: long groups first, then modules that start processes, then the rest."""
    faults, ranks = [], dict[Path, int]()
    for item in items:
        own, folder = [mark.name for mark in item.iter_markers()], item.path.parent.relative_to(ROOT / "tests")
        try:
            kind = kind_of(own, folder, getattr(item, "fixturenames", ()))
        except ValueError as fault:
            faults.append(f"{item.nodeid} {fault}")
            continue
        if kind not in own:
            item.add_marker(kind)
        group = group_of(item.path)
        rank = ORDER.index(group) if group in ORDER else len(ORDER) + (kind == "unit")
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    if faults:
        raise pytest.UsageError("\n".join(faults))
    items.sort(key=lambda item: ranks[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """Leave torch as it was: training sets its own number of threads, and DeepSpeed's ZeRO 3 replaces the linear map by
    one that rounds otherwise.
    """
    torch = sys.modules.get("torch")
    threads = torch and torch.get_num_threads()
    linear = torch and torch.nn.functional.linear
    try:
        return (yield)
    finally:
        if torch and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch:
            torch.nn.functional.linear = linear


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with kind_rules(item):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with kind_rules(item):
        return (yield)


def kind_rules(item: pytest.Item) -> AbstractContextManager[None]:
    """Hold a unit test to its kind."""
    return forbid_processes() if item.get_closest_marker("unit") else nullcontext()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout under test."""
    return ROOT


@pytest.fixture(scope="session")
def default_params(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A params.yaml of the settings in conf/."""
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    write_params(path, compose(Workspace(root), []))
    return path


@pytest.fixture(autouse=True, scope="module")
def ray_only_where_it_is_used(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hide the session's Ray head from modules that do not use it: code joins Ray wherever RAY_ADDRESS is set."""
    address = None if uses("ray_head", request.path) else os.environ.pop("RAY_ADDRESS", None)
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
    # Ray Train polls the State API for minutes where the dashboard is off.
    head = LocalRay(cpus=4, dashboard=True).start()
    os.environ["RAY_ADDRESS"] = head.address
    ray.init(address=head.address, log_to_driver=False)
    yield head.address
    os.environ.pop("RAY_ADDRESS", None)
    ray.shutdown()
    head.stop()
