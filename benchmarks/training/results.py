"""All that one run of the benchmark measured; kept as JSON, so that the section can be written again."""

import math
import statistics
from collections.abc import Sequence

from pydantic import BaseModel

from benchmarks.model.shapes import SHAPES
from benchmarks.report import OnGpu
from benchmarks.training.case import Library, Measured

QUIET_SHARE = 0.5
"""Load average a core up to which a machine counts as quiet."""


class Shakespeare(BaseModel):
    """Runs of the preset, and the recipe that it is held to, on one text."""

    text: str
    is_tiny_shakespeare: bool
    ours: list[float]
    """Nats a character on the whole last tenth, a seed each."""
    reference: list[float]
    """nanoGPT's recipe in plain PyTorch, on the same tenth, a seed each."""
    parameters: int
    tokens: int
    """Trained on, in a run."""
    reference_parameters: int
    reference_tokens: int
    seconds: float
    """Time of the training steps of a run, mean."""
    reference_seconds: float
    curve: list[tuple[int, float]] = []
    """(step, mean training loss of the steps since the point before) of the first seed."""

    @property
    def ratio(self) -> float:
        """Our nats over the recipe's."""
        return statistics.fmean(self.ours) / statistics.fmean(self.reference)


class Outcome(BaseModel):
    """Runs of one recipe, a seed each, in the order of the seeds."""

    name: str
    steps: int
    """As many as the default's time buys."""
    step_seconds: float
    bits: list[float]
    """Held-out bits per byte."""


class Ablation(BaseModel):
    """The default run, and others in equal time."""

    model: str
    step_tokens: int
    seeds: int
    minutes: float
    """Time of the default's training."""
    default: Outcome
    changed: list[Outcome]

    def against_default(self, outcome: Outcome) -> tuple[float, float]:
        """(mean, half the 95 % interval) of the outcome's bits less the default's, seed by seed.

        With one seed the interval has no end.
        """
        differences = [one - other for one, other in zip(outcome.bits, self.default.bits, strict=True)]
        mean = statistics.fmean(differences)
        if len(differences) < 2:
            return mean, math.inf
        from scipy.special import stdtrit

        error = statistics.stdev(differences) / math.sqrt(len(differences))
        return mean, float(stdtrit(len(differences) - 1, 0.975)) * error


class Resumed(BaseModel):
    """A run that was killed and went on, beside one of the first layout that was not."""

    before: str
    after: str
    killed_at: int
    """Steps done when SIGKILL came."""
    resumed_from: int
    """Steps of the checkpoint that it went on from."""
    weights_identical: bool
    weights_apart: float
    """Largest difference of the last weights."""
    undisturbed: list[float]
    resumed: list[float]
    """Losses compared: those of the steps behind the checkpoint."""

    @property
    def same_layout(self) -> bool:
        return self.before == self.after

    def steps_of(self, losses: Sequence[float]) -> Sequence[float]:
        """Losses of a whole run at the steps compared."""
        return losses[self.resumed_from : self.resumed_from + len(self.resumed)]

    @property
    def expected(self) -> Sequence[float]:
        """The undisturbed run's losses at the steps compared."""
        return self.steps_of(self.undisturbed)

    @property
    def identical(self) -> int:
        """Number of the losses compared that are the same to the last bit."""
        return sum(one.hex() == other.hex() for one, other in zip(self.expected, self.resumed, strict=True))

    def loss_apart_within(self, steps: int) -> float:
        """Largest difference of the first losses compared, nats a token."""
        return largest_difference(self.expected[:steps], self.resumed[:steps])

    @property
    def loss_apart(self) -> float:
        """Largest difference of the losses compared, nats a token."""
        return self.loss_apart_within(len(self.resumed))


def largest_difference(losses: Sequence[float], others: Sequence[float]) -> float:
    """Largest difference of two runs' losses at the same steps."""
    return max(abs(one - other) for one, other in zip(losses, others, strict=True))


class TrainingOnGpu(OnGpu):
    """Whole steps of our training loop on an accelerator."""

    libraries: str
    measured: list[Measured] = []

    def best(self, shape: str) -> float:
        """FLOPs a second of the fastest case of a shape; NaN where none ran."""
        return max((reached(each) for each in self.measured if each.case.shape == shape), default=math.nan)


def reached(each: Measured) -> float:
    """FLOPs a second that its tokens cost, as benchmarks.model counts them."""
    return each.rate * SHAPES[each.case.shape].training_flops(each.case.sequence)


class CopyingRun(BaseModel):
    """A run's held-out loss at its looks, nats a token."""

    name: str
    steps: list[int] = []
    copies: list[float] = []
    """Targets that followed the same token earlier in their row."""
    others: list[float] = []

    @property
    def learned_at(self) -> int | None:
        """The first look at which copies are a nat below all else; None: at none."""
        pairs = zip(self.steps, self.copies, self.others, strict=True)
        return next((step for step, copies, others in pairs if copies <= others - 1), None)


class Conditions(BaseModel):
    """Machine, libraries and load that a section was measured with."""

    machine: str
    libraries: str
    cores: int
    load: float
    """Load average of the minute before."""

    @property
    def busy(self) -> bool:
        """Return whether others had more than a share of the processor."""
        return self.load > QUIET_SHARE * self.cores


class TrainingResults(BaseModel):
    """The sections, each as it was measured last."""

    conditions: dict[str, Conditions] = {}
    matmul: dict[str, float] = {}
    """FLOPs a second of the largest product, by precision, on all threads."""
    flops_per_token: float = 0.0
    measured: list[Measured] = []
    shakespeare: Shakespeare | None = None
    others: Ablation | None = None
    choices: Ablation | None = None
    """The default's whole run, and those without one of its choices each in as much time."""
    copying: list[CopyingRun] = []
    resumed: list[Resumed] = []
    accelerated: TrainingOnGpu | None = None

    def busy_at(self, section: str) -> bool:
        """Return whether others had more than a share of the processor when the section began to be measured."""
        return section in self.conditions and self.conditions[section].busy

    def of(
        self, library: Library, precision: str, *, compiled: bool, ranks: int = 1, saves: bool = False
    ) -> Measured | None:
        wanted = (library, precision, compiled, ranks, saves)
        for each in self.measured:
            case = each.case
            if (case.library, case.precision, case.compiled, case.ranks, case.save_every is not None) == wanted:
                return each
        return None
