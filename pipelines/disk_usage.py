"""Items that a workspace stores, run after run, and what needs them."""

import json
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sluice.components.events import read_events
from sluice.components.reproduce import read_lock
from sluice.components.stores import open_ledgers
from sluice.components.workspace import Workspace
from sluice.core.manifest import MANIFEST, read_manifest
from sluice.core.mlflow_artifacts import local_folder
from sluice.monitoring.config import MonitorConfig
from sluice.pipelines.evaluation import EVALUATION_CACHE
from sluice.pipelines.garbage import DEFAULT_LIMITS, GcDecision, GcLimits, StoredItem, decide
from sluice.pipelines.runner import latest_run, step_record
from sluice.serving.database import DatabaseFailed
from sluice.serving.registry import MODEL_FOLDER, VERDICT_FOLDER
from sluice.serving.release import fold

_HOUR_S = 3600.0
_DIGITS = 16
"""Digits of the sha256 of a download in its name."""
_FORMER = "former champions"
"""Kind of the versions that served before the rollback targets."""


def find_garbage(workspace: Workspace, monitor: MonitorConfig, limits: GcLimits = DEFAULT_LIMITS) -> list[GcDecision]:
    """Decide which items go now by these limits, and which stay. Without MLflow, so it takes no seconds."""
    now = time.time()
    return decide(find_items(workspace, monitor.window_hours, now, limits.rollback_targets), limits, now)


def find_items(
    workspace: Workspace, window_hours: float, now: float, rollback_targets: int = DEFAULT_LIMITS.rollback_targets
) -> list[StoredItem]:
    """All stored items; monitoring reads the traffic of the last `window_hours` before `now` (epoch seconds).

    Of the former champions the last `rollback_targets` are needed.

    What the next run has to have is no item: settings, artifacts, keys, the database and the reference traffic.
    """
    return [
        *_runs(workspace),
        *_resumable(workspace),
        *_caches(workspace),
        *_traffic(workspace, now - window_hours * _HOUR_S),
        *_versions(workspace, rollback_targets),
        *_step_outputs(workspace),
    ]


def _runs(workspace: Workspace) -> Iterator[StoredItem]:
    last = latest_run(workspace)
    for path in _below(workspace.runs):
        is_last = last is not None and path == last.path
        yield _item("runs", path, needed_by="the last run, which `sluice status` shows" if is_last else "")
    for path in _below(workspace.monitoring):
        yield _item("monitoring reports", path)


def _resumable(workspace: Workspace) -> Iterator[StoredItem]:
    """Files from which an interrupted step resumes: checkpoints and parts read."""
    last = latest_run(workspace)
    events = read_events(last.events) if last else []
    for step, folder in (("pretrain", "checkpoints"), ("ingest", "read")):
        is_open = step_record(events, step)["state"] != "done"
        items = sorted(
            (_item(folder, path) for path in _below(workspace.state / folder)), key=lambda item: item.written
        )
        for item in items:
            is_needed = is_open and (item is items[-1] or folder == "read")
            yield replace(item, needed_by="the unfinished run, which resumes from it" if is_needed else "")


def _caches(workspace: Workspace) -> Iterator[StoredItem]:
    # Without a network, others could not be had again.
    manifest = workspace.artifact("ingest") / MANIFEST
    sources = read_manifest(manifest.parent)["report"]["sources"].values() if manifest.is_file() else ()
    current = [source["sha256"][:_DIGITS] for source in sources if source.get("sha256")]
    for path in _below(workspace.state / "downloads"):
        is_current = any(digest in path.name for digest in current)
        yield _item("downloads", path, needed_by="a source of the last run" if is_current else "")
    for name in ("scored", "evaluations", EVALUATION_CACHE):
        for path in _below(workspace.state / name):
            yield _item(name, path)
    for path in (workspace.root / "artifacts").glob(".*.partial"):
        yield _item("partial artifacts", path)


def _traffic(workspace: Workspace, since: float) -> Iterator[StoredItem]:
    for path in _below(workspace.traffic):
        item = _item("traffic", path)
        yield replace(item, needed_by="monitoring, whose window it is in" if item.written >= since else "")


