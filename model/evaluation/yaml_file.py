"""Reading of the YAML files that users write for an evaluation."""

from pathlib import Path
from typing import Any

import yaml


def read_yaml(path: Path, kind: str) -> Any:
    """Return the content of a file of that kind. ValueError naming it where it cannot be read or is no YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{kind} {path} cannot be read: {error.strerror or error}; correct the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
