"""Evaluations of a workspace: attested when they are measured, and verified before the gate reads them.

The candidate's attestation lies in .sluice/attestations, because the artifact is content, and a signature is not: two
workspaces make the same artifact and sign it with their own keys. Evaluations of other models are kept in
.sluice/evaluations with theirs.
"""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

from sluice.components.artifact import artifact_hash, plain, read_metrics
from sluice.components.events import EventProgress
from sluice.components.params import load_block
from sluice.components.workspace import Workspace
from sluice.core.canonical import canonical_json
from sluice.core.files import atomic_write, write_json
from sluice.core.manifest import file_hash, read_manifest
from sluice.core.settings.files import hash_files, with_absolute_paths
from sluice.data.config import PackConfig
from sluice.model.config import EvaluateConfig, GateConfig
from sluice.model.evaluation.evidence import (
    TIMINGS_FILE,
    Attestation,
    AttestedEvaluation,
    attest,
    attest_folder,
    evidence_files,
    open_evaluation,
    verify,
)
from sluice.model.evaluation.keys import trusted_keys
from sluice.model.evaluation.lost_items import lost_items
from sluice.model.evaluation.metrics.golden_pass_rate import GOLDEN_FILE
from sluice.model.evaluation.metrics.golden_pass_rate import NAME as GOLDEN_SET
from sluice.model.evaluation.policy import Policy, load_policy
from sluice.model.evaluation.report import render
from sluice.model.evaluation.results import RESULTS_FILE, load_evaluation
from sluice.model.evaluation.review.record import reviewed_evaluation
from sluice.model.evaluation.review.selection import REVIEW_FILE
from sluice.model.evaluation.suites.suite import load_suite
from sluice.model.evaluation.verdict import Verdict
from sluice.model.model_files import model_hash


def attest_candidate(workspace: Workspace) -> str:
    """Sign artifacts/evaluate and its metrics, which have the timings. Returns the sha256 of the attestation."""
    return attest(
        _candidate_files(workspace),
        _candidate_attestation(workspace),
        workspace.keys,
        model=model_hash(workspace.artifact("tune")),
        measured_by=measurement(workspace),
    )


def is_attested(workspace: Workspace) -> bool:
    """Return whether a key that is trusted here signed the candidate's evaluation as it lies there."""
    try:
        _verify_candidate(workspace)
    except ValueError:
        return False
    return True


def candidate_evaluation(workspace: Workspace) -> AttestedEvaluation:
    """The candidate's evaluation, verified. ValueError that names what was changed, and what to do."""
    attestation = _verify_candidate(workspace)
    folder = workspace.artifact("evaluate")
    evaluation = load_evaluation(folder, read_metrics(workspace, "evaluate")["timings"])
    reviewed = reviewed_evaluation(folder, evaluation, trusted_keys(workspace.keys), record=review_record(workspace))
    return AttestedEvaluation(reviewed, attestation)


def review_record(workspace: Workspace) -> Path:
    """Path of the review of the candidate's answers. It is signed, and so no part of the artifact."""
    return workspace.state / "reviews" / f"{artifact_hash(workspace.artifact('evaluate'))[:16]}.json"


def evaluation_of(workspace: Workspace, model_folder: Path, version: str) -> AttestedEvaluation:
    """The evaluation of another version's model on the candidate's items, measured once and kept.

    It is kept by model, settings, data and code, and verified each time. ValueError as `candidate_evaluation`.
    """
    other = model_hash(model_folder)
    folder = kept_evaluation(workspace, other)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        if other == model_hash(workspace.artifact("tune")):
            keep_candidate(workspace)
        else:
            from sluice.model.evaluation.harness import evaluate

            with atomic_write(folder) as partial:
                partial.mkdir()
                config = with_absolute_paths(load_block(workspace, EvaluateConfig), workspace.root)
                split, documents = load_block(workspace, PackConfig), workspace.artifact("refine")
                report = plain(
                    evaluate(config, model_folder, documents, split, partial, progress=EventProgress("gate"))
                )
                write_json(partial / TIMINGS_FILE, report["timings"])
                attest_folder(partial, workspace.keys, model=other, measured_by=measurement(workspace))
    found = open_evaluation(
        folder,
        trusted_keys(workspace.keys),
        redo=f"remove {folder}, and the gate measures it again",
        model=other,
        measured_by=measurement(workspace),
        version=version,
    )
    return replace(found, evaluation=reviewed_evaluation(folder, found.evaluation, trusted_keys(workspace.keys)))


