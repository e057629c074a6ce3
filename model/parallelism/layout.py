"""How the processes of a run share a model and its batch: pipeline x data x tensor parallelism.

Planner and trainer use the same `Layout`; `rules.py` decides which combinations are supported. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from sluice.model.config import PretrainConfig

ZeroStage = Literal[0, 1, 2, 3]

LAYOUT_SETTINGS = (
    "workers",
    "zero_stage",
    "offload",
    "pipeline_stages",
    "tensor_parallel",
    "micro_batch_size",
    "activation_checkpointing",
    "compile",
)
"""Settings of PretrainConfig that choose how a run is computed: with another value it ends equal but for rounding."""


@dataclass(frozen=True)
class Layout:
    """`devices` = pipeline x data x tensor, one process each, in DeepSpeed's order: ranks of a tensor group are
    neighbours, and the stages of a pipeline lie furthest apart. ZeRO (arXiv 1910.02054) partitions training state over
    the data-parallel devices.
    """

    devices: int = 1
    tensor: int = 1
    pipeline: int = 1
    zero_stage: ZeroStage = 0

    def __post_init__(self) -> None:
        if min(self.devices, self.tensor, self.pipeline) < 1 or self.devices % (self.pipeline * self.tensor):
            raise ValueError(
                f"workers {self.devices} must be a multiple of pipeline_stages x tensor_parallel = "
                f"{self.pipeline} x {self.tensor}"
            )

    @property
    def data(self) -> int:
        """Data-parallel copies of the model."""
        return self.devices // (self.pipeline * self.tensor)

    def coordinates(self, rank: int) -> tuple[int, int, int]:
        """Pipeline stage, data-parallel rank and tensor-parallel rank of a process."""
        return rank // (self.data * self.tensor), rank // self.tensor % self.data, rank % self.tensor

    def data_groups(self) -> list[list[int]]:
        """Ranks that hold the same weights, by group."""
        return self._groups(0, 2)

    def tensor_groups(self) -> list[list[int]]:
        """Ranks that hold slices of the same weights, by group."""
        return self._groups(0, 1)

    def pipeline_groups(self) -> list[list[int]]:
        """Ranks that hold the stages of one copy, first stage first, by group."""
        return self._groups(1, 2)

    def first_of_stage(self, stage: int) -> int:
        """The lowest rank of a stage."""
        return stage * self.data * self.tensor

    def _groups(self, *axes: int) -> list[list[int]]:
        """Ranks whose coordinates are equal on `axes`."""
        found: dict[tuple[int, ...], list[int]] = {}
        for rank in range(self.devices):
            coordinates = self.coordinates(rank)
            found.setdefault(tuple(coordinates[axis] for axis in axes), []).append(rank)
        return list(found.values())


def layout_of(run: PretrainConfig) -> Layout:
    """The layout of a run. Raises ValueError where the workers cannot be divided by its degrees."""
    return Layout(
        devices=run.workers, tensor=run.tensor_parallel, pipeline=run.pipeline_stages, zero_stage=run.zero_stage
    )


def stage_bounds(costs: Sequence[int], stages: int) -> list[range]:
    """Layers of each pipeline stage, so that the most expensive stage costs least; every stage has a layer or more.

    `costs` are those of the layers in order. Raises ValueError for fewer layers than stages.
    """
    if stages > len(costs):
        raise ValueError(f"pipeline_stages {stages} is more than the {len(costs)} layers of the model: lower it")

    @cache
    def best(start: int, left: int) -> tuple[int, tuple[int, ...]]:
        """Cost of the most expensive of `left` stages from layer `start` on, and where they end."""
        if left == 1:
            return sum(costs[start:]), (len(costs),)
        options = []
        for end in range(start + 1, len(costs) - left + 2):
            rest, ends = best(end, left - 1)
            options.append((max(sum(costs[start:end]), rest), (end, *ends)))
        return min(options)

    ends = best(0, stages)[1]
    return [range(start, end) for start, end in zip((0, *ends), ends, strict=False)]
