"""`sluice run`: settings, machine, pipeline, summary."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sluice.components.params import validate
from sluice.components.stage import MANIFEST
from sluice.components.workspace import Workspace
from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.rules import check
from sluice.pipelines.compose import compose, write_params
from sluice.pipelines.doctor import examine, require_healthy
from sluice.pipelines.runner import run_pipeline
from sluice.pipelines.summary import print_summary


def run(arguments: argparse.Namespace) -> int:
    workspace = Workspace.find()
    values = compose(workspace, arguments.overrides)
    _check_training(values)
    require_healthy(examine(workspace, values))
    write_params(workspace, values)
    try:
        record = run_pipeline(workspace)
    except KeyboardInterrupt:
        again = " ".join(["sluice run", *arguments.overrides])
        raise KeyboardInterrupt(f"finished steps and checkpoints are kept; `{again}` goes on from there") from None
    print_summary(workspace, record)
    print(f"data card {draw_card(workspace).relative_to(workspace.root)}")
    return 0


def _check_training(values: Mapping[str, Any]) -> None:
    """What cannot be trained is told now, and not when the data is ready for it. Whether workers have GPUs they see."""
    blocks = validate(values)
    pretrain, model = blocks["pretrain"], blocks["model"]
    assert isinstance(pretrain, PretrainConfig)
    assert isinstance(model, ModelConfig)
    check(pretrain, model, cuda=True)


def draw_card(workspace: Workspace) -> Path:
    """The data card of the run's corpus, tokenizer and shards, drawn again where any of them is newer."""
    from sluice.data.card.card import write_card

    refined, tokenizer, packed = (workspace.artifact(step) for step in ("refine", "tokenizer", "pack"))
    card = workspace.state / "data-card.html"
    newest = max((folder / MANIFEST).stat().st_mtime for folder in (refined, tokenizer, packed))
    if not card.is_file() or card.stat().st_mtime < newest:
        write_card(refined, card, tokenizer=tokenizer, packed=packed)
    return card
