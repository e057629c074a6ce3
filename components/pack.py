"""Step 4, pack: text -> memory-mapped token shards, split by content hash."""

from components.stage import Stage, main
from data.config import PackConfig


def work(stage: Stage) -> object:
    from data.packing import pack

    config = stage.block("pack", PackConfig)
    return pack(config, stage.input("refine"), stage.input("tokenizer"), stage.out, progress=stage.progress)


if __name__ == "__main__":
    main("pack", work)
