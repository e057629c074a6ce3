"""Standard input and pipes: copied to a file before they are read, with the format found by their beginning."""

import json
import re
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import IO

from sluice.core.manifest import file_hash
from sluice.data.config import Format
from sluice.data.sources.charset import known_encoding
from sluice.data.sources.compression import Damaged, open_stream
from sluice.data.sources.formats import kind
from sluice.data.sources.limits import Limits, too_large
from sluice.data.sources.origin import Origin
from sluice.data.sources.units import FileUnit

_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
"""First bytes of compressed content -> suffix."""
_JSON = re.compile(r'\[\s*["{]|\{\s*"[^"]*"\s*:')
"""The beginning of a JSON file: an array of rows or texts, or an object."""
_BLOCK_BYTES = 1 << 20


def is_pipe(path: Path) -> bool:
    """Return whether the path is a named pipe or a shell's process substitution."""
    return stat.S_ISFIFO(path.stat().st_mode)


def spool_input(source: Path | None, folder: Path, max_bytes: int) -> Path:
    """Copy a pipe, or standard input for None, into a file of `folder`. Raises ValueError if it is too large."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / "input"
    if source is None:
        if sys.stdin.isatty():
            raise ValueError("data.sources: - is the terminal: pipe text into the command, or name a file")
        _copy(sys.stdin.buffer, copy, max_bytes)
    else:
        with source.open("rb") as stream:
            _copy(stream, copy, max_bytes)
    return copy


def _copy(stream: IO[bytes], copy: Path, max_bytes: int) -> None:
    with copy.open("wb") as file:
        while block := stream.read(_BLOCK_BYTES):
            if file.tell() + len(block) > max_bytes:
                raise ValueError(f"data.sources: the input is {too_large(max_bytes)}: raise data.max_file_bytes")
            file.write(block)


def input_unit(copy: Path, name: str, origin: Origin, limits: Limits) -> FileUnit:
    """Return a copied input as a file of that name; without a format by its suffix or the settings, as JSON or text."""
    with copy.open("rb") as file:
        head = file.read(4)
    packed = next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), "")
    if packed and not name.endswith(packed):
        name += packed
    if origin.format is None:
        origin = replace(origin, format=_format_of(copy, name, origin.encoding, limits))
        if origin.format == "text":
            origin = replace(origin, default_markup=origin.default_markup or "txt")
    return FileUnit(str(copy), name, origin, chosen=False, size_bytes=copy.stat().st_size, version=file_hash(copy))


def _format_of(copy: Path, name: str, setting: str | None, limits: Limits) -> Format:
    try:
        with open_stream(copy, limits, kind(name)[1]) as stream:
            content = stream.read(limits.document_bytes)
    except Damaged:
        return "text"
    encoding, mark = known_encoding(content, setting)
    head = content[mark:].decode(encoding.name if encoding else "utf-8", "replace").lstrip(" \t\r\n")
    try:
        if isinstance(json.loads(head.partition("\n")[0]), dict):
            return "jsonl"
    except (ValueError, RecursionError):
        pass
    return "json" if _JSON.match(head) else "text"
