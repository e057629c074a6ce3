"""Step 2, refine: raw documents -> clean, deduplicated, masked text; every dropped document is kept with its reason."""

import json
import shutil
from pathlib import Path

from sluice.components.ray_head import use_head_if_up
from sluice.components.stage import MANIFEST, Stage, main, write_json
from sluice.data.config import RefineConfig


def work(stage: Stage) -> object:
    from sluice.data.refining.refine import refine
    from sluice.data.report import EVIDENCE, INGEST, REJECTS

    use_head_if_up()
    config = _in_workspace(stage.block("refine", RefineConfig), stage.workspace.root)
    # What was scored stays for the next run with other thresholds.
    scored = stage.workspace.state / "scored"
    raw = stage.input("ingest")
    report = refine(config, raw, stage.out, work=scored, progress=stage.progress)
    ingested = json.loads((raw / MANIFEST).read_text())["report"]
    write_json(stage.out / EVIDENCE / INGEST, ingested)
    shutil.copyfile(raw / REJECTS, stage.out / EVIDENCE / REJECTS)
    return report


def _in_workspace(config: RefineConfig, root: Path) -> RefineConfig:
    """Absolute paths: a worker may have been started in any folder."""
    sets = [each.model_copy(update={"path": str(root / each.path)}) for each in config.sets]
    places = {
        name: str(root / path) if (path := getattr(config, name)) else None for name in ("quality_model", "index")
    }
    return config.model_copy(update={"evaluation_sets": sets, **places})


if __name__ == "__main__":
    main("refine", work)
