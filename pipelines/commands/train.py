"""`sluice train`: train on packed tokens or a plain text file, into a model directory with its report."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sluice.components.ray_head import prepare_own_ray
from sluice.components.workspace import Workspace
from sluice.core.cpus import available_cores
from sluice.core.failure import StepFailed
from sluice.core.files import write_json
from sluice.pipelines.options import TRAINING_OVERRIDES, add_json, add_overrides
from sluice.pipelines.progress_view import Followed
from sluice.pipelines.terminal import NoteView, open_view
from sluice.pipelines.train_request import Request, restore_request
from sluice.pipelines.train_run import (
    CHECKPOINTS,
    DESCRIPTION,
    EVENTS,
    LOSSES,
    MODEL,
    REPORT,
    SAMPLE,
    check_holds,
    describe_run,
    extend,
    finished,
    how_to_go_on,
    note_base,
    open_run,
    remove_if_empty,
    request_of,
    run_folder,
    run_of,
)

if TYPE_CHECKING:
    from sluice.model.training.batches.text import Packed
    from sluice.model.training.pretrain import PretrainReport

_STEP = "train"
_EXPERIMENT = "training"
_SAMPLE_PROMPT, _SAMPLE_TOKENS = 16, 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(parser, TRAINING_OVERRIDES)
    parser.add_argument("--out", metavar="DIR", help="folder of the run: model, checkpoints, report, plotted losses")
    parser.add_argument("--resume", metavar="DIR", help="continue the run of this folder from its last checkpoint")
    parser.add_argument(
        "--mlflow",
        nargs="?",
        const="",
        metavar="URI",
        help="log the run and the machine to MLflow (default: the workspace's)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from sluice.model.training.errors import TrainingFailed

    try:
        _run(Workspace.find_or_default(), arguments)
    except TrainingFailed as failed:
        raise StepFailed(str(failed)) from failed
    return 0


def _run(workspace: Workspace, arguments: argparse.Namespace) -> None:
    prepare_own_ray()
    from sluice.model.directory import read_json
    from sluice.model.training.checkpointing.lock import locked
    from sluice.model.training.errors import TrainingInterrupted

    if arguments.mlflow and "=" in arguments.mlflow and ":" not in arguments.mlflow.partition("=")[0]:
        # `--mlflow key=value`: a setting behind an option whose own value was left out.
        arguments.mlflow, arguments.overrides = "", [arguments.mlflow, *arguments.overrides]
    # Where MLflow keeps the run, as `tracked` takes it; None: nowhere.
    mlflow = None if arguments.mlflow is None else {"uri": str(arguments.mlflow)}
    if arguments.mlflow == "":
        if workspace.is_default:
            raise ValueError("--mlflow needs the URI of a store here, where no workspace has one of its own")
        workspace.state.mkdir(parents=True, exist_ok=True)
        mlflow = {"uri": workspace.database_url, "artifacts": workspace.registry_artifacts}
    out = run_folder(arguments)
    request = request_of(workspace, arguments, out)
    before = None if arguments.resume is None else restore_request(read_json(out / DESCRIPTION))
    existed = out.exists()
    with locked(out), _nothing_left(out, existed=existed):
        packed = open_run(workspace, request, out, goes_on=before is not None)
        run = run_of(request, packed)
        if before is not None and before.pretrain.steps != request.pretrain.steps:
            extend(out, before, request, packed)
        check_holds(out, run, "--out" if arguments.resume is None else "--resume")
        found = finished(out, run)
        if found is not None:
            note = f"nothing to do: {out} has all {request.pretrain.steps} steps; use another folder to train again"
            if arguments.mlflow is not None:
                note += ", and MLflow records only new training"
            print(note, file=sys.stderr if arguments.json else sys.stdout)
        else:
            describe_run(out, request, packed)
            if (about := note_base(request)) is not None:
                print(about, file=sys.stderr)
            # Of an earlier run, whose model this one replaces.
            (out / REPORT).unlink(missing_ok=True)
            try:
                found = _train(request, packed, out, mlflow, arguments)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(how_to_go_on(out, run)) from None
            except TrainingInterrupted as interrupted:
                again = shlex.join(["sluice", "train", "--resume", str(out)])
                raise KeyboardInterrupt(f"{interrupted}; `{again}` resumes from there") from None
            write_json(out / REPORT, found)
    if arguments.json:
        print(json.dumps(found))
    else:
        _print(found)


@contextmanager
def _nothing_left(out: Path, *, existed: bool) -> Iterator[None]:
    """Remove the folder, whose lock is held, if it is new and what is inside fails before anything is written there."""
    try:
        yield
    except BaseException:
        if not existed:
            remove_if_empty(out)
        raise


def _train(
    request: Request, packed: "Packed", out: Path, mlflow: dict[str, str] | None, arguments: argparse.Namespace
) -> dict[str, Any]:
    started = time.perf_counter()
    from sluice.model.training.pretrain import pretrain
    from sluice.model.training.telemetry.curves import draw_losses
    from sluice.model.training.telemetry.tracking import tracked

    with ExitStack() as stack:
        run = None
        if mlflow is not None:
            run = stack.enter_context(
                tracked(experiment=_EXPERIMENT, name=out.resolve().name, settings=request.settings(), **mlflow)
            )
        view = NoteView() if arguments.json else open_view((_STEP,))
        # In the folder of the run, which all its workers share.
        progress = stack.enter_context(Followed(_STEP, (out / EVENTS).resolve(), view))
        report = pretrain(
            request.pretrain,
            request.model,
            packed.tokens,
            packed.tokenizer,
            out / MODEL,
            out / CHECKPOINTS,
            base=None if request.base.path is None else Path(request.base.path),
            context=request.context,
            any_layout=arguments.resume is not None,
            progress=progress,
        )
        log = read_rows(out / MODEL / "training.jsonl")
        draw_losses({out.name: log}, out / LOSSES)
        found = _summary(request, report, out) | {"seconds": round(time.perf_counter() - started, 3)}
        (out / SAMPLE).write_text(found["sample"], encoding="utf-8")
        if run is not None:
            run.log(log)
            run.log(report.timings.get("speed", []), "speed/")
            run.finish({**found, "timings": None}, [out / LOSSES, out / DESCRIPTION, out / SAMPLE])
    return found


def _summary(request: Request, report: "PretrainReport", out: Path) -> dict[str, Any]:
    from sluice.data.packing import PackedTokens
    from sluice.model.architecture.generation import GenerationOptions, generate
    from sluice.model.directory import load_model
    from sluice.model.training.telemetry.metrics import matmul_peak, training_flops_per_token

    model, tokenizer = load_model(out / MODEL)
    sample, shape = "", model.config
    if shape.kind == "decoder":
        # The continuation of the beginning of the held-out text; prompt and continuation fit into the context.
        settings = json.loads((out / DESCRIPTION).read_text(encoding="utf-8"))
        held = PackedTokens(Path(settings["tokens"]), "valid").sequence
        prompt = [int(each) for each in held.read(0, min(_SAMPLE_PROMPT, shape.context // 2, len(held)))]
        new_tokens = min(_SAMPLE_TOKENS, shape.context - len(prompt))
        sample = tokenizer.decode(
            prompt + generate(model, prompt, new_tokens, GenerationOptions(temperature=0.8, seed=0))
        )
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
        "mfu": rate * training_flops_per_token(shape.model_copy(update={"context": request.context})) / peak,
        "matmul_peak_flops_per_second": peak,
        "timings": report.timings,
        "fingerprint": report.fingerprint,
        "sample": sample,
        "out": str(out),
    }


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A JSON object a line; nothing where there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _print_sources(values: dict[str, float], unit: str) -> None:
    """A line a source, the worst first."""
    width = max(map(len, values), default=0)
    for name, value in sorted(values.items(), key=lambda each: (-each[1], each[0])):
        print(f"  {name:<{width}}  {value:.4f} {unit}")


def _print(found: dict[str, Any]) -> None:
    bits = "" if found["bits_per_byte"] is None else f"{found['bits_per_byte']:.4f} bits a byte, "
    print(
        f"train {found['train_loss']:.4f}, held out {found['validation_loss']:.4f} nats a token, "
        f"{bits}{found['parameters']:,} parameters, {found['tokens']:,} tokens"
    )
    _print_sources(found["bits_per_byte_by_source"], "bits a byte")
    _print_sources(found["validation_loss_by_source"], "nats a token")
    print(
        f"{found['seconds']:.1f} s, {found['tokens_per_second']:,.0f} tokens/s, {found['mfu']:.1%} of this machine's "
        f"matrix products ({found['matmul_peak_flops_per_second'] / 1e9:,.0f} GFLOP/s)"
    )
    print(f"model in {found['out']}/{MODEL}, losses in {found['out']}/{LOSSES}")
    sys.stdout.flush()
