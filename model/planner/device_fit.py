"""Fit of a run on a device: the least sharding and recomputation at which it fits."""

from collections.abc import Iterable

from sluice.model.planner.accelerators import Device
from sluice.model.planner.base import Dtype, Record
from sluice.model.planner.memory import DeviceMemory


class DeviceFit(Record):
    """A run on one kind of device."""

    device: str
    fits: bool
    dtype: Dtype
    zero_stage: int
    checkpointing: bool
    """With `zero_stage`: the least costly way that fits; where none fits, the one that needs least memory."""
    needed_bytes: int
    """On the fullest device."""
    usable_bytes: int
    """Memory of the device less the reserve."""


def fit_device(ways: Iterable[DeviceMemory], device: Device, *, dtype: Dtype, reserve: float) -> DeviceFit:
    """The first of `ways` in `dtype` that fits `device`. `reserve`: share of its memory left to the runtime.

    Ways without recomputation come first, then the lowest ZeRO stage: each further one costs time. Raises ValueError
    where no way is of `dtype`.
    """
    usable = int(device.memory_bytes * (1 - reserve))
    own = sorted((each for each in ways if each.dtype == dtype), key=lambda each: (each.checkpointing, each.zero_stage))
    if not own:
        raise ValueError(f"no way of training in {dtype} is among those given")
    fitting = [each for each in own if each.total_bytes <= usable]
    chosen = fitting[0] if fitting else min(own, key=lambda each: each.total_bytes)
    return DeviceFit(
        device=device.name,
        fits=bool(fitting),
        dtype=dtype,
        zero_stage=chosen.zero_stage,
        checkpointing=chosen.checkpointing,
        needed_bytes=chosen.total_bytes,
        usable_bytes=usable,
    )
