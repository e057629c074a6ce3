"""Random legal combinations of all settings: shapes, causality, isolation, caches, gradients, parameter counts."""

from typing import Any

import pytest
import torch
from architecture_fixtures import (
    CONTEXT,
    DECODERS,
    ENCODER_DECODERS,
    ENCODERS,
    VOCAB,
    inputs_of,
    lively,
    shape,
    shapes,
    tokens,
)
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sluice.model.architecture.cache import Cache
from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.loss import cross_entropy_sum
from sluice.model.architecture.moe import auxiliary_loss
from sluice.model.architecture.transformer import Transformer
from sluice.model.planner.parameters import count_parameters

WALK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
NAMED = {**DECODERS, **ENCODERS, **ENCODER_DECODERS}


@WALK
@given(config=shapes(), rows=st.integers(1, 3), length=st.integers(1, CONTEXT))
def test_logits_have_their_shape_and_are_finite(config: TransformerConfig, rows: int, length: int) -> None:
    event(config.kind)
    with torch.no_grad():
        logits = lively(config)(tokens(rows, length), **inputs_of(config, rows))
    assert logits.shape == (rows, length, VOCAB)
    assert logits.isfinite().all()


@WALK
@given(config=shapes())
def test_the_planner_counts_the_parameters_that_there_are(config: TransformerConfig) -> None:
    with torch.device("meta"):
        model = Transformer(config)
    assert count_parameters(config).total == sum(weight.numel() for weight in model.parameters())


@WALK
@given(config=shapes(("decoder", "encoder-decoder")), length=st.integers(2, CONTEXT), data=st.data())
def test_a_token_changes_no_logits_before_it(config: TransformerConfig, length: int, data: st.DataObject) -> None:
    changed = data.draw(st.integers(1, length - 1))
    model, ids, beside = lively(config), tokens(1, length), inputs_of(config, 1)
    other = ids.clone()
    other[0, changed] = (other[0, changed] + 1) % VOCAB
    with torch.no_grad():
        before, after = model(ids, **beside), model(other, **beside)
    assert_untouched(config, before[:, :changed], after[:, :changed])
    assert not torch.allclose(before[:, changed], after[:, changed], atol=1e-4)


def assert_untouched(config: TransformerConfig, before: torch.Tensor, after: torch.Tensor) -> None:
    """Equal to the last bit; but how many tokens an expert takes at once decides how its products round."""
    if config.mixture is None:
        assert torch.equal(before, after)
    else:
        torch.testing.assert_close(after, before, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_no_decoder_looks_ahead(name: str) -> None:
    model, ids = lively(shape(DECODERS[name])), tokens(1, CONTEXT)
    with torch.no_grad():
        before = model(ids)
        for changed in range(1, CONTEXT):
            other = ids.clone()
            other[0, changed] = (other[0, changed] + 1) % VOCAB
            after = model(other)
            assert_untouched(model.config, before[:, :changed], after[:, :changed])
            assert not torch.allclose(before[:, changed], after[:, changed], atol=1e-4), changed


@WALK
@given(config=shapes(("decoder", "encoder")), lengths=st.lists(st.integers(1, 9), min_size=2, max_size=4))
def test_packed_documents_are_read_as_if_alone(config: TransformerConfig, lengths: list[int]) -> None:
    lengths = _fitting(lengths)
    model, ids = lively(config), tokens(1, sum(lengths))
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    with torch.no_grad():
        packed = model(ids, documents=documents).split(lengths, dim=1)
        for part, document in zip(packed, ids.split(lengths, dim=1), strict=True):
            torch.testing.assert_close(part, model(document), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "relative", "hybrid", "bert"])
def test_a_number_that_comes_back_is_another_document(name: str) -> None:
    model, ids = lively(shape(NAMED[name])), tokens(1, 12)
    with torch.no_grad():
        found, expected = (model(ids, documents=torch.tensor([[first] * 4 + [2] * 3 + [1] * 5])) for first in (1, 7))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS])
