"""Evaluations of a candidate and a champion whose true difference is known, in the shape of the default corpus.

Documents differ in size as the default corpus' do, and multiple-choice questions are spread over them as unevenly. The
difference of two models in bits per byte is drawn by document. Answers are drawn in pairs, right or wrong for each
model; a share of the questions of a document repeats the document's own pair, which makes the intra-cluster correlation
of every function of the pair, such as the difference, exactly `icc`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sluice.model.evaluation.results import Evaluation, Item

Floats = NDArray[np.float64]

SIZES_BYTES = (305, 460, 700, 1060, 1900, 3830, 6200, 8000, 8000, 8000, 8000)
"""Deciles of the scored documents of the default corpus, which are cut at 8,000 bytes."""
QUESTIONS = (0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5, 6, 6, 6, 6, 6, 7, 7, 7)
"""Quantiles of its questions by document: 300 over 72 of 79."""
SOURCES = (0.38, 0.09, 0.08, 0.08, 0.07, 0.06, 0.06, 0.04, 0.04, 0.04, 0.03, 0.03)
"""Shares of its documents by source."""
GOLDEN_PROMPTS = 12

NOISE: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda generator, n: generator.normal(size=n),
    "student": lambda generator, n: generator.standard_t(4, size=n) / math.sqrt(2),
    "exponential": lambda generator, n: generator.exponential(size=n) - 1,
    "lognormal": lambda generator, n: (generator.lognormal(0, 1, n) - math.exp(0.5)) / math.sqrt(math.e * (math.e - 1)),
    "gains": lambda generator, n: 1 - generator.exponential(size=n),
}
"""Differences by document of mean 0 and standard deviation 1, by their shape; skewed ones are losses, or gains."""


@dataclass(frozen=True)
class Shape:
    """Size of an evaluation and the true difference of two models."""

    documents: int = 81
    items: int = 300
    icc: float = 0.1
    bits_difference: float = 0.0
    """True difference in bits per byte, candidate less champion."""
    bits_sd: float = 0.05
    """Standard deviation of that difference between documents."""
    accuracy_difference: float = 0.0
    accuracy: float = 0.7
    """The champion's."""
    discordant: float = 0.1
    """Share of questions that one of two equal models answers rightly; a difference comes on top of it."""
    noise: str = "normal"
    is_first: bool = False
    """No champion; the candidate's difference in bits is then from the byte n-gram model."""

    @property
    def alone(self) -> tuple[float, float]:
        """Chances that the candidate alone, and the champion alone, answers rightly."""
        difference = self.accuracy_difference
        return self.discordant / 2 + max(difference, 0.0), self.discordant / 2 + max(-difference, 0.0)

    def __post_init__(self) -> None:
        ours, theirs = self.alone
        if self.documents < 1 or self.items < 1 or not 0 <= self.icc <= 1 or self.bits_sd < 0:
            raise ValueError("documents and items must be at least 1, icc between 0 and 1, and bits_sd not negative")
        if not (theirs <= self.accuracy <= 1 - ours and 0 <= self.discordant <= 1):
            raise ValueError(
                f"accuracy {self.accuracy:g} with a difference of {self.accuracy_difference:g} and {self.discordant:g} "
                f"discordant items is impossible: accuracy must lie between {theirs:g} and {1 - ours:g}"
            )


def simulate(shape: Shape, draws: int, seed: int) -> Iterator[tuple[Evaluation, Evaluation | None]]:
    """Draw candidate and champion, `draws` times."""
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        yield _draw(shape, generator)


def _draw(shape: Shape, generator: np.random.Generator) -> tuple[Evaluation, Evaluation | None]:
    documents = [f"d{number}" for number in range(shape.documents)]
    sizes = np.round(np.interp(generator.random(shape.documents), np.linspace(0, 1, len(SIZES_BYTES)), SIZES_BYTES))
    level = 1.5 + 0.2 * generator.normal(size=shape.documents)
    difference = shape.bits_difference + shape.bits_sd * NOISE[shape.noise](generator, shape.documents)
    about = [
        {"source": f"source{each}"} for each in generator.choice(len(SOURCES), shape.documents, p=_shares(SOURCES))
    ]
    theirs_bits, ours_bits = level * sizes, (level + difference) * sizes

    def bits(values: Floats) -> list[Item]:
        rows = zip(documents, values.tolist(), sizes.tolist(), about, strict=True)
        return [Item("bits_per_byte", name, value, size, name, source) for name, value, size, source in rows]

    units = _documents_of_questions(shape)
    pairs = _pairs(shape, units, generator)

    def choices(right: NDArray[np.bool_]) -> list[Item]:
        rows = enumerate(zip(right.tolist(), units.tolist(), strict=True))
        return [Item("choice_accuracy", f"q{at}", float(is_right), 1.0, documents[of]) for at, (is_right, of) in rows]

    ngram = dict(zip(documents, theirs_bits.tolist(), strict=True))
    candidate = _evaluation("candidate", bits(ours_bits), choices(pairs % 2 == 1), ngram)
    if shape.is_first:
        return candidate, None
    return candidate, _evaluation("champion", bits(theirs_bits), choices(pairs >= 2), ngram)


def _evaluation(model: str, bits: list[Item], choices: list[Item], ngram: dict[str, float]) -> Evaluation:
    golden = [Item("golden_pass_rate", f"g{number}", 1.0) for number in range(GOLDEN_PROMPTS)]
    rows = {"bits_per_byte": tuple(bits), "choice_accuracy": tuple(choices), "golden_pass_rate": tuple(golden)}
    results = {
        "hashes": {"model": model},
        "planned": {name: len(items) for name, items in rows.items()},
        "choices": 4,
        "baselines": {"ngram_order_5": {"bits_by_item": ngram}},
    }
    return Evaluation(results, rows, {"first_token_p95_ms": 5.0, "first_token_samples": 64.0})


def _documents_of_questions(shape: Shape) -> NDArray[np.int64]:
    """Number of each question's document: `items` in all, in the proportions of the default corpus."""
    profile = np.interp(np.linspace(0, 1, shape.documents), np.linspace(0, 1, len(QUESTIONS)), QUESTIONS)
    ends = np.round(np.cumsum(profile) / profile.sum() * shape.items).astype(int) if profile.sum() else [shape.items]
    return np.repeat(np.arange(shape.documents), np.diff(ends, prepend=0))


def _pairs(shape: Shape, units: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Outcome of each question: 0 both wrong, 1 the candidate alone right, 2 the champion alone, 3 both right."""
    ours, theirs = shape.alone
    both = shape.accuracy - theirs
    chances = np.clip([1 - both - ours - theirs, ours, theirs, both], 0, 1)
    of_document = generator.choice(4, size=shape.documents, p=_shares(chances))[units]
    own = generator.choice(4, size=len(units), p=_shares(chances))
    # Two questions of a document are alike where both repeat its pair: with probability icc.
    return np.where(generator.random(len(units)) < math.sqrt(shape.icc), of_document, own)


def _shares(values: "Floats | tuple[float, ...]") -> Floats:
    found = np.asarray(values, dtype=np.float64)
    return found / found.sum()
