"""Options that several commands share. Only the standard library is imported, so that --help answers at once."""

import argparse
from typing import Any

TRAINING_OVERRIDES = (
    "data.path=FILE (a plain text) or DIR (packed tokens; default: the output of the pack step), experiment=NAME, "
    "profile=NAME, model=NAME, and model., pretrain. and text.key=value; for train also base.path=DIR, a "
    "model directory to begin at, whose shape and tokenizer apply"
)


def with_debug() -> Any:
    """The parent parser of every command and action; the option may stand behind either."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of a failure"
    )
    return parent


def add_overrides(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=text)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_trial_options(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that run short trainings of their own: settings, a folder, JSON."""
    add_overrides(parser, TRAINING_OVERRIDES)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    add_json(parser)
