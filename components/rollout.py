"""Step 10, rollout: the challenger takes the traffic step by step, or is dropped with the reason.

After a promotion the new champion answers two more samples of held-out prompts: the first becomes the reference that
monitoring compares later traffic with, the second is the first traffic that is monitored.
"""

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sluice.components.artifact import plain
from sluice.components.effect import run_effect_step
from sluice.components.events import EventProgress, emit
from sluice.components.params import load_block
from sluice.components.prompts import held_out_prompts, split_prompts
from sluice.components.ray_head import connect_to_head
from sluice.components.stores import make_server, open_registry, open_releases
from sluice.components.workspace import Workspace
from sluice.core.failure import StepFailed
from sluice.core.files import holding_lock, lock_holder
from sluice.core.settings.files import with_absolute_paths
from sluice.model.config import EvaluateConfig
from sluice.monitoring.config import MonitorConfig
from sluice.serving.client import SERVER_VARIABLE, Client, find_server, server_elsewhere, server_file, wait_for_server
from sluice.serving.config import QualityConfig, RolloutConfig, ServeConfig

if TYPE_CHECKING:
    from sluice.serving.quality.probes import RolloutQuality

_SERVER_TIMEOUT_S = 600.0
"""A Deployment may just be starting, for the first champion."""
_RECORDS_TIMEOUT_S = 60.0
_LOCK_TIMEOUT_S = 120.0
_POLL_S = 0.5


def rollout(root: str | Path | Workspace, version: str) -> str:
    """Roll out `version`; returns `promoted | dropped | superseded | paused`, or `skipped` where there is none.

    The step may be repeated after a pod was lost: it goes on from what the ledger says of the version. Where the run
    registered none (empty), a challenger that a lost run has left behind is rolled out: nobody else measures it.
    """
    workspace = root if isinstance(root, Workspace) else Workspace(Path(root))
    return str(run_effect_step(workspace, "rollout", lambda: _work(workspace, version))["outcome"])


def _work(workspace: Workspace, version: str) -> dict[str, Any]:
    from sluice.serving.lease import Lease, LeaseTable
    from sluice.serving.rollout import RolloutReport, run_rollout

    releases = open_releases(workspace, "rollout")
    with _only_rollout(workspace, version or releases.state().challenger or "-"):
        # Read here: the rollout that was waited for may have changed it.
        state = releases.state()
        serving = f"v{state.champion} goes on serving" if state.champion else "nothing serves"
        version = version or state.challenger or ""
        if not version:
            return {"outcome": "skipped", "reason": f"there is no challenger; {serving}"}
        if version not in (state.challenger, state.champion):
            return {
                "outcome": "dropped",
                "reason": f"v{version} is no longer the challenger (`sluice history`); {serving}",
            }
        config = load_block(workspace, RolloutConfig)
        canary, reference, bake = split_prompts(held_out_prompts(workspace))
        with a_server(workspace) as client:
            if version == state.champion:
                report = RolloutReport(version, "promoted", "an earlier attempt of this step promoted it")
            else:
                quality = rollout_quality(workspace, version, state.champion, client, config.quality)
                progress = EventProgress("rollout")
                with Lease(LeaseTable(workspace.database_url), releases.model, version) as lease:
                    report = run_rollout(
                        releases, client, canary, config, quality=quality, lease=lease, progress=progress
                    )
            if report.outcome == "promoted":
                from sluice.monitoring.reference import save_reference

                client.wait_for_champion(report.version)
                # Enough for the monitoring's least sample, twice over.
                count = 2 * load_block(workspace, MonitorConfig).min_records
                since = _replay(client, reference, count, config, "reference")
                _await_records(workspace, report.version, since, count)
                save_reference(workspace.traffic, workspace.reference, report.version, since)
                since = _replay(client, bake, count, config, "bake")
                _await_records(workspace, report.version, since, count)
        return plain(report)


