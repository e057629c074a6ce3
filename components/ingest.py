"""Step 1, ingest: sources -> raw documents, each with its origin and licence."""

import shutil
from contextlib import chdir

from sluice.components.ray_head import request_head
from sluice.components.stage import Stage, main
from sluice.data.config import IngestConfig


def work(stage: Stage) -> object:
    from sluice.data.sources.ingest import ingest
    from sluice.data.sources.local_hash import refuse_changed

    config = stage.block(IngestConfig)
    request_head()  # comes up while the sources are read; refine is the first to use it
    downloads = stage.workspace.state / "downloads"
    # Sources are named by their paths, so these stay relative, and the artifact does not know where the workspace lies.
    with chdir(stage.workspace.root):
        refuse_changed(config)
        # What was read stays for the next run, if this one is interrupted.
        read = stage.workspace.state / "read"
        report = ingest(config, stage.out, cache=downloads, work=read, progress=stage.progress)
    shutil.rmtree(read, ignore_errors=True)
    return report


if __name__ == "__main__":
    main("ingest", work)
