"""The chunked scan equals the recurrence, for all chunk sizes, borders and splits; in float64 to 1e-10."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sluice.model.architecture.scan import chunked_scan, recurrent_step

SIZE, STATE = 3, 5


def drawn(batch: int, seq: int, heads: int, groups: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return {
        "x": normal(batch, seq, heads, SIZE),
        "dt": normal(batch, seq, heads).abs(),
        "A": -normal(heads).exp(),
        "B": normal(batch, seq, groups, STATE),
        "C": normal(batch, seq, groups, STATE),
    }


def recurrence(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The definition, a token at a time."""
    share, outputs = x.shape[2] // B.shape[2], []
    for t in range(x.shape[1]):
        group = torch.arange(x.shape[2]) // share
        added = torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], B[:, t, group])
        state = torch.exp(dt[:, t] * A)[..., None, None] * state + added
        outputs.append(torch.einsum("bhpn,bhn->bhp", state, C[:, t, group]))
    return torch.stack(outputs, dim=1), state


def part(inputs: dict[str, Tensor], start: int, end: int) -> dict[str, Tensor]:
    return {name: tensor if name == "A" else tensor[:, start:end] for name, tensor in inputs.items()}


def assert_exact(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def start(batch: int, heads: int) -> Tensor:
    generator = torch.Generator().manual_seed(99)
    return torch.randn(batch, heads, SIZE, STATE, dtype=torch.float64, generator=generator)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 2),
    seq=st.integers(1, 13),
    chunk=st.integers(1, 16),
    groups=st.integers(1, 2),
    share=st.integers(1, 2),
    fresh=st.booleans(),
)
def test_the_chunked_scan_is_the_recurrence(
    batch: int, seq: int, chunk: int, groups: int, share: int, fresh: bool
) -> None:
    heads = groups * share
    inputs = drawn(batch, seq, heads, groups, seed=seq)
    initial = torch.zeros_like(start(batch, heads)) if fresh else start(batch, heads)
    found = chunked_scan(**inputs, chunk=chunk, initial=None if fresh else initial)
    assert_exact(found, recurrence(**inputs, state=initial))


def test_steps_in_turn_are_the_recurrence() -> None:
    inputs, state = drawn(2, 6, 4, 2), start(2, 4)
    expected = recurrence(**inputs, state=state)
    outputs = []
    for t in range(6):
        at = {name: tensor if name == "A" else tensor[:, t] for name, tensor in inputs.items()}
        y, state = recurrent_step(**at, state=state)
        outputs.append(y)
    assert_exact((torch.stack(outputs, dim=1), state), expected)


@settings(max_examples=20, deadline=None)
@given(pieces=st.lists(st.integers(1, 7), min_size=1, max_size=5), chunk=st.integers(1, 9))
def test_any_way_of_feeding_a_sequence_gives_the_whole(pieces: list[int], chunk: int) -> None:
    inputs, state, outputs, begin = drawn(1, sum(pieces), 2, 1), None, [], 0
    for length in pieces:
        y, state = chunked_scan(**part(inputs, begin, begin + length), chunk=chunk, initial=state)
        outputs.append(y)
        begin += length
    assert state is not None
    assert_exact((torch.cat(outputs, dim=1), state), chunked_scan(**inputs, chunk=chunk))


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5), chunk=st.integers(1, 9))
def test_segments_scan_as_each_alone(lengths: list[int], chunk: int) -> None:
    inputs, initial = drawn(1, sum(lengths), 2, 1), start(1, 2)
    segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    found = chunked_scan(**inputs, chunk=chunk, initial=initial, segments=segments)
    outputs, begin, state = [], 0, initial
    for number, length in enumerate(lengths):
        state = initial if number == 0 else torch.zeros_like(initial)
        y, state = recurrence(**part(inputs, begin, begin + length), state=state)
        outputs.append(y)
        begin += length
    assert_exact(found, (torch.cat(outputs, dim=1), state))


@pytest.mark.parametrize("border", [1, 7, 8, 9, 13])
def test_not_even_a_rounding_comes_over_a_border(border: int) -> None:
    inputs = {name: tensor.float() for name, tensor in drawn(2, 17, 4, 2).items()}
    other = {name: tensor.clone() for name, tensor in inputs.items()}
    for name in ("x", "dt", "B", "C"):
        other[name][:, :border] *= 3.7
    segments = (torch.arange(17) >= border).long().expand(2, -1)
    before, last = chunked_scan(**inputs, chunk=8, segments=segments)
    after, other_last = chunked_scan(**other, chunk=8, segments=segments, initial=start(2, 4).float())
    assert torch.equal(before[:, border:], after[:, border:])
    assert torch.equal(last, other_last)
    assert not torch.equal(before[:, :border], after[:, :border])


def test_a_strong_decay_costs_the_tokens_after_it_no_precision() -> None:
    inputs = drawn(1, 32, 2, 1)
    inputs["dt"] = torch.full_like(inputs["dt"], 0.01)
    inputs["dt"][:, 3] = 1e5
    inputs["x"][:, 3] *= 1e-5
    expected, _ = recurrence(**inputs, state=torch.zeros(1, 2, SIZE, STATE, dtype=torch.float64))
    found, _ = chunked_scan(**{name: tensor.float() for name, tensor in inputs.items()}, chunk=32)
    torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("chunk", [2, 5])
def test_gradients(chunk: int) -> None:
    inputs = [*drawn(1, 5, 2, 1).values(), start(1, 2)]
    segments = torch.tensor([[0, 0, 0, 1, 1]])

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        x, dt, A, B, C, initial = tensors
        return chunked_scan(x, dt, A, B, C, chunk=chunk, initial=initial, segments=segments)

    assert torch.autograd.gradcheck(scan, [tensor.requires_grad_() for tensor in inputs])


def test_narrow_inputs_keep_a_wide_state() -> None:
    inputs = {name: tensor.bfloat16() for name, tensor in drawn(1, 9, 2, 1).items()}
    y, state = chunked_scan(**inputs, chunk=4)
    assert y.dtype == state.dtype == torch.float32
    at = {name: tensor if name == "A" else tensor[:, 0] for name, tensor in inputs.items()}
    y, state = recurrent_step(**at, state=state)
    assert y.dtype == state.dtype == torch.float32


def test_nothing_grows_with_the_square_of_the_sequence() -> None:
    def largest(seq: int) -> int:
        sizes: list[int] = []

        def keep(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        inputs = {name: tensor.requires_grad_() for name, tensor in drawn(1, seq, 2, 1).items()}
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            chunked_scan(**inputs, chunk=8)
        return max(sizes)

    assert largest(64) == 64 * 2 * 8
    assert largest(512) == 8 * largest(64)
