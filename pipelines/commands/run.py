"""`sluice run`: settings, machine, pipeline, summary."""

import argparse
from pathlib import Path

from sluice.components.workspace import Workspace
from sluice.core.manifest import MANIFEST
from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.rules import check
from sluice.pipelines.compose import compose
from sluice.pipelines.doctor import examine, require_healthy
from sluice.pipelines.options import add_overrides
from sluice.pipelines.runner import run_pipeline
from sluice.pipelines.summary import print_summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(
        parser, "profile=NAME or block.key=value, as in conf/ (profile=tiny, pretrain.steps=100, data.sources=path)"
    )


def run(arguments: argparse.Namespace) -> int:
    workspace = Workspace.find()
    params = compose(workspace, arguments.overrides)
    # Refused now, and not when the data is ready for it. Whether workers have GPUs they see.
    check(params[PretrainConfig], params[ModelConfig], cuda=True)
    require_healthy(examine(workspace, params))
    try:
        record = run_pipeline(workspace, params)
    except KeyboardInterrupt:
        again = " ".join(["sluice run", *arguments.overrides])
        raise KeyboardInterrupt(f"finished steps and checkpoints are kept; `{again}` goes on from there") from None
    print_summary(workspace, record)
    print(f"data card {draw_card(workspace).relative_to(workspace.root)}")
    return 0


def draw_card(workspace: Workspace) -> Path:
    """The data card of the run's corpus, tokenizer and shards, drawn again where any of them is newer."""
    from sluice.data.card.card import write_card

    refined, tokenizer, packed = (workspace.artifact(step) for step in ("refine", "tokenizer", "pack"))
    card = workspace.state / "data-card.html"
    newest = max((folder / MANIFEST).stat().st_mtime for folder in (refined, tokenizer, packed))
    if not card.is_file() or card.stat().st_mtime < newest:
        write_card(refined, card, tokenizer=tokenizer, packed=packed)
    return card
