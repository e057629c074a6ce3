"""The process in which a Ray cluster of one machine lives: `python -m sluice.core.ray_process`, by `core/local_ray.py`.

It leads a session, which all processes of Ray are in, and prints one JSON object a line: the address once Ray is up,
and why Ray ended. When its standard input closes, as it does when the process that started it ends in whatever way,
it kills its session and removes Ray's folder.
"""

import argparse
import json
import os
import shutil
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import psutil

from sluice.core.failure import describe
from sluice.core.out_of_memory import count_oom_kills, describe_exit

_POLL_S = 0.1
_END_S = 5.0
_NEEDED = ("raylet", "gcs_server")
"""Without one of these there is no Ray; others, such as the dashboard, may end."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--cpus", type=int)
    parser.add_argument("--dashboard", action="store_true")
    arguments = parser.parse_args()
    # Standard output is for the lines below alone.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        end_session(os.getsid(0), arguments.folder)
        os._exit(0)

    threading.Thread(target=end_with_parent, name="end_with_parent", daemon=True).start()
    oom_kills = count_oom_kills()
    try:
        import ray

        ray.init(
            address="local",
            num_cpus=arguments.cpus,
            include_dashboard=arguments.dashboard,
            dashboard_host="127.0.0.1",
            log_to_driver=False,
            _temp_dir=str(arguments.folder),
        )
        node: Any = ray._private.worker._global_node
        channel.write(json.dumps({"address": node.gcs_address}) + "\n")
        while not (dead := [(name, ended) for name, ended in node.dead_processes() if name in _NEEDED]):
            time.sleep(_POLL_S)
        name, ended = dead[0]
        why = f"its {name} {describe_exit(ended.returncode, oom_kills, count_oom_kills())}"
    except Exception as error:
        traceback.print_exc()
        why = describe(error)
    channel.write(json.dumps({"ended": why}) + "\n")
    end_session(os.getsid(0), arguments.folder)
    os._exit(1)


def end_session(session: int, folder: Path) -> None:
    """Kill every process of the session but this one, and remove the folder."""
    deadline = time.monotonic() + _END_S
    while (others := _members(session)) and time.monotonic() < deadline:
        for process in others:
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(others, timeout=1)
    shutil.rmtree(folder, ignore_errors=True)


def _members(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            is_member = process.pid != os.getpid() and os.getsid(process.pid) == session
            if is_member and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


if __name__ == "__main__":
    main()