def keep_candidate(workspace: Workspace) -> None:
    """Keep the candidate's evaluation, which was verified, for the time when it is the champion."""
    results = json.loads((workspace.artifact("evaluate") / RESULTS_FILE).read_bytes())
    model = results["hashes"]["model"]
    folder = kept_evaluation(workspace, model)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder) as partial:
            shutil.copytree(workspace.artifact("evaluate"), partial)
            if (record := review_record(workspace)).is_file():
                shutil.copyfile(record, partial / REVIEW_FILE)
            write_json(partial / TIMINGS_FILE, read_metrics(workspace, "evaluate")["timings"])
            attest_folder(partial, workspace.keys, model=model, measured_by=measurement(workspace))


def write_page(workspace: Workspace, verdict: Verdict, path: Path) -> None:
    """Write the evaluation page of the candidate with its verdict, and the items that it lost to the champion."""
    folder = workspace.artifact("evaluate")
    results, golden = (json.loads((folder / name).read_bytes()) for name in (RESULTS_FILE, GOLDEN_FILE))
    lost = lost_items(folder, kept_evaluation(workspace, verdict.baseline.model)) if verdict.baseline else []
    path.write_text(render(results, golden, verdict, lost), encoding="utf-8")


def policy_in_force(workspace: Workspace) -> Policy:
    """The policy that the settings name. ValueError where its file changed since they were composed."""
    block = load_block(workspace, GateConfig)
    hash_files(GateConfig, block.model_dump(mode="json"), workspace.root, composing=False)
    return load_policy(Path(with_absolute_paths(block, workspace.root).policy))


def sets_in_force(workspace: Workspace) -> dict[str, str]:
    """Return the sha256 of each evaluation set that the settings name. ValueError where a file changed since."""
    block = load_block(workspace, EvaluateConfig)
    hash_files(EvaluateConfig, block.model_dump(mode="json"), workspace.root, composing=False)
    named = with_absolute_paths(block, workspace.root)
    suites = [load_suite(Path(suite.path)).settings for suite in named.suites]
    return {GOLDEN_SET: file_hash(Path(named.golden_prompts)), **{suite.name: suite.sha256 for suite in suites}}


def _verify_candidate(workspace: Workspace) -> Attestation:
    return verify(
        _candidate_files(workspace),
        _candidate_attestation(workspace),
        trusted_keys(workspace.keys),
        model=model_hash(workspace.artifact("tune")),
        redo="`sluice run` measures again",
    )


def _candidate_files(workspace: Workspace) -> dict[str, Path]:
    metrics = workspace.metrics("evaluate")
    return evidence_files(workspace.artifact("evaluate")) | {f"{metrics.parent.name}/{metrics.name}": metrics}


def _candidate_attestation(workspace: Workspace) -> Path:
    return workspace.state / "attestations" / "evaluate.json"


def kept_evaluation(workspace: Workspace, model: str) -> Path:
    """Folder of the evaluation of the model with this hash."""
    return workspace.state / "evaluations" / f"{model[:16]}-{measurement(workspace)[:16]}"


def measurement(workspace: Workspace) -> str:
    """sha256 of what the candidate was measured with: settings, code and held-out documents, but not the model."""
    manifest = read_manifest(workspace.artifact("evaluate"))
    inputs = {name: each for name, each in manifest["inputs"].items() if name != "tune"}
    measured_by = {"parameters": manifest["parameters"], "code": manifest["code_sha256"], "inputs": inputs}
    return hashlib.sha256(canonical_json(measured_by)).hexdigest()
