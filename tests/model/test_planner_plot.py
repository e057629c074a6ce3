"""The picture's curves: the memory of the table, over length and batch."""

from itertools import pairwise

import pytest
from architecture_fixtures import shape

from sluice.model.config import PretrainConfig
from sluice.model.parallelism.layout import Layout
from sluice.model.planner.memory import device_memory
from sluice.model.planner.plot import BATCHES, memory_by_length
from sluice.model.planner.settings import PlanConfig

CONFIG = shape({"layers": 4, "context": 512})
RUN = PretrainConfig(workers=4, batch_size=16, micro_batch_size=4, tensor_parallel=2, zero_stage=2, dtype="bf16")


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("settings", "layout"),
    [
        (PlanConfig(), Layout(devices=4, tensor=2, zero_stage=2)),
        (
            PlanConfig(devices=8, tensor=1, pipeline=2, zero_stage=1),
            Layout(devices=8, tensor=1, pipeline=2, zero_stage=1),
        ),
    ],
)
def test_a_curve_is_what_the_fullest_device_holds(settings: PlanConfig, layout: Layout, checkpointing: bool) -> None:
    found = memory_by_length(CONFIG, RUN, settings, checkpointing=checkpointing)
    for batch, points in found.items():
        assert dict(points)[512] == (
            device_memory(
                CONFIG,
                layout,
                dtype="bf16",
                optimizer=RUN.optimizer,
                micro_batch_size=batch,
                micro_batches=layout.pipeline,
                length=512,
                checkpointing=checkpointing,
            ).total_bytes
        )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_curves_rise_with_length_and_batch(checkpointing: bool) -> None:
    found = memory_by_length(CONFIG, RUN, PlanConfig(), checkpointing=checkpointing)
    assert list(found) == list(BATCHES)
    for points in found.values():
        lengths, sizes = zip(*points, strict=True)
        assert lengths[0] == 128 and lengths[-1] == 16 * 512
        assert all(longer == 2 * length for length, longer in pairwise(lengths))
        assert all(size < larger for size, larger in pairwise(sizes))
    for one, more in pairwise(found.values()):
        assert all(size < larger for (_, size), (_, larger) in zip(one, more, strict=True))
