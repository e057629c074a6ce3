"""What is run beside each other, and what a run tells."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Library = Literal["sluice", "transformers"]


class Case(BaseModel):
    """One way to train the common model on the common tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    library: Library
    shape: str = "5M"
    sequence: int = 256
    rows: int = 16
    """Sequences a step, over all ranks."""
    precision: Literal["fp32", "bf16"] = "fp32"
    compiled: bool = False
    ranks: int = 1
    threads: int = 1
    """Of a rank."""
    steps: int = 40
    skipped: int = 10
    """First steps that no figure counts: compilation, first touches of memory."""

    @property
    def name(self) -> str:
        setting = f"{self.precision}, {'compiled' if self.compiled else 'eager'}"
        where = "" if self.library == "transformers" else f", {self.ranks} x {self.threads} threads"
        return f"{'sluice' if self.library == 'sluice' else 'transformers Trainer'}, {setting}{where}"


class Round(BaseModel):
    """One run of a case in a process of its own."""

    tokens_per_second: float
    peak_bytes: int
    """Largest resident memory of a rank's process; of an accelerator, what was allocated."""
    loss: float
    """Of the last step; of the Trainer the mean of its steps, which is what it reports. Both must learn."""
    checkpoint_share: float | None = None
    """Of the time of steps and checkpoints; None where none was written."""


class Measured(BaseModel):
    """All rounds of a case."""

    case: Case
    rounds: list[Round]

    @property
    def rate(self) -> float:
        """Tokens a second of the median round."""
        ordered = sorted(each.tokens_per_second for each in self.rounds)
        return ordered[len(ordered) // 2]

    @property
    def spread(self) -> float:
        """The fastest round over the slowest."""
        rates = [each.tokens_per_second for each in self.rounds]
        return max(rates) / min(rates)

    @property
    def peak_bytes(self) -> int:
        return max(each.peak_bytes for each in self.rounds)


class Shakespeare(BaseModel):
    """Runs of the preset, and the recipe that it is held to, on one text."""

    text: str
    """Which text it was."""
    is_tiny_shakespeare: bool
    ours: list[float]
    """Nats a character on the whole last tenth, a seed each."""
    reference: float | None
    """Of nanoGPT's recipe in plain PyTorch, on the same tenth."""
    parameters: int
    tokens: int


class Results(BaseModel):
    """All that one run of the benchmark measured; kept, so that the section can be written again."""

    machine: str
    libraries: str
    loads: dict[str, float] = {}
    """Load average of the minute before each section."""
    matmul: dict[str, float] = {}
    """FLOPs a second of the largest product, by precision, on all threads."""
    flops_per_token: float = 0.0
    measured: list[Measured] = []
    data_share: float | None = None
    """Of a step's time: reading the batch."""
    shakespeare: Shakespeare | None = None

    def of(self, library: Library, precision: str, *, compiled: bool, ranks: int = 1) -> Measured | None:
        """The case of these settings with the most threads."""
        wanted = (library, precision, compiled, ranks)
        found = [
            each
            for each in self.measured
            if (each.case.library, each.case.precision, each.case.compiled, each.case.ranks) == wanted
        ]
        return max(found, key=lambda each: each.case.threads, default=None)
