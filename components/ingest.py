"""Step 1, ingest: sources -> raw documents, each with its origin and licence."""

from components.head import request_head
from components.stage import Stage, main
from data.config import IngestConfig


def work(stage: Stage) -> object:
    from data.sources.ingest import ingest

    request_head()  # comes up while the sources are read; refine is the first to use it
    downloads = stage.workspace.state / "downloads"
    return ingest(stage.block("data", IngestConfig), stage.out, cache=downloads, progress=stage.progress)


if __name__ == "__main__":
    main("ingest", work)
