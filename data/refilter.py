"""Refilter: apply new thresholds to a build from its stored scores, without scoring again."""

import difflib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sluice.core.files import copy_tree, link_or_copy
from sluice.core.manifest import read_manifest
from sluice.core.progress import Progress, no_progress
from sluice.core.settings.errors import mistake
from sluice.data.build import BuildReport, put_in_place, seal
from sluice.data.config import RefineConfig
from sluice.data.refining.compare import similar_pairs_again
from sluice.data.refining.evidence import read_evidence, write_pairs, write_report
from sluice.data.refining.fingerprint import THRESHOLDS
from sluice.data.refining.refine import decide_cut_write
from sluice.data.refining.tables import DECISIONS, PAIRS
from sluice.data.report import EVIDENCE, INGEST, REPORT, IngestReport, RefineReport


@dataclass(frozen=True)
class Refiltered:
    """The same documents under the thresholds before and after."""

    before: RefineReport
    after: RefineReport
    changed: dict[str, tuple[Any, Any]]
    """Setting -> its value before and after."""


def refilter(folder: Path, changes: dict[str, Any], *, progress: Progress = no_progress) -> Refiltered:
    """Apply `changes` to the thresholds of a build and replace the build by the outcome.

    Raises ValueError for a setting that needs new scores, for a value that is not allowed, or if nothing would be
    kept; the folder is then unchanged.
    """
    folder = folder.resolve()
    manifest = read_manifest(folder)
    if "step" in manifest:
        raise ValueError(
            f"{folder} is a step's artifact, which DVC tracks: change its thresholds with `sluice run "
            "refine.KEY=VALUE`, which reuses the scores"
        )
    old = RefineConfig.model_validate(manifest["parameters"]["refine"])
    config = _changed(old, changes)
    evidence = folder / EVIDENCE
    before = RefineReport.model_validate_json((evidence / REPORT).read_text(encoding="utf-8"))
    result = folder.with_name(f".{folder.name}.refilter")
    shutil.rmtree(result, ignore_errors=True)
    try:
        copy_tree(evidence, result / EVIDENCE, link_or_copy)
        for name in (DECISIONS, REPORT):
            (result / EVIDENCE / name).unlink()
        kept = result / EVIDENCE
        corpus, sketches, pairs, earlier = read_evidence(kept)
        pairs = similar_pairs_again(old, config, corpus, sketches, pairs, result)
        (kept / PAIRS).unlink()  # a hard link to the file of the build
        write_pairs(corpus, pairs, kept)
        after = decide_cut_write(config, corpus, sketches, pairs, earlier, result, progress=progress)
        after.masked = before.masked
        after.evaluation_sets, after.short_items = before.evaluation_sets, before.short_items
        write_report(after, result)
        ingested = IngestReport.model_validate_json((evidence / INGEST).read_text(encoding="utf-8"))
        parameters = {**manifest["parameters"], "refine": config.shown()}
        seal(BuildReport(ingest=ingested, refine=after), parameters, result)
        put_in_place(result, folder)
    finally:
        shutil.rmtree(result, ignore_errors=True)
    changed = {name: (getattr(old, name), getattr(config, name)) for name in changes}
    return Refiltered(before, after, changed)


def _changed(old: RefineConfig, changes: dict[str, Any]) -> RefineConfig:
    allowed = sorted(THRESHOLDS)
    if not changes:
        raise ValueError(f"nothing to change: give key=value, such as min_words=60, of {', '.join(allowed)}")
    for name in changes:
        if name not in RefineConfig.model_fields:
            near = difflib.get_close_matches(name, allowed, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"refilter takes {', '.join(allowed)}"
            raise ValueError(f"unknown key '{name}': {hint}")
        if name not in THRESHOLDS:
            raise ValueError(f"'{name}' needs new scores, it is no threshold: build again with refine.{name}=..")
    if old.index is not None:
        raise ValueError(f"this build added what it kept to the index {old.index}: build again with the new thresholds")
    try:
        return RefineConfig.model_validate({**old.model_dump(), **changes})
    except ValidationError as error:
        raise ValueError(mistake(RefineConfig, error)) from None
