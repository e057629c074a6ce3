"""Files of a model directory, and the hash of those that determine its answers. Imports no torch."""

import hashlib
import json
from pathlib import Path
from typing import Any

from sluice.core.manifest import file_hash

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
CHAT_TEMPLATE_FILE = "chat_template.jinja"


def model_hash(folder: Path) -> str:
    """sha256 hex over config, weights, tokenizer and chat template, the files that determine the model's answers."""
    digest = hashlib.sha256()
    weights = [path.name for path in weight_files(folder)]
    optional = [name for name in (TOKENIZER_FILES[1], CHAT_TEMPLATE_FILE) if (folder / name).is_file()]
    for name in (CONFIG, *weights, TOKENIZER_FILES[0], *optional):
        digest.update(f"{name} {file_hash(existing(folder / name))}\n".encode())
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model directory. ValueError for one that is missing, and for a damaged index."""
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [existing(folder / WEIGHTS)]
    names = read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"{INDEX} is damaged: weight_map names no files")
    shards = sorted(set(names.values()))
    if outside := [name for name in shards if Path(name).name != name]:
        raise ValueError(f"{INDEX} names {outside[0]!r}, which is no file of this directory")
    return [existing(folder / name) for name in shards]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError naming a file that is missing, damaged or no object."""
    try:
        content = json.loads(existing(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: not a JSON object")
    return content


def existing(path: Path) -> Path:
    if not path.is_file():
        below = path.parent / "model"
        hint = f"; name {below}" if (below / CONFIG).is_file() else ""
        raise ValueError(f"{path} does not exist: not a model directory, or an incomplete one{hint}")
    return path
