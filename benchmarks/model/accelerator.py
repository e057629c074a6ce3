"""On a GPU: the fraction of its dense bf16 peak, for each attention kernel, eager and compiled. Needs no Ray."""

import sys
from collections.abc import Iterable

from benchmarks.model.case import Case, Kernel
from benchmarks.model.shapes import ACCELERATOR_SHAPES, SHAPES
from benchmarks.model.turns import Comparison, Measured, ModelsOnGpu, in_turns

KERNELS: tuple[Kernel, ...] = ("reference", "sdpa", "flex", "flash")

_DENSE_BF16 = {
    # Vendor's data sheets, FLOPs a second without sparsity; the first name that the device's contains.
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
}


def dense_bf16_peak(device: str) -> float | None:
    """FLOPs a second that the data sheet of a device states; None for one that is not listed."""
    return next((peak for name, peak in _DENSE_BF16.items() if name in device), None)


def measure(rounds: int, shapes: Iterable[str] = ACCELERATOR_SHAPES) -> ModelsOnGpu | None:
    """None where there is no GPU. A candidate that cannot run is kept with its reason."""
    import torch

    if not torch.cuda.is_available():
        return None
    device = torch.cuda.get_device_name()
    matmul = in_turns({"matmul": Case(work="matmul", precision="bf16", device="cuda")}, rounds)["matmul"]
    found = ModelsOnGpu(device=device, peak_flops=dense_bf16_peak(device), matmul_flops=matmul.best, comparisons=[])
    for name in shapes:
        for sequence in SHAPES[name].sequences:
            candidates: dict[str, Measured] = {}
            # Each alone: the device's memory does not hold all, and its clock does not depend on others' work.
            for key, case in cases(name, sequence).items():
                try:
                    candidates |= in_turns({key: case}, rounds)
                except RuntimeError as error:
                    print(f"  {error}", file=sys.stderr, flush=True)
                    found.refused[f"{name}, {sequence} tokens: {key}"] = str(error)
            found.comparisons.append(Comparison(shape=name, sequence=sequence, candidates=candidates))
    return found


def cases(shape: str, sequence: int) -> dict[str, Case]:
    """transformers in bf16, and ours with each kernel, eager and compiled."""
    found = []
    for compiled in (False, True):
        own = Case(work="train", precision="bf16", shape=shape, sequence=sequence, device="cuda", compiled=compiled)
        found += [own.model_copy(update={"kernel": kernel}) for kernel in KERNELS]
        found.append(own.model_copy(update={"library": "transformers"}))
    return {f"{case.library}, {case.setting}": case for case in found}
