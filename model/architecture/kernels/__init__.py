"""Attention by several kernels, all equal to the reference: chosen by what is asked, overridable, reported."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from sluice.model.architecture.attention_mask import Visibility
from sluice.model.architecture.kernels import blocked, flash, flex, masks, reference, sdpa, shapes
from sluice.model.architecture.kernels.choice import KERNELS, KernelName, Request, choose

__all__ = [
    "KERNELS",
    "TOLERANCES",
    "KernelName",
    "Request",
    "attend",
    "choices",
    "choose",
    "last_choice",
    "use",
    "using",
]

TOLERANCES: dict[torch.dtype, tuple[float, float]] = {torch.float32: (1e-6, 1e-5), torch.bfloat16: (2e-2, 6e-2)}
"""How far every kernel's output, and each of its gradients, may lie from what float64 gives for the same inputs: the
largest error over the largest entry, or over 1 where that is smaller."""


class _Kernel(Protocol):
    def __call__(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        visibility: Visibility,
        *,
        scale: float,
        soft_cap: float | None = None,
        dropout: float = 0.0,
    ) -> Tensor: ...


_KERNELS: dict[KernelName, _Kernel] = {
    "reference": reference.attend,
    "sdpa": sdpa.attend,
    "flex": flex.attend,
    "flash": flash.attend,
    "blocked": blocked.attend,
}
_wanted: KernelName | None = None
_last: tuple[KernelName, str] | None = None
_choices: Counter[tuple[KernelName, str]] = Counter()


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    visibility: Visibility,
    *,
    scale: float,
    soft_cap: float | None = None,
    dropout: float = 0.0,
    kernel: KernelName | None = None,
) -> Tensor:
    """[batch, queries, heads, size] over keys and values [batch, keys, kv_heads, size] -> as the queries.

    Scores are products x `scale`, capped by `soft_cap`, then what the visibility adds; `dropout` is of the
    probabilities. A query that sees no key gives zeros. `kernel` overrides `use`, which overrides the choice.

    Raises ValueError for shapes that do not fit, and a kernel that cannot do what is asked.
    """
    kernel = _wanted if kernel is None else kernel

    def decide() -> tuple[KernelName, str]:
        shapes.check(queries, keys, values, visibility)
        request = _request(queries, keys, values, visibility, soft_cap=soft_cap, dropout=dropout, wanted=kernel)
        return choose(request, kernel)

    # The layers that share a visibility ask for the same.
    gradient = torch.is_grad_enabled() and (queries.requires_grad, keys.requires_grad, values.requires_grad)
    asked = queries.shape, keys.shape, values.shape, queries.dtype, gradient, soft_cap is None, dropout > 0.0, kernel
    choice = masks.remembered(visibility, asked, decide)
    _report(choice)
    return _KERNELS[choice[0]](queries, keys, values, visibility, scale=scale, soft_cap=soft_cap, dropout=dropout)


def use(kernel: KernelName | None) -> None:
    """Sets the kernel of every attention of this process; None leaves it to the choice."""
    global _wanted
    if kernel is not None and kernel not in KERNELS:
        raise ValueError(f"kernel {kernel!r} is not one of {', '.join(KERNELS)}")
    _wanted = kernel


@contextmanager
def using(kernel: KernelName | None) -> Iterator[None]:
    """`use` for the length of a with-block."""
    before = _wanted
    use(kernel)
    try:
        yield
    finally:
        use(before)


def last_choice() -> tuple[KernelName, str] | None:
    """(kernel, reason) of the last attention; calls from within a compiled model are not seen."""
    return _last


def choices() -> Counter[tuple[KernelName, str]]:
    """The (kernel, reason) of all attentions so far, counted; to be cleared by whoever measures."""
    return _choices


def _report(choice: tuple[KernelName, str]) -> None:
    global _last
    if torch.compiler.is_compiling():
        return
    _last = choice
    _choices[choice] += 1


def _request(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    visibility: Visibility,
    *,
    soft_cap: float | None,
    dropout: float,
    wanted: KernelName | None,
) -> Request:
    grad = torch.is_grad_enabled()
    device = queries.device.type
    # Asks the device for values, so only where the answer can matter.
    compiled = torch.compiler.is_compiling()
    installed = device == "cuda" and flash.installed()
    asked = installed and wanted in (None, "flash") and not compiled
    changes: dict[str, Any] = {}
    if not visibility.plain:
        changes = {
            "window": visibility.window,
            "documents": visibility.query_documents is not None,
            "global_tokens": visibility.window is not None and visibility.global_tokens > 0,
            "key_mask": visibility.key_mask is not None,
            "bias": visibility.bias is not None,
            "bias_gradient": grad and visibility.bias is not None and visibility.bias.requires_grad,
            "slopes": visibility.slopes is not None,
        }
    return Request(
        device=device,
        dtype=queries.dtype,
        gradient=grad and (queries.requires_grad or keys.requires_grad or values.requires_grad),
        queries=queries.shape[1],
        keys=keys.shape[1],
        head_size=queries.shape[3],
        plain=visibility.plain,
        causal=visibility.causal,
        soft_cap=soft_cap is not None,
        dropout=dropout > 0.0,
        compiled=compiled,
        flash_installed=installed,
        orderly=visibility.plain or (asked and flash.orderly(visibility)),
        **changes,
    )
