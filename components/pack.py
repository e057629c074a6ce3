"""Step 4, pack: text -> memory-mapped token shards, split by content hash."""

from sluice.components.stage import Stage, main
from sluice.data.config import PackConfig


def work(stage: Stage) -> object:
    from sluice.data.packing import pack

    config = stage.block(PackConfig)
    return pack(config, stage.input("refine"), stage.input("tokenizer"), stage.out, progress=stage.progress)


if __name__ == "__main__":
    main("pack", work)
