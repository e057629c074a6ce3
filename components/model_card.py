"""The model card of a candidate, in Markdown: what it is, why it may serve and how to make it again.

The registry's page shows it with the version, so it stands alone and stays short. Pure.
"""

from collections.abc import Mapping
from typing import Any

from sluice.model.evaluation.verdict import Verdict

_HASH_DIGITS = 12


def model_card(name: str, verdict: Verdict, metrics: Mapping[str, Mapping[str, Any]], tags: Mapping[str, str]) -> str:
    """Return the card; `metrics` are those of the steps by step, of which any number may be absent."""
    pretrain = metrics.get("pretrain", {})
    facts = {
        "parameters": _shown(pretrain.get("parameters")),
        "training tokens": _shown(pretrain.get("tokens")),
        "vocabulary": _shown(metrics.get("tokenizer", {}).get("vocab_size")),
        "documents": _shown(metrics.get("refine", {}).get("documents_kept")),
        "sources": ", ".join(sorted(metrics.get("ingest", {}).get("sources", {}))),
        **{label: f"`{tags[tag][:_HASH_DIGITS]}`" for tag, label in _ORIGIN.items() if tag in tags},
        "registered by": tags.get("user", ""),
    }
    forced = f"It was released all the same, by force: {tags['forced']}" if "forced" in tags else ""
    compared = "no earlier champion to compare with" if verdict.is_first_version else "compared with the champion"
    return "\n".join(
        [
            f"# {name}",
            "",
            "## What it is",
            "",
            *_table(("fact", "value"), [(label, value) for label, value in facts.items() if value]),
            "",
            "## Why it may serve" if verdict.outcome == "promote" else "## Why it may not serve",
            "",
            f"The gate's verdict is **{verdict.outcome}** ({compared}; {verdict.correction}). {forced}".rstrip(),
            "",
            *_table(("check", "outcome"), [(check.reason, f"**{check.outcome}**") for check in verdict.checks]),
            "",
            "## How to make it again",
            "",
            "`lineage/params.yaml` and `lineage/dvc.lock` of the source run have the settings and the hash of every "
            "artifact; `verdict/verdict.json` is the signed verdict; `pages/` has the evaluation and the data card.",
            "",
        ]
    )


_ORIGIN = {"git_commit": "code (git commit)", "data": "clean data (hash)", "tokenizer": "tokenizer (hash)"}


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    escaped = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *escaped)]


def _shown(value: int | None) -> str:
    """A number for readers; empty for None."""
    return "" if value is None else f"{value:,}"
