"""Rotary scaling that follows the length of the sequence: dynamic and LongRoPE."""

import math
from pathlib import Path

import pytest
import torch
from architecture_fixtures import CONTEXT, VOCAB, lively, shape, tokens
from torch import Tensor

from benchmarks.model.parity import enliven, make_theirs
from sluice.model.architecture.cache import Cache
from sluice.model.architecture.compiled import CompiledDecoder
from sluice.model.architecture.generation import GenerationOptions, generate
from sluice.model.architecture.transformer import Transformer
from sluice.model.directory import load_transformer
from sluice.model.evaluation.likelihood import Span, negative_log_likelihoods

ORIGINAL = 8
DYNAMIC = {"kind": "dynamic", "factor": 3.0, "original_context": ORIGINAL}
LONGROPE = {
    "kind": "longrope",
    "factor": 3.0,
    "original_context": ORIGINAL,
    "short_factors": (1.0, 1.1, 1.2, 1.3),
    "long_factors": (1.5, 2.0, 3.0, 4.0),
}
SCALINGS = {"dynamic": DYNAMIC, "longrope": LONGROPE}


@pytest.fixture(params=SCALINGS)
def model(request: pytest.FixtureRequest) -> Transformer:
    return lively(shape({"rope_scaling": SCALINGS[request.param]}))


def alone(model: Transformer, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(ids)


def without_scaling(model: Transformer) -> Transformer:
    other = Transformer(model.config.model_copy(update={"rope_scaling": None})).eval()
    other.load_state_dict(model.state_dict())
    return other


def test_a_long_sequence_is_scaled_as_a_whole(model: Transformer) -> None:
    ids = tokens(1, 20)
    first = alone(model, ids)[:, :ORIGINAL]
    assert float((first - alone(model, ids[:, :ORIGINAL])).abs().max()) > 1e-3


def test_dynamic_scaling_changes_nothing_within_the_original_context() -> None:
    model, ids = lively(shape({"rope_scaling": DYNAMIC})), tokens(2, ORIGINAL)
    torch.testing.assert_close(alone(model, ids), alone(without_scaling(model), ids), atol=1e-5, rtol=1e-5)


def test_documents_and_padding_count_by_their_own_length(model: Transformer) -> None:
    short, long = tokens(1, 5, seed=1), tokens(1, 13, seed=2)
    packed, documents = torch.cat((short, long), dim=1), torch.tensor([[0] * 5 + [1] * 13])
    with torch.no_grad():
        found = model(packed, documents=documents)
        torch.testing.assert_close(found[:, :5], alone(model, short), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[:, 5:], alone(model, long), atol=1e-5, rtol=1e-5)
        padded, mask = torch.cat((short, tokens(1, 8)), dim=1), torch.tensor([[True] * 5 + [False] * 8])
        both = model(torch.cat((padded, long)), mask=torch.cat((mask, torch.ones_like(mask))))
    torch.testing.assert_close(both[:1, :5], alone(model, short), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[1:], alone(model, long), atol=1e-5, rtol=1e-5)


def test_sequences_of_a_batch_count_by_their_own_length(model: Transformer) -> None:
    """A slot's tokens rotate by the length that its own sequence has at that step."""
    rows = [tokens(1, 4, seed=1), tokens(1, 14, seed=2)]
    together = Cache(model.config, 2)
    separate = [Cache(model.config, 1) for _ in rows]
    with torch.no_grad():
        ids = torch.cat((torch.nn.functional.pad(rows[0], (0, 10)), rows[1]))
        first = model(ids, cache=together, counts=torch.tensor([4, 14]))
        expected = [model(row, cache=cache) for row, cache in zip(rows, separate, strict=True)]
        torch.testing.assert_close(first[:1, :4], expected[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(first[1:], expected[1], atol=1e-5, rtol=1e-5)
        next_ids = tokens(2, 1, seed=5)
        second = model(next_ids, cache=together)
        for row, cache in enumerate(separate):
            expected_row = model(next_ids[row : row + 1], cache=cache)
            torch.testing.assert_close(second[row : row + 1], expected_row, atol=1e-5, rtol=1e-5)


def test_a_traced_step_follows_the_length_too(model: Transformer) -> None:
    torch.compiler.reset()
    decoder = CompiledDecoder(model, backend="eager")
    assert generate(model, [3, 1, 4], 16, GenerationOptions(decoder=decoder)) == generate(model, [3, 1, 4], 16)
    torch.compiler.reset()


def test_chunks_that_name_the_length_of_their_sequence_are_the_whole(model: Transformer) -> None:
    ids, cache = tokens(1, 14), Cache(model.config, 1)
    with torch.no_grad():
        chunks = [model(part, cache=cache, lengths=torch.tensor([14])) for part in ids.split(5, dim=1)]
    torch.testing.assert_close(torch.cat(chunks, dim=1), alone(model, ids), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"lengths of shape \[2\] must hold one for each of 1 rows"):
        model(ids, cache=Cache(model.config, 1), lengths=torch.tensor([14, 14]))
    with pytest.raises(ValueError, match="lengths belong to a cache"):
        model(ids, lengths=torch.tensor([14]))


def test_the_likelihood_of_a_text_does_not_depend_on_its_batch(model: Transformer) -> None:
    spans = [Span(tokens(1, length, seed=length)[0].tolist(), 1) for length in (5, 14, 9)]
    separate = [negative_log_likelihoods(model, [span])[0] for span in spans]
    assert negative_log_likelihoods(model, spans) == pytest.approx(separate, rel=1e-5)


def test_generation_rotates_anew_where_longrope_changes_its_factors() -> None:
    model = lively(shape({"rope_scaling": LONGROPE, "tie_embeddings": False}))
    answer = generate(model, [3, 1, 4], CONTEXT)
    assert len(answer) == CONTEXT - 3
    assert answer == generate(model, [3, 1, 4], CONTEXT, GenerationOptions(cache=False))
    assert len(set(answer)) > 5


@pytest.mark.parametrize("cached", [True, False])
def test_dynamic_generation_is_that_of_transformers(cached: bool, tmp_path: Path) -> None:
    """Without a cache all tokens rotate anew at every step; with one each stays as it was when it was read."""
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    widths = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    theirs = make_theirs(
        "llama", {**widths, "num_attention_heads": 4, "max_position_embeddings": ORIGINAL, "rope_parameters": rope}
    )
    enliven(theirs, seed=1)
    theirs.save_pretrained(tmp_path)
    ours = load_transformer(tmp_path)
    assert ours.config.context == 4 * ORIGINAL
    prompt = [3, 1, 4]
    length = 4 * ORIGINAL - len(prompt)
    expected = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=length, min_new_tokens=length, do_sample=False, use_cache=cached
    )
    assert generate(ours, prompt, length, GenerationOptions(cache=cached)) == expected[0, len(prompt) :].tolist()


def test_the_attention_factor_of_longrope_follows_from_the_two_contexts() -> None:
    scaling = shape({"rope_scaling": LONGROPE}).rope_scaling
    assert scaling is not None
    assert scaling.attention_scale(CONTEXT) == pytest.approx((1 + math.log(3) / math.log(8)) ** 0.5)
