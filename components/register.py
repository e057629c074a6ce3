"""Step 9, register: a candidate whose signed verdict promotes becomes a version of the registry and the challenger."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sluice.components.artifact import artifact_hash, check_artifact, read_metrics
from sluice.components.data_card import draw_data_card
from sluice.components.effect import run_effect_step
from sluice.components.evidence import policy_in_force, sets_in_force, write_page
from sluice.components.lineage import lineage_tags, write_lineage
from sluice.components.model_card import model_card
from sluice.components.params import BLOCKS, load_block
from sluice.components.stores import account, open_registry, open_releases
from sluice.components.workspace import CONTENT_STEPS, Workspace
from sluice.serving.config import RegisterConfig

if TYPE_CHECKING:
    from sluice.model.evaluation.verdict import Verdict
    from sluice.serving.registry import Evidence


def register(root: str | Path | Workspace, forced_reason: str | None = None, *, actor: str = "run") -> str:
    """Version of the challenger; empty where nothing was registered, with the reason in the metrics.

    `forced_reason` takes a candidate past a verdict that does not promote. It is written into the ledger, with `actor`.
    """
    workspace = root if isinstance(root, Workspace) else Workspace(Path(root))
    return str(run_effect_step(workspace, "register", lambda: _work(workspace, forced_reason, actor))["version"])


def _work(workspace: Workspace, forced_reason: str | None, actor: str) -> dict[str, Any]:
    from sluice.model.evaluation.prompt_texts import evaluation_prompts
    from sluice.model.evaluation.verdict import read_verdict

    verdict = read_verdict(workspace.verdict, workspace.keys)
    if verdict.outcome != "promote" and forced_reason is None:
        return {"outcome": "skipped", "version": "", "reason": f"verdict {verdict.outcome}: {verdict.reason}"}
    check_artifact(workspace.artifact("evaluate"))
    if forced_reason is None and not _is_of_evaluation(workspace, verdict):
        raise ValueError(
            f"{workspace.verdict} is not the gate's verdict on {workspace.artifact('evaluate')}: `sluice run` judges "
            "that evaluation; to release by this verdict, pass --force and a reason"
        )
    releases = open_releases(workspace, actor)
    candidate = workspace.artifact("tune")
    check_artifact(candidate, rehash=True)
    registry = open_registry(workspace)
    evidence = _evidence(workspace, verdict, forced_reason)
    prompts = registry.keep_prompts(evaluation_prompts(workspace.artifact("evaluate")))
    tags = {**evidence.tags, "prompts": ", ".join(f"{name}/{number}" for name, number in prompts.items())}
    version = registry.register(candidate, workspace.verdict, replace(evidence, tags=tags))
    state = releases.reconcile()
    if version == state.champion:
        return {"outcome": "skipped", "version": "", "reason": f"v{version} is the champion already"}
    if state.challenger not in (None, version):
        # One release at a time holds the run's lock, so this rollout's process is dead.
        releases.drop(f"superseded by v{version} before its rollout ended")
    if state.challenger != version:
        reason = forced_reason or f"verdict promote: {verdict.reason}"
        forced, policy = forced_reason is not None, policy_in_force(workspace).sha256
        releases.propose(version, workspace.verdict, reason, forced, policy=policy, sets=sets_in_force(workspace))
    return {"outcome": "registered", "version": version, "reason": f"v{version} is the challenger"}


def _is_of_evaluation(workspace: Workspace, verdict: "Verdict") -> bool:
    """Return whether the gate judged artifacts/evaluate as it is: `sluice gate check` signs verdicts on any folder."""
    return verdict.hashes.get("evaluate_artifact") == artifact_hash(workspace.artifact("evaluate"))


def _evidence(workspace: Workspace, verdict: "Verdict", forced_reason: str | None) -> "Evidence":
    """Records that the registry shows beside the candidate's files; their files are written to artifacts/register."""
    from sluice.model.evaluation.parity import PARITY_FILE
    from sluice.model.evaluation.report import REPORT_FILE
    from sluice.model.training.telemetry.tracking import numbers, parameters
    from sluice.serving.registry import PARITY_FOLDER, Evidence

    out = workspace.artifact("register")
    out.mkdir(parents=True, exist_ok=True)
    lineage = write_lineage(workspace, out)
    tags = {"verdict": verdict.outcome, "user": account(), **lineage_tags(workspace, lineage)}
    if forced_reason is not None and not (verdict.outcome == "promote" and _is_of_evaluation(workspace, verdict)):
        tags["forced"] = forced_reason
    metrics = {step: read_metrics(workspace, step) for step in CONTENT_STEPS}
    card, page = out / "README.md", out / REPORT_FILE
    text = model_card(load_block(workspace, RegisterConfig).model_name, verdict, metrics, tags)
    card.write_text(text, encoding="utf-8")
    write_page(workspace, verdict, page)
    parity = [path for path in [workspace.artifact("evaluate") / PARITY_FILE] if path.is_file()]
    return Evidence(
        tags=tags,
        # Those of the evaluation by their own names, as the gate has them.
        metrics=numbers(metrics.pop("evaluate")) | numbers(metrics),
        params=parameters({kind.block_name: load_block(workspace, kind).shown() for kind in BLOCKS}),
        description=text,
        files={
            "lineage": lineage,
            "pages": [page, draw_data_card(workspace)],
            "": [card],
            **({PARITY_FOLDER: parity} if parity else {}),
        },
        user=tags["user"],
    )
