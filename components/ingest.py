"""Step 1, ingest: sources -> raw documents, each with its origin and licence."""

from contextlib import chdir

from components.head import request_head
from components.stage import Stage, main
from data.config import IngestConfig


def work(stage: Stage) -> object:
    from data.sources.ingest import ingest

    request_head()  # comes up while the sources are read; refine is the first to use it
    downloads = stage.workspace.state / "downloads"
    # Sources are named by their paths, so these stay relative, and the artifact does not know where the workspace lies.
    with chdir(stage.workspace.root):
        return ingest(stage.block("data", IngestConfig), stage.out, cache=downloads, progress=stage.progress)


if __name__ == "__main__":
    main("ingest", work)