def _versions(workspace: Workspace, rollback_targets: int) -> Iterator[StoredItem]:
    """Model files of the registry below the workspace; verdict, lineage and pages of a version stay in any case.

    A version is known by the hash of the model that its verdict names, so MLflow, which takes seconds to import, is not
    asked. One that no ledger names stays, because its ledger may lie in another database (SLUICE_DATABASE). Artifacts
    at SLUICE_ARTIFACT_ROOT may be those of other workspaces, and stay.
    """
    root = local_folder(workspace.registry_artifacts)
    if root is None or not root.is_dir() or not root.is_relative_to(workspace.state.resolve()):
        return
    try:
        roles, trusted = _proposed_models(workspace, rollback_targets)
        unknown = "" if trusted else "unknown: the ledger is broken, see `sluice history`"
    except DatabaseFailed as failure:
        # A full disk is one of its faults, and the rest makes room.
        roles, unknown = {}, f"unknown: {failure}"
    for model in sorted(root.glob(f"*/artifacts/{MODEL_FOLDER}")):
        reasons = [unknown] if unknown else []
        # None where the registration was killed before it was complete.
        for verdict in sorted((model.parent / VERDICT_FOLDER).glob("*")):
            try:
                judged = json.loads(verdict.read_text(encoding="utf-8"))["verdict"]["hashes"]["model"]
                reasons.append(roles.get(judged, "unknown: no ledger in this database names it"))
            except (ValueError, KeyError, TypeError):
                reasons.append(f"unknown: {verdict} cannot be read")
        reason = next(filter(None, reasons), "")
        kind, needed_by = (_FORMER, "") if reason == _FORMER else ("versions", reason)
        yield _item(kind, model, name=model.parents[1].name, needed_by=needed_by)


def _proposed_models(workspace: Workspace, rollback_targets: int) -> tuple[dict[str, str], bool]:
    """Hash of every model that was proposed -> its role in a release, or ""; and whether every ledger is whole."""
    found: dict[str, str] = {}
    trusted = True
    for ledger in open_ledgers(workspace):
        entries, check = ledger.read()
        state, trusted = fold(entries), trusted and check.ok
        former = state.former_champions()
        roles = dict.fromkeys(former, _FORMER)
        roles |= {version: "the gate, whose budgets count from it" for version in (state.first_champion,) if version}
        roles |= dict.fromkeys(former[-rollback_targets:], "rollback target")
        roles |= {version: "challenger in rollout" for version in (state.challenger,) if version}
        roles |= {version: "champion" for version in (state.champion,) if version}
        for entry in entries:
            if entry.action == "propose":
                model = entry.details["model_hash"]
                found[model] = roles.get(entry.version) or found.get(model, "")
    return found, trusted


def _step_outputs(workspace: Workspace) -> Iterator[StoredItem]:
    """Objects of DVC's cache: an output is a file, or a `.dir` that lists files; outputs may share files."""
    objects = {
        f"{path.parent.name}{path.name}": path for path in (workspace.root / ".dvc/cache/files/md5").glob("??/*")
    }
    has_lock = (workspace.root / "dvc.lock").is_file()
    stages = read_lock(workspace)["stages"].values() if has_lock else ()
    outputs = [out["md5"] for stage in stages for out in stage.get("outs", []) if "md5" in out]
    current = {name for output in outputs for name in (output, *_listed(objects.get(output)))}
    for name in sorted(current & objects.keys()):
        yield _item("step outputs", objects[name], needed_by="an artifact of the last run")
    left = objects.keys() - current
    folders = {name: set(_listed(objects[name])) & left for name in left if name.endswith(".dir")}
    # A file that outputs share goes with the newest of them.
    for name in sorted(folders, key=lambda name: -objects[name].stat().st_mtime):
        yield _item("step outputs", objects[name], *(objects[file] for file in sorted(folders[name] & left)))
        left -= {name, *folders[name]}
    for name in sorted(left):
        yield _item("step outputs", objects[name])


def _listed(path: Path | None) -> list[str]:
    """Names of the objects that a `.dir` object lists; none for another or a damaged one."""
    if path is None or path.suffix != ".dir":
        return []
    try:
        return [entry["md5"] for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _below(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _item(kind: str, *paths: Path, name: str = "", needed_by: str = "") -> StoredItem:
    files = []
    for file in (file for path in paths for file in ([path] if path.is_file() else path.rglob("*"))):
        # A running server may have renamed it meanwhile.
        with suppress(FileNotFoundError):
            files.append(file.lstat())
    size = sum(file.st_size for file in files if not stat.S_ISDIR(file.st_mode))
    written = max(file.st_mtime for file in (paths[0].lstat(), *files))
    return StoredItem(kind, name or paths[0].name, paths, size, written, needed_by)
