"""The child process of a local run: kfp.local runs the lifecycle here, with everything it prints going to the run's
log.

Its parent holds the other end of a pipe. When the parent dies, even by SIGKILL, the pipe closes and the whole process
group ends with it, so a run leaves nothing behind that could disturb the next one.
"""

import argparse
import os
import signal
import threading
from pathlib import Path

from sluice.components.events import EVENTS_VARIABLE, emit, read_events
from sluice.components.params import load_block
from sluice.components.ray_head import HEAD_VARIABLE, prepare_environment
from sluice.components.workspace import PARAMS_VARIABLE, Workspace
from sluice.core.cpus import available_cores
from sluice.core.out_of_memory import count_oom_kills, describe_kills
from sluice.model.config import PretrainConfig
from sluice.pipelines.ray_head import HeadOnRequest

_RAY_ENDED_WITHIN_S = 2.0
"""A step that loses Ray fails about as soon as Ray's end is seen."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="folder of this run: events, log, Ray address")
    parser.add_argument("--lifeline", type=int, required=True, help="file descriptor that closes when the parent dies")
    arguments = parser.parse_args()

    def end_with_parent() -> None:
        os.read(arguments.lifeline, 1)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=end_with_parent, name="lifeline", daemon=True).start()
    run_lifecycle(Workspace(arguments.workspace), arguments.run)


def run_lifecycle(workspace: Workspace, run: Path) -> None:
    head = run / "ray.json"
    os.environ.update(
        {
            EVENTS_VARIABLE: str(run / "events.jsonl"),
            HEAD_VARIABLE: str(head),
            PARAMS_VARIABLE: str(run / "params.yaml"),
            "DO_NOT_TRACK": "1",
        }
    )
    prepare_environment()
    oom_kills = count_oom_kills()
    # One more than the workers hold, so that small tasks are never starved.
    ray = HeadOnRequest(head, max(available_cores(), load_block(workspace, PretrainConfig).workers) + 1)

    from kfp import local

    from sluice.pipelines.lifecycle import lifecycle

    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(run / "kfp" / "outputs"),
        workspace_root=str(run / "kfp" / "workspace"),
        raise_on_error=True,
    )
    try:
        lifecycle()(workspace=str(workspace.root), settings=(run / "params.yaml").read_text())
    except Exception:
        events = read_events(run / "events.jsonl")
        why = ray.why_ended(_RAY_ENDED_WITHIN_S)
        # What a step that lost Ray says itself, if it says anything, follows from that.
        if events and (why or events[-1]["kind"] != "failed"):
            step = events[-1]["step"]
            why = why or describe_kills(oom_kills, count_oom_kills()) or "its process ended without a message"
            emit(step, "failed", message=f"{step}: {why}; the same `sluice run` goes on from there")
        raise
    finally:
        ray.stop()


if __name__ == "__main__":
    main()
