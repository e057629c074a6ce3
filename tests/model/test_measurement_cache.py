"""Kept measurements: the same as they were made, and only for what they are about."""

import math
from pathlib import Path

import pytest

from sluice.model.evaluation.measurement_cache import MeasurementCache
from sluice.model.evaluation.metric import Measured
from sluice.model.evaluation.results import Item

ABOUT = {"model": "a" * 64, "code": "c" * 64, "data": "d", "settings": {"documents": 3}}
MEASURED = Measured(
    [Item("bits", "1", 0.5, 2.0, "document", {"source": "local"}), Item("bits", "2", math.nan)],
    {"baselines": {"xz": 2.5}},
    {"golden.json": [{"answer": "é"}]},
    {"first_token_p50_ms": 1.25},
)


def test_a_kept_measurement_is_what_was_measured(tmp_path: Path) -> None:
    cache = MeasurementCache(tmp_path, ABOUT)
    assert cache.get("bits") is None
    cache.put("bits", MEASURED)
    assert repr(cache.get("bits")) == repr(MEASURED)
    assert cache.get("latency") is None


@pytest.mark.parametrize("changed", ["model", "code", "data", "settings"])
def test_another_model_code_data_or_setting_finds_nothing(tmp_path: Path, changed: str) -> None:
    MeasurementCache(tmp_path, ABOUT).put("bits", MEASURED)
    assert MeasurementCache(tmp_path, {**ABOUT, changed: "other"}).get("bits") is None


def test_a_file_that_was_moved_or_edited_is_not_used(tmp_path: Path) -> None:
    ours, theirs = MeasurementCache(tmp_path, ABOUT), MeasurementCache(tmp_path, {**ABOUT, "model": "b" * 64})
    theirs.put("bits", MEASURED)
    (path,) = tmp_path.iterdir()
    ours.put("bits", MEASURED)
    (own,) = set(tmp_path.iterdir()) - {path}
    path.replace(own)
    assert ours.get("bits") is None
    ours.put("bits", MEASURED)
    own.write_bytes(own.read_bytes().replace(b"0.5", b"0.1"))
    assert ours.get("bits") is None
    own.write_bytes(b"{")
    assert ours.get("bits") is None
