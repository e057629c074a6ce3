"""`sluice key`: keys of the server, each with a role."""

import argparse
import json
import time
from dataclasses import asdict

from sluice.components.stores import open_keys
from sluice.pipelines.compose import find_workspace
from sluice.pipelines.options import add_json

ROLE_TEXTS = "use: the API alone; watch: also state, metrics and page; release: everything"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key and print it once; a running server knows it within 2 s")
    create.add_argument("name", help="who uses it: the ledger names it as key:NAME")
    create.add_argument("--role", required=True, metavar="use|watch|release", help=ROLE_TEXTS)
    add_json(actions.add_parser("list", help="show all keys, revoked ones included; never the keys themselves"))
    revoke = actions.add_parser("revoke", help="end a key; a running server refuses it within 2 s")
    revoke.add_argument("name")


def run(arguments: argparse.Namespace) -> int:
    keys = open_keys(find_workspace())
    if arguments.action == "create":
        print(keys.issue(arguments.name, arguments.role))
    elif arguments.action == "revoke":
        keys.revoke(arguments.name)
        print(f"revoked {arguments.name}")
    elif arguments.json:
        print(json.dumps([asdict(key) for key in keys.stored()], indent=2))
    else:
        for key in keys.stored():
            revoked = f"revoked {_moment(key.revoked)}" if key.revoked else ""
            print(f"{key.name:<24} {key.role:<8} created {_moment(key.created)}  {revoked}".rstrip())
    return 0


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
