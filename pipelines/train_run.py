"""The folder of one `sluice train` run: its description, its results, and whether it can be resumed."""

import argparse
import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sluice.components.workspace import Workspace
from sluice.core.files import write_json
from sluice.model.training.checkpointing.lock import LOCK
from sluice.pipelines.train_request import PATH, Request, lay_out, open_tokens, read_request, restore_request

if TYPE_CHECKING:
    from sluice.model.training.batches.text import Packed

DESCRIPTION, REPORT, LOSSES, SAMPLE, EVENTS = "train.json", "report.json", "loss.svg", "sample.txt", "events.jsonl"
MODEL, CHECKPOINTS = "model", "checkpoints"


def run_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder of a new run, or of the one to resume."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise ValueError(
            "`sluice train` starts its workers itself: call it alone, with pretrain.workers=N; torchrun starts "
            "`-m sluice.model.training.pretrain`"
        )
    if arguments.resume is not None:
        if arguments.out is not None:
            raise ValueError("--resume goes on in the folder that it names: leave out --out")
        out = Path(arguments.resume)
        if not (out / DESCRIPTION).is_file():
            raise ValueError(
                f"--resume {out}: there is no {DESCRIPTION} in it; name a folder that sluice train --out made"
            )
        return out
    if arguments.out is None:
        raise ValueError("name a folder to write: --out DIR; or one to go on with: --resume DIR")
    out = Path(arguments.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: name a folder")
    if run := next((folder for folder in out.resolve().parents if (folder / DESCRIPTION).is_file()), None):
        raise ValueError(f"--out {out} lies in the run {run}, whose files it would mix with: name a folder apart")
    if not (out / DESCRIPTION).is_file() and (others := _others(out)):
        raise ValueError(f"--out {out} holds other files, such as {others[0]}: name a new or an empty folder")
    return out


def request_of(workspace: Workspace, arguments: argparse.Namespace, out: Path) -> Request:
    """Return the request of a new run, or of the one to resume. ValueError for settings that do not go together."""
    import torch

    from sluice.model.directory import read_json
    from sluice.model.parallelism.rules import check
    from sluice.model.training.batches.text import no_text

    if arguments.resume is None:
        request = read_request(workspace, arguments.overrides)
        path = request.text.path
        if path is not None and not Path(path).exists():
            raise no_text(Path(path))
    else:
        from sluice.model.directory import model_hash

        request = lay_out(restore_request(read_json(out / DESCRIPTION)), arguments.overrides)
        if (base := request.base).path is not None and model_hash(Path(base.path)) != base.sha256:
            raise ValueError(f"--resume {out}: the model in base.path={base.path} has changed since the run began")
    check(request.pretrain, request.model, cuda=torch.cuda.is_available())
    return request


def open_run(workspace: Workspace, request: Request, out: Path, *, goes_on: bool) -> "Packed":
    """The run's tokens. ValueError where the folder of a new run holds one of other settings or text."""
    from sluice.core.manifest import file_hash
    from sluice.model.directory import read_json
    from sluice.model.training.batches.text import Packed

    if goes_on:
        settings = read_json(out / DESCRIPTION)
        return Packed(Path(settings["tokens"]), Path(settings["tokenizer_folder"]))
    # A folder holds one run: another would leave files of both. One that came to no checkpoint is in nobody's way.
    if (out / DESCRIPTION).is_file() and (_checkpoints(out) or (out / MODEL).exists()):
        if others := _differences(restore_request(read_json(out / DESCRIPTION)), request):
            raise ValueError(
                f"--out {out} holds a run of other settings, {', '.join(others)}: name another folder, or go on with "
                f"--resume {out}"
            )
        path, source = request.text.path, out / "pack" / "source.json"
        if (
            path is not None
            and Path(path).is_file()
            and source.is_file()
            and read_json(source)["sha256"] != file_hash(Path(path))
        ):
            raise ValueError(f"--out {out} holds a run on another text: name another folder; {PATH}{path} has changed")
    return open_tokens(workspace, request, out)


def _differences(there: Request, here: Request) -> list[str]:
    """The settings in which two runs differ, as `pretrain.seed 0 there and 9 here`."""
    from sluice.core.settings.errors import spelled

    old, new = there.settings(), here.settings()
    keys = [(block, name) for block in new for name in {**old[block], **new[block]}]
    return [
        f"{block}.{name} {spelled(old[block].get(name))} there and {spelled(new[block].get(name))} here"
        for block, name in keys
        if old[block].get(name) != new[block].get(name)
    ]


def extend(out: Path, before: Request, request: Request, packed: "Packed") -> None:
    """Give a run of more steps the newest checkpoint of the shorter one that it shares. ValueError without one."""
    from sluice.core.files import copy_tree, link_or_copy
    from sluice.model.training.checkpointing.checkpoints import checkpoint_path, complete_steps, partial_path
    from sluice.model.training.checkpointing.extension import newest_shared

    old, new = run_of(before, packed), run_of(request, packed)
    if _checkpoints(out, new):
        return
    check_holds(out, old, "--resume")
    found = {step: folder for folder in (out / CHECKPOINTS).glob(f"{old}-*/") for step in complete_steps(folder)}
    step = newest_shared(before.pretrain, request.pretrain, request.context, found)
    # Another layout than that of the checkpoint is for `pretrain` to see.
    folder = out / CHECKPOINTS / f"{new}-{found[step].name.partition('-')[2]}"
    folder.mkdir(parents=True, exist_ok=True)
    partial = partial_path(folder, step)
    shutil.rmtree(partial, ignore_errors=True)
    copy_tree(checkpoint_path(found[step], step), partial, link_or_copy)
    partial.rename(checkpoint_path(folder, step))


def remove_if_empty(out: Path) -> None:
    """Remove the folder of a run that failed before it wrote anything but its lock."""
    if out.is_dir() and not _others(out):
        shutil.rmtree(out)


def _others(out: Path) -> list[str]:
    """Names in a folder, but for the lock of a run and empty folders."""
    if not out.is_dir():
        return []
    empty = [path for path in out.iterdir() if path.is_dir() and not any(path.iterdir())]
    return sorted(path.name for path in out.iterdir() if path not in empty and path.name != LOCK)


def check_holds(out: Path, run: str, option: str) -> None:
    """ValueError where the folder's checkpoints are of another run: training would pass over them and begin anew."""
    is_finished = (out / REPORT).is_file() and (out / MODEL / "model.safetensors").is_file()
    if is_finished and not _checkpoints(out) and finished(out, run) is None:
        raise ValueError(
            f"{option} {out} holds a finished model without checkpoints, made by another version of this program or on "
            "other tokens, which training anew would replace: name another folder"
        )
    if _checkpoints(out) and not _checkpoints(out, run):
        raise ValueError(
            f"{option} {out}: its checkpoints were made by another version of this "
            "program, on other tokens, or with batches that this layout cannot cut: go back to those, or train anew "
            "into another folder"
        )


def note_base(request: Request) -> str | None:
    """A line about what a run with a base uses unless it is told otherwise."""
    if request.base.path is None:
        return None
    pretrain = request.pretrain
    return (
        f"begins at {request.base.path}: {pretrain.optimizer}, learning rate {pretrain.learning_rate:g}, sequences of "
        f"{request.context} tokens (pretrain.optimizer, pretrain.learning_rate, base.context)"
    )


def describe_run(out: Path, request: Request, packed: "Packed") -> None:
    """Write what the run is, for whoever goes on with it: replaced whole or not at all."""
    folders = {"tokens": str(packed.tokens.resolve()), "tokenizer_folder": str(packed.tokenizer.resolve())}
    write_json(out / DESCRIPTION, {**request.settings(), **folders})


def run_of(request: Request, packed: "Packed") -> str:
    """The fingerprint of the run, the same in every layout."""
    from sluice.model.training.pretrain import run_fingerprint

    fingerprint = run_fingerprint(request.pretrain, request.model, packed.tokens, request.base.sha256, request.context)
    return fingerprint.partition("-")[0]


def finished(out: Path, run: str) -> dict[str, Any] | None:
    """The report in `out`, where that run came to its end there."""
    from sluice.model.directory import read_json

    if not (out / REPORT).is_file() or not (out / MODEL / "model.safetensors").is_file():
        return None
    found: dict[str, Any] = read_json(out / REPORT)
    # The folder may have been moved.
    return {**found, "out": str(out)} if found.get("fingerprint", "").partition("-")[0] == run else None


def how_to_go_on(out: Path, run: str) -> str:
    steps = _checkpoints(out, run)
    if not steps:
        return f"no checkpoint was written yet; `sluice train --resume {shlex.quote(str(out))}` begins anew"
    return f"`sluice train --resume {shlex.quote(str(out))}` goes on from the checkpoint of step {max(steps)}"


def _checkpoints(out: Path, run: str = "") -> list[int]:
    """Steps of the whole checkpoints in `out`: all, or those of a run in any layout."""
    from sluice.model.training.checkpointing.checkpoints import complete_steps

    return [step for folder in (out / CHECKPOINTS).glob(f"{run}*/") for step in complete_steps(folder)]
