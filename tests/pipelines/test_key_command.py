"""`sluice key`."""

import json

import pytest

from sluice.components.workspace import Workspace
from sluice.pipelines.cli import main


def test_the_command_prints_a_key_once(empty_workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "create", "anna", "--role", "watch"]) == 0
    key = capsys.readouterr().out.strip()
    assert main(["key", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["name"], listed["role"], listed["revoked"]) == ("anna", "watch", None)
    assert main(["key", "revoke", "anna"]) == 0
    assert main(["key", "list"]) == 0
    shown = capsys.readouterr().out
    assert "anna" in shown and "watch" in shown and "revoked" in shown and key not in shown
    assert main(["key", "create", "anna", "--role", "owner"]) == 1
    assert "role 'owner' must be one of use, watch, release" in capsys.readouterr().err
