"""Everything the gate wants to know of one model, measured on held-out documents."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel
from tokenizers import Tokenizer

from sluice.core import intervals
from sluice.core.progress import Progress, no_progress
from sluice.data.config import PackConfig
from sluice.data.document import read_documents
from sluice.data.split import split_of
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import EvaluateConfig
from sluice.model.directory import load_model, model_hash
from sluice.model.evaluation import golden
from sluice.model.evaluation.baselines import NgramModel, xz_bits_per_byte
from sluice.model.evaluation.evidence import (
    BITS_PER_BYTE,
    CHOICE_ACCURACY,
    GOLDEN_RATE,
    ITEMS_FILE,
    METRICS,
    RESULTS_FILE,
    SCHEMA_VERSION,
    Item,
    canonical_json,
    finite_or_none,
    item_lines,
    load_evaluation,
)
from sluice.model.evaluation.latency import measure_latency
from sluice.model.evaluation.perplexity import cut, document_bits
from sluice.model.evaluation.report import REPORT_FILE, render
from sluice.model.evaluation.tasks import answer_items, build_items

__all__ = ["EvaluationReport", "evaluate", "held_out_texts", "load_evaluation", "training_texts"]

_GOLDEN_FILE = "golden.json"
_NGRAM_ORDER = 5
_DIGITS = 6  # of a bit: what lies beyond is noise of float32 sums


class EvaluationReport(BaseModel):
    """Aggregates of one evaluation; None where the model gave no number."""

    bits_per_byte: float | None
    bits_per_byte_low: float | None
    bits_per_byte_high: float | None
    documents: int
    choice_accuracy: float | None
    choice_accuracy_low: float | None
    choice_accuracy_high: float | None
    choice_chance: float
    choice_items: int
    golden_pass_rate: float | None
    golden_prompts: int
    ngram_bits_per_byte: float
    xz_bits_per_byte: float
    bits_per_byte_by_source: dict[str, float | None]
    timings: dict[str, float]


@dataclass(frozen=True)
class _HeldOut:
    """The corpus as the evaluation sees it, in the order of content ids."""

    test: list[tuple[str, str]]
    """(id, text), whole."""
    train: list[str]
    sources: dict[str, str]
    """Of the test documents, by id."""
    data_hash: str

    def scored(self, config: EvaluateConfig) -> list[tuple[str, str]]:
        """The documents of bits per byte, cut."""
        return [(name, cut(text, config.max_document_bytes)) for name, text in self.test[: config.documents]]


class _Clock:
    """Seconds by part, which go into the report and never into the artifact."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[f"{part}_s"] = time.perf_counter() - started


def evaluate(
    config: EvaluateConfig,
    model_dir: Path,
    documents: Path,
    split: PackConfig,
    out: Path,
    *,
    progress: Progress = no_progress,
) -> EvaluationReport:
    """Measure the model in `model_dir` on the test split of `documents`.

    Writes results.json, items.jsonl, golden.json and evaluation.html into `out`, the same bytes for the same inputs.
    ValueError for a damaged model and for a corpus without a test or a train document.
    """
    clock = _Clock()
    with clock("read"):
        corpus = _read(documents, split)
        model, tokenizer = load_model(model_dir)
    scored = corpus.scored(config)
    with clock("bits_per_byte"):
        bits = _bits_items(model, tokenizer, scored, progress)
    with clock("multiple_choice"):
        choices = _choice_items(config, model, tokenizer, corpus, progress)
    with clock("golden"):
        answers = golden.run_golden(model, tokenizer, golden.load_prompts(), config.golden_max_tokens, progress)
    by_source = _by_source(config, [corpus.sources[name] for name, _ in scored], bits)
    passed = [Item(GOLDEN_RATE, result.prompt.item_id, float(not result.failed)) for result in answers]
    with clock("baselines"):
        baselines = _baselines(config, corpus.train, scored, bits)
    with clock("latency"):
        texts = [text for _, text in corpus.test[: config.latency_prompts]]
        latency = measure_latency(
            model,
            tokenizer,
            texts,
            rounds=config.latency_rounds,
            max_tokens=config.latency_max_tokens,
            progress=progress,
        )
    items = {BITS_PER_BYTE: bits, CHOICE_ACCURACY: choices, GOLDEN_RATE: passed}
    hashes = {
        "model": model_hash(model_dir),
        "tokenizer": hashlib.sha256((model_dir / "tokenizer.json").read_bytes()).hexdigest(),
        "data": corpus.data_hash,
    }
    results = _write(config, out, hashes, items, by_source=by_source, baselines=baselines, answers=answers)
    return _report(results, latency | clock.seconds)


