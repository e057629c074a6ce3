"""Read the items of an evaluation set: all strings in a JSONL, JSON or YAML file of any structure."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUFFIXES = (".jsonl", ".json", ".yaml", ".yml")


def read_items(path: Path) -> Iterator[list[str]]:
    """Yield the strings of each item, at any depth, in the order of the file.

    An item is a line of JSONL; in JSON and YAML an element of the top-level list, or of the lists in the top-level
    mapping; without a list, the whole file. Raises ValueError naming file and line if it cannot be read.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"evaluation set {path} is none of {', '.join(SUFFIXES)}: convert it to JSONL, an item a line")
    try:
        for value in _values(path):
            yield _strings(value)
    except OSError as error:
        raise ValueError(
            f"evaluation set {path} cannot be read: {error.strerror or error}; correct the path"
        ) from error


def _values(path: Path) -> Iterator[Any]:
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _parsed_json(path, line.strip(), number)
        return
    content = path.read_bytes()
    documents = [_parsed_json(path, content, 1)] if path.suffix == ".json" else _parsed_yaml(path, content)
    for document in documents:
        values = document.values() if isinstance(document, dict) else [document]
        lists = [value for value in values if isinstance(value, list)]
        rest = [value for value in values if not isinstance(value, list)]
        for each in lists:
            yield from each
        if not lists:
            yield document
        elif _strings(rest):
            yield rest


def _parsed_json(path: Path, content: bytes, first_line: int) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        line, reason = first_line + error.lineno - 1, error.msg
    except UnicodeDecodeError as error:
        line, reason = first_line + content[: error.start].count(b"\n"), "not UTF-8"
    except RecursionError:
        line, reason = first_line, "nested too deeply"
    raise ValueError(f"evaluation set {path} line {line} is not JSON ({reason}): correct or remove it")


def _parsed_yaml(path: Path, content: bytes) -> list[Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return list(yaml.load_all(content.decode("utf-8-sig"), loader))
    except yaml.MarkedYAMLError as error:
        line, reason = error.problem_mark.line + 1 if error.problem_mark else 1, error.problem
    except UnicodeDecodeError as error:
        line, reason = content[: error.start].count(b"\n") + 1, "not UTF-8"
    except (yaml.YAMLError, RecursionError) as error:
        line, reason = 1, type(error).__name__
    raise ValueError(f"evaluation set {path} line {line} is not YAML ({reason}): correct or remove it")


def _strings(item: Any) -> list[str]:
    """Collect strings depth first. A container repeated by YAML aliases counts once, or a file could be endless."""
    found: list[str] = []
    seen: set[int] = set()
    waiting = [item]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(reversed(list(value.values()) if isinstance(value, dict) else value))
    return found
