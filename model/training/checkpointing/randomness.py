"""The state of this process's random numbers: dropout's. What shuffles or masks data draws from seeds of its own."""

from collections.abc import Mapping

import torch
from torch import Tensor

_CPU, _CUDA = "random.cpu", "random.cuda"
_MOST_RANKS = 1 << 20


def seed_random(seed: int, rank: int) -> None:
    """Begin a run: every rank with numbers of its own, and with the same whenever the run begins again."""
    torch.manual_seed((seed * _MOST_RANKS + rank) % 2**63)


def random_state() -> dict[str, Tensor]:
    """uint8, of the CPU's generator and the current CUDA device's."""
    state = {_CPU: torch.get_rng_state()}
    if torch.cuda.is_available():
        state[_CUDA] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Go on from what `random_state` gave; a generator that `state` knows nothing of stays as it is."""
    if _CPU in state:
        torch.set_rng_state(state[_CPU])
    if _CUDA in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state[_CUDA])
