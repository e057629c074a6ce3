"""Connected components of a graph of documents, in numpy: scipy would cost half a second to import."""

import numpy as np


def components(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """The smallest node that each of `count` nodes is connected with, [count] int64, by edges [n] int64 each.

    Labels hook onto the smallest neighbour's and are then followed to their ends, until no edge joins two of them
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
