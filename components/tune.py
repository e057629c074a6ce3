"""Step 6, tune: base model -> model that answers, fine-tuned on pairs made from the training documents."""

from sluice.components.stage import Stage, main
from sluice.data.config import PackConfig
from sluice.model.config import TuneConfig


def work(stage: Stage) -> object:
    from sluice.model.tuning.instruction import tune

    return tune(
        stage.block(TuneConfig),
        stage.input("pretrain"),
        stage.input("refine"),
        stage.block(PackConfig),
        stage.out,
        progress=stage.progress,
    )


if __name__ == "__main__":
    main("tune", work)
