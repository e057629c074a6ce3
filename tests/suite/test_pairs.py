"""The cover has every pair that occurs, and few rows."""

from itertools import product

from pairs import all_pairs, pairs_of


def test_every_pair_of_a_full_product_is_covered_by_few_rows() -> None:
    rows = {each: dict(zip("abcd", each, strict=True)) for each in product(range(4), range(3), range(3), range(2))}
    cover = all_pairs(rows)
    assert set().union(*(pairs_of(rows[each]) for each in cover)) == set().union(*map(pairs_of, rows.values()))
    assert 12 <= len(cover) <= 16 and len(rows) == 72


def test_a_pair_that_one_row_alone_has_brings_that_row() -> None:
    rows = {
        "plain": {"stage": 0, "dtype": "fp32"},
        "again": {"stage": 0, "dtype": "fp32"},
        "only": {"stage": 3, "dtype": "bf16"},
    }
    assert all_pairs(rows) == ["plain", "only"]


def test_the_cover_is_the_same_each_time() -> None:
    rows = {str(each): {"a": each[0], "b": each[1], "c": sum(each) % 2} for each in product(range(3), range(5))}
    assert all_pairs(rows) == all_pairs(dict(rows))
    assert all_pairs({}) == []
