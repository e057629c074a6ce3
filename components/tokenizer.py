"""Step 3, tokenizer: byte-level BPE, trained on the training split alone."""

from sluice.components.stage import Stage, main
from sluice.data.config import PackConfig, TokenizerConfig


def work(stage: Stage) -> object:
    from sluice.data.tokenization import train_tokenizer

    config, split = stage.block("tokenizer", TokenizerConfig), stage.block("pack", PackConfig)
    if config.path is not None:
        config = config.model_copy(update={"path": str(stage.workspace.root / config.path)})
    return train_tokenizer(config, stage.input("refine"), stage.out, split=split, progress=stage.progress)


if __name__ == "__main__":
    main("tokenizer", work)
