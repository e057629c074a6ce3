"""Step 7, evaluate: the tuned model on held-out documents, attested for the gate."""

from functools import partial

from sluice.components.stage import Stage, main
from sluice.core.settings.files import with_absolute_paths
from sluice.data.config import PackConfig
from sluice.model.config import EvaluateConfig


def work(stage: Stage) -> object:
    from sluice.components.evidence import attest_candidate
    from sluice.model.evaluation.harness import evaluate

    report = evaluate(
        with_absolute_paths(stage.block(EvaluateConfig), stage.workspace.root),
        stage.input("tune"),
        stage.input("refine"),
        stage.block(PackConfig),
        stage.out,
        progress=stage.progress,
    )
    report.remember = partial(attest_candidate, stage.workspace)
    return report


if __name__ == "__main__":
    main("evaluate", work)
