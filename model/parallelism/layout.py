"""How the processes of a run are arranged: data-parallel workers, each some processes that share a copy of the model.

Light: read before torch is imported.
"""

from dataclasses import dataclass

SETTINGS = (
    "workers",
    "zero_stage",
    "offload",
    "pipeline_stages",
    "tensor_parallel",
    "micro_batch_size",
    "activation_checkpointing",
    "compile",
)
"""Settings of PretrainConfig that say how a run is computed: another value is the same run but for rounding."""


@dataclass(frozen=True)
class Layout:
    """`processes` = pipeline x data x tensor, in DeepSpeed's order: ranks of a tensor group are neighbours, and the
    stages of a pipeline lie furthest apart.
    """

    processes: int
    pipeline: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        copies = self.pipeline * self.tensor
        if self.processes % copies:
            raise ValueError(
                f"workers {self.processes} must be a multiple of pipeline_stages x tensor_parallel = "
                f"{self.pipeline} x {self.tensor}"
            )

    @property
    def data(self) -> int:
        """Data-parallel workers."""
        return self.processes // (self.pipeline * self.tensor)

    def place(self, rank: int) -> tuple[int, int, int]:
        """Stage, data-parallel worker and tensor slice of a process."""
        return rank // (self.data * self.tensor), rank // self.tensor % self.data, rank % self.tensor

    def data_groups(self) -> list[list[int]]:
        """Ranks that hold the same weights, by group."""
        return self._alike(0, 2)

    def tensor_groups(self) -> list[list[int]]:
        """Ranks that hold slices of the same weights, by group."""
        return self._alike(0, 1)

    def pipeline_groups(self) -> list[list[int]]:
        """Ranks that hold the stages of one copy, first stage first, by group."""
        return self._alike(1, 2)

    def first_of_stage(self, stage: int) -> int:
        """The lowest rank of a stage."""
        return stage * self.data * self.tensor

    def _alike(self, *axes: int) -> list[list[int]]:
        """Ranks whose places agree on `axes`."""
        found: dict[tuple[int, ...], list[int]] = {}
        for rank in range(self.processes):
            place = self.place(rank)
            found.setdefault(tuple(place[axis] for axis in axes), []).append(rank)
        return list(found.values())
