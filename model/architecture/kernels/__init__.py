"""Attention by one of several kernels that agree with the reference; the choice can be overridden and is reported."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sluice.model.architecture.kernels import blocked, flash, flex, mask_tensors, reference, sdpa
from sluice.model.architecture.kernels.call import AttentionCall, check_shapes
from sluice.model.architecture.kernels.choice import KERNELS, KernelName, KernelRequest, choose

__all__ = [
    "KERNELS",
    "TOLERANCES",
    "AttentionCall",
    "KernelName",
    "KernelRequest",
    "attend",
    "choices",
    "choose",
    "last_choice",
    "use",
    "using",
]

TOLERANCES: dict[torch.dtype, tuple[float, float]] = {torch.float32: (1e-6, 1e-5), torch.bfloat16: (2e-2, 6e-2)}
"""Largest error of a kernel's output, and of each gradient, against float64 on the same inputs: relative to the largest
entry, or to 1 where that is smaller."""


_KERNELS: dict[KernelName, Callable[[AttentionCall], Tensor]] = {
    "reference": reference.attend,
    "sdpa": sdpa.attend,
    "flex": flex.attend,
    "flash": flash.attend,
    "blocked": blocked.attend,
}
_override: KernelName | None = None
_last: tuple[KernelName, str] | None = None
_choices: Counter[tuple[KernelName, str]] = Counter()


def attend(call: AttentionCall, kernel: KernelName | None = None) -> Tensor:
    """Attention by the best kernel that supports the call -> [batch, queries, heads, head_size].

    `kernel` overrides `use`, which overrides the choice. Raises ValueError for shapes that do not fit together, and for
    a kernel that does not support the call.
    """
    global _last
    kernel = _override if kernel is None else kernel

    def decide() -> tuple[KernelName, str]:
        check_shapes(call)
        return choose(_request(call, kernel), kernel)

    # Layers that share a mask make equal requests.
    queries, keys, values = call.queries, call.keys, call.values
    gradient = torch.is_grad_enabled() and (queries.requires_grad, keys.requires_grad, values.requires_grad)
    shapes = queries.shape, keys.shape, values.shape
    key = *shapes, queries.dtype, gradient, call.soft_cap is None, call.dropout > 0.0, kernel
    choice = mask_tensors.cached(call.mask, key, decide)
    if not torch.compiler.is_compiling():
        _last = choice
        _choices[choice] += 1
    return _KERNELS[choice[0]](call)


def use(kernel: KernelName | None) -> None:
    """Set the kernel of every attention in this process; None restores the choice."""
    global _override
    if kernel is not None and kernel not in KERNELS:
        raise ValueError(f"kernel {kernel!r} is not one of {', '.join(KERNELS)}")
    _override = kernel


@contextmanager
def using(kernel: KernelName | None) -> Iterator[None]:
    """`use` within a with-block."""
    before = _override
    use(kernel)
    try:
        yield
    finally:
        use(before)


def last_choice() -> tuple[KernelName, str] | None:
    """(kernel, reason) of the last attention; calls inside compiled graphs are not recorded."""
    return _last


def choices() -> Counter[tuple[KernelName, str]]:
    """Number of attentions so far by (kernel, reason); a caller that measures clears it first."""
    return _choices


def _request(call: AttentionCall, kernel: KernelName | None) -> KernelRequest:
    """Describe the call for `choose`."""
    queries, keys, values, mask = call.queries, call.keys, call.values, call.mask
    grad = torch.is_grad_enabled()
    device = queries.device.type
    compiled = torch.compiler.is_compiling()
    installed = device == "cuda" and flash.installed()
    # `flash.orderly` reads values from the device, so only where the answer can matter.
    reads_order = installed and kernel in (None, "flash") and not compiled
    restrictions: dict[str, Any] = {}
    if not mask.plain:
        restrictions = {
            "window": mask.window,
            "documents": mask.query_documents is not None,
            "global_tokens": mask.window is not None and mask.global_tokens > 0,
            "key_mask": mask.key_mask is not None,
            "bias": mask.bias is not None,
            "bias_gradient": grad and mask.bias is not None and mask.bias.requires_grad,
            "slopes": mask.slopes is not None,
        }
    return KernelRequest(
        device=device,
        dtype=queries.dtype,
        gradient=grad and (queries.requires_grad or keys.requires_grad or values.requires_grad),
        queries=queries.shape[1],
        keys=keys.shape[1],
        head_size=queries.shape[3],
        plain=mask.plain,
        causal=mask.causal,
        soft_cap=call.soft_cap is not None,
        dropout=call.dropout > 0.0,
        compiled=compiled,
        flash_installed=installed,
        orderly=mask.plain or (reads_order and flash.orderly(mask)),
        **restrictions,
    )
