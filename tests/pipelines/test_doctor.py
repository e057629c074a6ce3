"""The judgments of `sluice doctor`, and the refusal of a run on a machine that cannot finish it."""

import json
import shutil
import socket
from pathlib import Path

import pytest

from sluice.core.network import connection_fault
from sluice.model.config import PretrainConfig
from sluice.pipelines.cli import main
from sluice.pipelines.doctor import (
    GIB,
    Finding,
    Health,
    judge_disk,
    judge_network,
    judge_packages,
    judge_port,
    judge_python,
    judge_sources,
    judge_temporary,
    judge_tools,
    needed_tools,
    port_taken,
    require_healthy,
)


def test_python_outside_the_supported_range_fails() -> None:
    assert judge_python((3, 11)).health == judge_python((3, 12)).health == Health.OK
    assert judge_python((3, 10)).health == judge_python((3, 13)).health == Health.FAIL


def test_disk_is_judged_by_what_is_free() -> None:
    assert [judge_disk(int(gib * GIB)).health for gib in (0.1, 3, 50)] == [Health.FAIL, Health.WARN, Health.OK]


def test_packages_name_what_differs_from_the_lock() -> None:
    locked = {"torch": "2.13.0", "ray": "2.60.0"}
    assert judge_packages(locked, {"torch": "2.13.0+cpu", "ray": "2.60.0"}).health == Health.OK
    finding = judge_packages(locked, {"torch": "2.12.0"})
    assert finding.health == Health.FAIL
    assert "torch 2.12.0 (locked 2.13.0)" in finding.message
    assert "ray missing" in finding.message


def test_a_taken_port_fails_unless_it_is_our_own_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port_taken("127.0.0.1", port)
        finding = judge_port("127.0.0.1", port, taken=True, ours=False)
    assert finding.health == Health.FAIL
    assert str(port) in finding.message
    assert "serve.port=" in finding.fix
    assert judge_port("127.0.0.1", port, taken=True, ours=True).health == Health.OK


def test_no_network_is_a_warning_that_says_what_happens_instead() -> None:
    assert connection_fault("http://127.0.0.1:9/simple/") == "127.0.0.1: Connection refused"
    finding = judge_network(False)
    assert finding.health == Health.WARN
    assert "installed packages' documentation" in finding.message


def test_a_temporary_folder_too_long_for_rays_sockets_fails() -> None:
    assert judge_temporary("/tmp").health == Health.OK
    finding = judge_temporary("/home/somebody/a/folder/of/their/own/tmp")
    assert finding.health == Health.FAIL
    assert "107" in finding.message
    assert finding.fix.startswith("set TMPDIR to a folder of at most")


def findings(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, str]]:
    main(["doctor", "--json", *arguments])
    return {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_settings_of_the_run_to_come_are_examined(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("A text.")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = findings(capsys, "profile=tiny", f"serve.port={port}", "data.sources=texts")
    assert (found["port"]["health"], found["sources"]["health"]) == ("fail", "ok")
    assert "no/such" in findings(capsys, "data.sources=no/such")["sources"]["message"]


@pytest.mark.parametrize("kind", ["workspace", "settings"])
def test_a_broken_workspace_is_a_finding_beside_those_of_the_machine(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path, kind: str
) -> None:
    monkeypatch.setenv("SLUICE_WORKSPACE", str(tmp_path))
    if kind == "settings":
        shutil.copytree(root / "conf", tmp_path / "conf")
        shutil.copy(root / "dvc.yaml", tmp_path)
        with (tmp_path / "conf" / "config.yaml").open("a") as config:
            config.write("\nno_such_block: {key: 3}\n")
    found = findings(capsys)
    assert found[kind]["health"] == "fail"
    assert ("SLUICE_WORKSPACE" if kind == "workspace" else "no_such_block") in found[kind]["message"]
    assert {"python", "packages", "disk", "memory", "temporary"} < found.keys()


def test_missing_tools_and_sources_are_named() -> None:
    assert "c++" in judge_tools({"git": "/usr/bin/git", "c++": None}).message
    assert "/no/such" in judge_sources(["/no/such"]).message


def test_a_compiler_is_asked_for_only_where_something_is_compiled() -> None:
    """The image has none, and a run in it must not be refused for that."""
    assert needed_tools() == needed_tools(PretrainConfig()) == ("git",)
    assert needed_tools(PretrainConfig(compile=True)) == ("git", "c++")


def test_failures_come_as_one_line_with_what_mends_them(capsys: pytest.CaptureFixture[str]) -> None:
    require_healthy([Finding("disk", Health.WARN, "little room", "make some")])
    assert "little room; make some" in capsys.readouterr().out
    with pytest.raises(ValueError, match="little room: make some; port taken: move"):
        require_healthy(
            [
                Finding("disk", Health.FAIL, "little room", "make some"),
                Finding("port", Health.FAIL, "port taken", "move"),
                Finding("python", Health.OK, "fine"),
            ]
        )


def test_lock_of_this_checkout_is_installed() -> None:
    from sluice.pipelines.doctor import installed_versions, locked_versions

    locked = locked_versions()
    assert len(locked) >= 8
    assert judge_packages(locked, installed_versions()).health == Health.OK
