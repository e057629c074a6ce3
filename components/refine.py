"""Step 2, refine: raw documents -> clean, deduplicated, masked text; every dropped document is kept with its reason."""

from components.head import use_head_if_up
from components.stage import Stage, main
from data.config import RefineConfig


def work(stage: Stage) -> object:
    from data.refine import refine

    use_head_if_up()
    return refine(stage.block("refine", RefineConfig), stage.input("ingest"), stage.out, progress=stage.progress)


if __name__ == "__main__":
    main("refine", work)
