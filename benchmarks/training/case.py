"""Cases that are compared, and the figures of a run."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Library = Literal["sluice", "transformers"]

LEARNING_RATE, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.999), 0.0, 1.0
"""AdamW of both sides, falling linearly to zero: the Trainer's defaults but for the peak rate."""


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
    device: Literal["cpu", "cuda"] = "cpu"
    micro_rows: int | None = None
    """Sequences of a rank that go through at once; None: all of the step's."""
    recomputed: bool = False
    """Activations are computed again in the backward pass."""
    save_every: int | None = None
    """Steps between checkpoints; None: one after the last step, which no figure counts."""
    steps: int = 40
    skipped: int = 10
    """First steps that no figure counts: compilation, first touches of memory."""

    @property
    def name(self) -> str:
        setting = f"{self.precision}, {'compiled' if self.compiled else 'eager'}"
        ranks = f", {self.ranks} ranks" if self.ranks > 1 else ""
        saves = "" if self.save_every is None else f", a checkpoint every {self.save_every} steps"
        return f"{'sluice' if self.library == 'sluice' else 'transformers Trainer'}, {setting}{ranks}{saves}"

    @property
    def counted_tokens(self) -> int:
        """Tokens of the steps that count, over all ranks."""
        return (self.steps - self.skipped) * self.rows * self.sequence

    @property
    def saves(self) -> int:
        """Checkpoints that are begun while it counts."""
        every = self.save_every or self.steps
        return (self.steps - 1) // every - (self.skipped - 1) // every


class Ticks(BaseModel):
    """Clock readings of one process at the end of each step, in seconds."""

    ends: list[float] = []
    cpu: list[float] = []
    """Processor time of the process, all threads."""
    data: list[float] = []
    """In each step: making its batch. Empty where it is not seen."""
    communication: list[float] = []
    """In each step: waiting for other ranks and for what they send."""
    peak_bytes: int = 0
    """Largest memory by the last step: resident, or allocated on the accelerator."""

    def seconds(self, case: Case) -> float:
        """Wall time of the steps that count, with what stands between them."""
        assert len(self.ends) == case.steps > case.skipped > 0, f"{case.name}: {len(self.ends)} of {case.steps} steps"
        return self.ends[-1] - self.ends[case.skipped - 1]


class Round(BaseModel):
    """One run of a case in processes of its own."""

    tokens_per_second: float
    peak_bytes: int
    """Peak memory of the largest rank."""
    cpu_seconds: float
    """Processor seconds of all ranks for a million tokens."""
    first_loss: float
    """Loss of the first step, nats a token."""
    mean_loss: float
    """Over all steps."""
    data_share: float | None = None
    """Share of the time that making batches takes; None where it is not measured."""
    communication_share: float | None = None
    snapshot_seconds: float | None = None
    """That a checkpoint held the training up; what is written afterwards is written beside it."""


def round_of(
    case: Case,
    ranks: list[Ticks],
    *,
    first_loss: float,
    mean_loss: float,
    snapshot_seconds: float | None = None,
) -> Round:
    """From the clocks of every rank; rates and shares are rank 0's, which the others are in step with."""
    first, wall = ranks[0], ranks[0].seconds(case)
    cpu = sum(each.cpu[-1] - each.cpu[case.skipped - 1] for each in ranks)
    return Round(
        tokens_per_second=case.counted_tokens / wall,
        peak_bytes=max(each.peak_bytes for each in ranks),
        cpu_seconds=cpu * 1e6 / case.counted_tokens,
        first_loss=first_loss,
        mean_loss=mean_loss,
        data_share=sum(first.data[case.skipped :]) / wall if first.data else None,
        communication_share=sum(first.communication[case.skipped :]) / wall if first.communication else None,
        snapshot_seconds=snapshot_seconds,
    )


class Measured(BaseModel):
    """All rounds of a case."""

    case: Case
    rounds: list[Round]

    @property
    def rate(self) -> float:
        """Tokens a second of the median round; of an even number the slower of the two."""
        ordered = sorted(each.tokens_per_second for each in self.rounds)
        return ordered[(len(ordered) - 1) // 2]

    @property
    def spread(self) -> float:
        """The fastest round over the slowest."""
        rates = [each.tokens_per_second for each in self.rounds]
        return max(rates) / min(rates)

    @property
    def peak_bytes(self) -> int:
        return max(each.peak_bytes for each in self.rounds)

    @property
    def cpu_seconds(self) -> float:
        return max(each.cpu_seconds for each in self.rounds)
