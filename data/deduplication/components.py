"""Connected components of a graph of documents, in numpy: scipy takes half a second to import."""

import numpy as np


def components(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Return the smallest node that each of `count` nodes is connected with, [count] int64, by edges [n] int64 each.

    Labels are hooked to the smallest neighbour's and then followed to their roots, until no edge joins two labels
    (Shiloach and Vishkin 1982).
    """
    label = np.arange(count)
    while True:
        one, other = label[first], label[second]
        apart = one != other
        if not apart.any():
            return label
        first, second = first[apart], second[apart]
        low, high = np.minimum(one[apart], other[apart]), np.maximum(one[apart], other[apart])
        np.minimum.at(label, high, low)
        while not np.array_equal(further := label[label], label):
            label = further