def test_a_document_changes_nothing_of_its_neighbours(name: str) -> None:
    model, ids = lively(shape(NAMED[name])), tokens(1, CONTEXT)
    documents = torch.tensor([[0] * 9 + [1] * 8 + [2] * 7])
    other = ids.clone()
    other[0, 9:17] = (other[0, 9:17] + 1) % VOCAB
    with torch.no_grad():
        before, after = model(ids, documents=documents), model(other, documents=documents)
    assert_untouched(model.config, before[:, :9], after[:, :9])
    assert_untouched(model.config, before[:, 17:], after[:, 17:])
    assert not torch.equal(before[:, 9:17], after[:, 9:17])


@WALK
@given(config=shapes(("decoder", "encoder-decoder")), pieces=st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_any_way_of_feeding_a_sequence_gives_the_uncached_logits(config: TransformerConfig, pieces: list[int]) -> None:
    pieces = _fitting(pieces)
    model, ids, cache, beside = lively(config), tokens(1, sum(pieces)), Cache(config, 1), inputs_of(config, 1)
    with torch.no_grad():
        fed = [
            model(piece, cache=cache, **({} if index else beside))
            for index, piece in enumerate(ids.split(pieces, dim=1))
        ]
        torch.testing.assert_close(torch.cat(fed, dim=1), model(ids, **beside), atol=2e-5, rtol=1e-4)


@WALK
@given(config=shapes())
def test_every_weight_learns(config: TransformerConfig) -> None:
    model, ids, beside = lively(config).train(), tokens(3, CONTEXT), inputs_of(config, 3)
    if config.token_types:
        beside = {"types": torch.arange(CONTEXT).expand(3, -1) % config.token_types}
    nats, count = cross_entropy_sum(model, ids[:, :-1], ids[:, 1:], **{name: _cut(x) for name, x in beside.items()})
    loss = nats / count
    if config.mixture is not None:
        loss = loss + auxiliary_loss(model.routing, config)
    loss.backward()
    # Half of the far buckets are beyond a short text, and so are positions; all other weights have to move.
    without = {
        name
        for name, weight in model.named_parameters()
        if weight.grad is None or not weight.grad.isfinite().all() or not weight.grad.any()
    }
    assert not without


def _cut(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:, : CONTEXT - 1]


def _fitting(lengths: list[int]) -> list[int]:
    """As many of the lengths as the context holds."""
    found: list[int] = []
    for length in lengths:
        if sum(found) + length <= CONTEXT:
            found.append(length)
    return found


def test_the_walk_reaches_every_kind_of_choice() -> None:
    """The strategy's own guard: its draws hold each choice at least once."""
    seen: dict[str, set[Any]] = {}
    named = (
        "kind",
        "positions",
        "norm",
        "norm_position",
        "sublayers",
        "feedforward",
        "attention_bias",
        "pattern",
        "tie_embeddings",
    )
    optional = ("mixture", "window", "global_tokens", "attention_soft_cap", "logit_soft_cap", "qk_norm", "rope_scaling")

    @settings(max_examples=200, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(config=shapes())
    def collect(config: TransformerConfig) -> None:
        for name in named:
            seen.setdefault(name, set()).add(getattr(config, name))
        for name in optional:
            seen.setdefault(name, set()).add(bool(getattr(config, name)))

    collect()
    assert seen["kind"] == {"decoder", "encoder", "encoder-decoder"}
    assert seen["positions"] == {"rope", "learned", "sinusoidal", "alibi", "relative", "none"}
    assert len(seen["feedforward"]) == 6
    assert ("state_space", "attention") in seen["pattern"]
    assert seen["norm"] == {"rms", "layer"}
    assert seen["norm_position"] == {"pre", "post", "output", "sandwich"}
    assert seen["sublayers"] == {"sequential", "parallel", "parallel_one_norm"}
    assert seen["attention_bias"] == {"none", "qkv", "all"}
    for name in ("tie_embeddings", *optional):
        assert seen[name] == {True, False}, name
