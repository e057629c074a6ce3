"""Tensor parallelism (Megatron-LM, arXiv 1909.08053), applied to a model from outside.

Attention is split by heads and the feed-forward network by its inner width: the matrices that go in by rows of their
output, those that come out by columns of their input. Each sublayer then costs one all-reduce forward and one backward.
Embedding, head and norms are whole on every process, and so are all names.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from sluice.model.architecture.attention import Attention, CrossAttention
from sluice.model.architecture.attention_mask import AttentionMask
from sluice.model.architecture.block import ForwardContext
from sluice.model.architecture.pointwise import FeedForward
from sluice.model.architecture.transformer import Transformer
from sluice.model.parallelism.groups import Groups


def split_model(model: Transformer, groups: Groups) -> None:
    """Reduce `model` to this process's slice, in place. The complete model must be the same on all of the group."""
    size, rank, group = groups.layout.tensor, groups.tensor_rank, groups.tensor
    if size == 1:
        return
    for parameter in model.parameters():
        parameter.norm_share = 1 / size  # type: ignore[attr-defined]
    for module in list(model.modules()):
        if isinstance(module, Attention):
            _split_attention(module, rank, size, group)
        elif isinstance(module, FeedForward):
            for linear in (module.gate, module.up):
                if linear is not None:
                    _split_outputs(linear, rank, size, group)
            module.down = SplitInputLinear(module.down, rank, size, group)
            module.register_forward_pre_hook(lambda _, inputs: (_Copy.apply(inputs[0], group),))
    for relative in (model.relative, model.encoder.relative if model.encoder else None):
        if relative is not None:
            # Each process sees the gradient of its own heads.
            _sum_gradient(relative.weight, group)


def gathered(parameter: nn.Parameter, value: Tensor) -> Tensor:
    """Gather `value`, a slice of the shape of `parameter`, to its full shape. All of its group call it."""
    place: tuple[int, int, dist.ProcessGroup] | None = getattr(parameter, "tensor_slice", None)
    if place is None:
        return value
    dim, size, group = place
    parts = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(size)]
    dist.all_gather(parts, value.contiguous(), group=group)
    return torch.cat(parts, dim)


def full_shape(parameter: nn.Parameter) -> torch.Size:
    """Shape of the whole parameter that `parameter` is, or is a slice of."""
    place: tuple[int, int, dist.ProcessGroup] | None = getattr(parameter, "tensor_slice", None)
    shape = list(parameter.shape)
    if place is not None:
        shape[place[0]] *= place[1]
    return torch.Size(shape)


def _split_attention(module: Attention, rank: int, size: int, group: dist.ProcessGroup) -> None:
    module.heads, module.kv_heads = module.heads // size, module.kv_heads // size
    for linear in (module.query, module.key, module.value):
        _split_outputs(linear, rank, size, group)
        if isinstance(module, CrossAttention):
            # Its queries and its keys come from two streams.
            linear.register_forward_pre_hook(lambda _, inputs: (_Copy.apply(inputs[0], group),))
    if not isinstance(module, CrossAttention):
        module.register_forward_pre_hook(
            lambda _, inputs: (_Copy.apply(inputs[0], group), _own_heads(inputs[1], rank, size))
        )
    module.output = SplitInputLinear(module.output, rank, size, group)
    for norm in (module.query_norm, module.key_norm):
        if norm is not None:
            # Applied to the heads of this process only.
            _sum_gradient(norm.weight, group)


def _split_outputs(linear: nn.Linear, rank: int, size: int, group: dist.ProcessGroup) -> None:
    linear.out_features //= size
    linear.weight = _slice(linear.weight, 0, rank, size, group)
    if linear.bias is not None:
        linear.bias = _slice(linear.bias, 0, rank, size, group)


class SplitInputLinear(nn.Linear):
    """A linear layer of which each process holds some columns: the products are summed, and the bias added once."""

    def __init__(self, linear: nn.Linear, rank: int, size: int, group: dist.ProcessGroup) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features // size, linear.out_features
        self.weight = _slice(linear.weight, 1, rank, size, group)
        self.bias = linear.bias
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """[..., in / size] -> [..., out]."""
        summed: Tensor = _Sum.apply(functional.linear(x, self.weight), self.group)
        return summed if self.bias is None else summed + self.bias


def _slice(parameter: Tensor, dim: int, rank: int, size: int, group: dist.ProcessGroup) -> nn.Parameter:
    own = nn.Parameter(parameter.detach().chunk(size, dim)[rank].clone())
    # Read by `gathered` and by DeepSpeed, whose norm counts the slices of all processes.
    own.tensor_slice, own.tensor_model_parallel = (dim, size, group), True  # type: ignore[attr-defined]
    return own


def _own_heads(context: ForwardContext, rank: int, size: int) -> ForwardContext:
    """Context whose masks add to the scores of this process's heads only; it shares the caller's lists."""

    def of_rank(mask: AttentionMask) -> AttentionMask:
        if mask.bias is None and mask.slopes is None:
            return mask
        bias = None if mask.bias is None else mask.bias.chunk(size, dim=1)[rank]
        slopes = None if mask.slopes is None else mask.slopes.chunk(size)[rank]
        return replace(mask, bias=bias, slopes=slopes)

    return replace(context, masks={kind: of_rank(mask) for kind, mask in context.masks.items()})


def _sum_gradient(parameter: nn.Parameter, group: dist.ProcessGroup) -> None:
    def hook(gradient: Tensor) -> Tensor:
        summed = gradient.clone()
        dist.all_reduce(summed, group=group)
        return summed

    parameter.register_hook(hook)


class _Copy(torch.autograd.Function):
    """The same to every process of a group; the gradients that come back are summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed, group=ctx.group)
        return summed, None


class _Sum(torch.autograd.Function):
    """The sum over the processes of a group; each gets the full gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        summed = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed, group=group)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
