"""`sluice train`: training alone, from packed tokens or a plain text file, to a model directory and its evidence."""

import argparse
import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.stage import write_json
from components.workspace import Workspace
from data.cores import available_cores
from pipelines.head import prepare_own_ray
from pipelines.terminal import View, open_view
from pipelines.training import Request, lay_out, open_tokens, read_request, restore_request

if TYPE_CHECKING:
    from data.progress import Progress
    from model.training.batches.text import Packed
    from model.training.pretrain import PretrainReport

SETTINGS, REPORT, LOSSES, SAMPLE = "train.json", "report.json", "loss.svg", "sample.txt"
MODEL, CHECKPOINTS = "model", "checkpoints"
_EXPERIMENT = "training"
_SAMPLE_PROMPT, _SAMPLE_TOKENS = 16, 200


def run(arguments: argparse.Namespace) -> int:
    workspace = Workspace.find()
    prepare_own_ray()
    from model.training.faults.failures import TrainingInterrupted

    out, request, packed = _open(workspace, arguments)
    started = time.perf_counter()
    try:
        found = _train(
            request,
            packed,
            out,
            _mlflow(workspace, arguments),
            any_layout=arguments.resume is not None,
            quiet=arguments.json,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"checkpoints are kept; `sluice train --resume {out}` goes on from there") from None
    except TrainingInterrupted as interrupted:
        raise KeyboardInterrupt(f"{interrupted}; `sluice train --resume {out}` goes on from there") from None
    found["seconds"] = round(time.perf_counter() - started, 3)
    (out / REPORT).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps(found))
    else:
        _print(found)
    return 0


def _open(workspace: Workspace, arguments: argparse.Namespace) -> tuple[Path, Request, "Packed"]:
    """The run's folder, settings and tokens: of a new run, or of the one to go on with."""
    from model.checkpoint import read_json
    from model.training.batches.text import Packed

    if arguments.resume is not None:
        if arguments.out is not None:
            raise ValueError("--resume goes on in the folder that it names: leave out --out")
        out = Path(arguments.resume)
        if not (out / SETTINGS).is_file():
            raise ValueError(
                f"--resume {out}: there is no {SETTINGS} in it; name a folder that sluice train --out made"
            )
        settings = read_json(out / SETTINGS)
        request = lay_out(restore_request(settings), arguments.overrides)
        packed = Packed(Path(settings["tokens"]), Path(settings["tokenizer_folder"]))
        _check_goes_on(out, request, packed)
        _write_settings(out, request, packed)
        return out, request, packed
    if arguments.out is None:
        raise ValueError("name a folder to write: --out DIR; or one to go on with: --resume DIR")
    out, request = Path(arguments.out), read_request(workspace, arguments.overrides)
    _check_same(out, request)
    packed = open_tokens(workspace, request, out)
    out.mkdir(parents=True, exist_ok=True)
    _write_settings(out, request, packed)
    return out, request, packed


def _write_settings(out: Path, request: Request, packed: "Packed") -> None:
    folders = {"tokens": str(packed.tokens.resolve()), "tokenizer_folder": str(packed.tokenizer.resolve())}
    # The run's only description: replaced whole or not at all.
    write_json(out / SETTINGS, {**request.settings(), **folders})


def _check_goes_on(out: Path, request: Request, packed: "Packed") -> None:
    """Checkpoints of other code or tokens are passed over in training, which would then begin anew without a word."""
    import torch

    from model.training.parallelism.rules import check
    from model.training.pretrain import run_fingerprint, same_runs

    # Before the fingerprint, which takes a layout that can be.
    check(request.pretrain, request.model, cuda=torch.cuda.is_available())
    folder = out / CHECKPOINTS
    fingerprint = run_fingerprint(request.pretrain, request.model, packed.tokens)
    if any(folder.glob("*/")) and not (folder / fingerprint).is_dir() and not same_runs(folder, fingerprint):
        raise ValueError(
            f"--resume {out}: its checkpoints were made by another version of this program, on other tokens, or with "
            "batches that this layout cannot cut: go back to those, or train anew into another folder"
        )


