"""The evaluate step: measure every metric of a model on held-out documents, and write the artifact."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sluice.core.canonical import canonical_json
from sluice.core.progress import Progress, no_progress
from sluice.data.config import PackConfig
from sluice.model.config import EvaluateConfig
from sluice.model.directory import load_model, model_hash
from sluice.model.evaluation.held_out import read_held_out
from sluice.model.evaluation.metric import Measured, Subject
from sluice.model.evaluation.metrics import METRICS
from sluice.model.evaluation.metrics.golden_pass_rate import ANSWERS_FILE
from sluice.model.evaluation.report import REPORT_FILE, render
from sluice.model.evaluation.results import ITEMS_FILE, RESULTS_FILE, SCHEMA_VERSION, item_lines
from sluice.model.text.prompt import load_prompt_encoder


class EvaluationReport(BaseModel):
    """Figures of one evaluation by the names that the metrics give them; None where the model gave no number."""

    model_config = ConfigDict(extra="allow")

    timings: dict[str, float]
    remember: Callable[[], object] = Field(default=lambda: None, exclude=True)
    """Attests the measurements, once the artifact and its metrics are in their final place."""


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

    Writes results.json, items.jsonl, the metrics' own files and evaluation.html into `out`, the same bytes for the same
    inputs. ValueError for a damaged model and for a corpus without a test or a train document.
    """
    started = time.perf_counter()
    held_out = read_held_out(documents, split)
    model, tokenizer = load_model(model_dir)
    encoder = load_prompt_encoder(model_dir, tokenizer, model.config.vocab_size)
    subject = Subject(model, encoder, held_out, config, progress)
    timings = {"read_s": time.perf_counter() - started}

    measured: dict[str, Measured] = {}
    for metric in METRICS:
        started = time.perf_counter()
        measured[metric.name] = metric.measure(subject)
        timings |= {f"{metric.name}_s": time.perf_counter() - started, **measured[metric.name].timings}

    hashes = {
        "model": model_hash(model_dir),
        "tokenizer": hashlib.sha256((model_dir / "tokenizer.json").read_bytes()).hexdigest(),
        "data": held_out.data_hash,
    }
    results = write_artifact(config, out, hashes, measured)
    figures: dict[str, Any] = {}
    for metric in METRICS:
        figures |= metric.report(results)
    return EvaluationReport(timings=timings, **figures)


def write_artifact(
    config: EvaluateConfig, out: Path, hashes: dict[str, str], measured: dict[str, Measured]
) -> dict[str, Any]:
    """Write the artifact and return the content of results.json."""
    summarized = {
        metric.name: (measured[metric.name].items, metric.summarize) for metric in METRICS if metric.summarize
    }
    items = [item for rows, _ in summarized.values() for item in rows]
    lines = item_lines(items)
    evaluation_set = sorted([item.metric, item.item, item.weight] for item in items)
    results = {
        "schema_version": SCHEMA_VERSION,
        "hashes": {
            **hashes,
            "evaluation_set": hashlib.sha256(canonical_json(evaluation_set)).hexdigest(),
            "items": hashlib.sha256(lines).hexdigest(),
        },
        "planned": {name: len(rows) for name, (rows, _) in summarized.items()},
        "confidence": config.confidence,
        "metrics": {name: summarize(rows, config) for name, (rows, summarize) in summarized.items()},
    }
    files: dict[str, Any] = {}
    for found in measured.values():
        results |= found.results
        files |= found.files
    (out / ITEMS_FILE).write_bytes(lines)
    for name, content in {RESULTS_FILE: results, **files}.items():
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (out / name).write_text(text + "\n", encoding="utf-8")
    (out / REPORT_FILE).write_text(render(results, files[ANSWERS_FILE]), encoding="utf-8")
    return results
