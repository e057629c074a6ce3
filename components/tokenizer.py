"""Step 3, tokenizer: byte-level BPE, trained on the training split alone."""

from sluice.components.stage import Stage, main
from sluice.core.settings.files import with_absolute_paths
from sluice.data.config import PackConfig, TokenizerConfig


def work(stage: Stage) -> object:
    from sluice.data.tokenization import train_tokenizer

    config, split = stage.block(TokenizerConfig), stage.block(PackConfig)
    config = with_absolute_paths(config, stage.workspace.root)
    return train_tokenizer(config, stage.input("refine"), stage.out, split=split, progress=stage.progress)


if __name__ == "__main__":
    main("tokenizer", work)
