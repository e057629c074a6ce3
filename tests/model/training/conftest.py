"""Processes that train together."""

from collections.abc import Iterator

import pytest
from rank_pool import RankPool


@pytest.fixture(scope="session")
def rank_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankPool]:
    """Runs functions in several ranks of a process group, without the seconds that torchrun and imports take."""
    with RankPool(tmp_path_factory.mktemp("ranks")) as pool:
        yield pool
