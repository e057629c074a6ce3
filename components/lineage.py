"""Lineage of a model version: what it was made from, as files that the version keeps and as tags of the registry."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from sluice.components.params import BLOCKS, load_block
from sluice.components.reproduce import content_hash, read_lock
from sluice.components.workspace import Workspace
from sluice.core.manifest import file_hash


def write_lineage(workspace: Workspace, out: Path) -> list[Path]:
    """Copy params.yaml and dvc.lock to `out`, because the next run overwrites them, without the secrets of sources."""
    blocks = {kind.block_name: load_block(workspace, kind).shown() for kind in BLOCKS}
    lock = read_lock(workspace)
    for stage in lock["stages"].values():
        for values in stage.get("params", {}).values():
            values.update({name: blocks[name] for name in values})
    paths = []
    for name, content in (("params.yaml", blocks), ("dvc.lock", lock)):
        paths.append(out / name)
        paths[-1].write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return paths


def lineage_tags(workspace: Workspace, files: Sequence[Path]) -> dict[str, str]:
    """Git commit and the hashes of everything the version was made from; `files` are those of `write_lineage`."""
    params, lock = files
    return {
        "git_commit": git_commit(workspace),
        "params": file_hash(params),
        "dvc_lock": file_hash(lock),
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
