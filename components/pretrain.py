"""Step 5, pretrain: token shards -> base model, by DeepSpeed under Ray Train."""

from sluice.components.ray_head import connect_to_head
from sluice.components.stage import Stage, main
from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig


def work(stage: Stage) -> object:
    connect_to_head()
    from sluice.model.training.pretrain import pretrain

    return pretrain(
        stage.block(PretrainConfig),
        stage.block(ModelConfig),
        stage.input("pack"),
        stage.input("tokenizer"),
        stage.out,
        stage.workspace.state / "checkpoints",
        progress=stage.progress,
    )


if __name__ == "__main__":
    main("pretrain", work)
