"""An exponential average of the weights over the steps: often better than the last ones (Polyak and Juditsky 1992)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class WeightAverage:
    """After n updates: sum over i of decay^(n-i) w_i, over the sum of those factors, in float32.

    Normalized so that the first update is the weights themselves: no weight from before training enters it. `weights`
    are the tensors that the model computes with on this worker, by name, be they whole or a part of the model.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay {decay} of the average of weights must lie between 0 and 1")
        self.decay, self.updates = decay, 0
        self._weights = dict(weights)
        self._average = {name: weight.detach().float().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the weights after a step that changed them."""
        self.updates += 1
        # The share of the newest among the factors: 1 at first, 1 - decay in the end.
        newest = (1 - self.decay) / (1 - self.decay**self.updates)
        for name, weight in self._weights.items():
            self._average[name].lerp_(weight.detach().float(), newest)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Compute with the average inside the block (with the start, before any update); restore the weights after it,
        to the last bit.
        """
        kept = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._put(self._average)
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            # In place: under ZeRO the parameters are views into flat buffers.
            weight.copy_(values[name])

    def state(self) -> dict[str, Tensor]:
        """The average by name; `updates` goes with it."""
        return dict(self._average)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Resume from what `state` returned after `updates` updates. Raises ValueError for another model."""
        if wrong := sorted(set(state) ^ set(self._average)):
            raise ValueError(f"the saved average and the model differ in {', '.join(wrong[:3])}: resume the same model")
        self.updates = updates
        for name, value in self._average.items():
            value.copy_(state[name])
