"""Values that no block of settings accepts, whatever the field."""

from typing import Any

import pytest

from sluice.data.config import IngestConfig, PackConfig, RefineConfig
from sluice.model.config import PretrainConfig


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_threshold_is_a_finite_number(value: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        RefineConfig(max_symbol_word_ratio=value)


def test_a_threshold_of_a_classifier_needs_one() -> None:
    with pytest.raises(
        ValueError, match=r"min_quality 0\.5 needs quality_model.* train one with `sluice data classifier`"
    ):
        RefineConfig(min_quality=0.5)
    assert RefineConfig(min_quality=0.5, quality_model="quality.safetensors").min_quality == 0.5


@pytest.mark.parametrize(
    ("block", "settings"),
    [(RefineConfig, {"min_words": True}), (IngestConfig, {"sources": "a", "attempts": False})],
)
def test_true_is_no_number(block: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"(true|false) is no number"):
        block(**settings)


def test_true_is_true_where_a_field_takes_it() -> None:
    taken = [
        (block, name)
        for block in (RefineConfig, PackConfig, PretrainConfig)
        for name, field in block.model_fields.items()
        if field.annotation is bool
    ]
    assert taken
    for block, name in taken:
        assert getattr(block.model_validate({**block().model_dump(), name: True}), name) is True
