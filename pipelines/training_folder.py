"""The folder of one `sluice train` run: whose it is, what it holds, and whether it can be gone on in."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.stage import write_json
from components.workspace import Workspace
from pipelines.training import Request, lay_out, open_tokens, read_request, restore_request

if TYPE_CHECKING:
    from model.training.batches.text import Packed

SETTINGS, REPORT, LOSSES, SAMPLE, EVENTS = "train.json", "report.json", "loss.svg", "sample.txt", "events.jsonl"
MODEL, CHECKPOINTS = "model", "checkpoints"


def run_folder(arguments: argparse.Namespace) -> Path:
    """The run's: one to make, or one to go on in."""
    if arguments.resume is not None:
        if arguments.out is not None:
            raise ValueError("--resume goes on in the folder that it names: leave out --out")
        out = Path(arguments.resume)
        if not (out / SETTINGS).is_file():
            raise ValueError(
                f"--resume {out}: there is no {SETTINGS} in it; name a folder that sluice train --out made"
            )
        return out
    if arguments.out is None:
        raise ValueError("name a folder to write: --out DIR; or one to go on with: --resume DIR")
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: name a folder")
    return out


def request_of(workspace: Workspace, arguments: argparse.Namespace, out: Path) -> Request:
    """Of a new run, or of the one to go on with. What cannot be trained is refused before anything is written."""
    import torch

    from model.checkpoint import read_json
    from model.training.parallelism.rules import check

    if arguments.resume is None:
        request = read_request(workspace, arguments.overrides)
    else:
        request = lay_out(restore_request(read_json(out / SETTINGS)), arguments.overrides)
    check(request.pretrain, request.model, cuda=torch.cuda.is_available())
    return request


def open_run(workspace: Workspace, request: Request, out: Path, *, goes_on: bool) -> "Packed":
    """The run's tokens, with its settings written beside them."""
    from model.checkpoint import read_json
    from model.training.batches.text import Packed

    if goes_on:
        settings = read_json(out / SETTINGS)
        packed = Packed(Path(settings["tokens"]), Path(settings["tokenizer_folder"]))
        _check_goes_on(out, request, packed)
    else:
        _check_same(out, request)
        packed = open_tokens(workspace, request, out)
    _write_settings(out, request, packed)
    return packed


def finished(out: Path, request: Request, packed: "Packed") -> dict[str, Any] | None:
    """The report of the run in `out`, where it is this one, in whatever layout, and came to its end."""
    from model.checkpoint import read_json
    from model.training.pretrain import run_fingerprint

    if not (out / REPORT).is_file() or not (out / MODEL / "model.safetensors").is_file():
        return None
    found: dict[str, Any] = read_json(out / REPORT)
    runs = [found.get("fingerprint", ""), run_fingerprint(request.pretrain, request.model, packed.tokens)]
    before, now = (each.partition("-")[0] for each in runs)
    return found if before == now else None


def how_to_go_on(out: Path) -> str:
    from model.training.saving.checkpoints import complete_steps

    steps = [step for folder in (out / CHECKPOINTS).glob("*/") for step in complete_steps(folder)]
    if not steps:
        return f"no checkpoint was written yet; `sluice train --resume {out}` begins anew"
    return f"`sluice train --resume {out}` goes on from the checkpoint of step {max(steps)}"


def _write_settings(out: Path, request: Request, packed: "Packed") -> None:
    folders = {"tokens": str(packed.tokens.resolve()), "tokenizer_folder": str(packed.tokenizer.resolve())}
    # The run's only description: replaced whole or not at all.
    write_json(out / SETTINGS, {**request.settings(), **folders})


def _check_goes_on(out: Path, request: Request, packed: "Packed") -> None:
    """Checkpoints of other code or tokens are passed over in training, which would then begin anew without a word."""
    from model.training.pretrain import run_fingerprint, same_runs

    folder = out / CHECKPOINTS
    fingerprint = run_fingerprint(request.pretrain, request.model, packed.tokens)
    if any(folder.glob("*/")) and not (folder / fingerprint).is_dir() and not same_runs(folder, fingerprint):
        raise ValueError(
            f"--resume {out}: its checkpoints were made by another version of this program, on other tokens, or with "
            "batches that this layout cannot cut: go back to those, or train anew into another folder"
        )


def _check_same(out: Path, request: Request) -> None:
    """A folder holds one run: another would leave files of both. One that came to no checkpoint left nothing."""
    from model.checkpoint import read_json

    path, begun = out / SETTINGS, (out / MODEL).exists() or any((out / CHECKPOINTS).glob("*/step-*"))
    if begun and path.is_file() and restore_request(read_json(path)) != request:
        raise ValueError(
            f"--out {out} holds a run of other settings: name another folder, or go on with --resume {out}"
        )
