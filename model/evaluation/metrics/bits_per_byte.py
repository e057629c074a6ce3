"""Bits per byte of held-out text, beside an n-gram model and xz, and not worse than the champion's."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sluice.core.clustered import interval
from sluice.model.config import EvaluateConfig
from sluice.model.evaluation.baselines import NgramModel, xz_bits_per_byte
from sluice.model.evaluation.item_checks import estimate_difference
from sluice.model.evaluation.metric import DIGITS, Measured, Metric, Subject, rounded, summarize
from sluice.model.evaluation.metric_policy import MetricPolicy, TailBound
from sluice.model.evaluation.results import Evaluation, Item

NAME = "bits_per_byte"
NGRAM_ORDER = 5
REFERENCE = f"ngram_order_{NGRAM_ORDER}"

POLICY = MetricPolicy(
    direction="lower",
    scale="mean",
    floor=3.0,
    margin=0.02,
    budget=0.04,
    tail=TailBound(beyond=0.2, share=0.10),
    beat_reference=True,
)


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
    by_source = {
        source: _summarize([item for item in items if item.metadata["source"] == source], config)
        for source in sorted({held_out.sources[name] for name, _ in scored})
    }
    baselines = measure_baselines(held_out.train, texts, items, config)
    return Measured(items, {"bits_per_byte_by_source": by_source, "baselines": baselines})


def measure_baselines(
    train: Sequence[str], texts: Sequence[str], items: Sequence[Item], config: EvaluateConfig
) -> dict[str, Any]:
    """Measure the n-gram model and xz -9 on `texts`; the former is paired with the model's `items`."""
    ngram = NgramModel.train(train, NGRAM_ORDER)
    theirs = [
        Item(NAME, item.item, round(ngram.bits(text), DIGITS), item.weight, item.cluster)
        for item, text in zip(items, texts, strict=True)
    ]
    ends: Sequence[float] = (np.nan, np.nan)
    if all(np.isfinite(item.value) for item in items):
        ends = interval(estimate_difference(items, theirs, POLICY)[0], (1 - config.confidence) / 2)
    return {
        REFERENCE: {
            "bits_per_byte": round(sum(i.value for i in theirs) / sum(i.weight for i in theirs), DIGITS),
            "model_minus_baseline": [rounded(end) for end in ends],
            "bits_by_item": {item.item: item.value for item in theirs},
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
        "ngram_bits_per_byte": baselines[REFERENCE]["bits_per_byte"],
        "xz_bits_per_byte": baselines["xz_9"]["bits_per_byte"],
        "bits_per_byte_by_source": {source: found["value"] for source, found in by_source.items()},
    }


def reference(evaluation: Evaluation) -> Mapping[str, float]:
    """Bits of every document under the byte n-gram model, by item."""
    found: Mapping[str, float] = evaluation.results.get("baselines", {}).get(REFERENCE, {}).get("bits_by_item", {})
    return found


def _summarize(items: Sequence[Item], config: EvaluateConfig) -> dict[str, Any]:
    return summarize(items, POLICY, config.confidence)


METRIC = Metric(
    name=NAME,
    title="Bits per byte",
    policy=POLICY,
    measure=measure,
    planned=lambda held_out, config: min(config.documents, len(held_out.test)),
    reference=reference,
    summarize=_summarize,
    report=report,
    headline=("bits_per_byte", "ngram_bits_per_byte"),
)
