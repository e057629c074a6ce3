"""What the paths of the settings are relative to.

In params.yaml a path is from the workspace, or absolute, so that a step finds it wherever it is started. On the command
line it is from the folder that the command is called in, in conf/ from the workspace.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

PATHS = (
    "data.sources",
    "refine.evaluation_sets",
    "refine.quality_model",
    "refine.index",
    "tokenizer.path",
    "pretrain.decay_from",
)
"""Settings that hold a path, or several."""

_ELSEWHERE = re.compile(r"(?:pypi|hf|installed):|[A-Za-z][A-Za-z0-9+.-]*://")
_NAMED_BY = ("uri", "path")


def from_workspace(name: str, root: Path, here: Path) -> str:
    """A path that is meant from `here`, as params.yaml holds it: from `root` where it lies below, else absolute."""
    if name.startswith("~"):
        return str(Path(name).expanduser())
    if here == root or not _is_relative(name):
        return name
    path = Path(os.path.normpath(here / name))
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def from_folder(name: str, root: Path, here: Path) -> str:
    """A path of params.yaml, to be opened in the folder `here`."""
    return name if here == root or not _is_relative(name) else str(root / name)


def with_paths(
    values: Mapping[str, Any], change: Callable[[str], str], settings: Collection[str] = PATHS
) -> dict[str, Any]:
    """The blocks of `values` with every path of these `settings` changed; what is no path stays as it is."""
    changed = {name: dict(block) if isinstance(block, Mapping) else block for name, block in values.items()}
    for setting in settings:
        block, _, field = setting.partition(".")
        if isinstance(held := changed.get(block), dict) and field in held:
            held[field] = _changed(held[field], change)
    return changed


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed(each, change) for each in value]
    if isinstance(value, Mapping):
        return {
            name: change(held) if name in _NAMED_BY and isinstance(held, str) else held for name, held in value.items()
        }
    return value


def _is_relative(name: str) -> bool:
    # An empty one is refused by the block that it stands in.
    return bool(name.strip()) and not _ELSEWHERE.match(name) and not name.startswith(("/", "~"))
