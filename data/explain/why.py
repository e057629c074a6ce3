"""Which rule, or which twin, removed a document: asked of the evidence."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sluice.core.manifest import EVIDENCE, MANIFEST, read_manifest
from sluice.data.config import RefineConfig
from sluice.data.decontamination.sets import acting, set_names
from sluice.data.explain.lookup import asked
from sluice.data.privacy.mask import KINDS
from sluice.data.refining.decide import parse_contamination
from sluice.data.refining.tables import read_columns, read_decisions, read_places

_PLACEHOLDER = re.compile(f"<({'|'.join(KINDS)})>")
_EARLIER = "earlier_duplicate"
_AFTER_CUTTING = "after cutting"
"""How the comparison of a document ends that only fell for what was cut out of it."""


class Explanation(BaseModel):
    """The fate of one document."""

    id: str
    final_id: str | None
    """Id of what was kept of it; None where it was dropped."""
    source: str
    path: str
    title: str
    kept: bool
    rule: str | None
    comparison: str | None
    twin: str | None
    twin_source: str | None = None
    twin_path: str | None = None
    jaccard: float | None
    cut_characters: int
    index: str | None = None
    """Duplicate index in which an earlier run put the twin."""
    words: int | None = None
    """Of the text as it was scored, before anything was cut out."""
    cut: list[str] = []
    """Settings that cut: of what is shared with evaluation sets the words are known, of repeated text not."""
    masked: dict[str, int] = {}
    """Placeholders of personal data in it, by kind."""

    def __str__(self) -> str:
        where = f"{self.id} ({self.source}, {self.path})"
        what = f"{where}: kept" if self.kept else f"{where}: dropped by {self.rule}: {self._reason()}"
        found = [self._cut()] if self.cut_characters or self.cut else []
        if self.masked:
            found.append(f"masked were {', '.join(f'{kind} {count:,}' for kind, count in sorted(self.masked.items()))}")
        return "; ".join([what, *found])

    def _reason(self) -> str:
        if self.twin is None:
            return str(self.comparison)
        if self.rule == _EARLIER:
            index = f" (index {self.index})" if self.index else ""
            if self.twin == self.id:
                return f"the same text was kept by an earlier run{index}"
            return f"Jaccard {self.jaccard:.4g} with {self.twin}, which was kept by an earlier run{index}"
        twin = self.twin if self.twin_source is None else f"{self.twin} ({self.twin_source}, {self.twin_path})"
        return f"Jaccard {self.jaccard:.4g} with {twin}"

    def _cut(self) -> str:
        by = f" by {', '.join(self.cut)}" if self.cut else ""
        if not self.kept:
            return f"cut out of {self.words:,} words{by}"
        of = f" of {self.words:,} words" if self.words is not None else ""
        return f"{self.cut_characters:,} characters{of} were cut out{by}, what is left is {self.final_id}"


def why(folder: Path, name: str, here: Path | None = None) -> list[Explanation]:
    """What became of the document that `name` names: an id (as read, as scored or as kept), its beginning, or a path.

    A path is absolute, from `here` (unless it is given, the current folder), or below the source. More than one where
    the same text was read more than once. ValueError if there is none, or a path could be one of several.
    """
    decisions = read_decisions(folder)
    found = asked(folder, decisions, name, here or Path.cwd())
    # A twin is named as it was scored, or as it was kept where two became equal by what was cut out of them.
    kept = [row for row in decisions if row["kept"]]
    twins = {row["final_id"]: row for row in kept} | {row["id"]: row for row in kept}
    config = _config(folder)
    return [_explain(row, twins.get(row["twin"]), config, folder) for row in found]


def _config(folder: Path) -> RefineConfig | None:
    """The settings that the documents were cut with, where the folder says them."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        return RefineConfig.model_validate(read_manifest(folder).get("parameters", {}).get("refine"))
    except ValidationError:
        return None


def _explain(
    row: dict[str, Any], twin: dict[str, Any] | None, config: RefineConfig | None, folder: Path
) -> Explanation:
    fields = {name: row[name] for name in Explanation.model_fields if name in row}
    if twin is not None:
        fields |= {"twin_source": twin["source"], "twin_path": twin["path"]}
    if row["rule"] == _EARLIER and config is not None:
        fields["index"] = config.index
    is_cut = row["cut_characters"] or str(row["comparison"]).endswith(_AFTER_CUTTING)
    if (row["kept"] or is_cut) and (scored := _scored(folder, row["id"])):
        if is_cut:
            fields |= {"words": int(scored["words"]), "cut": _cut_kinds(scored, config)}
        # Placeholders in a text that goes by another id than it was read with stood there before.
        if row["kept"] and row["raw_id"] == row["id"]:
            fields["masked"] = Counter(_PLACEHOLDER.findall(scored["text"]))
    return Explanation(**fields)


def _scored(folder: Path, name: str) -> dict[str, Any] | None:
    """The scored text with this id; None where the folder holds no texts."""
    for part in sorted((folder / EVIDENCE).glob("scores-*.parquet")):
        ids = read_columns(part, ["id"])["id"].to_pylist()
        if name in ids:
            return next(read_places(part, [ids.index(name)], ["text", "words", "contamination"]))
    return None


def _cut_kinds(scored: dict[str, Any], config: RefineConfig | None) -> list[str]:
    """See `Explanation.cut`."""
    if config is None:
        return []
    names = set_names([Path(each.path) for each in config.sets])
    policy = {Path(each.path): each.policy or config.contamination_policy for each in config.sets}
    spans = [
        span
        for span in parse_contamination([scored["contamination"]]).get(0, [])
        if span.set in names and policy[names[span.set]] == "cut"
    ]
    kinds = []
    if shared := acting(spans, config.contamination_sign):
        words = sum(span.last_word - span.first_word for span in shared)
        kinds.append(f"contamination ({words:,} words shared with {', '.join(sorted({each.set for each in shared}))})")
    settings = {name: getattr(config, name) for name in ("max_piece_copies", "min_substring_words")}
    return [*kinds, *(f"{name}={value}" for name, value in settings.items() if value is not None)]