def _write(
    config: EvaluateConfig,
    out: Path,
    hashes: dict[str, str],
    items: dict[str, list[Item]],
    *,
    by_source: dict[str, Any],
    baselines: dict[str, Any],
    answers: Sequence[golden.GoldenResult],
) -> dict[str, Any]:
    """Write the artifact and return the content of results.json."""
    lines = item_lines([item for metric in METRICS for item in items[metric]])
    results = {
        "schema_version": SCHEMA_VERSION,
        "hashes": {
            **hashes,
            "evaluation_set": _set_hash(items),
            "items": hashlib.sha256(lines).hexdigest(),
        },
        "planned": {metric: len(rows) for metric, rows in items.items()},
        "choices": config.choices,
        "confidence": config.confidence,
        "metrics": _aggregate(config, items),
        "bits_per_byte_by_source": by_source,
        "baselines": baselines,
    }
    said = [
        {"id": a.prompt.id, "kind": a.prompt.kind, "prompt": a.prompt.prompt, "answer": a.text, "failed": a.failed}
        for a in answers
    ]
    (out / ITEMS_FILE).write_bytes(lines)
    _write_json(out / RESULTS_FILE, results)
    _write_json(out / _GOLDEN_FILE, said)
    (out / REPORT_FILE).write_text(render(results, said), encoding="utf-8")
    return results


def held_out_texts(documents: Path, split: PackConfig, config: EvaluateConfig) -> list[str]:
    """The very texts that bits per byte is measured on, cut as there."""
    return [text for _, text in _read(documents, split).scored(config)]


def training_texts(documents: Path, split: PackConfig) -> list[str]:
    """The texts that baselines may learn from: those the model learned from."""
    return _read(documents, split).train


def _read(documents: Path, split: PackConfig) -> _HeldOut:
    test, train, sources, digest = [], [], {}, hashlib.sha256()
    for document in sorted(read_documents(documents), key=lambda d: d.id):
        digest.update(f"{document.id}\n".encode())
        side = split_of(document.id, split)
        if side == "test" and document.text.strip():
            test.append((document.id, document.text))
            sources[document.id] = str(document.metadata.get("source", "unnamed"))
        elif side == "train":
            train.append(document.text)
    if not test or not train:
        raise ValueError(
            f"{documents}: {len(test)} test and {len(train)} train documents, evaluation needs both; "
            "add documents or raise pack.test_fraction"
        )
    return _HeldOut(test, train, sources, digest.hexdigest())


def _bits_items(
    model: Transformer, tokenizer: Tokenizer, scored: Sequence[tuple[str, str]], progress: Progress
) -> list[Item]:
    bits = document_bits(model, tokenizer, [text for _, text in scored], progress)
    return [
        Item(
            BITS_PER_BYTE,
            hashlib.sha256(text.encode()).hexdigest()[:32],
            round(value, _DIGITS) if np.isfinite(value) else value,
            float(len(text.encode())),
        )
        for (_, text), value in zip(scored, bits, strict=True)
    ]


def _choice_items(
    config: EvaluateConfig, model: Transformer, tokenizer: Tokenizer, corpus: _HeldOut, progress: Progress
) -> list[Item]:
    items = build_items(
        corpus.test,
        items=config.multiple_choice_items,
        choices=config.choices,
        max_passage_bytes=config.max_passage_bytes,
        seed=config.seed,
    )
    answers = answer_items(model, tokenizer, items, progress)
    return [Item(CHOICE_ACCURACY, item.id, answer) for item, answer in zip(items, answers, strict=True)]


