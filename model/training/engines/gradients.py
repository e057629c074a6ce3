"""The accumulated gradient as DeepSpeed keeps it at each ZeRO stage: its norms, and how to discard it.

DeepSpeed computes a norm inside its step only, where it is too late to decide against the step; and under Muon that is
a norm of updates.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sluice.model.training.engines.shares import share

Squares = list[tuple[nn.Parameter, Tensor]]
"""Squared norms, float64 scalars, of the gradients that this process holds a part of."""


class Gradients(Protocol):
    """The gradient between the last backward pass and the step."""

    def squares(self) -> Squares:
        """Summed over all processes and divided by `divisor`, they are the squared norm of the gradient."""
        ...

    @property
    def divisor(self) -> float: ...

    def discard(self) -> None: ...


def squared_norm(gradients: Gradients) -> Tensor:
    """Scalar float64: summed over all processes, it is the squared norm of the gradient."""
    found = [square for _, square in gradients.squares()]
    # A worker may hold nothing but the padding of small groups.
    return (torch.stack(found).sum() if found else torch.zeros((), dtype=torch.float64)) / gradients.divisor


class WholeGradients:
    """Stage 0: `grad` of each parameter, the same on the data-parallel workers."""

    def __init__(self, parameters: Iterable[nn.Parameter], copies: int) -> None:
        self.parameters, self.divisor = list(parameters), float(copies)

    def squares(self) -> Squares:
        return [(each, square(each.grad) * share(each)) for each in self.parameters if each.grad is not None]

    def scale(self, factor: float) -> None:
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def discard(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


class PartitionedGradients:
    """Stages 1 and 2: each worker's part of the flat gradient of each parameter group."""

    def __init__(self, optimizer: Any) -> None:
        assert not any(any(each) for each in optimizer.round_robin_bit16_padding), "padding between parameters"
        self.optimizer = optimizer
        self._squares: dict[int, Squares] = {}
        self._flatten = optimizer.get_flat_partition
        optimizer.get_flat_partition = self._measure_and_flatten

    def _measure_and_flatten(
        self, tensor_list: Sequence[nn.Parameter], first_offset: int, partition_size: int, *args: Any, **settings: Any
    ) -> Any:
        """Called where a step's gradients are complete, and before Muon replaces them by updates."""
        group = settings["param_group_idx"]
        gradients = self.optimizer.all_grad_tensors[group] or []
        found, left, offset = Squares(), int(partition_size), int(first_offset)
        for parameter, gradient in zip(tensor_list, gradients, strict=False):
            part = gradient.reshape(-1)[offset : offset + left]
            found.append((parameter, square(part) * share(parameter)))
            left, offset = left - part.numel(), 0
        self._squares[group] = found
        return self._flatten(tensor_list, first_offset, partition_size, *args, **settings)

    def squares(self) -> Squares:
        if self.optimizer.cpu_offload:
            return _squares_of_norms(self.optimizer.params_in_partition, self.optimizer)
        return [each for group in self._squares.values() for each in group]

    @property
    def divisor(self) -> float:
        return float(self.optimizer.loss_scale**2)

    def discard(self) -> None:
        optimizer = self.optimizer
        optimizer.micro_step_id = -1
        optimizer.zero_grad(set_to_none=True)
        if optimizer.cpu_offload:
            optimizer._offload_accumulated_param_ids = set()
            optimizer.reset_cpu_buffers()
        for kept in (optimizer.averaged_gradients, optimizer.all_grad_tensors):
            for group in kept:
                kept[group] = None


class ShardedGradients:
    """Stage 3: each worker's part of every parameter's gradient."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def squares(self) -> Squares:
        optimizer = self.optimizer
        if optimizer.offload_optimizer:
            return _squares_of_norms(optimizer.fp16_groups, optimizer)
        return [
            (parameter, square(gradient) * share(parameter))
            for index, group in enumerate(optimizer.fp16_groups)
            for parameter, gradient in zip(group, optimizer.averaged_gradients[index], strict=True)
        ]

    @property
    def divisor(self) -> float:
        return float(self.optimizer.loss_scale**2)

    def discard(self) -> None:
        optimizer = self.optimizer
        optimizer._pre_step()
        optimizer._partition_all_parameters()
        optimizer._overflow_clean_up(optimizer.loss_scale)


def square(tensor: Tensor) -> Tensor:
    """Squared norm, a float64 scalar."""
    # A norm in float32 of a large tensor is summed in parts by torch; a sum of squares would not be.
    return torch.linalg.vector_norm(tensor.detach().float()).double().square()


def _squares_of_norms(groups: Iterable[Iterable[nn.Parameter]], optimizer: Any) -> Squares:
    """Squares of the norms that DeepSpeed records of each parameter's part when it is offloaded."""
    found = Squares()
    for parameter in (each for group in groups for each in group):
        # None where this worker holds no element of the parameter.
        if (norm := optimizer.norm_for_param_grads.get(optimizer.get_param_id(parameter))) is not None:
            value = torch.as_tensor(norm, dtype=torch.float64, device="cpu")
            found.append((parameter, value.square() * share(parameter)))
    return found
