"""Mixing of 64-bit hashes, one for all that samples, shuffles, sketches or indexes by hash."""

import numpy as np


def mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64 (Steele et al. 2014), uint64: neighbouring inputs end up far apart in every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
