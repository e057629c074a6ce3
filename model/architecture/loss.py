"""Next-token cross-entropy over the output head, without storing the logits of a whole batch.

With a vocabulary of 8k the logits are many times larger than any other activation. So rows go through the head in
chunks, and the gradient of a chunk is computed while its logits are still in cache (the idea of Liger Kernel's
FusedLinearCrossEntropy, arXiv 2410.10989).
"""

from typing import Any, Unpack

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sluice.model.architecture.inputs import Inputs, check_targets
from sluice.model.architecture.transformer import Transformer

_CHUNK_LOGITS = 1 << 20
"""Logits per chunk on a CPU: 4 MiB of float32, about one core's share of cache."""

_ACCELERATOR_CHUNK_LOGITS = 1 << 26
"""Logits per chunk on an accelerator, whose products must be large to be fast."""


def cross_entropy_sum(
    model: Transformer,
    ids: Tensor,
    targets: Tensor,
    counted: Tensor | None = None,
    *,
    z_loss: float = 0.0,
    each: Tensor | None = None,
    **inputs: Unpack[Inputs],
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy in nats of `targets` given `ids`, both [batch, seq], and the number of tokens summed.

    Both are scalars: the sum float32 and differentiable, the count int64. `counted` [batch, seq] bool is True for
    targets that count; other values of `targets` are not read. `inputs` are passed to the model. Divide by the number
    of tokens of the whole optimizer step.

    With `z_loss` the gradient is that of the sum of nats + z_loss x log(Z)^2, Z the softmax's normalizer (PaLM, arXiv
    2204.02311). The value remains the nats, so that losses of runs with and without it are comparable.

    `each` [batch, seq] float32, allowed only without gradients, is filled with the nats of every target, 0 where it
    does not count.

    Raises ValueError for targets of another shape than the ids, or (on a CPU, where reading them is cheap) counted
    targets outside the vocabulary.
    """
    check_targets(model.config, ids, targets, counted)
    hidden = model.hidden(ids, **inputs)
    if counted is None:
        chosen, wanted = hidden.flatten(0, 1), targets.flatten()
    else:
        chosen, wanted = hidden[counted], targets[counted]
    wanted = wanted.long()
    assert each is None or not torch.is_grad_enabled()
    nats = None if each is None else torch.empty(len(wanted), dtype=torch.float32, device=ids.device)
    if model.head_bias is None and model.config.logit_soft_cap is None:
        total = _HeadCrossEntropy.apply(chosen, model.head_weight, wanted, z_loss, nats)
    else:
        total = _cross_entropy_of_logits(model, chosen, wanted, z_loss, nats)
    if each is not None and nats is not None:
        where = torch.ones_like(targets, dtype=torch.bool) if counted is None else counted
        each.zero_().masked_scatter_(where, nats)
    return total, torch.tensor(wanted.numel(), device=ids.device)


def _cross_entropy_of_logits(
    model: Transformer, hidden: Tensor, targets: Tensor, z_loss: float, each: Tensor | None
) -> Tensor:
    """Summed nats for heads that are more than a product: [rows, hidden], [rows] -> scalar; `each` [rows] is filled
    with the nats of each row. The backward pass recomputes the logits of a chunk.
    """

    def nats(chunk: Tensor, target: Tensor, own: Tensor | None) -> Tensor:
        logits = model.logits(chunk).float()
        if own is not None:
            own.copy_(functional.cross_entropy(logits, target, reduction="none"))
        total = functional.cross_entropy(logits, target, reduction="sum")
        if not z_loss:
            return total
        penalty = z_loss * logits.logsumexp(dim=-1).square().sum()
        return total + (penalty - penalty.detach())

    rows = _chunk_rows(model.head_weight)
    chunks, chunk_targets = hidden.split(rows), targets.split(rows)
    owns = [None] * len(chunks) if each is None else each.split(rows)
    parts = [
        checkpoint(nats, chunk, target, own, use_reentrant=False)
        for chunk, target, own in zip(chunks, chunk_targets, owns, strict=True)
    ]
    return torch.stack(parts).sum()


def _chunk_rows(weight: Tensor) -> int:
    logits = _CHUNK_LOGITS if weight.device.type == "cpu" else _ACCELERATOR_CHUNK_LOGITS
    return max(1, logits // len(weight))


class _HeadCrossEntropy(torch.autograd.Function):
    """[rows, hidden], [vocab, hidden], [rows], weight of the z-loss -> summed nats; `each` [rows] is filled with the
    nats of each row.

    The gradient is known as soon as the logits are: softmax(logits) - onehot(target), plus 2 z_loss log(Z)
    softmax(logits) from the z-loss. The forward pass computes it and the backward pass only scales it.
    """

    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float, each: Tensor | None = None
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        needed = any(ctx.needs_input_grad)
        hidden_gradient = torch.empty_like(hidden) if needed else None
        # Summed in float32, which costs one copy of the weight: in bfloat16 every chunk would round the sum again.
        wide = torch.promote_types(weight.dtype, torch.float32)
        weight_gradient = torch.zeros_like(weight, dtype=wide) if needed else None
        rows = _chunk_rows(weight)
        for start in range(0, len(hidden), rows):
            chunk, target = hidden[start : start + rows], targets[start : start + rows, None]
            logits = functional.linear(chunk, weight).float()
            # Subtract the row's maximum, so that no exponential overflows.
            largest = logits.amax(dim=-1, keepdim=True)
            logits -= largest
            wanted = logits.gather(1, target)
            exponentials = logits.exp_()
            normalizer = exponentials.sum(dim=-1, keepdim=True)
            nats = normalizer.log() - wanted
            total += nats.sum()
            if each is not None:
                each[start : start + rows] = nats[:, 0]
            if hidden_gradient is None or weight_gradient is None:
                continue
            gradient = exponentials.div_(normalizer)
            if z_loss:
                gradient *= 1 + 2 * z_loss * (largest + normalizer.log())
            gradient.scatter_add_(1, target, torch.full_like(normalizer, -1.0))
            gradient = gradient.to(weight.dtype)
            torch.mm(gradient, weight, out=hidden_gradient[start : start + rows])
            if gradient.dtype == wide:
                weight_gradient.addmm_(gradient.T, chunk)
            else:
                weight_gradient += gradient.T @ chunk
        if hidden_gradient is not None and weight_gradient is not None:
            ctx.save_for_backward(hidden_gradient, weight_gradient.to(weight.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * upstream, weight_gradient * upstream, None, None, None
