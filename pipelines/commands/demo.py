"""`sluice demo canary`: watch a good version win, and two bad ones lose, on a live server of its own."""

import argparse
import tempfile
from pathlib import Path

from sluice.pipelines.options import with_debug


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = (
        "train small models, serve them, and roll out a failing, a mis-templated and a good version; about two minutes"
    )
    canary = actions.add_parser("canary", help=text, description=text, parents=[with_debug()])
    canary.add_argument("--port", type=int, default=8899, help="port on 127.0.0.1 (default: 8899)")
    canary.add_argument(
        "--keep", metavar="DIR", help="an empty folder for the workspace, kept (default: a temporary one)"
    )


def run(arguments: argparse.Namespace) -> int:
    from sluice.components.ray_head import prepare_own_ray

    prepare_own_ray()
    from sluice.pipelines.demo import run_demo, summary

    def tell(line: str) -> None:
        print(line if len(line) <= 160 else f"{line[:157]}..", flush=True)

    with tempfile.TemporaryDirectory(prefix="sluice-demo-") as temporary:
        root = Path(arguments.keep or temporary).resolve()
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            raise ValueError(f"{root} is not empty: name an empty folder for --keep")
        results = run_demo(root, arguments.port, tell)
    print()
    for line in summary(results):
        print(line)
    is_as_expected = all(each.outcome == each.expected and not each.failed for each in results)
    print("as expected: the good version serves, and no user's request failed" if is_as_expected else "NOT as expected")
    return 0 if is_as_expected else 1