def _check_same(out: Path, request: Request) -> None:
    """A folder holds one run: another would leave files of both."""
    from model.checkpoint import read_json

    path = out / SETTINGS
    if path.is_file() and restore_request(read_json(path)) != request:
        raise ValueError(
            f"--out {out} holds a run of other settings: name another folder, or go on with --resume {out}"
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: name a folder")


def _train(
    request: Request, packed: "Packed", out: Path, mlflow: dict[str, str] | None, *, any_layout: bool, quiet: bool
) -> dict[str, Any]:
    from model.training.pretrain import pretrain
    from model.training.telemetry.curves import draw_losses
    from model.training.telemetry.tracking import tracked

    with ExitStack() as stack:
        run = None
        if mlflow is not None:
            run = stack.enter_context(
                tracked(experiment=_EXPERIMENT, name=out.resolve().name, settings=request.settings(), **mlflow)
            )
        progress = _silent if quiet else stack.enter_context(_Bar())
        report = pretrain(
            request.pretrain,
            request.model,
            packed.tokens,
            packed.tokenizer,
            out / MODEL,
            out / CHECKPOINTS,
            any_layout=any_layout,
            progress=progress,
        )
        log = read_rows(out / MODEL / "training.jsonl")
        draw_losses({out.name: log}, out / LOSSES)
        found = _summary(request, report, out)
        (out / SAMPLE).write_text(found["sample"], encoding="utf-8")
        if run is not None:
            run.log(log)
            run.log(report.timings.get("speed", []), "speed/")
            run.finish({**found, "timings": None}, [out / LOSSES, out / SETTINGS, out / SAMPLE])
    return found


def _summary(request: Request, report: "PretrainReport", out: Path) -> dict[str, Any]:
    from model.training.telemetry.metrics import matmul_peak, training_flops_per_token

    model, sample = _sample(out)
    config, rate = request.pretrain, report.timings["tokens_per_second"]
    peak = matmul_peak(config.dtype, available_cores(), config.workers)
    return {
        "train_loss": report.final_loss,
        "validation_loss": report.validation_loss,
        "bits_per_byte": report.validation_bits_per_byte,
        "bits_per_byte_by_source": report.validation_bits_per_byte_by_source,
        "validation_loss_by_source": report.validation_loss_by_source,
        "steps": report.steps,
        "tokens": report.tokens,
        "parameters": report.parameters,
        "tokens_per_second": rate,
        "mfu": rate * training_flops_per_token(model) / peak,
        "matmul_peak_flops_per_second": peak,
        "timings": report.timings,
        "sample": sample,
        "out": str(out),
    }


def _sample(out: Path) -> tuple[Any, str]:
    """The saved model's shape, and how it goes on with the beginning of the held-out text."""
    from data.packing import PackedTokens
    from model.architecture.generation import generate
    from model.checkpoint import load_model

    model, tokenizer = load_model(out / MODEL)
    settings = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
    held = PackedTokens(Path(settings["tokens"]), "valid").sequence
    if model.config.kind != "decoder":
        return model.config, ""
    prompt = [int(each) for each in held.read(0, min(_SAMPLE_PROMPT, model.config.context // 2, len(held)))]
    # A prompt and what follows fit into the context.
    room = min(_SAMPLE_TOKENS, model.config.context - len(prompt))
    return model.config, tokenizer.decode(prompt + generate(model, prompt, room, temperature=0.8, seed=0))


def _mlflow(workspace: Workspace, arguments: argparse.Namespace) -> dict[str, str] | None:
    """Where MLflow keeps the run, as `tracked` takes it; None: nowhere."""
    if arguments.mlflow is None:
        return None
    if arguments.mlflow:
        return {"uri": str(arguments.mlflow)}
    workspace.state.mkdir(parents=True, exist_ok=True)
    return {"uri": workspace.database_url, "artifacts": workspace.registry_artifacts}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A JSON object a line; nothing where there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class _Bar:
    """Progress with the time left, as a context."""

    _STEP = "train"

    def __enter__(self) -> "Progress":
        self._view: View = open_view((self._STEP,))
        self._view.show({"step": self._STEP, "kind": "start", "time": time.time()})
        return self._show

    def _show(self, done: int, total: int, note: str) -> None:
        event = {
            "step": self._STEP,
            "kind": "progress",
            "time": time.time(),
            "done": done,
            "total": total,
            "note": note,
        }
        self._view.show(event)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._view.show({"step": self._STEP, "kind": "failed" if kind else "done", "time": time.time()})
        self._view.close()


def _silent(done: int, total: int, note: str) -> None:
    """With --json, standard output is for the result alone."""


def _bits(bits: float | None) -> str:
    return "" if bits is None else f"{bits:.4f} bits a byte, "


def _print_sources(values: dict[str, float], unit: str) -> None:
    """A line a source, the worst first."""
    width = max(map(len, values), default=0)
    for name, value in sorted(values.items(), key=lambda each: (-each[1], each[0])):
        print(f"  {name:<{width}}  {value:.4f} {unit}")


def _print(found: dict[str, Any]) -> None:
    print(
        f"train {found['train_loss']:.4f}, held out {found['validation_loss']:.4f} nats a token, "
        f"{_bits(found['bits_per_byte'])}{found['parameters']:,} parameters, {found['tokens']:,} tokens"
    )
    _print_sources(found["bits_per_byte_by_source"], "bits a byte")
    _print_sources(found["validation_loss_by_source"], "nats a token")
    print(
        f"{found['seconds']:.1f} s, {found['tokens_per_second']:,.0f} tokens/s, {found['mfu']:.1%} of this machine's "
        f"matrix products ({found['matmul_peak_flops_per_second'] / 1e9:,.0f} GFLOP/s)"
    )
    print(f"model in {found['out']}/{MODEL}, losses in {found['out']}/{LOSSES}")
    sys.stdout.flush()
