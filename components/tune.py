"""Step 6, tune: base model -> model that answers, fine-tuned on pairs made from the training documents."""

from components.stage import Stage, main
from data.config import PackConfig
from model.config import TuneConfig


def work(stage: Stage) -> object:
    from model.tuning.instruction import tune

    return tune(
        stage.block("tune", TuneConfig),
        stage.input("pretrain"),
        stage.input("refine"),
        stage.block("pack", PackConfig),
        stage.out,
        progress=stage.progress,
    )


if __name__ == "__main__":
    main("tune", work)
