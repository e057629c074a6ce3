"""The sheet that reviewers fill in: no names of models, opaque ids, and the two answers in an order of a secret key."""

import csv
import hashlib
import hmac
import io
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.core.files import atomic_write, create_private
from sluice.data.privacy import mask
from sluice.model.evaluation.review.selection import MODELS, Model, Reviewable, ReviewItem

FORMATS = (".csv", ".jsonl")
SHOWN = ("id", "prompt", "answer_1", "answer_2")
FILLED = ("rater", "rating_1", "rating_2", "better")
KEY_FILE = "review.key"

_KEY_BYTES = 32
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""With which a spreadsheet begins a formula, also as full-width characters."""


@dataclass(frozen=True)
class BlindedItem:
    """An item under its opaque id, with its models in the order in which the sheet shows their answers."""

    id: str
    item: ReviewItem
    order: tuple[Model, ...]


def review_key(folder: Path) -> bytes:
    """Return the secret that blinds ids and orders, made on first use. ValueError for a damaged one."""
    path = folder / KEY_FILE
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        create_private(path, secrets.token_bytes(_KEY_BYTES))
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise ValueError(
            f"{path} has {len(key)} bytes instead of {_KEY_BYTES}: restore it, or remove it and export again"
        )
    return key


def blind(reviewable: Reviewable, key: bytes) -> list[BlindedItem]:
    """Return all items blinded: high risk first, each group in an order that the key alone determines."""
    found = []
    for item in reviewable.items:
        digest = hmac.new(key, f"{reviewable.evaluation}\n{item.suite}\n{item.item}".encode(), hashlib.sha256).digest()
        order = tuple(name for name in (MODELS if digest[-1] % 2 else MODELS[::-1]) if name in item.answers)
        # A letter first: a spreadsheet reads 12e45 as a number.
        found.append(BlindedItem(f"r{digest[:10].hex()}", item, order))
    return sorted(found, key=lambda each: (not each.item.high_risk, each.id))


def write_sheet(path: Path, items: Sequence[BlindedItem]) -> None:
    """Write a sheet to fill in, as CSV or JSONL by the file's suffix. ValueError for another suffix.

    Personal data in prompts and answers is masked.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: a review is {' or '.join(FORMATS)}, by the file's suffix")
    rows = [_row(item) for item in items]
    with atomic_write(path) as partial:
        if path.suffix == ".jsonl":
            lines = (json.dumps(row, ensure_ascii=False) for row in rows)
            partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        else:
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, [*SHOWN, *FILLED], lineterminator="\r\n")
            writer.writeheader()
            writer.writerows({name: defuse(value) for name, value in row.items()} for row in rows)
            # With a byte order mark spreadsheets read UTF-8.
            partial.write_text(text.getvalue(), encoding="utf-8-sig", newline="")


def defuse(value: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{value}" if value.lstrip(" \u00a0").startswith(_FORMULA) else value


def _row(blinded: BlindedItem) -> Mapping[str, Any]:
    answers = [mask(blinded.item.answers[name])[0] for name in blinded.order]
    shown = {"id": blinded.id, "prompt": mask(blinded.item.prompt)[0], "answer_1": answers[0]}
    return {**shown, "answer_2": answers[1] if len(answers) > 1 else "", **dict.fromkeys(FILLED, "")}
