"""`sluice run`: settings, machine, pipeline, summary."""

import argparse
import shlex
from collections.abc import Mapping

from sluice.components.artifact import read_metrics
from sluice.components.data_card import draw_data_card
from sluice.components.params import BLOCKS
from sluice.components.workspace import Workspace
from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.rules import check
from sluice.pipelines.compose import compose, conf_groups
from sluice.pipelines.doctor import examine, require_healthy
from sluice.pipelines.options import add_overrides
from sluice.pipelines.runner import run_pipeline
from sluice.pipelines.summary import print_summary

HELD, REJECTED = 3, 4
STATUSES = f"""exit status:
  0    the candidate was released, or what serves is unchanged
  1    a step failed
  2    the command line is wrong
  {HELD}    the gate holds the candidate, or the champion's errors pause its rollout: the evidence does not decide
  {REJECTED}    the gate or the rollout rejects the candidate, or the monitor rolled it back
  130  interrupted; the same command goes on from there
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_overrides(
        parser, "profile=NAME or block.key=value, as in conf/ (profile=tiny, pretrain.steps=100, data.sources=path)"
    )
    workspace = Workspace.find_or_default()
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"""groups of conf/:
{"".join(f"  {name}={'|'.join(options)}{chr(10)}" for name, options in conf_groups(workspace).items())}
blocks: {", ".join(kind.block_name for kind in BLOCKS)}

{STATUSES}"""


def run(arguments: argparse.Namespace) -> int:
    workspace = Workspace.find()
    params = compose(workspace, arguments.overrides)
    # Refused now, and not when the data is ready for it. Whether workers have GPUs they see.
    check(params[PretrainConfig], params[ModelConfig], cuda=True)
    require_healthy(examine(workspace, params))
    try:
        record = run_pipeline(workspace, params)
    except KeyboardInterrupt:
        again = shlex.join(["sluice", "run", *arguments.overrides])
        raise KeyboardInterrupt(f"finished steps and checkpoints are kept; `{again}` goes on from there") from None
    print_summary(workspace, record)
    print(f"data card {draw_data_card(workspace).relative_to(workspace.root)}")
    outcomes = {step["name"]: step["outcome"] for step in record["steps"]}
    return exit_status(outcomes, is_champion=read_metrics(workspace, "gate")["is_champion"])


def exit_status(outcomes: Mapping[str, str | None], *, is_champion: bool) -> int:
    """The exit status of a finished run, by the outcomes of its steps; `is_champion`: the candidate serves already."""
    if outcomes["gate"] != "promote" and not is_champion:
        return HELD if outcomes["gate"] == "hold" else REJECTED
    if outcomes["rollout"] == "paused":
        return HELD
    return REJECTED if outcomes["rollout"] == "dropped" or outcomes["monitor"] == "rollback" else 0
