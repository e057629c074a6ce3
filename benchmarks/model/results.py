"""All that one run of the benchmark measured; kept as JSON, so that the page can be written again without measuring."""

from pydantic import BaseModel

from benchmarks.model.turns import Measured
from benchmarks.report import Timed


class Comparison(BaseModel):
    """Candidates that took turns on one model."""

    shape: str
    sequence: int
    candidates: dict[str, Measured]
    """By `library, setting`."""

    def of(self, library: str) -> list[Measured]:
        """Candidates of one library."""
        return [each for each in self.candidates.values() if each.case.library == library]

    @property
    def default(self) -> Measured:
        """The peer as it is used by default."""
        return self.candidates["transformers, fp32, eager"]


class ModelsOnGpu(BaseModel):
    """Figures of forward and backward on an accelerator."""

    device: str
    peak_flops: float | None
    """Dense bf16 FLOPs a second of its data sheet; None for a device that is not listed."""
    matmul_flops: float
    """FLOPs a second of the largest product measured."""
    comparisons: list[Comparison]
    refused: dict[str, str] = {}
    """Candidates that could not run, with the reason."""


class ModelResults(Timed):
    """Figures of one run on one machine."""

    machine: str
    threads: int
    rounds: int
    libraries: str
    """Versions of the libraries compared."""
    matmul: dict[str, float] = {}
    """FLOPs a second of the machine's largest product, by precision."""
    training: list[Comparison] = []
    generation: list[Comparison] = []
    accelerated: ModelsOnGpu | None = None
    """None: no accelerator was available."""
