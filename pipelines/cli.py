"""The `sluice` command: finds the module of a command, and reports how it ended.

`--help` imports nothing but the standard library; the options of a command are in `pipelines/commands/<name>.py`, which
is imported when that command is called.
"""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any

from sluice.core.account import name_user
from sluice.pipelines.options import with_debug

DESCRIPTION = "Takes raw text to a served, watched language model that can be rolled back, with evidence at each gate."
COMMANDS = {
    "run": "run the lifecycle; finished steps are not repeated",
    "compile": "write the lifecycle as a pipeline for Kubeflow on Kubernetes",
    "status": "show the state of the last run and what is served",
    "plan": "estimate parameters, FLOPs, memory, time and cost of a model and a run, before anything is spent",
    "serve": "serve the champion (and a challenger in rollout) on an OpenAI-style API, until Ctrl-C",
    "chat": "talk to the served model",
    "gate": "judge an evaluation by a policy; explain and verify verdicts",
    "promote": "release the candidate of the last run: register, canary rollout, champion",
    "register": "make a model directory a version of the registry, by the gate's verdict on it",
    "rollout": "begin, watch and steer a rollout: start, status, pause, resume, promote, abort, replay",
    "key": "create, list and revoke keys of the server, each with a role",
    "demo": "canary: roll out a failing, a mis-templated and a good version on a live server of its own",
    "rollback": "restore an earlier champion; a running server follows at once",
    "history": "list every release decision in the ledger, and verify its hash chain",
    "monitor": "compare live traffic with the reference; may roll back",
    "mlflow": "open the registry's web page on loopback, until Ctrl-C",
    "train": "train alone: from a plain text or packed tokens to a model directory",
    "profile": "show where a training step spends its time: a trace, and the largest operators",
    "sweep": "find the best learning rate and shape by short runs, of which the worse end early",
    "scaling": "fit a power law to a ladder of small runs, and size the next budget",
    "evaluate": "measure a model directory or a served model by metrics and suites, alone or beside a baseline",
    "suite": "draw prompts of real traffic into a suite, masked",
    "data": "build clean documents, explain why one was dropped, apply new thresholds, compare builds, draw the card",
    "model": "import and export transformers' models; logits and text of a model directory",
    "review": "have people rate an evaluation's high-risk and disputed answers, blinded",
    "incident": "turn an incident into an item of a suite, so that it is evaluated from then on",
    "gc": "remove old caches, runs and versions that neither the champion, a rollback nor the last run needs",
    "doctor": "check this machine and say what to fix",
}


class _Parser(argparse.ArgumentParser):
    """Adds the options of its command when that is called."""

    is_complete = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        name = self.prog.removeprefix("sluice ")
        if name in COMMANDS and not self.is_complete:
            self.is_complete = True
            _module(name).add_arguments(self)
        parsed, rest = super().parse_known_args(args, namespace)
        if "parser" not in parsed:
            parsed.parser = self  # the innermost, whose usage an unknown option shows
        return parsed, rest


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sluice", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"sluice {version('sluice')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, description=text, parents=[with_debug()])
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """argparse takes key=value on one side of the options only; here they may stand on both."""
    arguments, rest = build_parser().parse_known_args(argv)
    unknown = [each for each in rest if each.startswith("-") or "=" not in each]
    if unknown or (rest and "overrides" not in arguments):
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown or rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    # A supervisor's SIGTERM ends a command as Ctrl-C does: children first, then one line.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Before torch loads OpenMP: an idle thread spins this often before it sleeps. Ten times as often, OpenMP's own
    # default, is no faster alone, and costs two thirds of the speed where other processes keep the cores busy.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    name_user()
    argv = sys.argv[1:] if argv is None else list(argv)
    name = " ".join(["sluice", *(each for each in argv[:1] if each in COMMANDS)])
    try:
        arguments = parse(argv)
        name = " ".join(["sluice", arguments.command, *([arguments.action] if "action" in arguments else [])])
        return int(_module(arguments.command).run(arguments) or 0)
    except KeyboardInterrupt as interrupt:
        print(f"{name}: interrupted{f': {interrupt}' if str(interrupt) else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing more can be printed, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if "--debug" in argv:
            raise
        try:
            from sluice.core.failure import describe
        except ImportError:
            # Whatever broke the command may have broken this import too.
            message = f"{type(error).__name__}: {error}"
        else:
            message = describe(error)
        print(f"{name}: {message}", file=sys.stderr)
        return 1


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"sluice.pipelines.commands.{command}")


if __name__ == "__main__":
    sys.exit(main())
