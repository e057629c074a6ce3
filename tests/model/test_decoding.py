"""Decoding of many answers: each is what `generate` gives alone, in every decoder, with slots to spare or few."""

import pytest
import torch
from architecture_fixtures import CONTEXT, DECODERS, VOCAB, lively, shape

from sluice.model.architecture.generation import generate
from sluice.model.evaluation import decoding
from sluice.model.evaluation.decoding import PendingAnswer, decode

_LONGROPE = {
    "kind": "longrope",
    "factor": 2.0,
    "short_factors": (1.0, 1.1, 1.2, 1.3),
    "long_factors": (1.0, 2.0, 3.0, 4.0),
}
LONGER = {"dynamic": {"rope_scaling": {"kind": "dynamic", "factor": 2.0}}, "longrope": {"rope_scaling": _LONGROPE}}


def prompts(count: int) -> list[list[int]]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(VOCAB, (1 + 5 * index % 17,), generator=draw).tolist() for index in range(count)]


def decoded(model: torch.nn.Module, given: list[list[int]], tokens: int, **settings: float) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in given]
    answers = [
        PendingAnswer(
            list(ids), min(tokens, CONTEXT - len(ids)), lambda token, own=own: own.append(token) or False, **settings
        )
        for ids, own in zip(given, found, strict=True)
    ]
    decode(model, answers)
    return found


@pytest.mark.parametrize("rows", [3, 32])
@pytest.mark.parametrize("name", [*DECODERS, *LONGER])
def test_answers_are_those_of_each_prompt_alone(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_ROWS", rows)
    model = lively(shape((DECODERS | LONGER)[name]))
    given = prompts(7)
    assert decoded(model, given, 9) == [generate(model, ids, 9) for ids in given]


def test_ties_are_decided_alike_in_any_company() -> None:
    """All logits are equal up to rounding, which differs with the size of the batch."""
    model = lively(shape(DECODERS["llama"]))
    with torch.no_grad():
        model.head_weight.copy_(model.head_weight[:1] + 1e-7 * model.head_weight)
    given = prompts(6)
    together = decoded(model, given, 5)
    assert together == [decoded(model, [ids], 5)[0] for ids in given]


def test_a_seed_draws_the_same_tokens_in_any_company() -> None:
    model = lively(shape(DECODERS["llama"]))
    given = prompts(6)
    together = decoded(model, given, 6, temperature=0.8, top_p=0.9, seed=3)
    assert together == [decoded(model, [ids], 6, temperature=0.8, top_p=0.9, seed=3)[0] for ids in given]
    assert together != decoded(model, given, 6)


def test_logits_that_are_not_finite_end_their_answer() -> None:
    model = lively(shape(DECODERS["llama"]))
    with torch.no_grad():
        model.embedding.weight[5] = torch.nan
    answers = [PendingAnswer(ids, 4, lambda _: False) for ids in ([1, 5], [1, 2])]
    decode(model, answers)
    # The head is not tied to the embedding only in some shapes: a bad row of it breaks every answer.
    assert answers[0].failed
    assert answers[1].failed == model.config.tie_embeddings


def test_an_answer_that_ends_at_once_or_has_no_tokens_is_counted() -> None:
    model = lively(shape(DECODERS["llama"]))
    ends = []
    answers = [PendingAnswer([1, 2], 0, lambda _: False), PendingAnswer([1, 2], 4, lambda _: True)]
    decode(model, answers, lambda: ends.append(1))
    assert len(ends) == 2
    assert [answer.sampled for answer in answers] == [0, 1]
