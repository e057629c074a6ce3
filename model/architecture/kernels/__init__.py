"""Attention by one of several kernels that agree with the reference; the choice can be overridden and is reported."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sluice.model.architecture.attention_mask import AttentionCall, check_shapes
from sluice.model.architecture.kernels import blocked, flash, flex, reference, sdpa

KernelName = Literal["reference", "sdpa", "flex", "flash", "blocked"]
KERNELS: tuple[KernelName, ...] = get_args(KernelName)

BLOCKED_LONGEST = 1024
"""Up to this number squared of query-key pairs, the speed of `blocked` is worth the probabilities that it keeps."""

FLEX_SHORTEST = 1024
"""Below this many keys a mask in memory costs less than `flex` saves by skipping blocks."""

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


@dataclass(frozen=True, slots=True)
class KernelRequest:
    """Properties of a call that the choice depends on."""

    device: str
    """Device type: cpu, cuda, .."""
    dtype: torch.dtype
    gradient: bool
    """Queries, keys or values need a gradient."""
    queries: int
    keys: int
    head_size: int
    plain: bool
    """Only `causal` restricts or changes the scores."""
    causal: bool = True
    window: int | None = None
    global_tokens: bool = False
    """Some tokens are visible beyond the window."""
    documents: bool = False
    key_mask: bool = False
    bias: bool = False
    bias_gradient: bool = False
    slopes: bool = False
    soft_cap: bool = False
    dropout: bool = False
    compiled: bool = False
    """A graph is being traced, in which no tensor's value can be read."""
    flash_installed: bool = False
    orderly: bool = False
    """Distances follow from the order of tokens in their sequence or document."""


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
    choice = call.mask.cached(key, decide)
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


def refusal(kernel: KernelName, request: KernelRequest) -> str | None:
    """Reason why the kernel does not support the request; None if it does."""
    match kernel:
        case "reference":
            pass
        case "sdpa":
            if request.soft_cap:
                return "has no soft cap"
        case "flex":
            if request.dropout:
                return "has no dropout"
            if request.device not in ("cpu", "cuda"):
                return f"runs on cuda and, forward only, on cpu, not on {request.device}"
            if request.device == "cpu" and (request.gradient or request.bias_gradient):
                return "has no backward pass on a CPU"
            if request.device == "cuda" and request.dtype == torch.float64:
                return "has no float64 on a GPU"
            if request.device == "cuda" and request.head_size < 16:
                return f"needs heads of at least 16 entries on a GPU, not {request.head_size}"
        case "flash":
            if not request.flash_installed:
                return "is not installed (package flash-attn)"
            if request.device != "cuda":
                return f"runs on cuda, not on {request.device}"
            if request.dtype not in (torch.float16, torch.bfloat16):
                return f"takes float16 and bfloat16, not {request.dtype}".replace("torch.", "")
            if request.head_size > 256:
                return f"takes heads of at most 256 entries, not {request.head_size}"
            if request.bias:
                return "adds no bias"
            if request.soft_cap and request.dropout:
                return "has no dropout under a soft cap"
            if request.global_tokens:
                return "knows no global tokens"
            if request.key_mask:
                return "takes no mask of keys"
            if not request.orderly:
                return "numbers tokens by their order, which the positions or documents here do not follow"
        case "blocked":
            if request.device != "cpu":
                return f"runs on cpu, not on {request.device}"
            if request.soft_cap:
                return "has no soft cap"
            if request.dropout:
                return "has no dropout"
            if request.bias_gradient:
                return "gives a bias no gradient"
            if request.compiled and not request.plain:
                return "reads its masks as it runs, which a compiled graph cannot"
    return None


def choose(request: KernelRequest, wanted: KernelName | None = None) -> tuple[KernelName, str]:
    """Return (kernel, reason). Raises ValueError if the `wanted` kernel is unknown or does not support the request."""
    if wanted is None:
        return next((kernel, reason) for kernel, reason in _preferred(request) if refusal(kernel, request) is None)
    if wanted not in KERNELS:
        raise ValueError(f"kernel {wanted!r} is not one of {', '.join(KERNELS)}")
    if why := refusal(wanted, request):
        able = [kernel for kernel in KERNELS if refusal(kernel, request) is None]
        raise ValueError(f"kernel {wanted} {why}: choose one of {', '.join(able)}, or none for the default")
    return wanted, "requested"


def _preferred(request: KernelRequest) -> Iterator[tuple[KernelName, str]]:
    """Kernels with reasons, best first; the last one supports everything."""
    if request.device == "cpu":
        # Measured on one thread with AVX-512, forward and backward, 8 query heads over 2, head sizes 32 and 64: blocked
        # took 0.7 of the time of sdpa (causal, float32) and 0.4 to 0.7 (bfloat16); 0.2 for documents of 200 tokens or a
        # window of 128 in 1024. Without any masking it took 1.2 (float32) and 0.75 (bfloat16).
        hidden = request.causal or request.window is not None or request.documents
        fast = request.dtype == torch.bfloat16 or (request.dtype == torch.float32 and hidden)
        bounded = request.window is not None and not request.global_tokens
        sight = min(request.window, request.keys) if bounded and request.window else request.keys
        if request.gradient and fast and request.queries * sight <= BLOCKED_LONGEST**2:
            yield "blocked", "training on a CPU, with few enough probabilities to keep"
        yield "sdpa", "fastest on a CPU where blocks are not"
    else:
        if request.plain:
            yield "sdpa", "causal or full attention needs no mask"
        yield "flash", "flash-attn is installed and numbers the tokens alike"
        if request.queries > 1 and request.keys >= FLEX_SHORTEST:
            yield "flex", "long sequences, of which blocks out of sight are skipped"
        yield "sdpa", "a mask of this size fits in memory"
    yield "reference", "no faster kernel does this"
