"""Best-fit rows: every token once, no document cut that fits a row, few rows, boundaries that isolate documents."""
# ruff: noqa: F811

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packing_fixtures import CONFIG, mixed_corpus, small_tokenizer  # noqa: F401

from sluice.data.config import PackConfig
from sluice.data.packing import PackedTokens, PackReport, pack
from sluice.data.packing.best_fit import best_fit, best_fit_cost, concatenated_cost, lay_rows
from sluice.data.packing.shards import PADDING

ROW = 129


@given(st.lists(st.integers(1, 40), max_size=200), st.just(40))
def test_the_laws_of_best_fit(lengths: list[int], capacity: int):
    pieces = np.array(lengths, dtype=np.int64)
    row, rows = best_fit(pieces, capacity)
    filled = np.bincount(row, weights=pieces, minlength=rows)
    assert len(filled) == rows and (filled <= capacity).all() and (filled > 0).all()
    # A row is opened only for what no other holds, so no two rows would fit into one.
    assert sum(sorted(filled)[:2]) > capacity or rows < 2
    assert sorted(filled) == sorted(plainly_filled(lengths, capacity))


def plainly_filled(lengths: list[int], capacity: int) -> list[int]:
    """Tokens in each row, by checking every row for every piece."""
    filled: list[int] = []
    for length in sorted(lengths, reverse=True):
        fits = [row for row, tokens in enumerate(filled) if tokens + length <= capacity]
        if not fits:
            filled.append(0)
            fits = [len(filled) - 1]
        filled[max(fits, key=filled.__getitem__)] += length
    return filled


def test_a_piece_is_put_where_it_leaves_the_least_space():
    # 6 and 5 open rows with 4 and 5 left; 4 fits both and goes to the first.
    assert best_fit(np.array([6, 5, 4]), 10)[0].tolist() == [0, 1, 0]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=80), st.integers(2, 30))
def test_rows_hold_every_token_of_every_document_once(lengths: list[int], row_tokens: int):
    tokens = np.array(lengths)
    rows = lay_rows(tokens, row_tokens)
    for document, length in enumerate(lengths):
        mine = rows.document == document
        covered = sorted((s, s + n) for s, n in zip(rows.start[mine], rows.length[mine], strict=True))
        assert covered[0][0] == 0 and covered[-1][1] == length
        assert all(before[1] == after[0] for before, after in pairwise(covered))
        assert len(set(rows.row[mine])) == len(covered) == -(-length // row_tokens)
    assert (np.bincount(rows.row, weights=rows.length) <= row_tokens).all()
    assert (np.diff(rows.row) >= 0).all() and rows.row[-1] == rows.rows - 1
    firsts = [rows.document[rows.row == row].min() for row in range(rows.rows)]
    assert firsts == sorted(firsts)
    cost, plain = best_fit_cost(rows, row_tokens), concatenated_cost(tokens, row_tokens)
    assert cost.documents_cut == (tokens > row_tokens).sum() <= plain.documents_cut
    assert cost.rows * row_tokens - cost.padding == plain.rows * row_tokens - plain.padding == tokens.sum()
    assert cost.rows >= plain.rows


def test_the_cost_of_concatenation():
    cost = concatenated_cost(np.array([4, 4, 2, 1]), 5)
    assert (cost.rows, cost.documents_cut, cost.padding) == (3, 1, 4)
    assert concatenated_cost(np.array([11, 4]), 5).documents_cut == 1
    assert concatenated_cost(np.array([5, 5]), 5).documents_cut == 0


@pytest.fixture(scope="module")
def rows(
    mixed_corpus: Path, small_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PackReport]:
    out = tmp_path_factory.mktemp("rows")
    config = PackConfig(**CONFIG.model_dump(exclude={"layout", "row_tokens"}), layout="best_fit", row_tokens=ROW)
    return out, pack(config, mixed_corpus, small_tokenizer, out)


def test_every_document_comes_back_from_its_rows(
    rows: tuple[Path, PackReport],
    mixed_corpus: Path,
    small_tokenizer: Path,
    tmp_path: Path,
):
    pack(CONFIG, mixed_corpus, small_tokenizer, tmp_path)
    plain, laid = PackedTokens(tmp_path, "train"), PackedTokens(rows[0], "train")
    assert laid.documents == plain.documents
    lengths = np.diff(plain.offsets)
    assert lengths.max() > 2 * ROW
    for number in range(plain.documents):
        assert np.array_equal(laid.document(number), plain.document(number))
    assert (tmp_path / "valid-0000.bin").read_bytes() == (rows[0] / "valid-0000.bin").read_bytes()


def test_the_index_has_the_layout_and_its_cost(rows: tuple[Path, PackReport]):
    folder, report = rows
    index = json.loads((folder / "index.json").read_text())
    assert (index["layout"], index["row_tokens"]) == ("best_fit", ROW)
    best, plain = index["costs"]["best_fit"], index["costs"]["concatenated"]
    assert best["documents_cut"] < plain["documents_cut"]
    train = report.splits["train"]
    assert train.tokens == best["rows"] * ROW and train.padding == best["padding"]
    assert sum(each.used for each in report.sources.values()) == train.tokens - train.padding


def test_rows_show_which_tokens_may_attend_to_each_other(rows: tuple[Path, PackReport]):
    side = PackedTokens(rows[0], "train")
    padding = 0
    for start in range(0, len(side.sequence), ROW):
        owners, tokens = side.document_ids(start, ROW), side.sequence.read(start, ROW)
        real = owners[owners != PADDING]
        # Padding comes last, documents in order, and only the end of a document is an end token.
        assert (owners[len(real) :] == PADDING).all() and (np.diff(real) >= 0).all()
        assert (np.flatnonzero(tokens[: len(real) - 1] == side.eos_id) == np.flatnonzero(np.diff(real))).all()
        padding += ROW - len(real)
    assert padding == rows[1].splits["train"].padding > 0


def test_rows_are_not_read_as_a_plain_sequence(rows: tuple[Path, PackReport]):
    with pytest.raises(ValueError, match=r"are in rows of 129 .* sluice.data.packing.Loader"):
        _ = PackedTokens(rows[0], "train").tokens
    assert len(PackedTokens(rows[0], "valid").tokens) == rows[1].splits["valid"].tokens
