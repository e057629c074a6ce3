"""Elements of the parameters that a rank updates, by name: a run can resume at another world size or ZeRO stage.

ZeRO updates flat float32 tensors that many parameters share and that are divided among the ranks. Here each is cut into
shards, a shard being a range of the elements of one named parameter, of its master weight or of one of its moments (as
in universal checkpointing, Lian et al., arXiv 2406.18820). Nothing is gathered: a rank writes the shards that it
updates, and reads those that hold the elements that it will update.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sluice.model.parallelism.optimizers import MUON_MOMENTUM
from sluice.model.training.checkpointing.shards import Snapshot, shard_name, slice_name, split_slice_name
from sluice.model.training.engines.shares import own_range

MASTER = "master"
"""Key of the weights in the precision of the update. The other keys are the optimizer's own."""
AVERAGE = "average"
"""Key of the average of the weights."""
_LOSS_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")

Named = Sequence[tuple[str, nn.Parameter]]
"""This rank's parameters by their names in the checkpoint: see `checkpoint_names`."""


class ShardReader(Protocol):
    """A reader of shards."""

    def keys(self, name: str) -> set[str]: ...

    def read(self, name: str, key: str, start: int, numel: int) -> Tensor:
        """Elements [numel] of the flattened parameter from `start` on."""

    def scalar(self, name: str, key: str) -> Tensor | None:
        """One number for the whole parameter, such as a step count; None where `key` has one per element."""


@dataclass(frozen=True)
class Slot:
    """`numel` elements of parameter `name` from its element `start` on, which lie at `offset` in a flat tensor."""

    name: str
    start: int
    offset: int
    numel: int


@dataclass(frozen=True)
class Stepped:
    """A tensor that the optimizer updates, and the location of parameters in it."""

    tensor: Tensor
    slots: tuple[Slot, ...]
    momentum: tuple[Slot, ...]
    """Slots of Muon's momentum, which DeepSpeed may lay out another way."""

    def slots_of(self, key: str) -> tuple[Slot, ...]:
        return self.momentum if key == MUON_MOMENTUM else self.slots


def checkpoint_names(model: nn.Module) -> Named:
    """The model's parameters; under tensor parallelism a slice of a parameter is named as one (`slice_name`)."""
    named = []
    for name, parameter in model.named_parameters():
        place = getattr(parameter, "tensor_slice", None)
        if place is not None:
            dim, count, group = place
            name = slice_name(name, dim, torch.distributed.get_rank(group), count)  # noqa: PLW2901
        named.append((name, parameter))
    return named


def take_snapshot(
    named: Named, optimizer: Any, *, replica: int = 0, average: Mapping[str, Tensor] | None = None
) -> Snapshot:
    """Copy the shards that this rank updates, and its part of the `average` of the weights.

    `optimizer` is what `deepspeed.initialize` returned, or a torch optimizer that steps the parameters themselves.
    `average` is by the model's names; under ZeRO 3 it is of the parameters' `ds_tensor`.
    `replica` is the data-parallel rank: without ZeRO all of them update everything, and only the first saves it.
    """
    stepped_here = layout(named, optimizer)
    if replica and _steps_parameters(named, optimizer):
        stepped_here = []
    shards: dict[str, Tensor] = {}
    state = _inner(optimizer).state
    for stepped in stepped_here:
        for key, values in {MASTER: stepped.tensor, **state.get(stepped.tensor, {})}.items():
            assert isinstance(values, Tensor), f"{key} of {stepped.slots[:1]} is {type(values)}"
            for slot in stepped.slots_of(key):
                shard = values if values.ndim == 0 else values.detach().view(-1)[slot.offset :][: slot.numel]
                # A copy even on the CPU: training continues while it is being written.
                shards[shard_name(slot.name, key, slot.start)] = shard.detach().to("cpu", copy=True)
    for name, parameter in named if average is not None else ():
        assert average is not None
        start, numel = own_range(parameter) if hasattr(parameter, "ds_tensor") else (0, parameter.numel())
        if numel and (start or not replica):
            own = average[split_slice_name(name)[0]].detach().reshape(-1)[:numel]
            shards[shard_name(name, AVERAGE, start)] = own.to("cpu", copy=True)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parameter in named:
        whole, place = split_slice_name(name)
        shape = list(getattr(parameter, "ds_shape", parameter.shape))
        if place is not None:
            dim, _, count = place
            shape[dim] *= count
        shapes[whole] = tuple(shape)
    return Snapshot(shards, shapes)


@torch.no_grad()
def restore(named: Named, optimizer: Any, source: ShardReader) -> None:
    """Load weights, masters and moments of this rank from `source`: the same bits whichever layout wrote them.

    Raises ValueError for a parameter that is incomplete in `source`.
    """
    state = _inner(optimizer).state
    for stepped in layout(named, optimizer):
        flat = stepped.tensor.view(-1)
        for slot in stepped.slots:
            flat[slot.offset :][: slot.numel].copy_(source.read(slot.name, MASTER, slot.start, slot.numel))
        keys = sorted({key for slot in stepped.slots for key in source.keys(slot.name)} - {MASTER, AVERAGE})
        # In place of what is there: a fresh optimizer may hold none of it yet.
        state[stepped.tensor] = {key: _moment(stepped, key, source) for key in keys}
    for name, parameter in named:
        # In place: under ZeRO the parameters are views into flat buffers.
        if hasattr(parameter, "ds_tensor"):
            start, numel = own_range(parameter)
            if numel:
                parameter.ds_tensor[:numel].copy_(source.read(name, MASTER, start, numel))
            if parameter.shape != parameter.ds_shape:  # type: ignore[attr-defined]
                continue  # gathered when it is needed, unlike the small ones that stay whole
        parameter.copy_(source.read(name, MASTER, 0, parameter.numel()).view(parameter.shape))


