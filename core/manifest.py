"""The manifest of a folder: what it holds, by hash, and what it was made from. Nothing of time or place is in it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
SCHEMA = 1


def write_manifest(folder: Path, **facts: Any) -> None:
    """Write `folder`/manifest.json over everything in the folder, with `facts` in it."""
    manifest = {"schema": SCHEMA, **facts, "files": list_files(folder)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """ValueError if the folder has none that can be read."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} has no {MANIFEST}: it is not a finished folder of this program") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(manifest, Mapping) or "files" not in manifest:
        raise ValueError(f"{path} is damaged: it lists no files")
    return dict(manifest)


def list_files(folder: Path) -> list[dict[str, Any]]:
    """Name, size and sha256 of every file below the folder but the manifest, by name."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return [
        {"name": path.relative_to(folder).as_posix(), "size_bytes": path.stat().st_size, "sha256": file_hash(path)}
        for path in found
    ]


def file_hash(path: Path) -> str:
    """sha256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
