"""Tables of weight names, and conversion between our layout of a weight and a family's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

State = Mapping[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class WeightRow:
    """Row of a family's table: the same values under our names and under theirs.

    One name on each side is a copy. Several of ours for one of theirs are fused along the first dimension (GPT-2's
    c_attn); one of ours for several of theirs is a stack of them (a mixture's experts).
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    transposed: bool = False
    """Theirs is [in, out], as in GPT-2's Conv1D."""
    groups: int = 1
    """Fused ones alternate group by group, as GPT-NeoX's query, key and value of each head."""


def copied(names: Mapping[str, str], ours: str = "", theirs: str = "", *, transposed: bool = False) -> list[WeightRow]:
    """Rows with one name on each side, with prefixes for our names and theirs."""
    return [WeightRow((ours + mine,), (theirs + other,), transposed) for mine, other in names.items()]


def both(names: Mapping[str, str]) -> dict[str, str]:
    """Map names of modules to names of their weights and biases."""
    return {f"{mine}.{kind}": f"{other}.{kind}" for mine, other in names.items() for kind in ("weight", "bias")}


def to_theirs(state: State, rows: Iterable[WeightRow]) -> dict[str, Tensor]:
    """Convert our state dict to theirs. Rows whose weights this model does not have are skipped."""
    translated: dict[str, Tensor] = {}
    seen: set[str] = set()
    for row in rows:
        parts = [state[name] for name in row.ours if name in state]
        if not parts:
            continue
        assert len(parts) == len(row.ours), f"only some of {row.ours} are there"
        seen.update(row.ours)
        if len(row.theirs) > 1:
            translated |= zip(row.theirs, parts[0].unbind(), strict=True)
        else:
            whole = parts[0]
            if len(parts) > 1:
                # Along the first dimension, the first group of each before the second.
                whole = torch.cat([part.unflatten(0, (row.groups, -1)) for part in parts], dim=1).flatten(0, 1)
            translated[row.theirs[0]] = _turned(whole, row)
    assert not (rest := state.keys() - seen), f"the family's table lacks {sorted(rest)[:4]}"
    # Copies, because safetensors refuses tensors that share memory.
    return {name: tensor.contiguous().clone() for name, tensor in translated.items()}


def from_theirs(state: State, rows: Iterable[WeightRow], expected: Shapes) -> dict[str, Tensor]:
    """Convert their state dict to ours, which has the names and shapes `expected`.

    Raises ValueError for a weight that is missing, unknown or of another shape.
    """
    rest, translated = dict(state), dict[str, Tensor]()
    for row in rows:
        if row.ours[0] not in expected:
            continue
        if missing := [name for name in row.theirs if name not in rest]:
            raise ValueError(f"weight '{missing[0]}' is missing")
        parts = [rest.pop(name) for name in row.theirs]
        if len({part.shape for part in parts}) > 1:
            raise ValueError(f"weights {row.theirs[0]} to {row.theirs[-1]} differ in shape")
        whole = torch.stack(parts) if len(parts) > 1 else _turned(parts[0], row)
        shapes = [expected[name] for name in row.ours]
        fused = (sum(shape[0] for shape in shapes), *shapes[0][1:])
        if whole.shape != fused:
            shape, wanted = tuple(parts[0].shape), fused
            if len(row.theirs) > 1:
                wanted = fused[1:]
            elif row.transposed and len(fused) == 2:
                wanted = fused[::-1]
            raise ValueError(f"weight {row.theirs[0]} has shape {shape}, but config.json asks for {wanted}")
        sizes = [shape[0] // row.groups for shape in shapes]
        split = whole.unflatten(0, (row.groups, -1)).split(sizes, dim=1)
        translated |= zip(row.ours, (part.flatten(0, 1) for part in split), strict=True)
    if rest:
        raise ValueError(f"unknown weights {sorted(rest)[:4]}")
    assert translated.keys() == expected.keys(), f"the family's table lacks {sorted(expected.keys() - translated)[:4]}"
    return translated


def _turned(tensor: Tensor, row: WeightRow) -> Tensor:
    return tensor.T if row.transposed and tensor.ndim == 2 else tensor
