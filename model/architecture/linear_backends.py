"""How linear maps that read one input are computed: each by itself, or in one of two ways that suit decoding."""

from typing import Protocol, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional

from sluice.model.architecture.weight_layout import Product, packed

JOINED_TOKENS = 16
"""Steps of decoding from which on copying the weights has paid for itself."""
JOINED_BYTES = 1 << 30
"""Of a model whose weights are copied, experts counted: of a larger one the second copy is worth more than the time."""


class Project(Protocol):
    """One way to compute linear maps."""

    def __call__(self, x: Tensor, *maps: nn.Module) -> tuple[Tensor, ...]:
        """What each of the maps makes of x: [.., in] -> [.., out] of each."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As functional.linear, for a matrix that is no module's own, such as a tied head."""


class _Apart:
    """Each map by itself."""

    def __call__(self, x: Tensor, *maps: nn.Module) -> tuple[Tensor, ...]:
        return tuple(each(x) for each in maps)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x, weight, bias)


apart = _Apart()


class _Summed:
    """Each map of a single row as a sum over every row of its weight, written out for a compiler.

    The loop that torch's compiler makes of it reads the weights as fast as the memory of a CPU gives them, twice as
    fast as the libraries' products of a matrix and a row. Without a compiler it is slow.
    """

    def __call__(self, x: Tensor, *maps: nn.Module) -> tuple[Tensor, ...]:
        return tuple(self.linear(x, each.weight, each.bias) if _is_plain(each) else each(x) for each in maps)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.device.type != "cpu" or _rows(x) > 1:
            return functional.linear(x, weight, bias)
        wide = torch.promote_types(x.dtype, torch.float32)
        y = (x.unsqueeze(-2).to(wide) * weight.to(wide)).sum(dim=-1)
        return (y if bias is None else y + bias.to(wide)).to(x.dtype)


summed = _Summed()


class Joined:
    """Maps of one input as one product, over packed copies of their weights made at the first use.

    A step of decoding multiplies every matrix with a row or a few, and starting a product costs as much as a small one
    takes. Weights that change afterwards are not seen: one object serves a model as long as it stays as it is.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[nn.Module, ...], _Joint | None] = {}
        self._heads: dict[int, tuple[Tensor, Product]] = {}

    def __call__(self, x: Tensor, *maps: nn.Module) -> tuple[Tensor, ...]:
        _refuse_gradients()
        if maps not in self._made:
            self._made[maps] = _join(maps, _rows(x))
        joint = self._made[maps]
        return apart(x, *maps) if joint is None else joint(x)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        _refuse_gradients()
        if id(weight) not in self._heads:
            # The weight is held too, so that its id stays its own.
            self._heads[id(weight)] = weight, packed(weight, _rows(x))
        return self._heads[id(weight)][1](x, bias)


class _Joint:
    def __init__(self, product: Product, bias: Tensor | None, sizes: list[int]) -> None:
        self.product, self.bias, self.sizes = product, bias, sizes

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.product(x, self.bias)
        # Not Tensor.split, whose detour through Python costs as much as a small product.
        return (y,) if len(self.sizes) == 1 else torch.split_with_sizes(y, self.sizes, dim=-1)


def joining_pays(model: nn.Module, tokens: int) -> bool:
    """Whether `tokens` steps of decoding with `model` are faster, copying its weights included."""
    weights = list(model.parameters())
    small = sum(weight.nbytes for weight in weights) <= JOINED_BYTES
    return weights[0].device.type == "cpu" and small and tokens >= JOINED_TOKENS


def _join(maps: tuple[nn.Module, ...], rows: int) -> _Joint | None:
    """None where a map is more than a product: a subclass, hooked, or with a forward of its own."""
    linear = [each for each in maps if _is_plain(each)]
    biases: list[Tensor] = [each.bias for each in linear if each.bias is not None]
    if len(linear) < len(maps) or 0 < len(biases) < len(maps):
        return None
    product = packed(torch.cat(tuple(each.weight for each in linear)), rows)
    return _Joint(product, torch.cat(biases) if biases else None, [each.out_features for each in linear])


def _refuse_gradients() -> None:
    if torch.is_grad_enabled():
        raise ValueError("joined maps are copies, which give the weights no gradients: decode within torch.no_grad()")


def _is_plain(each: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a map is its product and nothing more."""
    changed = each._forward_hooks or each._forward_pre_hooks or "forward" in vars(each)
    return type(each) is nn.Linear and not changed


def _rows(x: Tensor) -> int:
    return x.numel() // x.shape[-1]
