"""`sluice run`: settings, machine, pipeline, summary."""

import argparse
from pathlib import Path

from components.stage import MANIFEST
from components.workspace import Workspace
from pipelines.doctor import examine, require_healthy
from pipelines.parameters import compose, write_params
from pipelines.runner import run_pipeline
from pipelines.summary import print_summary


def run(arguments: argparse.Namespace) -> int:
    workspace = Workspace.find()
    values = compose(workspace, arguments.overrides)
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


def draw_card(workspace: Workspace) -> Path:
    """The data card of the run's corpus, tokenizer and shards, drawn again where any of them is newer."""
    from data.card.card import write_card

    refined, tokenizer, packed = (workspace.artifact(step) for step in ("refine", "tokenizer", "pack"))
    card = workspace.state / "data-card.html"
    newest = max((folder / MANIFEST).stat().st_mtime for folder in (refined, tokenizer, packed))
    if not card.is_file() or card.stat().st_mtime < newest:
        write_card(refined, card, tokenizer=tokenizer, packed=packed)
    return card
