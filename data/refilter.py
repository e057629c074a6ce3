"""New thresholds over old scores: what is kept is decided again, and nothing is scored again."""

import difflib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from sluice.core.files import copy_tree
from sluice.core.manifest import EVIDENCE, read_manifest
from sluice.core.progress import Progress, no_progress
from sluice.core.settings.errors import mistake
from sluice.data.build import BuildReport, put_in_place, seal
from sluice.data.config import RefineConfig
from sluice.data.deduplication.near import PAIR, Duplicate
from sluice.data.deduplication.sketch_store import SketchPart
from sluice.data.refining.compare import pairs_again
from sluice.data.refining.corpus import ScoredCorpus
from sluice.data.refining.fingerprint import RECUT
from sluice.data.refining.refine import write_pairs, write_report
from sluice.data.refining.rounds import keep
from sluice.data.refining.tables import DECISIONS, EARLIER, INGEST, PAIRS, REPORT, SKETCHES, read_twins, score_parts
from sluice.data.report import IngestReport, RefineReport


@dataclass(frozen=True)
class Recut:
    """The same documents under the thresholds before and after."""

    before: RefineReport
    after: RefineReport
    changed: dict[str, tuple[Any, Any]]
    """Setting -> its value before and after."""


def recut(folder: Path, changes: dict[str, Any], *, progress: Progress = no_progress) -> Recut:
    """Apply `changes` to the settings that a build was cut with, and put the new outcome in its place.

    ValueError for a setting that would need new scores, a value that is not allowed, or if nothing would be kept; the
    folder is then as it was.
    """
    folder = folder.resolve()
    manifest = read_manifest(folder)
    if "step" in manifest:
        raise ValueError(
            f"{folder} is a step's artifact, which DVC keeps: `sluice run refine.KEY=VALUE` cuts it again, from the "
            "scores that are there"
        )
    old = RefineConfig.model_validate(manifest["parameters"]["refine"])
    config = _changed(old, changes)
    evidence = folder / EVIDENCE
    before = RefineReport.model_validate_json((evidence / REPORT).read_text(encoding="utf-8"))
    result = folder.with_name(f".{folder.name}.recut")
    shutil.rmtree(result, ignore_errors=True)
    try:
        copy_tree(evidence, result / EVIDENCE, _link)
        for name in (DECISIONS, REPORT):
            (result / EVIDENCE / name).unlink()
        after = _keep(old, config, result, progress)
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
    return Recut(before, after, changed)


def _changed(old: RefineConfig, changes: dict[str, Any]) -> RefineConfig:
    if not changes:
        raise ValueError(f"nothing to change: give key=value, such as min_words=60, of {', '.join(sorted(RECUT))}")
    for name in changes:
        if name not in RefineConfig.model_fields:
            near = difflib.get_close_matches(name, sorted(RECUT), n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"recut takes {', '.join(sorted(RECUT))}"
            raise ValueError(f"unknown key '{name}': {hint}")
        if name not in RECUT:
            raise ValueError(f"'{name}' decides what is measured, not what is kept: build again with refine.{name}=..")
    if old.index is not None:
        raise ValueError(
            f"this build wrote what it kept into the index {old.index}: build again with the new thresholds"
        )
    try:
        return RefineConfig.model_validate({**old.model_dump(), **changes})
    except ValidationError as error:
        raise ValueError(mistake(RefineConfig, error)) from None


def _keep(old: RefineConfig, config: RefineConfig, result: Path, progress: Progress) -> RefineReport:
    evidence = result / EVIDENCE
    corpus = ScoredCorpus.open(score_parts(evidence))
    sketches = [SketchPart(evidence / SKETCHES.format(number)) for number in range(len(corpus.parts))]
    earlier = {name: Duplicate(name, twin, jaccard) for name, twin, jaccard in read_twins(evidence / EARLIER)}
    pairs = pairs_again(old, config, corpus, sketches, _read_pairs(corpus, evidence / PAIRS), result)
    (evidence / PAIRS).unlink()  # another name for what the build has
    write_pairs(corpus, pairs, evidence)
    return keep(config, corpus, sketches, pairs, earlier, result, progress=progress)


def _read_pairs(corpus: ScoredCorpus, path: Path) -> np.ndarray:
    """[n] PAIR over the distinct ids."""
    place = {corpus.columns.ids[row]: number for number, row in enumerate(corpus.columns.first_rows())}
    return np.array([(place[one], place[other], jaccard) for one, other, jaccard in read_twins(path)], dtype=PAIR)


def _link(source: Path, target: Path) -> None:
    """Evidence is written once, so another name for it will do, where the file system has such a thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
