"""Two more linear backends, for decoding: row sums for a compiler, and fused products over packed weights."""

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from sluice.model.architecture.pointwise import separate
from sluice.model.architecture.weight_layout import Product, pack

FUSED_TOKENS = 16
"""Decoding steps from which on copying the weights pays off."""
FUSED_BYTES = 1 << 30
"""Largest model, experts included, whose weights are copied: in a larger one the memory is worth more than time."""


class _RowSum:
    """Computes each map of a single row as a sum over every row of its weight, written out for a compiler.

    The loop that torch's compiler generates reads the weights at a CPU's memory bandwidth, twice as fast as the
    libraries' matrix-vector products. Without a compiler it is slow.
    """

    def __call__(self, x: Tensor, *maps: nn.Module) -> tuple[Tensor, ...]:
        return tuple(self.linear(x, each.weight, each.bias) if _is_plain(each) else each(x) for each in maps)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.device.type != "cpu" or _rows(x) > 1:
            return functional.linear(x, weight, bias)
        wide = torch.promote_types(x.dtype, torch.float32)
        y = (x.unsqueeze(-2).to(wide) * weight.to(wide)).sum(dim=-1)
        return (y if bias is None else y + bias.to(wide)).to(x.dtype)


row_sum = _RowSum()


class FusedLinear:
    """Computes maps of one input as one product, over packed copies of their weights made at the first use.

    A decoding step multiplies every matrix with a few rows, and launching a product costs as much as computing a small
    one. Later changes of the weights have no effect: use one object per model while its weights do not change.
    """

    def __init__(self) -> None:
        self._fused: dict[tuple[nn.Module, ...], _FusedMaps | None] = {}
        self._heads: dict[int, tuple[Tensor, Product]] = {}

    def __call__(self, x: Tensor, *maps: nn.Module) -> tuple[Tensor, ...]:
        _refuse_gradients()
        if maps not in self._fused:
            linear = [each for each in maps if _is_plain(each)]
            biases: list[Tensor] = [each.bias for each in linear if each.bias is not None]
            fused = None  # for maps that are more than their products, or of which only some have a bias
            if len(linear) == len(maps) and len(biases) in (0, len(maps)):
                product = pack(torch.cat(tuple(each.weight for each in linear)), _rows(x))
                bias = torch.cat(biases) if biases else None
                fused = _FusedMaps(product, bias, [each.out_features for each in linear])
            self._fused[maps] = fused
        fused = self._fused[maps]
        return separate(x, *maps) if fused is None else fused(x)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        _refuse_gradients()
        if id(weight) not in self._heads:
            # A reference to the weight keeps its id from being reused.
            self._heads[id(weight)] = weight, pack(weight, _rows(x))
        return self._heads[id(weight)][1](x, bias)


class _FusedMaps:
    def __init__(self, product: Product, bias: Tensor | None, sizes: list[int]) -> None:
        self.product, self.bias, self.sizes = product, bias, sizes

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.product(x, self.bias)
        # Not Tensor.split, whose Python wrapper costs as much as a small product.
        return (y,) if len(self.sizes) == 1 else torch.split_with_sizes(y, self.sizes, dim=-1)


def fusing_pays(model: nn.Module, tokens: int) -> bool:
    """Return whether `tokens` decoding steps of `model` are faster with FusedLinear, copying the weights included."""
    weights = list(model.parameters())
    small = sum(weight.nbytes for weight in weights) <= FUSED_BYTES
    return weights[0].device.type == "cpu" and small and tokens >= FUSED_TOKENS


def _refuse_gradients() -> None:
    if torch.is_grad_enabled():
        raise ValueError("fused maps are copies, which give the weights no gradients: decode within torch.no_grad()")


def _is_plain(each: nn.Module) -> TypeGuard[nn.Linear]:
    """Return whether a map is its product and nothing more: no subclass, not hooked, without a forward of its own."""
    changed = each._forward_hooks or each._forward_pre_hooks or "forward" in vars(each)
    return type(each) is nn.Linear and not changed


def _rows(x: Tensor) -> int:
    return x.numel() // x.shape[-1]