def _baselines(
    config: EvaluateConfig, train: Sequence[str], scored: Sequence[tuple[str, str]], bits: Sequence[Item]
) -> dict[str, Any]:
    """Bits per byte of the n-gram model and of xz -9 on the same bytes; the former paired with the model."""
    texts = [text for _, text in scored]
    ngram = NgramModel.train(train, _NGRAM_ORDER)
    theirs, sizes = np.array([ngram.bits(text) for text in texts]), np.array([item.weight for item in bits])
    ours = np.array([item.value for item in bits])
    less = intervals.ratio_interval(ours - theirs, sizes, config.confidence, config.resamples, config.seed)
    return {
        f"ngram_order_{_NGRAM_ORDER}": {
            "bits_per_byte": round(float(theirs.sum() / sizes.sum()), _DIGITS),
            "model_minus_baseline": [_rounded(end) for end in less],
        },
        "xz_9": {"bits_per_byte": round(xz_bits_per_byte(texts), _DIGITS)},
    }


def _aggregate(config: EvaluateConfig, items: dict[str, list[Item]]) -> dict[str, dict[str, Any]]:
    bits, choices, passed = items[BITS_PER_BYTE], items[CHOICE_ACCURACY], items[GOLDEN_RATE]
    right = sum(i.value for i in choices)
    score = intervals.UNDEFINED
    if np.isfinite(right):
        score = intervals.wilson_interval(round(right), len(choices), config.confidence)
    accuracy = right / len(choices) if choices else float("nan")
    rate = sum(i.value for i in passed) / len(passed) if passed else float("nan")
    return {
        BITS_PER_BYTE: _bits_per_byte(config, bits),
        CHOICE_ACCURACY: _metric(accuracy, len(choices), score) | {"chance": 1 / config.choices},
        GOLDEN_RATE: _metric(rate, len(passed), None),
    }


def _by_source(config: EvaluateConfig, sources: Sequence[str], bits: Sequence[Item]) -> dict[str, dict[str, Any]]:
    """Bits per byte of each source's documents; together they are the whole's."""
    named = list(zip(sources, bits, strict=True))
    return {
        name: _bits_per_byte(config, [item for source, item in named if source == name])
        for name in sorted(set(sources))
    }


def _bits_per_byte(config: EvaluateConfig, bits: Sequence[Item]) -> dict[str, Any]:
    values, sizes = np.array([i.value for i in bits]), np.array([i.weight for i in bits])
    spread = intervals.ratio_interval(values, sizes, config.confidence, config.resamples, config.seed)
    return _metric(float(values.sum() / sizes.sum()), len(bits), spread)


def _metric(value: float, n: int, interval: intervals.Interval | None) -> dict[str, Any]:
    ends = [_rounded(end) for end in interval] if interval else None
    return {"value": _rounded(value), "n": n, "interval": ends}


def _rounded(value: float) -> float | None:
    return finite_or_none(round(value, _DIGITS) if np.isfinite(value) else value)


def _set_hash(items: dict[str, list[Item]]) -> str:
    asked = sorted([item.metric, item.item, item.weight] for rows in items.values() for item in rows)
    return hashlib.sha256(canonical_json(asked)).hexdigest()


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _report(results: dict[str, Any], timings: dict[str, float]) -> EvaluationReport:
    metrics, baselines = results["metrics"], results["baselines"]
    bits, choice, passed = (metrics[name] for name in METRICS)
    return EvaluationReport(
        bits_per_byte=bits["value"],
        bits_per_byte_low=bits["interval"][0],
        bits_per_byte_high=bits["interval"][1],
        documents=bits["n"],
        choice_accuracy=choice["value"],
        choice_accuracy_low=choice["interval"][0],
        choice_accuracy_high=choice["interval"][1],
        choice_chance=choice["chance"],
        choice_items=choice["n"],
        golden_pass_rate=passed["value"],
        golden_prompts=passed["n"],
        ngram_bits_per_byte=baselines[f"ngram_order_{_NGRAM_ORDER}"]["bits_per_byte"],
        xz_bits_per_byte=baselines["xz_9"]["bits_per_byte"],
        bits_per_byte_by_source={name: found["value"] for name, found in results["bits_per_byte_by_source"].items()},
        timings=timings,
    )
