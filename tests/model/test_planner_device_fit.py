"""Whether a run fits a device: the first way that does, in the order of what each costs."""

import pytest
from architecture_fixtures import shape

from sluice.model.config import PretrainConfig
from sluice.model.planner.accelerators import DEVICES, Device
from sluice.model.planner.device_fit import fit_device
from sluice.model.planner.plan import plan
from sluice.model.planner.settings import PlanConfig

FOUND = plan(shape({"context": 32, "vocab_size": 2000}), PretrainConfig(batch_size=32, workers=4, micro_batch_size=8))
BF16 = {(row.checkpointing, row.zero_stage): row.total_bytes for row in FOUND.memory if row.dtype == "bf16"}


def of_memory(size_bytes: int) -> Device:
    return DEVICES["h200"].model_copy(update={"memory_bytes": size_bytes})


@pytest.mark.parametrize(("checkpointing", "stage"), [(False, 1), (False, 2), (False, 3), (True, 3)])
def test_a_device_of_exactly_this_memory_is_enough_for_this_way(checkpointing: bool, stage: int) -> None:
    needed = BF16[checkpointing, stage]
    # No way before it is as small, or it would be the answer.
    assert all(BF16[way] > needed for way in BF16 if way < (checkpointing, stage))
    found = fit_device(FOUND.memory, of_memory(needed), dtype="bf16", reserve=0)
    assert (found.fits, found.checkpointing, found.zero_stage) == (True, checkpointing, stage)
    assert found.needed_bytes == found.usable_bytes == needed


def test_a_byte_less_than_the_least_does_not_fit() -> None:
    least = min(BF16.values())
    found = fit_device(FOUND.memory, of_memory(least - 1), dtype="bf16", reserve=0)
    assert not found.fits and (found.needed_bytes, found.usable_bytes) == (least, least - 1)


def test_what_is_reserved_is_not_there() -> None:
    needed = BF16[False, 1]
    assert fit_device(FOUND.memory, of_memory(2 * needed), dtype="bf16", reserve=0.5).zero_stage == 1
    assert fit_device(FOUND.memory, of_memory(2 * needed), dtype="bf16", reserve=0.51).zero_stage > 1


def test_no_way_is_no_answer() -> None:
    with pytest.raises(ValueError, match="no way of training in fp16"):
        fit_device(FOUND.memory, DEVICES["h200"], dtype="fp16", reserve=0)


def test_a_plan_answers_for_every_device_it_prices() -> None:
    assert [each.device for each in FOUND.fits] == [each.device for each in FOUND.costs] == list(DEVICES)
    assert all(each.fits and each.dtype == "bf16" for each in FOUND.fits)
    only = plan(
        FOUND.shape,
        PretrainConfig(batch_size=32, workers=4, micro_batch_size=8),
        PlanConfig(zero_stage=3, device="a10g"),
    )
    assert [each.zero_stage for each in only.fits] == [3]


def test_a_plan_keeps_its_reserve_of_an_encoders_device_too() -> None:
    found = plan(shape({"kind": "encoder"}), PretrainConfig(workers=1), PlanConfig(device="a10g", reserve=0.25))
    assert [each.usable_bytes for each in found.fits] == [DEVICES["a10g"].memory_bytes * 3 // 4]
