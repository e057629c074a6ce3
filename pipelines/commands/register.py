"""`sluice register`: a model directory with its verdict becomes a version of the registry."""

import argparse
import json
from pathlib import Path

from sluice.pipelines.compose import find_workspace
from sluice.pipelines.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL_DIR", help="a model directory in Hugging Face layout")
    parser.add_argument(
        "--verdict",
        metavar="FILE",
        help="the gate's verdict on it (default: verdict.json in the directory or beside it)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from sluice.components.register_model import register_model

    verdict_path = Path(arguments.verdict) if arguments.verdict else None
    version, verdict = register_model(find_workspace(), Path(arguments.model), verdict_path)
    if arguments.json:
        print(json.dumps({"version": version, "verdict": verdict.outcome, "reason": verdict.reason}))
        return 0
    print(f"registered {arguments.model} as v{version}: verdict {verdict.outcome}, {verdict.reason}")
    if verdict.outcome == "promote":
        print(f"`sluice rollout start {version}` releases it")
    else:
        print(f"the ledger refuses it: only `sluice promote {version} --force --reason ..` releases it")
    return 0
