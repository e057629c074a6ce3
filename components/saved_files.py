"""Files that a command reads again later: of a damaged one, the message names the file and the way out."""

import json
from pathlib import Path
from typing import Any

import yaml


def read_mapping(path: Path, remedy: str) -> dict[str, Any]:
    """Return the mapping in a JSON (`.json`) or YAML file.

    Raises ValueError that names the file, what is wrong with it and `remedy`, the next step.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())}): {remedy}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is {'empty' if found is None else 'damaged (it is no mapping)'}: {remedy}")
    return found
