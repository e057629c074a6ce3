"""State of this process's random generators, used by dropout. Shuffling and masking of data have seeds of their own."""

from collections.abc import Mapping

import torch
from torch import Tensor

_CPU, _CUDA = "random.cpu", "random.cuda"
_MOST_RANKS = 1 << 20


def seed_random(seed: int, rank: int) -> None:
    """Seed this rank: every rank has its own random numbers, and the same ones whenever the run starts over."""
    torch.manual_seed((seed * _MOST_RANKS + rank) % 2**63)


def random_state() -> dict[str, Tensor]:
    """uint8, of the CPU's generator and the current CUDA device's."""
    state = {_CPU: torch.get_rng_state()}
    if torch.cuda.is_available():
        state[_CUDA] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Restore what `random_state` returned; a generator that is not in `state` is left alone."""
    if _CPU in state:
        torch.set_rng_state(state[_CPU])
    if _CUDA in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state[_CUDA])
