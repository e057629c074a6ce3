"""`sluice plan` and `sluice train` support the same layouts: both commands are asked, over cases and over a grid."""

import argparse
from itertools import product
from pathlib import Path

import pytest

from sluice.components.workspace import Workspace
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.mixture_config import MixtureConfig
from sluice.model.architecture.state_space_config import StateSpaceConfig
from sluice.model.config import OBJECTIVE_KINDS, PretrainConfig
from sluice.model.parallelism.optimizers import OPTIMIZERS
from sluice.model.parallelism.rules import check
from sluice.model.planner.plan import plan
from sluice.model.planner.settings import PlanConfig
from sluice.pipelines.cli import main
from sluice.pipelines.train_run import request_of

pytestmark = pytest.mark.usefixtures("empty_workspace")

RUN = ("pretrain.workers=2", "pretrain.batch_size=8", "pretrain.micro_batch_size=4", "pretrain.optimizer=adamw")
MODEL = ("model.hidden_size=32", "model.layers=4", "model.heads=4", "model.kv_heads=2", "model.context=32")
PIPELINE, TENSOR, ZERO3 = "pretrain.pipeline_stages=2", "pretrain.tensor_parallel=2", "pretrain.zero_stage=3"
MIXTURE = "model.mixture={experts: 4}"
CASES = {
    "five layers in two stages": (("model.layers=5", PIPELINE), None),
    "mixture and tensor 2": ((MIXTURE, TENSOR), "tensor_parallel 2 is not supported with a mixture of experts"),
    "mixture and pipeline 2": (
        (MIXTURE, PIPELINE),
        "pipeline_stages 2 is not supported with an encoder-decoder, a mix",
    ),
    "Muon and tensor 2": (
        ("pretrain.optimizer=muon", TENSOR),
        "tensor_parallel 2 is not supported with optimizer muon",
    ),
    "ZeRO 3 and tensor 2": ((ZERO3, TENSOR), "tensor_parallel 2 is not supported with zero_stage 3"),
}


def composed(overrides: tuple[str, ...]) -> list[str]:
    """The settings of a case, each named once: those of the case replace the common ones."""
    named = {each.partition("=")[0]: each for each in (*MODEL, *RUN, *overrides)}
    return list(named.values())


@pytest.mark.parametrize("case", CASES)
def test_plan_and_train_give_the_same_answer(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides, reason = CASES[case]
    text = tmp_path / "notes.txt"
    text.write_text("a few words to train on\n" * 200)
    settings = composed(overrides)
    code = main(["plan", "--no-measure", *settings])
    planned = capsys.readouterr()
    if reason is None:
        arguments = argparse.Namespace(resume=None, overrides=[f"data.path={text}", *settings])
        request = request_of(Workspace.find_or_default(), arguments, tmp_path / "run")
        assert code == 0 and request.model.layers == 5 and request.pretrain.pipeline_stages == 2
        return
    assert code == 1 and planned.err.startswith("sluice plan: ") and reason in planned.err
    assert main(["train", f"data.path={text}", *settings, "--out", str(tmp_path / "run")]) == 1
    trained = capsys.readouterr().err
    assert trained.removeprefix("sluice train: ") == planned.err.removeprefix("sluice plan: ")


MODELS: dict[str, ModelConfig] = {
    name: ModelConfig(**{"hidden_size": 32, "layers": 5, "heads": 4, "kv_heads": 2, "context": 32, **options})
    for name, options in {
        "dense": {},
        "one layer": {"layers": 1},
        "three heads": {"hidden_size": 48, "heads": 3, "kv_heads": 1},
        "mixture": {"mixture": MixtureConfig(experts=4)},
        "dropout": {"dropout": 0.1},
        "relative": {"positions": "relative"},
        "hybrid": {"pattern": ("state_space", "attention"), "state_space": StateSpaceConfig(head_size=8)},
        "encoder": {"kind": "encoder"},
        "translator": {"kind": "encoder-decoder", "positions": "relative"},
        "untied translator": {"kind": "encoder-decoder", "tie_embeddings": False},
    }.items()
}
OBJECTIVES = {kind: objective for objective, kind in OBJECTIVE_KINDS.items()}


def refusal(ask: object, *arguments: object, **settings: object) -> str | None:
    try:
        ask(*arguments, **settings)  # type: ignore[operator]
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", MODELS)
def test_every_layout_is_planned_exactly_where_it_is_trained(name: str) -> None:
    model = MODELS[name]
    shape = TransformerConfig.from_settings(model, 300)
    agreed = {True: 0, False: 0}
    for optimizer, (workers, pipeline, tensor), stage, (dtype, offload), checkpointing in product(
        OPTIMIZERS,
        [(2, 1, 1), (2, 2, 1), (2, 1, 2), (4, 2, 2), (3, 2, 1)],
        (0, 1, 2, 3),
        [("fp32", "none"), ("fp16", "none"), ("fp32", "optimizer"), ("bf16", "all")],
        ("none", "selective"),
    ):
        run = PretrainConfig(
            objective=OBJECTIVES[model.kind],
            optimizer=optimizer,
            workers=workers,
            pipeline_stages=pipeline,
            tensor_parallel=tensor,
            zero_stage=stage,  # type: ignore[arg-type]
            dtype=dtype,  # type: ignore[arg-type]
            offload=offload,  # type: ignore[arg-type]
            activation_checkpointing=checkpointing,  # type: ignore[arg-type]
            batch_size=12,
            micro_batch_size=1,
        )
        trained = refusal(check, run, model, cuda=True)
        planned = refusal(plan, shape, run, PlanConfig(zero_stage=run.zero_stage, device="h200"))
        assert planned == trained, (run, model)
        agreed[trained is None] += 1
    assert min(agreed.values()) > 40, "the grid has both legal and illegal layouts"
