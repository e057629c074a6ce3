"""The data card of the last run."""

from pathlib import Path

from sluice.components.workspace import Workspace
from sluice.core.manifest import MANIFEST


def draw_data_card(workspace: Workspace) -> Path:
    """Draw the card of the run's corpus, tokenizer and shards, unless it is newer than these; return its path."""
    from sluice.data.card.card import write_card

    refined, tokenizer, packed = (workspace.artifact(step) for step in ("refine", "tokenizer", "pack"))
    card = workspace.state / "data-card.html"
    newest = max((folder / MANIFEST).stat().st_mtime for folder in (refined, tokenizer, packed))
    if not card.is_file() or card.stat().st_mtime < newest:
        write_card(refined, card, tokenizer=tokenizer, packed=packed)
    return card
