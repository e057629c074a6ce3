"""Bits per byte of held-out text, beside an n-gram model and xz, and not worse than the champion's."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from sluice.core.check import Check, compare_interval
from sluice.core.intervals import ratio_interval
from sluice.model.config import EvaluateConfig, GateSettings
from sluice.model.evaluation.baselines import NgramModel, xz_bits_per_byte
from sluice.model.evaluation.item_checks import columns, not_paired, unusable
from sluice.model.evaluation.metric import DIGITS, Measured, Metric, Subject, bootstrap, rounded
from sluice.model.evaluation.results import Evaluation, Item

NAME = "bits_per_byte"
DIFFERENCE = "bits_per_byte_difference"
NGRAM_ORDER = 5


class Bounds(GateSettings):
    max_bits_per_byte: float = Field(3.0, gt=0)
    """The upper end of the candidate's interval must lie below this, champion or not."""
    max_bits_per_byte_increase: float = Field(0.02, ge=0)
    """Non-inferiority margin: the upper end of the paired difference must lie below it."""


def measure(subject: Subject) -> Measured:
    """Measure every scored document, and the baselines on the same bytes."""
    from sluice.model.evaluation.perplexity import document_bits

    config, held_out = subject.config, subject.held_out
    scored = held_out.scored(config)
    texts = [text for _, text in scored]
    items = [
        Item(
            NAME,
            hashlib.sha256(text.encode()).hexdigest()[:32],
            round(value, DIGITS) if np.isfinite(value) else value,
            float(len(text.encode())),
            cluster=name,
            metadata={"source": held_out.sources[name]},
        )
        for (name, text), value in zip(
            scored, document_bits(subject.model, subject.encoder, texts, subject.progress), strict=True
        )
    ]
    sources = [held_out.sources[name] for name, _ in scored]
    by_source = {
        source: bootstrap([item for of, item in zip(sources, items, strict=True) if of == source], config)
        for source in sorted(set(sources))
    }
    baselines = measure_baselines(held_out.train, texts, items, config)
    return Measured(items, {"bits_per_byte_by_source": by_source, "baselines": baselines})


def measure_baselines(
    train: Sequence[str], texts: Sequence[str], items: Sequence[Item], config: EvaluateConfig
) -> dict[str, Any]:
    """Measure the n-gram model and xz -9 on `texts`; the former is paired with the model's `items`."""
    ngram = NgramModel.train(train, NGRAM_ORDER)
    theirs, sizes = np.array([ngram.bits(text) for text in texts]), np.array([item.weight for item in items])
    ours = np.array([item.value for item in items])
    difference = ratio_interval(ours - theirs, sizes, config.confidence, config.resamples, config.seed)
    return {
        f"ngram_order_{NGRAM_ORDER}": {
            "bits_per_byte": round(float(theirs.sum() / sizes.sum()), DIGITS),
            "model_minus_baseline": [rounded(end) for end in difference],
        },
        "xz_9": {"bits_per_byte": round(xz_bits_per_byte(texts), DIGITS)},
    }


def report(results: Mapping[str, Any]) -> dict[str, Any]:
    bits, baselines = results["metrics"][NAME], results["baselines"]
    by_source = results["bits_per_byte_by_source"]
    return {
        "bits_per_byte": bits["value"],
        "bits_per_byte_low": bits["interval"][0],
        "bits_per_byte_high": bits["interval"][1],
        "documents": bits["n"],
        "ngram_bits_per_byte": baselines[f"ngram_order_{NGRAM_ORDER}"]["bits_per_byte"],
        "xz_bits_per_byte": baselines["xz_9"]["bits_per_byte"],
        "bits_per_byte_by_source": {source: found["value"] for source, found in by_source.items()},
    }


def check(evaluation: Evaluation, bounds: Bounds, confidence: float) -> Check:
    bound = bounds.max_bits_per_byte
    if fault := unusable(NAME, evaluation, NAME, bound, min_samples=bounds.min_samples):
        return fault
    bits, sizes = columns(evaluation.items[NAME])
    interval = ratio_interval(bits, sizes, confidence, bounds.resamples, bounds.seed)
    return compare_interval(NAME, float(bits.sum() / sizes.sum()), interval, bound, good="below", n=len(bits))


def compare(candidate: Evaluation, champion: Evaluation, bounds: Bounds, confidence: float) -> Check:
    """Non-inferiority: the upper end of the paired difference stays below the margin."""
    bound = bounds.max_bits_per_byte_increase
    if fault := not_paired(DIFFERENCE, candidate, champion, NAME, bound, min_samples=bounds.min_samples):
        return fault
    bits, sizes = columns(candidate.items[NAME])
    baseline, _ = columns(champion.items[NAME])
    interval = ratio_interval(bits - baseline, sizes, confidence, bounds.resamples, bounds.seed)
    ours, theirs = float(bits.sum() / sizes.sum()), float(baseline.sum() / sizes.sum())
    return compare_interval(
        DIFFERENCE,
        float((bits - baseline).sum() / sizes.sum()),
        interval,
        bound,
        good="below",
        n=len(bits),
        paired=(ours, theirs),
        show="{:+.3f}".format,
        note=f" ({ours:.3f} against {theirs:.3f})",
    )


METRIC = Metric(
    name=NAME,
    title="Bits per byte",
    bounds=Bounds,
    measure=measure,
    summarize=bootstrap,
    report=report,
    headline=("bits_per_byte", "ngram_bits_per_byte"),
    check=check,
    intervals=1,
    compare=compare,
    paired_intervals=1,
)
