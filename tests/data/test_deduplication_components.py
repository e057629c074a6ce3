"""Connected components against a search by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sluice.data.deduplication.components import components


@given(st.integers(1, 30).flatmap(lambda count: st.tuples(st.just(count), _edges(count))))
def test_every_node_has_the_smallest_it_is_connected_with(graph: tuple[int, list[tuple[int, int]]]):
    count, edges = graph
    expected = list(range(count))
    for _ in range(count):
        for one, other in edges:
            expected[one] = expected[other] = min(expected[one], expected[other])
    first, second = np.array(edges, np.int64).reshape(-1, 2).T
    assert components(first, second, count).tolist() == expected


def test_a_long_chain_is_one_component():
    nodes = np.random.default_rng(0).permutation(10_000)
    assert not components(nodes[1:], nodes[:-1], 10_000).any()


def test_no_edges_and_no_nodes():
    none = np.empty(0, np.int64)
    assert components(none, none, 3).tolist() == [0, 1, 2]
    assert components(none, none, 0).tolist() == []


def _edges(count: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    return st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=40)
