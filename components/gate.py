"""Step 8, gate: the candidate against the bounds and the live champion, measured on the same held-out items."""

import json
import shutil
from pathlib import Path
from typing import Any

from sluice.components.artifact import artifact_hash, check_artifact, plain, read_metrics
from sluice.components.effect import run_effect_step
from sluice.components.events import EventProgress
from sluice.components.params import load_block
from sluice.components.stores import open_releases
from sluice.components.workspace import Workspace
from sluice.core.files import atomic_write, write_json
from sluice.core.settings.files import with_absolute_paths
from sluice.data.config import PackConfig
from sluice.model.config import EvaluateConfig, GateConfig

_TIMINGS = "timings.json"


def gate(root: str | Path | Workspace) -> str:
    """Write the signed verdict and return its outcome, `promote | hold | reject`."""
    workspace = root if isinstance(root, Workspace) else Workspace(Path(root))
    return str(run_effect_step(workspace, "gate", lambda: _work(workspace))["outcome"])


def _work(workspace: Workspace) -> dict[str, Any]:
    from sluice.model.evaluation.gate import decide
    from sluice.model.evaluation.results import load_evaluation
    from sluice.model.evaluation.verdict import write_verdict

    check_artifact(workspace.artifact("evaluate"), rehash=True)
    bounds = load_block(workspace, GateConfig)
    candidate = load_evaluation(workspace.artifact("evaluate"), read_metrics(workspace, "evaluate")["timings"])
    releases = open_releases(workspace)
    champion = releases.state().champion
    baseline = None
    if champion is not None:
        folder = _champion_evaluation(workspace, releases.model_folder(champion), candidate.hashes["model"])
        baseline = load_evaluation(folder, json.loads((folder / _TIMINGS).read_text()))
    verdict = decide(candidate, baseline, bounds)
    verdict = verdict.model_copy(
        update={"hashes": {**verdict.hashes, "evaluate_artifact": artifact_hash(workspace.artifact("evaluate"))}}
    )
    workspace.verdict.parent.mkdir(parents=True, exist_ok=True)
    sha256 = write_verdict(verdict, workspace.verdict, workspace.keys)
    checks = {check.metric: check.outcome for check in verdict.checks}
    return {
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "champion": champion,
        "is_champion": baseline is not None and baseline.hashes["model"] == candidate.hashes["model"],
        "checks": checks,
        "verdict_sha256": sha256,
    }


def _champion_evaluation(workspace: Workspace, champion: Path, candidate_hash: str) -> Path:
    """Return the folder of the evaluation of the model `champion` on the candidate's items, measured once and kept.

    Where both are one model, it is a copy of the candidate's evaluation.
    """
    from sluice.model.directory import model_hash

    champion_hash = model_hash(champion)
    key = f"{champion_hash[:16]}-{artifact_hash(workspace.artifact('evaluate'))[:16]}"
    kept = workspace.state / "evaluations" / key
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(kept) as partial:
            if champion_hash == candidate_hash:
                shutil.copytree(workspace.artifact("evaluate"), partial)
                write_json(partial / _TIMINGS, read_metrics(workspace, "evaluate")["timings"])
            else:
                from sluice.model.evaluation.harness import evaluate

                partial.mkdir()
                config = with_absolute_paths(load_block(workspace, EvaluateConfig), workspace.root)
                split, documents = load_block(workspace, PackConfig), workspace.artifact("refine")
                report = plain(evaluate(config, champion, documents, split, partial, progress=EventProgress("gate")))
                write_json(partial / _TIMINGS, report["timings"])
    return kept
