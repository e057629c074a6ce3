"""Facts from decisions.parquet beyond the report's counts: lengths, duplicates, and examples of each rule."""

from collections import Counter
from dataclasses import dataclass, field, replace
from heapq import nsmallest

import numpy as np

from sluice.core.arrow import numbers
from sluice.data.card.folder import RefinedFolder, rows
from sluice.data.config import UNSPECIFIED

EXAMPLES_A_RULE = 3
_EXACT = "exact_duplicate"
_COLUMNS = ["id", "source", "path", "licence", "characters", "kept", "rule", "comparison", "twin", "jaccard"]


@dataclass(frozen=True, order=True)
class Example:
    """A dropped document. Examples sort by id, a hash, so the first ones are an unbiased sample."""

    id: str
    source: str
    path: str
    comparison: str = ""
    twin: str = ""
    jaccard: float = 1.0
    twin_source: str = ""
    twin_path: str = ""
    """Path of the twin; empty where it is not in this folder, such as one that an earlier run kept."""


@dataclass
class Observed:
    """Facts of all documents: a few numbers for each, and the ids of twins."""

    characters: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """[documents]"""
    kept: np.ndarray = field(default_factory=lambda: np.empty(0, np.bool_))
    """[documents]"""
    jaccard: np.ndarray = field(default_factory=lambda: np.empty(0, np.float64))
    """Similarity of each document that was dropped for a similar, not equal, twin."""
    group_sizes: dict[int, int] = field(default_factory=dict)
    """Size of a group of duplicates, including the kept one -> number of groups."""
    licences: dict[str, set[str]] = field(default_factory=dict)
    """Source -> licences of its documents."""
    examples: dict[str, list[Example]] = field(default_factory=dict)
    """Rule -> some documents that it dropped."""


def observe(folder: RefinedFolder) -> Observed:
    """Collect the facts in one pass over the decisions."""
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
        similar = zip(values["rule"], values["twin"], values["jaccard"], strict=True)
        jaccard += [float(each) for rule, twin, each in similar if twin and each is not None and rule != _EXACT]
        for row, rule in enumerate(values["rule"]):
            if rule:
                similarity = values["jaccard"][row]
                example = Example(
                    values["id"][row],
                    values["source"][row] or "",
                    values["path"][row] or "",
                    values["comparison"][row] or "",
                    values["twin"][row] or "",
                    1.0 if similarity is None else float(similarity),
                )
                examples.setdefault(rule, []).append(example)
        examples = {rule: nsmallest(EXAMPLES_A_RULE, found) for rule, found in examples.items()}
    return Observed(
        characters=np.concatenate([np.empty(0, np.int64), *characters]),
        kept=np.concatenate([np.empty(0, np.bool_), *kept]),
        jaccard=np.array(jaccard, np.float64),
        group_sizes=dict(sorted(Counter(times + 1 for times in twins.values()).items())),
        licences=licences,
        examples=_with_twins(folder, dict(sorted(examples.items()))),
    )


def _with_twins(folder: RefinedFolder, examples: dict[str, list[Example]]) -> dict[str, list[Example]]:
    """Add source and path of its twin to each example."""
    # A document of an earlier run is not in this folder, though a text equal to it may be.
    here = {rule: found for rule, found in examples.items() if rule != "earlier_duplicate"}
    wanted = {example.twin for found in here.values() for example in found if example.twin}
    if not wanted:
        return examples
    places: dict[str, tuple[int, str, str]] = {}
    for batch in rows(folder.decisions, ["id", "final_id", "source", "path", "kept", "rule"]):
        for name, final, source, path, is_kept, rule in zip(*(each.to_pylist() for each in batch.columns), strict=True):
            # A twin is named by its scored id, or by its final id where cutting made two documents equal. The first of
            # equal texts may itself be dropped by another rule.
            named = ((0, name), (1, final)) if is_kept else ((2, name),) if rule != _EXACT else ()
            for rank, each in named:
                if each in wanted:
                    places[each] = min(places.get(each, (3, "", "")), (rank, source or "", path or ""))
    located: dict[str, list[Example]] = {}
    for rule, found in here.items():
        located[rule] = []
        for example in found:
            _, source, path = places.get(example.twin, (3, "", ""))
            located[rule].append(replace(example, twin_source=source, twin_path=path))
    return examples | located
