"""Shared beginnings are read once: trees cover every sequence, and likelihoods are those of sequences read apart."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from architecture_fixtures import DECODERS, VOCAB, lively, shape
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.model.evaluation import likelihood
from sluice.model.evaluation.likelihood import Span, negative_log_likelihoods, span_likelihoods
from sluice.model.evaluation.prefix_tree import PrefixNode, prefix_trees


def paths(node: PrefixNode, before: tuple[PrefixNode, ...] = ()) -> list[tuple[PrefixNode, ...]]:
    path = (*before, node)
    ends = [path] if len(node.members) > sum(len(child.members) for child in node.children) else []
    return ends + [found for child in node.children for found in paths(child, path)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12), st.integers(1, 9))
def test_every_sequence_is_read_once_from_a_root_to_an_end(sequences: list[list[int]], least: int) -> None:
    trees = prefix_trees([np.array(each) for each in sequences], least)
    read: dict[int, list[int]] = {}
    for root in trees:
        for path in paths(root):
            assert path[0].begin == 0
            assert all(above.end == below.begin for above, below in pairwise(path))
            for index in path[-1].members:
                if len(sequences[index]) == path[-1].end:
                    read[index] = [
                        token for node in path for token in sequences[node.members[0]][node.begin : node.end]
                    ]
    assert read == dict(enumerate(sequences))


def test_answers_to_one_question_share_it_and_few_tokens_are_not_worth_a_pass() -> None:
    question, answers = [7] * 20, ([1], [2, 3], [2, 4], [1])
    (tree,) = prefix_trees([np.array(question + answer) for answer in answers])
    assert (tree.begin, tree.end, sorted(tree.members)) == (0, 20, [0, 1, 2, 3])
    assert sorted(child.tokens for child in tree.children) == [1, 1, 2, 2]
    assert len(prefix_trees([np.array([7] * 10 + answer) for answer in answers])) == 4


@pytest.mark.parametrize("name", DECODERS)
def test_shared_beginnings_change_no_likelihood(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively(shape(DECODERS[name]))
    draw = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(VOCAB, (count,), generator=draw).tolist()

    spans, header = [], tokens(7)
    for _ in range(3):
        question = [*header, *tokens(8)]
        # Answers of several lengths, one that begins another, one of a single token, and one twice.
        answers = [tokens(1), answer := tokens(3), [*answer, *tokens(2)], tokens(8), answer]
        spans += [Span([*question, *answer], len(question)) for answer in answers]
    monkeypatch.setattr(likelihood, "prefix_trees", partial(prefix_trees, least_saved=4))
    together, sums = span_likelihoods(model, spans), negative_log_likelihoods(model, spans)
    for span, found, total in zip(spans, together, sums, strict=True):
        (alone,) = span_likelihoods(model, [span])
        assert found.token_nats == pytest.approx(alone.token_nats, abs=1e-4)
        assert found.is_greedy == alone.is_greedy
        assert total == pytest.approx(sum(alone.token_nats), abs=1e-4)
    # The same with so little memory that every sequence has a cache of its own.
    monkeypatch.setattr(likelihood, "_CACHE_AT_ONCE", 1)
    assert negative_log_likelihoods(model, spans) == pytest.approx(sums, abs=1e-4)


def test_shared_beginnings_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively(shape(DECODERS["llama"]))
    read: list[int] = []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, **rest: read.append(ids.numel()) or hidden(ids, **rest))
    question = list(range(20))
    spans = [Span([*question, answer, answer], 20) for answer in range(3)]
    span_likelihoods(model, spans)
    assert sum(read) == 20 + 3  # the last token is only a target
