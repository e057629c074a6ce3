"""Settings that name files: relative to which folder, and whether a changed file counts as a changed setting."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sluice.core.files import expand_home
from sluice.core.manifest import file_hash
from sluice.core.settings.block import Block, annotation_members

AnyBlock = TypeVar("AnyBlock", bound=Block)

_ELSEWHERE = re.compile(r"(?:pypi|hf|installed):|[A-Za-z][A-Za-z0-9+.-]*://|[/~]|-$")


@dataclass(frozen=True)
class NamesFile:
    """Marks a setting that names a file or folder, or a list of them: `Annotated[str | None, NamesFile()]`.

    A relative path is from the workspace in params.yaml and conf/, and from the current folder on the command line.
    """

    sha256: str | None = None
    """Field of the same block for the file's sha256, filled in when settings are composed; null: not hashed."""


def map_paths(kind: type[Block], values: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The plain values of a block with every path changed."""
    changed = dict(deepcopy(values))
    for _, holder, key, _ in _places(kind, changed):
        if isinstance(path := holder[key], str):
            holder[key] = change(path)
    return changed


def hash_files(kind: type[Block], values: Mapping[str, Any], root: Path, *, composing: bool) -> dict[str, Any]:
    """The plain values of a block with the sha256 of its files; when not `composing`, they must be there, and equal.

    Raises ValueError naming the setting.
    """
    hashed = dict(deepcopy(values))
    for setting, holder, key, marker in _places(kind, hashed):
        if marker.sha256 is None:
            continue
        path, given = holder[key], holder[marker.sha256]
        if composing and given is not None:
            raise ValueError(f"{setting}: sha256 {given} is filled in from the file itself: leave it out")
        if path is not None and not (root / path).is_file():
            raise ValueError(
                f"{setting}: {path} is no file (looked for at {root / path}): correct the path, or leave it out"
            )
        holder[marker.sha256] = None if path is None else file_hash(root / path)
        if not composing and holder[marker.sha256] != given:
            raise ValueError(
                f"{setting}: {path} is not the file that params.yaml was composed with: `sluice run` takes it as it is "
                "now"
            )
    return hashed


def path_in_workspace(path: str, root: Path, here: Path) -> str:
    """A path typed in the folder `here` as params.yaml holds it: relative where it lies below `root`, else absolute."""
    path = str(expand_home(path)) if path.startswith("~") else path
    found = Path(os.path.normpath(here / path))
    if here == root or (_is_elsewhere(path) and not path.startswith("~")):
        return path
    return str(found.relative_to(root)) if found.is_relative_to(root) else str(found)


def with_absolute_paths(block: AnyBlock, root: Path) -> AnyBlock:
    """The block with its paths as they can be opened in any folder."""

    def absolute(path: str) -> str:
        return path if _is_elsewhere(path) else str(root / path)

    return type(block).model_validate(map_paths(type(block), block.model_dump(mode="json"), absolute))


def _is_elsewhere(path: str) -> bool:
    return not path.strip() or _ELSEWHERE.match(path) is not None


def _places(kind: type[Block], values: Any, setting: str = "") -> Iterator[tuple[str, Any, Any, NamesFile]]:
    """Paths in `values`: the `setting` of params.yaml, the dict or list with the path, its key there, its marker."""
    for name, field in kind.model_fields.items():
        if name not in values:
            continue
        held, outer = values[name], setting or f"{kind.block_name}.{name}"
        markers = [each for each in field.metadata if isinstance(each, NamesFile)]
        members = [each for each in annotation_members(field.annotation) if isinstance(each, type)]
        inner = next((each for each in members if issubclass(each, Block)), None)
        places: list[tuple[Any, Any]] = [(values, name)]
        if isinstance(held, list):
            places = [(held, at) for at in range(len(held))]
        for holder, key in places:
            if isinstance(holder[key], dict) and inner is not None:
                yield from _places(inner, holder[key], outer)
            elif markers:
                yield outer, holder, key, markers[0]
