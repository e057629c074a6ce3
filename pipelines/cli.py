"""The `sluice` command. Only the parser lives here, so that `--help` answers at once; each command is a module of its
own.
"""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

DESCRIPTION = "Takes raw text to a served, watched language model that can be rolled back, with evidence at each gate."


def build_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    parser = argparse.ArgumentParser(prog="sluice", description=DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common])

    overrides = "profile=NAME or block.key=value, as in conf/ (profile=tiny, pretrain.steps=100, data.sources=path)"
    command = add("run", "run the lifecycle; finished steps are not repeated")
    command.add_argument("overrides", nargs="*", metavar="key=value", help=overrides)

    command = add("status", "what the last run did, and what serves")
    command.add_argument("--json", action="store_true", help="for machines")

    _add_plan(
        add("plan", "parameters, arithmetic, memory, time and money of a model and a run, before anything is spent")
    )

    command = add("serve", "serve the champion (and a challenger in rollout) on an OpenAI-style API, until Ctrl-C")
    command.add_argument(
        "overrides", nargs="*", metavar="key=value", help="serve.port=8001, serve.host=..., serve.max_batch=..."
    )

    command = add("chat", "talk to the served model")
    command.add_argument("--message", help="ask once and print the answer, instead of a conversation")
    command.add_argument("--max-tokens", type=int, default=96)

    command = add("promote", "release the candidate of the last run: register, canary rollout, champion")
    command.add_argument(
        "--force", action="store_true", help="past a verdict that does not promote; goes into the ledger"
    )
    command.add_argument("--reason", default="", help="why; required with --force")

    command = add("rollback", "put the previous champion back; a running server follows at once")
    command.add_argument("--reason", default="asked for by hand", help="goes into the ledger")

    command = add("history", "the ledger: every release decision, and whether its hash chain is whole")
    command.add_argument("--json", action="store_true", help="for machines")

    command = add("monitor", "hold the live traffic against the reference: ok, alert or rollback")
    command.add_argument("--json", action="store_true", help="for machines")

    command = add("mlflow", "open the registry's web page on loopback, until Ctrl-C")
    command.add_argument("--port", type=int, default=5000)

    _add_training(add)
    _add_data(commands, common)
    _add_model(commands, common)

    command = add("doctor", "check this machine and say what to mend")
    command.add_argument("--json", action="store_true", help="for machines")
    return parser


def _add_plan(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="as of run (model=llama-7b, model.layers=8, pretrain.dtype=bf16), and plan.device=h100-sxm, "
        "plan.devices=64, plan.tensor=8, plan.pipeline=4, plan.zero_stage=1, plan.mfu=0.4, plan.tokens=2e12, ..",
    )
    command.add_argument("--hf", metavar="HF_DIR", help="plan the model of a Hugging Face directory's config.json")
    command.add_argument("--plot", metavar="FILE", help="draw memory against sequence length and batch (.svg or .png)")
    command.add_argument("--no-measure", action="store_true", help="arithmetic only: leave this machine's rates alone")
    command.add_argument("--json", action="store_true", help="for machines")


