"""Evaluation folders of models that do not exist, as sound as the gate asks for."""

import hashlib
from pathlib import Path

import numpy as np

from sluice.core.files import write_json
from sluice.core.manifest import file_hash
from sluice.model.evaluation.metrics.golden_pass_rate import GOLDEN_FILE
from sluice.model.evaluation.results import ITEMS_FILE, RESULTS_FILE, SCHEMA_VERSION, Item, item_lines

GOLDEN_PROMPTS = Path(__file__).parents[2] / "conf" / "golden.yaml"
TIMINGS = {"first_token_p95_ms": 20.0, "first_token_samples": 96.0}


def items(worse_by: float, seed: int) -> list[Item]:
    """Rows of a sound model whose documents need `worse_by` more bits a byte."""
    draw = np.random.default_rng(99)
    sizes = draw.integers(500, 8000, 160).astype(float)
    level = 2.0 + worse_by + draw.normal(0, 0.2, 160) + np.random.default_rng(seed).normal(0, 0.005, 160)
    right = draw.random(600) < 0.7
    return [
        *(
            Item("bits_per_byte", f"d{n}", level[n] * sizes[n], sizes[n], f"d{n}", {"source": "ab"[n % 2]})
            for n in range(160)
        ),
        *(Item("choice_accuracy", f"q{n}", float(right[n]), 1.0, f"d{n % 160}") for n in range(600)),
        *(Item("golden_pass_rate", f"g{n}", 1.0) for n in range(12)),
    ]


def write_evaluation(folder: Path, model: str, rows: list[Item], kappa_low: float | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = item_lines(rows)
    names = {"bits_per_byte", "choice_accuracy", "golden_pass_rate", *(row.metric for row in rows)}
    results = {
        "schema_version": SCHEMA_VERSION,
        "hashes": {
            "model": model,
            "evaluation_set": "set",
            "items": hashlib.sha256(lines).hexdigest(),
            "golden_prompts": file_hash(GOLDEN_PROMPTS),
        },
        "planned": {name: len([row for row in rows if row.metric == name]) for name in names},
        "metrics": {},
        "confidence": 0.95,
        "choices": 4,
        "baselines": {},
        "scorers": {"always": {"kappa_low": kappa_low}},
    }
    write_json(folder / GOLDEN_FILE, [])
    (folder / ITEMS_FILE).write_bytes(lines)
    write_json(folder / RESULTS_FILE, results)
