"""Explain why a document was kept or dropped, from the evidence of a build."""

import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sluice.core.manifest import MANIFEST, read_manifest
from sluice.data.config import RefineConfig
from sluice.data.decontamination.policy import actionable, set_policies
from sluice.data.explain.lookup import find_documents
from sluice.data.privacy.mask import KINDS
from sluice.data.refining.corpus import parse_contamination
from sluice.data.refining.tables import read_columns, read_decisions, read_rows
from sluice.data.report import EVIDENCE

_PLACEHOLDER = re.compile(f"<({'|'.join(KINDS)})>")
_EARLIER = "earlier_duplicate"
_AFTER_CUTTING = "after cutting"
"""Suffix of the comparison of a document that was dropped because too little was left after cutting."""


class Explanation(BaseModel):
    """The decision about one document, with its reasons."""

    id: str
    final_id: str | None
    """Id of the text after cutting; None if the document was dropped."""
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
    """Duplicate index to which an earlier run added the twin."""
    words: int | None = None
    """Number of words that were scored, before cutting."""
    cut: list[str] = []
    """Settings that cut something out; for contamination with the number of words, which is not known of repeats."""
    masked: dict[str, int] = {}
    """Number of placeholders for personal data, by kind."""

    def __str__(self) -> str:
        where = f"{self.id} ({self.source}, {self.path})"
        what = f"{where}: kept" if self.kept else f"{where}: dropped by {self.rule}: {self._reason()}"
        found = []
        if self.cut_characters or self.cut:
            by = f" by {', '.join(self.cut)}" if self.cut else ""
            of = f" of {self.words:,} words" if self.words is not None else ""
            found.append(
                f"{self.cut_characters:,} characters{of} were cut out{by}; the id of the rest is {self.final_id}"
                if self.kept
                else f"cut out of {self.words:,} words{by}"
            )
        if self.masked:
            found.append(f"masked: {', '.join(f'{kind} {count:,}' for kind, count in sorted(self.masked.items()))}")
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


def why(folder: Path, name: str, here: Path | None = None) -> list[Explanation]:
    """Explain the decision about a document, given its id (as read, scored or kept), a prefix of it, or its path.

    A path is absolute, relative to `here` (default: the current folder), or below the source. Returns several where the
    same text was read several times. Raises ValueError if there is none, or a path is ambiguous.
    """
    decisions = read_decisions(folder)
    found = find_documents(folder, decisions, name, here or Path.cwd())
    # A twin is named by its scored id, or by its final id where cutting made two documents equal.
    kept = [row for row in decisions if row["kept"]]
    twins = {row["final_id"]: row for row in kept} | {row["id"]: row for row in kept}
    config = None
    if (folder / MANIFEST).is_file():
        with suppress(ValidationError):
            config = RefineConfig.model_validate(read_manifest(folder).get("parameters", {}).get("refine"))
    return [_explain(row, twins.get(row["twin"]), config, folder) for row in found]


def _explain(
    row: dict[str, Any], twin: dict[str, Any] | None, config: RefineConfig | None, folder: Path
) -> Explanation:
    fields = {name: row[name] for name in Explanation.model_fields if name in row}
    if twin is not None:
        fields |= {"twin_source": twin["source"], "twin_path": twin["path"]}
    if row["rule"] == _EARLIER and config is not None:
        fields["index"] = config.index
    is_cut = row["cut_characters"] or str(row["comparison"]).endswith(_AFTER_CUTTING)
    # A folder without texts has no scores.
    for part in sorted((folder / EVIDENCE).glob("scores-*.parquet")) if row["kept"] or is_cut else ():
        ids = read_columns(part, ["id"])["id"].to_pylist()
        if row["id"] not in ids:
            continue
        scored = next(read_rows(part, [ids.index(row["id"])], ["text", "words", "contamination"]))
        if is_cut:
            fields |= {"words": int(scored["words"]), "cut": _cut_kinds(scored, config)}
        # Where the ids differ nothing was masked: the placeholders were in the source.
        if row["kept"] and row["raw_id"] == row["id"]:
            fields["masked"] = Counter(_PLACEHOLDER.findall(scored["text"]))
        break
    return Explanation(**fields)


def _cut_kinds(scored: dict[str, Any], config: RefineConfig | None) -> list[str]:
    """See `Explanation.cut`."""
    if config is None:
        return []
    policies = set_policies(config)
    spans = parse_contamination([scored["contamination"]]).get(0, [])
    cut_spans = [span for span in spans if policies.get(span.set) == "cut"]
    kinds = []
    if shared := actionable(cut_spans, config.contamination_sign):
        words = sum(span.last_word - span.first_word for span in shared)
        kinds.append(f"contamination ({words:,} words shared with {', '.join(sorted({each.set for each in shared}))})")
    settings = {name: getattr(config, name) for name in ("max_piece_copies", "min_substring_words")}
    return [*kinds, *(f"{name}={value}" for name, value in settings.items() if value is not None)]
