"""All that one run of the benchmark measured; kept as JSON, so that the page can be written again without measuring."""

from pydantic import BaseModel

from benchmarks.model.turns import Measured


class Comparison(BaseModel):
    """Candidates that took turns on one model."""

    shape: str
    sequence: int
    candidates: dict[str, Measured]
    """By `library, setting`."""

    def of(self, library: str, setting: str) -> Measured:
        return self.candidates[f"{library}, {setting}"]

    def best(self, library: str) -> Measured:
        """The fastest setting of a library."""
        own = [each for each in self.candidates.values() if each.case.library == library]
        return max(own, key=lambda each: each.rate)


class Accelerated(BaseModel):
    """Figures of an accelerator."""

    device: str
    peak_flops: float | None
    """Dense bf16 FLOPs a second of its data sheet; None for a device that is not listed."""
    matmul_flops: float
    """Of the largest product measured."""
    comparisons: list[Comparison]
    refused: dict[str, str] = {}
    """Candidates that could not run, with their reason."""


class Results(BaseModel):
    """Of one run on one machine."""

    machine: str
    threads: int
    rounds: int
    libraries: str
    """Versions of what was compared."""
    loads: dict[str, float] = {}
    """Load average of the minute before each section, the benchmark's own work included."""
    seconds: dict[str, float] = {}
    """Wall time of each section."""
    matmul: dict[str, float] = {}
    """FLOPs a second of the machine's largest product, by precision."""
    training: list[Comparison] = []
    generation: list[Comparison] = []
    accelerated: Accelerated | None = None
    """None: no accelerator was at hand."""
