"""Mamba-2 mixer: transformers' numbers, and one result however a sequence is split, padded or packed."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.mamba2.configuration_mamba2 import Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from sluice.model.architecture.config import ModelConfig
from sluice.model.architecture.state_space import SequenceState, StateSpace
from sluice.model.architecture.state_space_config import StateSpaceConfig

HIDDEN = 16


def shaped(**changes: Any) -> ModelConfig:
    shape = {"state_size": 6, "head_size": 4, "groups": 2, "conv_width": 4, "chunk": 4} | changes
    return ModelConfig(
        hidden_size=HIDDEN, layers=1, positions="none", pattern=("state_space",), state_space=StateSpaceConfig(**shape)
    )


def made(seed: int = 0, dtype: torch.dtype = torch.float64, **changes: Any) -> StateSpace:
    layer, generator = StateSpace(shaped(**changes)), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return layer.to(dtype).eval()


def drawn(batch: int, seq: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(batch, seq, HIDDEN, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


def assert_same_state(found: SequenceState, expected: SequenceState) -> None:
    assert_same(found.conv, expected.conv)
    assert_same(found.state, expected.state)


@pytest.mark.parametrize("seq", [1, 16, 21])
@pytest.mark.parametrize(
    ("groups", "chunk", "conv_bias", "bias"), [(1, 8, True, False), (2, 5, False, False), (4, 64, True, True)]
)
def test_numbers_and_gradients_are_those_of_transformers(
    groups: int, chunk: int, conv_bias: bool, bias: bool, seq: int
) -> None:
    ours = made(dtype=torch.float32, groups=groups, chunk=chunk, conv_bias=conv_bias, bias=bias, head_size=8)
    theirs = Mamba2Mixer(
        Mamba2Config(
            hidden_size=HIDDEN,
            num_heads=4,
            head_dim=8,
            state_size=6,
            n_groups=groups,
            chunk_size=chunk,
            use_conv_bias=conv_bias,
            use_bias=bias,
        ),
        layer_idx=0,
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    x, weights = drawn(2, seq, torch.float32), drawn(2, seq, torch.float32, seed=1)
    gradients = []
    for layer in (ours, theirs):
        leaf = x.clone().requires_grad_()
        output = layer(leaf)
        output = output if isinstance(output, Tensor) else output[0]
        (output * weights).sum().backward()
        named = {name: parameter.grad for name, parameter in layer.named_parameters()}
        gradients.append({"output": output.detach(), "x": leaf.grad} | named)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        # A single token finds no state that could decay, and its norm may take out the size of its step.
        assert seq == 1 or float(gradient.abs().max()) > 0.1, f"{name} says nothing"
        scale = float(gradient.abs().max().clamp(min=1))
        torch.testing.assert_close(gradient / scale, gradients[1][name] / scale, atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(pieces=st.lists(st.integers(1, 6), min_size=1, max_size=6), width=st.integers(2, 5))
def test_any_way_of_feeding_a_sequence_gives_the_whole(pieces: list[int], width: int) -> None:
    layer, x = made(conv_width=width), drawn(2, sum(pieces))
    outputs, state = [], None
    for piece in x.split(pieces, dim=1):
        output, state = layer(piece, initial=state)
        outputs.append(output)
    expected, last = layer(x)
    assert state is not None
    assert_same(torch.cat(outputs, dim=1), expected)
    assert_same_state(state, last)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=3))
def test_padding_changes_no_state_and_no_real_token(lengths: list[tuple[int, int]]) -> None:
    layer, rows, state = made(), len(lengths), None
    for step in range(2):
        counts = torch.tensor([pair[step] for pair in lengths])
        longest = max(1, int(counts.max()))
        x = drawn(rows, longest, seed=step)
        output, after = layer(x, initial=state, counts=counts)
        for row, count in enumerate(counts.tolist()):
            before = None if state is None else SequenceState(state.conv[row, None], state.state[row, None])
            alone = SequenceState(after.conv[row, None], after.state[row, None])
            if count:
                expected, last = layer(x[row, None, :count], initial=before)
                assert_same(output[row, None, :count], expected)
                assert_same_state(alone, last)
            elif before is not None:
                assert_same_state(alone, before)
            else:
                assert not alone.conv.any() and not alone.state.any()
        state = after


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), padding=st.integers(0, 3), data=st.data())
def test_documents_are_as_each_alone(lengths: list[int], padding: int, data: st.DataObject) -> None:
    total = sum(lengths)
    layer, x = made(), drawn(1, total + padding)
    _, initial = layer(drawn(1, 5, seed=7))
    names = data.draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    # Neighbours differ; a number that comes again later is another document.
    names = [4 * place % 8 + name for place, name in enumerate(names)]
    documents = torch.full((1, total + padding), -1)
    documents[0, :total] = torch.repeat_interleave(torch.tensor(names), torch.tensor(lengths))
    counts = torch.tensor([total]) if padding else None
    output, after = layer(x, documents=documents, initial=initial, counts=counts)
    state: SequenceState | None = initial
    for place, document in enumerate(x[:, :total].split(lengths, dim=1)):
        begin = sum(lengths[:place])
        expected, state = layer(document, initial=initial if place == 0 else None)
        assert_same(output[:, begin : begin + lengths[place]], expected)
    assert state is not None
    assert_same_state(after, state)


@pytest.mark.parametrize("border", [1, 3, 4, 6, 8])
def test_one_document_never_changes_the_next(border: int) -> None:
    layer, x = made(dtype=torch.float32), drawn(2, 11, torch.float32)
    documents = (torch.arange(11) >= border).long().expand(2, -1)
    other = x.clone()
    other[:, :border] += 1
    before, state = layer(x, documents=documents)
    after, other_state = layer(other, documents=documents)
    assert torch.equal(before[:, border:], after[:, border:])
    assert torch.equal(state.state, other_state.state) and torch.equal(state.conv, other_state.conv)
    assert not torch.equal(before[:, :border], after[:, :border])
    # Without documents it does, or the test would show nothing.
    assert not torch.equal(layer(x)[0][:, border:], layer(other)[0][:, border:])


@settings(max_examples=20, deadline=None)
@given(seq=st.integers(2, 14), data=st.data())
def test_a_token_changes_nothing_before_it(seq: int, data: st.DataObject) -> None:
    changed = data.draw(st.integers(0, seq - 1))
    layer, x = made(dtype=torch.float32), drawn(1, seq, torch.float32)
    other = x.clone()
    other[:, changed] += 1
    before, after = layer(x)[0], layer(other)[0]
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert not torch.equal(before[:, changed], after[:, changed])


@pytest.mark.parametrize("seq", [1, 9])
def test_a_narrow_model_keeps_a_wide_state(seq: int) -> None:
    layer, x = made(dtype=torch.bfloat16), drawn(1, seq, torch.bfloat16)
    output, state = layer(x)
    output, state = layer(x, initial=state)
    assert output.dtype == state.conv.dtype == torch.bfloat16
    assert state.state.dtype == torch.float32
    wide, _ = made()(x.double(), initial=made()(x.double())[1])
    assert float((output - wide).detach().abs().max()) < 0.05 * float(wide.detach().abs().max())


def test_autocast_does_not_narrow_the_state() -> None:
    layer, x = made(dtype=torch.float32), drawn(1, 9, torch.float32)
    expected = layer(x)[1].state.detach()
    with torch.autocast("cpu", torch.bfloat16):
        output, state = layer(x)
    assert output.dtype == torch.bfloat16 and state.state.dtype == torch.float32
    assert float((state.state.detach() - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_bad_shapes_are_named() -> None:
    layer, x = made(), drawn(2, 5)
    with pytest.raises(ValueError, match=r"documents of shape \[2, 4\] must be .* \[2, 5\]"):
        layer(x, documents=torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"counts of shape \[3\] must be .* \[2\]"):
        layer(x, counts=torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="initial holds 1 sequences, and x 2"):
        layer(x, initial=layer(x[:1])[1])
