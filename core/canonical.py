"""Canonical JSON: what is hashed and signed."""

import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Encode equal values alike: sorted keys, no spaces, UTF-8. ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
