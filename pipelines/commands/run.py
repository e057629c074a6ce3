"""`sluice run`: settings, machine, pipeline, summary."""

import argparse

from components.workspace import Workspace
from pipelines.doctor import examine, require_healthy
from pipelines.parameters import compose, write_params
from pipelines.runner import run_pipeline
from pipelines.summary import print_summary


def run(arguments: argparse.Namespace) -> int:
    workspace = Workspace.find()
    values = compose(workspace, arguments.overrides)
    require_healthy(examine(workspace, values))
    write_params(workspace, values)
    try:
        record = run_pipeline(workspace)
    except KeyboardInterrupt:
        print("interrupted: finished steps are kept, training has its last checkpoint; `sluice run` goes on from there")
        raise
    print_summary(workspace, record)
    return 0
