"""What decisions.parquet tells beyond the report's counts: lengths, duplicates, and which documents show a rule."""

from collections import Counter
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from typing import Any

import numpy as np

from sluice.core.arrow import numbers
from sluice.data.card.folder import Folder, rows
from sluice.data.config import UNSPECIFIED

EXAMPLES_A_RULE = 3
_COLUMNS = ["id", "source", "path", "licence", "characters", "kept", "rule", "comparison", "twin", "jaccard"]


@dataclass(frozen=True, order=True)
class Example:
    """A dropped document; the order is by id, so the first ones are a sample that no run can choose."""

    id: str
    source: str
    path: str
    comparison: str = ""
    twin: str = ""
    jaccard: float = 1.0
    twin_source: str = ""
    twin_path: str = ""
    """Of the twin; empty where this folder does not hold it, as one that an earlier run kept."""


@dataclass
class Observed:
    """Memory: a few numbers a document, and the ids of twins."""

    characters: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """[documents]"""
    kept: np.ndarray = field(default_factory=lambda: np.empty(0, np.bool_))
    """[documents]"""
    jaccard: np.ndarray = field(default_factory=lambda: np.empty(0, np.float64))
    """[documents removed for a twin that is like them, not equal]"""
    group_sizes: dict[int, int] = field(default_factory=dict)
    """Size of a group of duplicates, the kept one counted -> groups."""
    licences: dict[str, set[str]] = field(default_factory=dict)
    """Source -> the licences its documents carry."""
    examples: dict[str, list[Example]] = field(default_factory=dict)
    """Rule -> documents it drops."""


def observe(folder: Folder) -> Observed:
    """One pass over the decisions."""
    characters, kept, jaccard = [], [], []
    twins: Counter[str] = Counter()
    licences: dict[str, set[str]] = {}
    examples: dict[str, list[Example]] = {}
    for batch in rows(folder.decisions, _COLUMNS):
        column = {name: batch.column(name) for name in _COLUMNS}
        characters.append(numbers(column["characters"]))
        kept.append(np.array(column["kept"].to_pylist(), np.bool_))
        values = {name: column[name].to_pylist() for name in _COLUMNS if name not in ("characters", "kept")}
        for source, licence in set(zip(values["source"], values["licence"], strict=True)):
            licences.setdefault(source, set()).add(licence or UNSPECIFIED)
        twins.update(twin for twin in values["twin"] if twin)
        jaccard += _near(values)
        for rule, found in _examples(values).items():
            examples[rule] = nsmallest(EXAMPLES_A_RULE, [*examples.get(rule, []), *found])
    return Observed(
        characters=np.concatenate([np.empty(0, np.int64), *characters]),
        kept=np.concatenate([np.empty(0, np.bool_), *kept]),
        jaccard=np.array(jaccard, np.float64),
        group_sizes=dict(sorted(Counter(times + 1 for times in twins.values()).items())),
        licences=licences,
        examples=_with_twins(folder, dict(sorted(examples.items()))),
    )


def _with_twins(folder: Folder, examples: dict[str, list[Example]]) -> dict[str, list[Example]]:
    """The examples, each with the place of its twin."""
    # What an earlier run kept is not in this folder, though a text equal to it may be.
    here = {rule: found for rule, found in examples.items() if rule != "earlier_duplicate"}
    wanted = {example.twin for found in here.values() for example in found if example.twin}
    if not wanted:
        return examples
    places: dict[str, tuple[int, str, str]] = {}
    for batch in rows(folder.decisions, ["id", "final_id", "source", "path", "kept", "rule"]):
        for name, final, source, path, is_kept, rule in zip(*(each.to_pylist() for each in batch.columns), strict=True):
            # A twin is named as it was scored, or as it was kept where what was cut out made two equal. The first of
            # equal texts may itself be dropped by another rule.
            named = ((0, name), (1, final)) if is_kept else ((2, name),) if rule != "exact_duplicate" else ()
            for rank, each in named:
                if each in wanted:
                    places[each] = min(places.get(each, (3, "", "")), (rank, source or "", path or ""))
    return examples | {rule: [_beside_twin(each, places) for each in found] for rule, found in here.items()}


def _beside_twin(example: Example, places: dict[str, tuple[int, str, str]]) -> Example:
    _, source, path = places.get(example.twin, (3, "", ""))
    return replace(example, twin_source=source, twin_path=path)


def _near(values: dict[str, list[Any]]) -> list[float]:
    zipped = zip(values["rule"], values["twin"], values["jaccard"], strict=True)
    return [float(each) for rule, twin, each in zipped if twin and each is not None and rule != "exact_duplicate"]


def _examples(values: dict[str, list[Any]]) -> dict[str, list[Example]]:
    """The first documents of each rule in one batch."""
    found: dict[str, list[Example]] = {}
    for row, rule in enumerate(values["rule"]):
        if rule:
            jaccard = values["jaccard"][row]
            example = Example(
                values["id"][row],
                values["source"][row] or "",
                values["path"][row] or "",
                values["comparison"][row] or "",
                values["twin"][row] or "",
                1.0 if jaccard is None else float(jaccard),
            )
            found.setdefault(rule, []).append(example)
    return {rule: nsmallest(EXAMPLES_A_RULE, examples) for rule, examples in found.items()}
