"""Step 1, ingest: sources -> raw documents, each with its origin and licence."""

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
        return ingest(config, stage.out, cache=downloads, progress=stage.progress)


if __name__ == "__main__":
    main("ingest", work)
