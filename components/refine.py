"""Step 2, refine: raw documents -> clean, deduplicated, masked text, with a reason for every dropped document."""

import json
import shutil

from sluice.components.ray_head import use_head_if_up
from sluice.components.stage import Stage, main
from sluice.core.files import write_json
from sluice.core.manifest import MANIFEST
from sluice.core.progress import Note
from sluice.core.settings.files import with_absolute_paths
from sluice.data.config import RefineConfig


def work(stage: Stage) -> object:
    from sluice.data.refining.refine import refine
    from sluice.data.report import EVIDENCE, INGEST, REJECTS

    use_head_if_up()
    # A worker may have been started in any folder.
    config = with_absolute_paths(stage.block(RefineConfig), stage.workspace.root)
    # What was scored stays for the next run with other thresholds.
    scored = stage.workspace.state / "scored"
    raw = stage.input("ingest")
    report = refine(config, raw, stage.out, work=scored, progress=stage.progress)
    if report.warning:
        stage.progress(1, 1, Note(f"warning: {report.warning}"))
    ingested = json.loads((raw / MANIFEST).read_text())["report"]
    write_json(stage.out / EVIDENCE / INGEST, ingested)
    shutil.copyfile(raw / REJECTS, stage.out / EVIDENCE / REJECTS)
    return report


if __name__ == "__main__":
    main("refine", work)