def _add_training(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    overrides = (
        "data.path=FILE (a plain text) or DIR (packed tokens; default: what the pack step made), experiment=NAME, "
        "profile=NAME, model=NAME, and model., pretrain. and text.key=value"
    )
    command = add("train", "training alone: from a plain text or packed tokens to a model directory")
    command.add_argument("overrides", nargs="*", metavar="key=value", help=overrides)
    command.add_argument("--out", metavar="DIR", help="folder of the run: model, checkpoints, report, losses drawn")
    command.add_argument("--resume", metavar="DIR", help="go on with the run of this folder, from its last checkpoint")
    command.add_argument(
        "--mlflow",
        nargs="?",
        const="",
        metavar="URI",
        help="log the run and the machine to MLflow (default: the workspace's)",
    )
    command.add_argument("--json", action="store_true", help="for machines")

    command = add("profile", "where a training step's time goes: a trace, and the largest operators")
    command.add_argument("--steps", type=int, default=5, metavar="N", help="steps profiled (default: 5)")
    _add_choosing(command, overrides)

    command = add("sweep", "which learning rate and shape are best: short runs, of which the worse end early")
    command.add_argument("--trials", type=int, default=9, metavar="N", help="runs begun (default: 9)")
    command.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="runs at a time (default: one a core); with 1 the same ones end early every time",
    )
    _add_choosing(command, overrides)

    command = add("scaling", "a ladder of small runs, their power law, and what the next budget should buy")
    command.add_argument(
        "--rungs", type=int, default=4, metavar="N", help="sizes, the model's the largest (default: 4)"
    )
    command.add_argument(
        "--lengths", type=int, default=3, metavar="N", help="lengths of each: all steps, half of them, .. (default: 3)"
    )
    command.add_argument(
        "--budget", type=float, metavar="FLOPS", help="to say what it should buy (default: 10 times the largest run's)"
    )
    _add_choosing(command, overrides)


def _add_choosing(command: argparse.ArgumentParser, overrides: str) -> None:
    command.add_argument("overrides", nargs="*", metavar="key=value", help=overrides)
    command.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    command.add_argument("--json", action="store_true", help="for machines")


def _add_data(commands: Any, common: argparse.ArgumentParser) -> None:
    text = "the data room alone: build clean documents, ask why one went, cut thresholds again, compare, draw the card"
    actions = commands.add_parser("data", help=text, description=text).add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )

    def add(name: str, text: str, *, aliases: Sequence[str] = (), has_json: bool = True) -> argparse.ArgumentParser:
        action: argparse.ArgumentParser = actions.add_parser(
            name, aliases=aliases, help=text, description=text, parents=[common]
        )
        if has_json:
            action.add_argument("--json", action="store_true", help="for machines")
        return action

    action = add("build", "sources to clean documents in a folder, with the evidence about all of them")
    action.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="URI",
        help="file, folder, glob, https:// s3:// gs://, pypi:NAME==VERSION, hf:OWNER/NAME, installed: (repeatable; "
        "default: the packages of conf/)",
    )
    action.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="EVAL.jsonl",
        help="evaluation set to keep out of the documents: any JSONL whose strings are its items (repeatable)",
    )
    action.add_argument(
        "--out", required=True, metavar="DIR", help="folder to write; an earlier build there is replaced"
    )
    action.add_argument(
        "overrides", nargs="*", metavar="key=value", help="refine.min_words=60, data.max_file_bytes=..."
    )

    action = add("why", "which rule, or which twin, removed a document")
    action.add_argument("id", metavar="ID", help="its id, the beginning of it, or the path it was read from")
    action.add_argument("--in", dest="folder", required=True, metavar="DIR", help="a build, or artifacts/refine")

    action = add("refilter", "apply new thresholds to a build, in place, without scoring it again", aliases=["recut"])
    action.add_argument("--in", dest="folder", required=True, metavar="DIR", help="a build")
    action.add_argument(
        "overrides", nargs="*", metavar="key=value", help="min_words=60, max_symbol_word_ratio=null, .."
    )

    action = add("classifier", "train a quality classifier on good and bad documents, for refine.quality_model")
    for name in ("good", "bad"):
        action.add_argument(
            f"--{name}",
            action="append",
            required=True,
            metavar="URI",
            help=f"{name} documents, as --source (repeatable)",
        )
    action.add_argument("--out", required=True, metavar="FILE", help="file to write, such as quality.safetensors")
    action.add_argument("--seed", type=int, default=0, metavar="N")

    action = add("diff", "what two builds have in common, and what not")
    action.add_argument("first", metavar="A")
    action.add_argument("second", metavar="B")

    action = add("card", "draw the data card of a build: one HTML page", has_json=False)
    action.add_argument("folder", metavar="DIR", help="a build, or artifacts/refine")


