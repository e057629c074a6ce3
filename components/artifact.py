"""The outputs of a step: its artifact, verified by the manifest, and its metrics."""

import hashlib
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sluice.components.saved_files import read_mapping
from sluice.components.workspace import Workspace
from sluice.core.files import write_json
from sluice.core.manifest import MANIFEST, file_hash


def write_metrics(workspace: Workspace, step: str, report: dict[str, Any], timings: dict[str, float]) -> None:
    """Write metrics/<step>.json: counts, and in a part of their own the timings, which differ from run to run."""
    rounded = {name: round(value, 4) for name, value in sorted(timings.items())}
    write_json(workspace.metrics(step), {**report, "timings": rounded})


def read_metrics(workspace: Workspace, step: str) -> dict[str, Any]:
    """Metrics of the last run of a step; empty if it has not run. Raises ValueError for a damaged file."""
    path = workspace.metrics(step)
    return read_mapping(path, "remove it, and `sluice run` writes it again") if path.is_file() else {}


def artifact_hash(folder: Path) -> str:
    """sha256 of an artifact's manifest, which holds the sha256 of every other file."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def check_artifact(folder: Path, *, rehash: bool = False) -> None:
    """Raise ValueError unless the folder holds the files of its manifest, by name and size; with `rehash`, also by
    content, for whoever acts on it.
    """
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} is missing or has no {MANIFEST}: `sluice run` makes it")
    for entry in read_mapping(folder / MANIFEST, f"remove {folder} and run again")["files"]:
        path = folder / entry["name"]
        size = path.stat().st_size if path.is_file() else None
        if size != entry["size_bytes"]:
            raise ValueError(
                f"{path} has {size} bytes, its manifest says {entry['size_bytes']}: remove {folder} and run again"
            )
        if rehash and (found := file_hash(path)) != entry["sha256"]:
            raise ValueError(
                f"{path} has sha256 {found[:12]}, its manifest says {entry['sha256'][:12]}: it was changed after "
                f"it was made; remove {folder} and run again"
            )


def plain(report: Any) -> dict[str, Any]:
    """A report, which is a model or a dataclass, as a dict."""
    if isinstance(report, BaseModel):
        return report.model_dump(mode="json")
    assert is_dataclass(report) and not isinstance(report, type), type(report)
    return asdict(report)
