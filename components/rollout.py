"""Step 10, rollout: the challenger takes the traffic step by step, or is dropped with the reason.

After a promotion the new champion answers two more samples of held-out prompts: the first becomes the reference that
monitoring compares later traffic with, the second is the first traffic that is monitored.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sluice.components.artifact import plain
from sluice.components.effect import run_effect_step
from sluice.components.events import EventProgress, emit
from sluice.components.params import load_block
from sluice.components.prompts import held_out_prompts, split_prompts
from sluice.components.ray_head import connect_to_head
from sluice.components.stores import make_server, open_releases
from sluice.components.workspace import Workspace
from sluice.core.failure import StepFailed
from sluice.monitoring.config import MonitorConfig
from sluice.serving.client import Client, find_server
from sluice.serving.config import RolloutConfig, ServeConfig

_RECORDS_TIMEOUT_S = 60.0
_POLL_S = 0.5


def rollout(root: str | Path | Workspace) -> str:
    """Roll the challenger out; returns `promoted | dropped | superseded`, or `skipped` where there is none."""
    workspace = root if isinstance(root, Workspace) else Workspace(Path(root))
    return str(run_effect_step(workspace, "rollout", lambda: _work(workspace))["outcome"])


def _work(workspace: Workspace) -> dict[str, Any]:
    from sluice.serving.rollout import run_rollout

    releases = open_releases(workspace)
    state = releases.state()
    if state.challenger is None:
        serving = f"v{state.champion} goes on serving" if state.champion else "nothing serves"
        return {"outcome": "skipped", "reason": f"there is no challenger; {serving}"}
    config = load_block(workspace, RolloutConfig)
    canary, reference, bake = split_prompts(held_out_prompts(workspace))
    with a_server(workspace) as client:
        report = run_rollout(releases, client, canary, config, progress=EventProgress("rollout"))
        if report.outcome == "promoted":
            from sluice.monitoring.reference import save_reference

            client.wait_for_champion(report.version)
            # Enough for the monitoring's least sample, twice over.
            count, since = 2 * load_block(workspace, MonitorConfig).min_records, time.time()
            _replay(client, reference, count, config, "reference")
            # The gateway's records reach the disk a moment after the answers.
            deadline = time.monotonic() + _RECORDS_TIMEOUT_S
            while save_reference(workspace.traffic, workspace.reference, report.version, since) < count:
                if time.monotonic() > deadline:
                    raise StepFailed(
                        f"fewer than {count} traffic records of v{report.version} within {_RECORDS_TIMEOUT_S:.0f} s"
                    )
                time.sleep(_POLL_S)
            _replay(client, bake, count, config, "bake")
    return plain(report)


@contextmanager
def a_server(workspace: Workspace) -> Iterator[Client]:
    """A client of the workspace's live server, or of one that lives as long as this step."""
    if (running := find_server(workspace.state)) is not None:
        emit("rollout", "note", message=f"through the live server at {running.url}")
        yield running
        return
    connect_to_head()
    emit("rollout", "note", message="starting Ray Serve")
    with make_server(workspace, load_block(workspace, ServeConfig)) as server:
        server.ready()
        yield server.client


def _replay(client: Client, prompts: list[str], count: int, config: RolloutConfig, note: str) -> None:
    progress = EventProgress("rollout")

    def ask(number: int) -> None:
        client.complete(prompts[number % len(prompts)], config.max_tokens, config.seed + number)

    with ThreadPoolExecutor(config.concurrency) as pool:
        for done, _ in enumerate(pool.map(ask, range(count)), 1):
            progress(done, count, note)
