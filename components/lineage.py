"""Lineage of a model version as registry tags."""

import subprocess

from sluice.components.reproduce import content_hash
from sluice.components.workspace import Workspace
from sluice.core.manifest import file_hash


def lineage_tags(workspace: Workspace) -> dict[str, str]:
    """Git commit and the hashes of everything the version was made from."""
    return {
        "git_commit": git_commit(workspace),
        "dvc_lock": file_hash(workspace.root / "dvc.lock"),
        "params": file_hash(workspace.params),
        "data": content_hash(workspace, "refine"),
        "tokenizer": content_hash(workspace, "tokenizer"),
    }


def git_commit(workspace: Workspace) -> str:
    """The commit of the workspace's code, `-dirty` where files differ from it; `unknown` outside a git checkout."""
    commit = _git(workspace, "rev-parse", "HEAD")
    if commit is None:
        return "unknown"
    changed = _git(workspace, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{commit}-dirty" if changed else commit


def _git(workspace: Workspace, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(workspace.root), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
