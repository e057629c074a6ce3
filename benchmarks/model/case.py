"""One measurement in a process of its own, and the messages of that process."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from benchmarks.model.shapes import SHAPES, Shape

Library = Literal["sluice", "transformers"]
Precision = Literal["fp32", "bf16"]
Work = Literal["train", "generate", "matmul"]
Kernel = Literal["reference", "sdpa", "flex", "flash", "blocked"]
"""Those of sluice.model.architecture.kernels, which is not imported here because it brings torch."""


class Case(BaseModel):
    """One candidate: a model of one library in one setting, doing one kind of work."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    work: Work
    """train: forward and backward of a step; generate: greedy, batch 1, with a cache; matmul: the machine's peak."""
    precision: Precision = "fp32"
    """Type of weights, activations and gradients alike."""
    library: Library = "sluice"
    shape: str = "5M"
    sequence: int = 256
    """Tokens of a row in training; of the whole, prompt included, in generation."""
    compiled: bool = False
    kernel: Kernel | None = None
    """Attention kernel of ours; None: chosen for the case."""
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    weights: str | None = None
    """safetensors file in transformers' names; unset: random weights."""

    @property
    def model(self) -> Shape:
        return SHAPES[self.shape]

    @property
    def rows(self) -> int:
        return max(1, self.model.step_tokens // self.sequence)

    @property
    def setting(self) -> str:
        parts = [self.precision, "compiled" if self.compiled else "eager", *([self.kernel] if self.kernel else [])]
        return ", ".join(parts)


class Started(BaseModel):
    """A candidate is ready: built, and warm."""

    parameters: int
    import_bytes: int
    """Resident memory before the model was built."""
    warm_up_s: float
    """Building and the first rounds, compilation included."""
    check: list[float]
    """Loss on the common batch, or the tokens generated: candidates of one model must agree."""
    kernels: list[str] = []
    """Attention kernels of ours that ran while warming up, with the reason; compiled code reports none."""


class Round(BaseModel):
    seconds: float
    units: float
    """Tokens that went through in `seconds`; FLOPs of a matrix product."""
    peak_bytes: int
    """Largest resident memory of the process (allocated memory of the accelerator) in the rounds so far."""
