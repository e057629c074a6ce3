"""How linear maps that read one input are computed: each by itself, or joined into one product for decoding."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Project = Callable[..., tuple[Tensor, ...]]
"""(x [.., in], maps..) -> what each of the maps makes of x, [.., out]."""

JOINED_TOKENS = 16
"""Steps of decoding from which on copying the weights has paid for itself."""
JOINED_BYTES = 1 << 30
"""Weights that are copied at most: of a larger model the second copy is worth more than the time."""


def apart(x: Tensor, *maps: nn.Module) -> tuple[Tensor, ...]:
    """Each map by itself."""
    return tuple(each(x) for each in maps)


class Joined:
    """Maps of one input as one product, over copies of their weights made at the first use.

    A step of decoding multiplies every matrix with a row or a few, and starting a product costs as much as a small one
    takes. A CPU's float32 matrix times one row is also up to 1.5 times as fast when the outputs, not the inputs, lie
    side by side. Weights that change afterwards are not seen: one object serves one generation.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[nn.Module, ...], _Joint | None] = {}
        self._heads: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, *maps: nn.Module) -> tuple[Tensor, ...]:
        if maps not in self._made:
            self._made[maps] = _join(maps)
        joint = self._made[maps]
        return apart(x, *maps) if joint is None else joint(x)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As functional.linear, for a matrix that is no module's own, such as a tied head."""
        if id(weight) not in self._heads:
            # The weight is held too, so that its id stays its own.
            self._heads[id(weight)] = weight, _laid_out(weight)
        return functional.linear(x, self._heads[id(weight)][1], bias)


class _Joint:
    def __init__(self, weight: Tensor, bias: Tensor | None, sizes: list[int]) -> None:
        self.weight, self.bias, self.sizes = weight, bias, sizes

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        y = functional.linear(x, self.weight, self.bias)
        return (y,) if len(self.sizes) == 1 else y.split(self.sizes, dim=-1)


def joining_pays(weight: Tensor, parameters: int, tokens: int) -> bool:
    """Whether `tokens` steps of decoding are faster with weights that are joined: of a model of `parameters` weights
    like `weight`.
    """
    small = parameters * weight.element_size() <= JOINED_BYTES
    return weight.device.type == "cpu" and small and tokens >= JOINED_TOKENS


def _join(maps: tuple[nn.Module, ...]) -> _Joint | None:
    """None where a map is more than a product: a subclass, or hooked."""
    linear = [
        each for each in maps if type(each) is nn.Linear and not each._forward_hooks and not each._forward_pre_hooks
    ]
    biases: list[Tensor] = [each.bias for each in linear if each.bias is not None]
    if len(linear) < len(maps) or 0 < len(biases) < len(maps):
        return None
    weight = _laid_out(torch.cat(tuple(each.weight for each in linear)))
    return _Joint(weight, torch.cat(biases) if biases else None, [each.out_features for each in linear])


def _laid_out(weight: Tensor) -> Tensor:
    """[out, in], with the outputs side by side in memory where that is the faster."""
    return weight.T.contiguous().T if weight.dtype == torch.float32 else weight