def _add_model(commands: Any, common: argparse.ArgumentParser) -> None:
    text = "model directories: take them in from transformers and hand them out to it, their logits, their text"
    actions = commands.add_parser("model", help=text, description=text).add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )

    def add(name: str, text: str) -> argparse.ArgumentParser:
        action: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text, parents=[common])
        action.add_argument("--json", action="store_true", help="for machines")
        return action

    families = "Llama, Mistral, Qwen2, Qwen3, Mixtral, GPT-2, BERT, T5, Mamba-2"
    for name, text, source, holds, out in (
        (
            "import",
            f"a model of transformers to a model directory ({families})",
            "HF_DIR",
            "a directory of transformers: config.json and safetensors",
            "OUT",
        ),
        (
            "export",
            "a model directory to one that transformers loads, where one of its families computes it",
            "DIR",
            "a model directory",
            "HF_OUT",
        ),
    ):
        action = add(name, text)
        action.add_argument("source", metavar=source, help=holds)
        action.add_argument(
            "out", metavar=out, help="folder to write; what this command wrote there before is replaced"
        )
        action.add_argument("--force", action="store_true", help=f"replace a model in {out} that something else wrote")

    action = add("logits", "what a model directory says after each of some token ids")
    action.add_argument("folder", metavar="DIR", help="a model directory")
    action.add_argument("--ids", required=True, metavar="FILE.json", help="a list of lists of one length")
    action.add_argument("--out", required=True, metavar="FILE.npy", help="float32 [batch, seq, vocab]")
    action.add_argument("--source", metavar="FILE.json", help="an encoder-decoder's source; --ids are its decoder's")
    action.add_argument(
        "--kernel",
        choices=["reference", "sdpa", "flex", "flash", "blocked"],
        help="of the attention; without it the fastest that can do what is asked, which --json names",
    )

    action = add("generate", "continue a prompt, and print what was added; the same seed gives the same text")
    action.add_argument("folder", metavar="DIR", help="a model directory")
    action.add_argument("--prompt", required=True, metavar="TEXT", help="of an encoder-decoder: its source")
    action.add_argument("--max-tokens", type=int, default=96, metavar="N", help="new tokens at most (default: 96)")
    action.add_argument("--seed", type=int, default=0, metavar="S", help="of the draw (default: 0)")
    action.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token (default: 0.8)")
    action.add_argument("--top-p", type=float, default=1.0, help="share of probability drawn from (default: 1)")
    action.add_argument(
        "--compile",
        action="store_true",
        help="compile a step first: half a minute or more, then each token in about half the time or less",
    )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """argparse takes key=value on one side of the options only; here they may stand on both."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    uri = getattr(arguments, "mlflow", None) or ""
    if "=" in uri and ":" not in uri.partition("=")[0]:
        # `--mlflow key=value`: a setting, behind an option whose own value was left out.
        arguments.mlflow, rest = "", [uri, *rest]
    strangers = [each for each in rest if each.startswith("-") or "=" not in each]
    if strangers or (rest and "overrides" not in arguments):
        parser.error(f"unrecognized arguments: {' '.join(strangers or rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    name = " ".join(["sluice", arguments.command, *([arguments.action] if "action" in arguments else [])])
    # A supervisor's SIGTERM ends a command as Ctrl-C does: children first, then one line.
    signal.signal(signal.SIGTERM, _interrupt)
    # Before torch loads OpenMP: a thread that has nothing to do spins this often before it sleeps. Ten times as often,
    # OpenMP's own choice, is no faster alone, and costs two thirds of the speed where others keep the cores busy.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    try:
        module = importlib.import_module(f"sluice.pipelines.commands.{arguments.command}")
        return int(module.run(arguments) or 0)
    except KeyboardInterrupt as interrupt:
        print(f"{name}: interrupted{f': {interrupt}' if str(interrupt) else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing more can be said, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if arguments.debug:
            raise
        print(f"{name}: {_described(error)}", file=sys.stderr)
        return 1


def _described(error: Exception) -> str:
    try:
        from sluice.components.stage import describe
    except ImportError:
        # What broke the command may have broken this too.
        return f"{type(error).__name__}: {error}"
    return describe(error)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
