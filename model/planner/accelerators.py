"""Accelerators by name, with the figures of their vendors.

Peaks are of dense bfloat16 products with float32 sums, without sparsity. Memory is what the driver reports, a little
less than the name says. Prices change: they are rough on-demand list prices of a device and hour in 2025, a default
for those who name none.
"""

from typing import Literal

from sluice.model.planner.base import Record

DeviceName = Literal["a100-40", "a100-80", "h100-sxm", "h100-pcie", "h200", "b200", "l40s", "a10g", "rtx-4090"]


class Device(Record):
    """One accelerator, or this machine."""

    name: str
    peak_flops_per_s: float
    memory_bytes: int
    bandwidth_bytes_per_s: float | None
    power_w: float | None
    """Thermal design power; None where unknown."""
    price_per_hour: float | None


_TABLE: dict[DeviceName, tuple[float, int, float, float, float]] = {
    # bf16 TFLOP/s, memory in MiB, GB/s, W, price an hour
    # NVIDIA A100 Tensor Core GPU datasheet (SXM4).
    "a100-40": (312, 40_960, 1_555, 400, 1.3),
    "a100-80": (312, 81_920, 2_039, 400, 1.8),
    # NVIDIA H100 Tensor Core GPU datasheet; its 1,979 and 1,513 TFLOPS are with sparsity.
    "h100-sxm": (989, 81_559, 3_350, 700, 3.0),
    "h100-pcie": (756, 81_559, 2_000, 350, 2.5),
    # NVIDIA H200 Tensor Core GPU datasheet.
    "h200": (989, 143_771, 4_800, 700, 3.8),
    # NVIDIA HGX B200: 36 PFLOPS of eight, with sparsity.
    "b200": (2_250, 183_359, 7_700, 1_000, 5.0),
    # NVIDIA L40S datasheet.
    "l40s": (362, 46_068, 864, 350, 0.9),
    # NVIDIA A10G datasheet (the A10 of AWS's G5 instances).
    "a10g": (70, 23_028, 600, 300, 1.0),
    # NVIDIA Ada GPU architecture whitepaper, table 2: half of what it does with float16 sums.
    "rtx-4090": (165.2, 24_564, 1_008, 450, 0.7),
}
DEVICES: dict[str, Device] = {
    name: Device(
        name=name,
        peak_flops_per_s=tflops * 1e12,
        memory_bytes=memory_mib * 2**20,
        bandwidth_bytes_per_s=gigabytes * 1e9,
        power_w=power_w,
        price_per_hour=price,
    )
    for name, (tflops, memory_mib, gigabytes, power_w, price) in _TABLE.items()
}
