"""Pretraining: token shards -> base model. Also `torchrun ... -m sluice.model.training.pretrain job.json`."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from sluice.core.manifest import file_hash
from sluice.core.progress import Progress, no_progress
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.config import PretrainConfig
from sluice.model.directory import model_hash
from sluice.model.parallelism.layout import LAYOUT_SETTINGS
from sluice.model.parallelism.rules import check
from sluice.model.training.batches.objectives import Objective, check_objective
from sluice.model.training.batches.sizes import Sizes
from sluice.model.training.checkpointing.export import tokenizer_with_reserved
from sluice.model.training.launch import launch
from sluice.model.training.telemetry.sources import BITS, NATS, bits_per_byte
from sluice.model.training.worker import Job

_PACKAGE = Path(__file__).resolve().parents[1]
_CODE = ("architecture", "parallelism", "training", "directory.py", "huggingface")
"""Code of the model package that decides the weights of a run."""


class PretrainReport(BaseModel):
    """Result of a run. All but `timings` is the same for the same inputs, settings and number of workers."""

    parameters: int
    parameters_without_embedding: int
    steps: int
    tokens: int
    """Tokens trained on."""
    final_loss: float
    """Nats a token in the last training step."""
    validation_loss: float
    """Nats a token after it, on text that was not trained on."""
    validation_bits_per_byte: float | None
    """None for an objective that does not predict the text."""
    validation_bits_per_byte_by_source: dict[str, float] = {}
    """By source, where there are several and for those with a target that was read; for objective causal."""
    validation_loss_by_source: dict[str, float] = {}
    """The same in nats a counted token, for objective masked."""
    fingerprint: str
    timings: dict[str, Any] = {}
    """Seconds by what they were spent on, and `speed`: rows of step, tokens_per_second, mfu and memory_bytes."""


def pretrain(  # noqa: PLR0917
    config: PretrainConfig,
    model: ModelConfig,
    packed: Path,
    tokenizer: Path,
    out: Path,
    checkpoints: Path,
    *,
    base: Path | None = None,
    context: int | None = None,
    any_layout: bool = False,
    progress: Progress = no_progress,
) -> PretrainReport:
    """Train a model on the packed tokens and write it to `out`, with training.jsonl, a row a step.

    `base` is a model directory of the shape `model` and the tokenizer `tokenizer` to begin at instead of random
    weights; what is written keeps everything that came with it. `context`: tokens of a training sequence, by default
    the model's.

    Resumes from the newest intact checkpoint of the same run below `checkpoints`, and ends with the same bits as an
    undisturbed run. With `any_layout` it also resumes from a checkpoint of another layout, equal but for rounding.
    Workers come from Ray Train, torchrun or this process: see `launch`.

    Raises ValueError for settings or inputs that cannot be trained with, TrainingFailed for a run that failed.
    """
    started, settings = time.time(), config.model_dump(mode="json")
    if config.decay_from is not None:
        # The model's lineage keeps the path as it was given: it does not depend on where the workspace lies.
        config = config.model_copy(update={"decay_from": str(Path(config.decay_from).resolve())})
    check(config, model, cuda=torch.cuda.is_available())
    if not (packed / "index.json").is_file():
        raise ValueError(f"{packed / 'index.json'} does not exist: run the pack step first")
    index = json.loads((packed / "index.json").read_text(encoding="utf-8"))
    check_objective(config, model, index.get("layout", "concatenated"))
    if (objective := Objective.of(config, index["vocab_size"], index["eos_id"])).reserved:
        tokenizer_with_reserved(tokenizer, objective)
    context = context or model.context
    base_hash = None if base is None else model_hash(base)
    fingerprint = run_fingerprint(config, model, packed, base_hash, context)
    job = Job(
        config=config,
        model=model,
        # Absolute: a worker may have another working directory.
        packed=packed.resolve(),
        tokenizer=tokenizer.resolve(),
        out=out.resolve(),
        state=checkpoints.resolve() / fingerprint,
        others=same_runs(checkpoints.resolve(), fingerprint) if any_layout else [],
        lineage={
            "pretrain": settings,
            "model": model.model_dump(mode="json"),
            "packed_sha256": file_hash(packed / "index.json"),
            "fingerprint": fingerprint,
            **({} if base_hash is None else {"base": base_hash}),
        },
        base=None if base is None else base.resolve(),
        context=context,
        started=started,
    )
    job.state.mkdir(parents=True, exist_ok=True)
    result = launch(job, progress, restarts=config.restarts)
    valid = index["splits"]["valid"]
    bits = None
    if config.objective == "causal":
        bits = bits_per_byte(result["validation_loss"], valid["tokens"], valid["bytes"])
    timings = {**result["timings"], "total_seconds": time.time() - started}
    return PretrainReport(
        parameters=result["parameters"],
        parameters_without_embedding=result["parameters_without_embedding"],
        steps=config.steps,
        tokens=Sizes(config, context).tokens_before(config.steps),
        final_loss=result["final_loss"],
        validation_loss=result["validation_loss"],
        validation_bits_per_byte=bits,
        **{name: result[name] for name in (BITS, NATS) if name in result},
        fingerprint=fingerprint,
        timings=timings,
    )


def run_fingerprint(
    config: PretrainConfig,
    model: ModelConfig,
    packed: Path,
    base_hash: str | None = None,
    context: int | None = None,
) -> str:
    """Hash of everything that decides a run's bits: settings, tokens and our own code, then after a dash the layout.

    A run whose first part differs never resumes from this one's checkpoints.
    """
    index = json.loads((packed / "index.json").read_text(encoding="utf-8"))
    shards = sorted(name for split in index["splits"].values() for name in split["shards"])
    # Where documents begin, and their sources: isolated documents and the losses by source depend on these.
    places = sorted(path.name for path in packed.glob("*.npy"))
    settings = config.model_dump(mode="json")
    layout = {name: settings.pop(name) for name in LAYOUT_SETTINGS}
    facts = {
        "config": settings,
        # Sizes that grow are multiples of what the workers take at once: another layout may read another text.
        "sizes": Sizes(config, context or model.context).stages,
        "base": base_hash,
        "model": model.model_dump(mode="json"),
        "packed": {name: file_hash(packed / name) for name in ("index.json", *shards, *places)},
        "code": {
            path.relative_to(_PACKAGE).as_posix(): file_hash(path)
            for name in _CODE
            for path in sorted((_PACKAGE / name).rglob("*.py") if (_PACKAGE / name).is_dir() else [_PACKAGE / name])
        },
    }
    return f"{_digest(facts)[:16]}-{_digest(layout)[:8]}"


def same_runs(checkpoints: Path, fingerprint: str) -> list[Path]:
    """Folders below `checkpoints` of the run of this fingerprint in other layouts."""
    run = fingerprint.partition("-")[0]
    return sorted(path for path in checkpoints.glob(f"{run}-*") if path.is_dir() and path.name != fingerprint)


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class PretrainRequest(BaseModel):
    """The arguments of `pretrain`, for a process that torchrun starts."""

    config: PretrainConfig
    model: TransformerConfig | ModelConfig
    packed: Path
    tokenizer: Path
    out: Path
    checkpoints: Path
    base: Path | None = None
    context: int | None = None
    any_layout: bool = False


def main() -> None:
    """`torchrun --nproc-per-node N -m sluice.model.training.pretrain request.json`, N being config.workers."""
    if len(sys.argv) != 2:
        sys.exit("usage: torchrun --nproc-per-node N -m sluice.model.training.pretrain request.json")
    request = PretrainRequest.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    arguments = {name: getattr(request, name) for name in PretrainRequest.model_fields}
    report = pretrain(**arguments, progress=lambda done, total, note: print(f"{done}/{total} {note}", file=sys.stderr))
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(report.model_dump_json() + "\n")


if __name__ == "__main__":
    main()
