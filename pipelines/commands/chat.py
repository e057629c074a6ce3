"""`sluice chat`: chat with the served model in the terminal."""

import argparse
import os
import sys
from contextlib import suppress

from sluice.components.workspace import Workspace
from sluice.core.files import lock_holder, read_private
from sluice.serving.client import SERVER_VARIABLE, Client, find_server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--message", help="ask once and print the answer, instead of a conversation")
    parser.add_argument(
        "--max-tokens", type=int, default=96, metavar="N", help="most tokens of an answer (default: 96)"
    )


def run(arguments: argparse.Namespace) -> int:
    workspace = Workspace.find()
    client = find_server(workspace.state)
    if client is None:
        if address := os.environ.get(SERVER_VARIABLE):
            raise ValueError(
                f"no server answers at {SERVER_VARIABLE}={address} with this key: start it, or correct one of the two"
            )
        if (workspace.state / "api_key").is_file():
            read_private(workspace.state / "api_key")
        if (process := lock_holder(workspace.serve_lock)) is not None:
            raise ValueError(
                f"the server of this workspace (process {process}) is starting: ask again once `sluice serve` says "
                "where it serves"
            )
        raise ValueError("no server of this workspace answers: start one with `sluice serve` in another terminal")
    if arguments.message is not None:
        _answer(client, [{"role": "user", "content": arguments.message}], arguments.max_tokens)
        return 0
    if sys.stdin.isatty():
        print(f"v{client.state()['champion']} at {client.url}; an empty line ends the conversation")
    with suppress(EOFError):
        while question := input("> " if sys.stdin.isatty() else "").strip():
            # Each question is sent alone: the model was not tuned on conversations of several turns.
            _answer(client, [{"role": "user", "content": question}], arguments.max_tokens)
    return 0


def _answer(client: Client, messages: list[dict[str, str]], max_tokens: int) -> None:
    for text in client.chat(messages, max_tokens=max_tokens):
        print(text, end="", flush=True)
    print()
