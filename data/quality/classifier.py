"""A trainable quality classifier: logistic regression over hashed word 1- and 2-grams.

Like the fastText classifiers (arXiv 1607.01759) that selected DCLM's data (arXiv 2406.11794), and as fast: the score of
a document is the mean weight of its n-grams.
"""

import json
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from sluice.core.hashing import mix
from sluice.data.document import content_id
from sluice.data.quality.prose import Prose

_FORMAT = "sluice-quality-1"
_DIMENSIONS = 1 << 18
_HELD_OUT = 5
"""One in this many documents is held out."""
_MIN_DOCUMENTS = 20
_SCALE = 30.0
"""Factor of a document's n-gram shares, so that the default regularization suits them."""


class TrainingReport(BaseModel):
    """How well the classifier separates good from bad held-out documents."""

    trained_good: int
    trained_bad: int
    held_out_good: int
    held_out_bad: int
    held_out_auc: float
    """Probability that a good document scores higher than a bad one."""
    seed: int


@dataclass(frozen=True)
class Classifier:
    """Weights of the n-grams, [dimensions] float32, and the bias added to their mean."""

    weights: NDArray[np.float32]
    bias: float
    report: TrainingReport

    def score(self, prose: Prose) -> float:
        """Return the probability that the document is good; without words, the bias decides."""
        found = features(prose, len(self.weights))
        mean = float(self._weights64[found].mean()) if len(found) else 0.0
        margin = _SCALE * mean + self.bias
        # The logistic function; two forms, of which neither overflows.
        return 1 / (1 + math.exp(-margin)) if margin >= 0 else 1 - 1 / (1 + math.exp(margin))

    @cached_property
    def _weights64(self) -> NDArray[np.float64]:
        return self.weights.astype(np.float64)


def features(prose: Prose, dimensions: int) -> NDArray[np.int64]:
    """Hash all 1-grams and then all 2-grams of the words, [2 * words - 1], to numbers below `dimensions`."""
    distinct = np.fromiter(
        (zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in prose.vocabulary),
        np.uint64,
        len(prose.vocabulary),
    )
    words = mix(distinct)[prose.word_numbers]
    pairs = mix(words[:-1] * np.uint64(0x9E3779B97F4A7C15) + words[1:])
    return (np.concatenate((words, pairs)) % np.uint64(dimensions)).astype(np.int64)


def train(good: Iterable[str], bad: Iterable[str], out: Path, seed: int = 0) -> TrainingReport:
    """Train on four fifths of the documents, evaluate on the rest, and write the classifier to `out` as safetensors.

    The outcome does not depend on the order of the documents; equal ones count once. Raises ValueError if there are too
    few good or bad ones, or if a document is both.
    """
    from safetensors.numpy import save_file
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    by_id = [{content_id(text): text for text in texts} for texts in (good, bad)]
    for name, texts in zip(("good", "bad"), by_id, strict=True):
        if len(texts) < _MIN_DOCUMENTS:
            raise ValueError(
                f"{len(texts)} different {name} documents: the quality classifier needs at least {_MIN_DOCUMENTS}"
            )
    if both := sorted(by_id[0].keys() & by_id[1].keys()):
        raise ValueError(f"{len(both)} documents are both good and bad, the first of them {both[0]}: take them out")
    splits = []
    for texts in by_id:
        # Held-out and training documents, by a hash of content id and seed.
        order = sorted(texts, key=lambda identity: content_id(f"{seed} {identity}"))
        proses = [Prose.of(texts[identity]) for identity in order]
        held_out = len(proses) // _HELD_OUT
        splits.append((proses[:held_out], proses[held_out:]))
    (held_good, train_good), (held_bad, train_bad) = splits
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000, random_state=seed)
    model.fit(_matrix([*train_good, *train_bad]), [1] * len(train_good) + [0] * len(train_bad))
    margins = _matrix([*held_good, *held_bad]) @ model.coef_[0] + model.intercept_
    report = TrainingReport(
        trained_good=len(train_good),
        trained_bad=len(train_bad),
        held_out_good=len(held_good),
        held_out_bad=len(held_bad),
        held_out_auc=round(float(roc_auc_score([1] * len(held_good) + [0] * len(held_bad), margins)), 4),
        seed=seed,
    )
    bias = np.array([float(model.intercept_[0])], np.float64)
    # One entry only: safetensors writes several in an arbitrary order, and equal classifiers would differ in bytes.
    about = json.dumps({"format": _FORMAT, "report": report.model_dump()}, sort_keys=True)
    save_file({"weights": model.coef_[0].astype(np.float32), "bias": bias}, out, metadata={"quality": about})
    return report


def _matrix(proses: Sequence[Prose]):  # type: ignore[no-untyped-def]
    """Return the shares of the n-grams in each document, a CSR matrix [documents, dimensions]."""
    from scipy.sparse import csr_matrix

    rows = [features(prose, _DIMENSIONS) for prose in proses]
    lengths = np.array([len(row) for row in rows])
    shares = np.repeat(_SCALE / np.maximum(lengths, 1), lengths)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    matrix = csr_matrix((shares, np.concatenate(rows), starts), shape=(len(rows), _DIMENSIONS))
    matrix.sum_duplicates()
    return matrix


def load(path: Path) -> Classifier:
    """Load a classifier that `train` wrote. Raises ValueError if the file is missing, damaged or something else."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ValueError(f"quality_model {path} does not exist: train one with `sluice data classifier`")
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["quality"])
            weights, bias = file.get_tensor("weights"), file.get_tensor("bias")
            report = TrainingReport.model_validate(about["report"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"quality_model {path} is no quality classifier ({why}): train it anew") from error
    finite = np.isfinite(weights).all() and np.isfinite(bias).all()
    if about["format"] != _FORMAT or weights.ndim != 1 or not len(weights) or bias.shape != (1,) or not finite:
        raise ValueError(f"quality_model {path} is no quality classifier of format {_FORMAT}: train it anew")
    return Classifier(weights, float(bias[0]), report)