def rollout_quality(
    workspace: Workspace, version: str, champion: str | None, client: Client, config: QualityConfig
) -> "RolloutQuality | None":
    """Return the probes of the challenger: the answers that the gate kept, golden prompts and suites of the settings.

    None for a first version, which has no champion to compare with.
    """
    from sluice.model.evaluation.judging.judge_server import JudgeServer
    from sluice.model.evaluation.judging.rubric import find_rubric, load_rubric
    from sluice.model.evaluation.plan import EvaluatedCandidate
    from sluice.model.evaluation.suites.suite import load_suite
    from sluice.serving.quality.judge import ReplayJudge, read_labelled_pairs
    from sluice.serving.quality.kept import kept_answers
    from sluice.serving.quality.known import known_items
    from sluice.serving.quality.probes import QualityProbes, RolloutQuality
    from sluice.serving.quality.surprisal import surprisal_under

    if champion is None:
        return None
    registry = open_registry(workspace)
    kept = kept_answers(registry, version, workspace.keys)
    evaluation = with_absolute_paths(load_block(workspace, EvaluateConfig), workspace.root)
    known = known_items(
        Path(evaluation.golden_prompts),
        [load_suite(Path(each.path)) for each in evaluation.suites],
        config.known_items,
        max_tokens=evaluation.golden_max_tokens,
        has_chat=all(EvaluatedCandidate(registry.model_folder(each)).has_chat for each in (version, champion)),
    )
    notes = [*([kept.note] if kept.note else []), *known.notes]
    probes = QualityProbes(kept.answers, known.items, notes)
    judge = surprisal = None
    if config.judge_labels is not None:
        rubric = load_rubric(find_rubric("better"))
        labelled = read_labelled_pairs(workspace.root / config.judge_labels)
        judge = ReplayJudge(JudgeServer.from_environment(), rubric, labelled)
    if config.surprisal:
        surprisal = surprisal_under(registry.model_folder(champion))
    return RolloutQuality(client, probes, config, judge=judge, surprisal=surprisal)


@contextmanager
def _only_rollout(workspace: Workspace, version: str) -> Iterator[None]:
    """Hold the workspace's rollout; TimeoutError names who has it. That of a lost pod is soon free."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    holder = f"v{version} (process {os.getpid()} on {socket.gethostname()})"
    while True:
        with holding_lock(workspace.rollout_lock, holder) as held:
            if held:
                yield
                return
        if time.monotonic() > deadline:
            other = lock_holder(workspace.rollout_lock)
            raise TimeoutError(f"the rollout of {other} is going: wait for it, and run the step again")
        time.sleep(_POLL_S)


@contextmanager
def a_server(workspace: Workspace) -> Iterator[Client]:
    """A client of the server at SLUICE_SERVER or of the workspace's live server, else of one that lives as long as this
    step.

    A server elsewhere follows the same ledger: were another one started here, it would measure replayed prompts alone,
    while users met the challenger there.
    """
    if address := os.environ.get(SERVER_VARIABLE):
        emit("rollout", "note", message=f"waiting for the server at {address}")
        yield wait_for_server(workspace.state, _SERVER_TIMEOUT_S)
        return
    if (running := find_server(workspace.state)) is not None:
        emit("rollout", "note", message=f"through the live server at {running.url}")
        yield running
        return
    if host := server_elsewhere(workspace.state):
        raise StepFailed(
            f"a server of this workspace runs on {host}: set {SERVER_VARIABLE} to its address, or, if it is gone, "
            f"remove {server_file(workspace.state)}"
        )
    connect_to_head()
    emit("rollout", "note", message="starting Ray Serve")
    with make_server(workspace, load_block(workspace, ServeConfig)) as server:
        server.ready()
        yield server.client


def _replay(client: Client, prompts: list[str], count: int, config: RolloutConfig, note: str) -> float:
    """Have `count` requests answered; return when they began, in epoch seconds."""
    progress, since = EventProgress("rollout"), time.time()

    def ask(number: int) -> None:
        client.complete(prompts[number % len(prompts)], config.max_tokens, config.seed + number)

    with ThreadPoolExecutor(config.concurrency) as pool:
        for done, _ in enumerate(pool.map(ask, range(count)), 1):
            progress(done, count, note)
    return since


def _await_records(workspace: Workspace, version: str, since: float, count: int) -> None:
    """Wait until `count` replayed requests to `version` are in the traffic: they reach the disk after the answers."""
    from sluice.monitoring.traffic.files import scan_traffic

    deadline = time.monotonic() + _RECORDS_TIMEOUT_S
    while True:
        frame = scan_traffic(workspace.traffic, since, columns=("version", "source")).frame
        if ((frame["version"] == version) & (frame["source"] == "replay")).sum() >= count:
            return
        if time.monotonic() > deadline:
            raise StepFailed(f"fewer than {count} traffic records of v{version} within {_RECORDS_TIMEOUT_S:.0f} s")
        time.sleep(_POLL_S)
