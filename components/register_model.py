"""Model directories that no run of the workspace made become versions, and registered versions the challenger."""

from pathlib import Path
from typing import TYPE_CHECKING

from sluice.components.evidence import policy_in_force, sets_in_force
from sluice.components.model_card import model_card
from sluice.components.params import load_block
from sluice.components.stores import account, open_registry, open_releases
from sluice.components.workspace import Workspace
from sluice.model.config import GateConfig
from sluice.model.model_files import model_hash
from sluice.serving.config import RegisterConfig

if TYPE_CHECKING:
    from sluice.model.evaluation.verdict import Verdict


def register_model(workspace: Workspace, folder: Path, verdict_path: Path | None = None) -> tuple[str, "Verdict"]:
    """Register a model directory with the gate's verdict on it; return the version and the verdict.

    Without `verdict_path`, that is the verdict.json in the directory or beside it. Idempotent, as the registry is.
    Raises ValueError if there is no verdict, it is about another model, or its signature is wrong.
    """
    from sluice.model.evaluation.verdict import VERDICT_FILE, read_verdict
    from sluice.serving.registry import Evidence

    folder = folder.resolve()
    judged = model_hash(folder)
    beside = [folder / VERDICT_FILE, folder.parent / VERDICT_FILE]
    path = verdict_path or next((each for each in beside if each.is_file()), None)
    to_do = (
        f"measure and judge it first: `sluice evaluate {folder} {_baseline(workspace)}--data "
        f"{workspace.artifact('refine')} --out EVAL`, `sluice gate check EVAL --policy "
        f"{load_block(workspace, GateConfig).policy}`, then pass --verdict EVAL/verdict.json"
    )
    if path is None:
        raise ValueError(f"{folder} has no verdict, neither {beside[0]} nor {beside[1]}: {to_do}")
    verdict = read_verdict(path, workspace.keys)
    if (about := verdict.hashes.get("model", "")) != judged:
        about = about[:12] or "unknown"
        raise ValueError(f"{path} is about model {about}, but {folder} is model {judged[:12]}: {to_do}")
    # A model that no run of this workspace made has no lineage here.
    tags = {"verdict": verdict.outcome, "user": account()}
    card = model_card(load_block(workspace, RegisterConfig).model_name, verdict, {}, tags)
    evidence = Evidence(tags=tags, description=card, user=tags["user"])
    return open_registry(workspace).register(folder, path, evidence), verdict


def propose_version(workspace: Workspace, version: str, forced_reason: str | None, actor: str) -> None:
    """Make a registered version the challenger, unless it is already; `forced_reason` passes a verdict that refuses it.

    Raises ValueError if another version is in rollout, the ledger refuses this one, or it is in rollout without the
    force that is asked for.
    """
    releases, registry = open_releases(workspace, actor), open_registry(workspace)
    state = releases.reconcile()
    if state.challenger == version:
        if forced_reason is not None and not state.challenger_forced:
            raise ValueError(
                f"version {version} is in rollout without force: drop it first (`sluice rollout abort`), or promote it "
                "by hand (`sluice rollout promote --reason ..`)"
            )
        return
    path = registry.verdict_path(version)
    reason = forced_reason or f"verdict promote: {releases.verdict(version).reason}"
    forced, policy = forced_reason is not None, policy_in_force(workspace).sha256
    releases.propose(version, path, reason, forced, policy=policy, sets=sets_in_force(workspace))


def _baseline(workspace: Workspace) -> str:
    """Return the option of `sluice evaluate` with which the gate compares a model with the champion; empty without."""
    releases = open_releases(workspace)
    champion = releases.state().champion
    return f"--baseline {releases.model_folder(champion)} " if champion else ""
