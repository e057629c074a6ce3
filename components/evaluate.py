"""Step 7, evaluate: the tuned model on held-out documents."""

from sluice.components.stage import Stage, main
from sluice.core.settings.files import with_absolute_paths
from sluice.data.config import PackConfig
from sluice.model.config import EvaluateConfig


def work(stage: Stage) -> object:
    from sluice.model.evaluation.harness import evaluate

    return evaluate(
        with_absolute_paths(stage.block(EvaluateConfig), stage.workspace.root),
        stage.input("tune"),
        stage.input("refine"),
        stage.block(PackConfig),
        stage.out,
        progress=stage.progress,
    )


if __name__ == "__main__":
    main("evaluate", work)