def read_average(named: Named, source: ShardReader) -> dict[str, Tensor]:
    """The average that `take_snapshot` was given, by name, for this rank."""
    average = {}
    for name, parameter in named:
        if hasattr(parameter, "ds_tensor"):
            start, numel = own_range(parameter)
            part = torch.zeros(parameter.ds_tensor.shape)
            part[:numel] = source.read(name, AVERAGE, start, numel) if numel else 0.0
            average[split_slice_name(name)[0]] = part
        else:
            values = source.read(name, AVERAGE, 0, parameter.numel())
            average[split_slice_name(name)[0]] = values.view(parameter.shape)
    return average


def loss_scale_state(optimizer: Any) -> dict[str, float]:
    """State of fp16's dynamic loss scale, as JSON; empty in another precision."""
    scaler = getattr(optimizer, "loss_scaler", None)
    return {name: getattr(scaler, name) for name in _LOSS_SCALER if getattr(scaler, "dynamic", False)}


def restore_loss_scale(optimizer: Any, state: dict[str, float]) -> None:
    for name, value in state.items():
        setattr(optimizer.loss_scaler, name, value)


def layout(named: Named, optimizer: Any) -> list[Stepped]:
    """The tensors that this rank updates, in the optimizer's order."""
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        return _partitioned_parameters(named, optimizer)
    if not _steps_parameters(named, optimizer):
        return _partitioned_optimizer(named, optimizer)
    return [
        _stepped(parameter, [Slot(name, 0, 0, parameter.numel())])
        for name, parameter in named
        if parameter.requires_grad
    ]


def _steps_parameters(named: Named, optimizer: Any) -> bool:
    """Return whether the optimizer updates the model's own parameters, as without ZeRO."""
    partitioned = hasattr(optimizer, "fp32_partitioned_groups_flat")
    return not partitioned and not any(hasattr(parameter, "_hp_mapping") for _, parameter in named)


def _partitioned_optimizer(named: Named, zero: Any) -> list[Stepped]:
    """ZeRO 1 and 2 (and DeepSpeed's bf16 optimizer): of each group of parameters, laid end to end, a rank updates one
    contiguous range, which may begin and end inside a parameter.
    """
    slots: dict[int, list[Slot]] = {index: [] for index in range(len(zero.optimizer.param_groups))}
    for name, parameter in named:
        fragment = getattr(parameter, "_hp_mapping", None)
        if fragment is not None:
            there, here = fragment.lp_fragment_address, fragment.hp_fragment_address
            slots[fragment.param_group_index].append(Slot(name, int(there.start), int(here.start), int(here.numel)))
    stepped = []
    for index, group in enumerate(zero.optimizer.param_groups):
        (flat,) = group["params"]
        momentum = _whole_momentum(named, zero, index) if group.get("use_muon") else None
        stepped.append(_stepped(flat, slots[index], momentum))
    return stepped


def _whole_momentum(named: Named, zero: Any, index: int) -> list[Slot] | None:
    """DeepSpeed orthogonalizes whole matrices, so, unless it offloads them, a rank keeps the whole momentum of every
    matrix that its range touches, one after another.
    """
    if getattr(zero, "cpu_offload", False) or not hasattr(zero, "params_in_partition"):
        return None
    names = {id(parameter): name for name, parameter in named}
    slots, offset = [], 0
    for parameter in zero.params_in_partition[index]:
        slots.append(Slot(names[id(parameter)], 0, offset, parameter.numel()))
        offset += parameter.numel()
    return slots


def _partitioned_parameters(named: Named, zero: Any) -> list[Stepped]:
    """ZeRO 3: each parameter is divided evenly over the ranks, the last ones' part padded; the parts of a subgroup lie
    one after another.
    """
    slots: list[list[Slot]] = [[] for _ in zero.fp32_partitioned_groups_flat]
    for name, parameter in named:
        if parameter.requires_grad:
            group, offset, _ = zero.grad_position[zero.get_param_id(parameter)]
            start, numel = own_range(parameter)
            if numel:
                slots[group].append(Slot(name, start, offset, numel))
    return [_stepped(flat, own) for flat, own in zip(zero.fp32_partitioned_groups_flat, slots, strict=True)]


def _stepped(tensor: Tensor, slots: Iterable[Slot], momentum: Iterable[Slot] | None = None) -> Stepped:
    slots = tuple(slots)
    return Stepped(tensor, slots, slots if momentum is None else tuple(momentum))


def _moment(stepped: Stepped, key: str, source: ShardReader) -> Tensor:
    device, slots = stepped.tensor.device, stepped.slots_of(key)
    holders = [slot for slot in slots if key in source.keys(slot.name)]
    scalar = source.scalar(holders[0].name, key)
    if scalar is not None:
        return scalar.to(device, copy=True)
    values = [source.read(slot.name, key, slot.start, slot.numel) for slot in holders]
    if slots is stepped.slots:
        moment = torch.zeros(stepped.tensor.shape, dtype=values[0].dtype, device=device)
    else:
        moment = torch.zeros(sum(slot.numel for slot in slots), dtype=values[0].dtype, device=device)
    for slot, part in zip(holders, values, strict=True):
        # A parameter that never had a gradient has no moments: they are zero, as ZeRO would have had them.
        moment.view(-1)[slot.offset :][: slot.numel].copy_(part)
    return moment


def _inner(optimizer: Any) -> Any:
    """The torch optimizer below DeepSpeed's."""
    return getattr(optimizer, "optimizer", optimizer)
