"""The `sluice` command: what it loads, and how it fails."""

import os
import re
import shlex
import shutil
import sys
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

import pytest

from sluice.components.workspace import Workspace
from sluice.core.files import holding_lock
from sluice.pipelines.cli import COMMANDS, build_parser, main, parse
from sluice.pipelines.commands.run import exit_status


@pytest.fixture
def empty_workspace(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace in which nothing has run."""
    shutil.copy(root / "dvc.yaml", tmp_path)
    (tmp_path / "conf").symlink_to(root / "conf")
    monkeypatch.setenv("SLUICE_WORKSPACE", str(tmp_path))
    return tmp_path


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert command in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"sluice {version('sluice')}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_a_module(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    import importlib

    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([command, "--help"])
    assert end.value.code == 0
    assert "--debug" in capsys.readouterr().out
    assert callable(importlib.import_module(f"sluice.pipelines.commands.{command}").run)


def test_every_module_of_commands_is_a_command(root: Path) -> None:
    modules = {path.stem for path in (root / "pipelines" / "commands").glob("*.py")} - {"__init__"}
    assert modules == set(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "pretrain.stepz=3"], "unknown key 'pretrain.stepz'"),
        (["run", "data.sources=/no/such/path", "serve.port=0"], "serve.port"),
        (["chat", "--message", "hello"], "sluice serve"),
        (["serve"], "there is no champion"),
        (["serve", "pretrain.steps=3"], "only serve.key=value"),
        (["rollback"], "nothing"),
        (["promote"], "no such verdict; `sluice run` writes it"),
        (["promote", "--force"], "--reason"),
    ],
)
def test_a_failure_is_one_line_and_a_status(
    empty_workspace: Path, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    said = capsys.readouterr().err.strip()
    assert named in said
    assert said.startswith(f"sluice {arguments[0]}: ")
    assert "Traceback" not in said.splitlines()[-1]


def test_a_failure_of_what_describes_failures_is_one_line_too(
    empty_workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sluice.core.failure", None)
    monkeypatch.setitem(sys.modules, "sluice.pipelines.commands.plan", None)
    assert main(["plan"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("sluice plan: ModuleNotFoundError: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["model.kind=encoder"], "objective causal is not supported with model.kind encoder"),
        (["pretrain.zero_stage=3", "pretrain.pipeline_stages=2"], "use zero_stage 0 or 1"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_data_is_made(
    empty_workspace: Path, capsys: pytest.CaptureFixture[str], settings: list[str], reason: str
) -> None:
    two = ["profile=tiny", "refine.evaluation_sets=[]", "pretrain.workers=2", "pretrain.micro_batch_size=4"]
    assert main(["run", *two, *settings]) == 1
    assert reason in capsys.readouterr().err
    assert not (empty_workspace / "artifacts").exists() and not (empty_workspace / "params.yaml").exists()


@pytest.mark.parametrize(
    ("gate", "rollout", "monitor", "is_champion", "status"),
    [
        ("promote", "promoted", "ok", False, 0),
        ("promote", "promoted", "alert", False, 0),
        ("hold", "skipped", "ok", True, 0),
        ("hold", "skipped", "alert", False, 3),
        ("reject", "skipped", "ok", False, 4),
        ("promote", "dropped", "ok", False, 4),
        ("promote", "paused", "ok", False, 3),
        ("promote", "promoted", "rollback", False, 4),
    ],
)
def test_the_exit_status_of_a_run_tells_its_outcome(
    gate: str, rollout: str, monitor: str, is_champion: bool, status: int
) -> None:
    outcomes = {"gate": gate, "rollout": rollout, "monitor": monitor}
    assert exit_status(outcomes, is_champion=is_champion) == status


def test_debug_shows_the_traceback(empty_workspace: Path) -> None:
    with pytest.raises(ValueError, match=r"pretrain\.stepz"):
        main(["run", "pretrain.stepz=3", "--debug"])


def test_status_and_history_of_an_empty_workspace(empty_workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert main(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["run"], status["state"], status["message"], status["verdict"]) == (None, "none", None, None)
    assert {step["state"] for step in status["steps"]} == {"pending"}
    assert status["champion"] is None
    assert status["ledger_ok"] is True
    assert main(["history"]) == 0
    assert "0 entries" in capsys.readouterr().out


def test_outside_a_workspace_it_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sluice.components.workspace import Workspace

    monkeypatch.setenv("SLUICE_WORKSPACE", str(tmp_path))
    with pytest.raises(ValueError, match=r"is no sluice workspace .*dvc\.yaml"):
        Workspace.find()


def test_settings_may_stand_on_both_sides_of_an_option() -> None:
    arguments = parse(["data", "build", "--source", "a", "refine.min_words=1", "--out", "b", "refine.workers=2"])
    assert arguments.overrides == ["refine.min_words=1", "refine.workers=2"]


@pytest.mark.parametrize("stranger", [["--nonsense"], ["word"], ["x=1"]])
def test_what_no_command_knows_is_refused(stranger: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["status", *stranger])
    assert f"unrecognized arguments: {stranger[0]}" in capsys.readouterr().err


def test_an_unknown_option_shows_the_usage_of_its_own_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["data", "build", "--out", "x", "--foo"])
    assert capsys.readouterr().err.startswith("usage: sluice data build ")


@pytest.mark.parametrize(
    ("said", "spins"), [({}, "30000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, None)]
)
def test_waiting_threads_sleep_sooner_unless_the_user_has_said_what_they_do(
    empty_workspace: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], spins: str | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        # Set first, so that the variable is restored whatever the command makes of it.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    main(["status"])
    assert os.environ.get("GOMP_SPINCOUNT") == spins


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("verdict hold: too few", "not promoted: verdict hold: too few; past the gate only with --force --reason ..\n"),
        ("v1 is the champion already", "not promoted: v1 is the champion already\n"),
    ],
)
def test_promote_names_force_only_where_it_helps(
    reason: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens: list[str] = []
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if "RAY" not in name})
    for name, replacement in {
        "find_workspace": lambda: Workspace(tmp_path),
        "only_run": nullcontext,
        "register": lambda workspace, forced_reason, actor: tokens.append(os.environ["RAY_AUTH_TOKEN"]) or "",
        "read_metrics": lambda workspace, step: {"reason": reason},
    }.items():
        monkeypatch.setattr(f"sluice.pipelines.commands.promote.{name}", replacement)
    assert main(["promote"]) == 1
    assert capsys.readouterr().err == shown
    assert tokens[0], "the rollout's own Ray needs one"


@pytest.mark.parametrize(("options", "forced"), [([], None), (["--force", "--reason", "a drill"], "a drill")])
def test_promote_proposes_and_rolls_out_the_version_that_is_named(
    options: list[str],
    forced: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proposed: list[tuple[object, ...]] = []
    for name, replacement in {
        "find_workspace": lambda: Workspace(tmp_path),
        "prepare_own_ray": lambda: None,
        "only_run": nullcontext,
        "who": lambda: "ann@laptop",
        "propose_version": lambda workspace, *given: proposed.append(given),
        "rollout": lambda workspace, version: "promoted",
        "read_metrics": lambda workspace, step: {"reason": "every check passed"},
    }.items():
        monkeypatch.setattr(f"sluice.pipelines.commands.promote.{name}", replacement)
    assert main(["promote", "v3", *options]) == 0
    assert proposed == [("3", forced, "ann@laptop")]
    assert capsys.readouterr().out == "v3: promoted: every check passed\n"


def test_promote_waits_for_a_pipelines_rollout(empty_workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It holds no lock of a run, being in a pod of the same volume."""
    lock = Workspace(empty_workspace).rollout_lock
    lock.parent.mkdir(exist_ok=True)
    with holding_lock(lock, "v7 (process 1 on sluice-rollout)") as held:
        assert held
        assert main(["promote"]) == 1
    said = capsys.readouterr().err
    assert "the rollout of v7 (process 1 on sluice-rollout) is going" in said and "`sluice rollout abort`" in said
    assert main(["promote"]) == 1
    assert "no such verdict" in capsys.readouterr().err


def test_chat_tells_a_server_that_starts_from_none(
    empty_workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = Workspace(empty_workspace).serve_lock
    lock.parent.mkdir(exist_ok=True)
    with holding_lock(lock, "1234"):
        assert main(["chat", "--message", "hello"]) == 1
    assert "(process 1234) is starting: ask again once" in capsys.readouterr().err
    assert main(["chat", "--message", "hello"]) == 1
    assert "start one with `sluice serve`" in capsys.readouterr().err
    monkeypatch.setenv("SLUICE_SERVER", "http://127.0.0.1:1")
    assert main(["chat", "--message", "hello"]) == 1
    assert "no server answers at SLUICE_SERVER=http://127.0.0.1:1 with this key" in capsys.readouterr().err


def test_the_readme_names_every_command_and_its_examples_parse():
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert {command for command in COMMANDS if f"`sluice {command}" not in text.replace("\\|", "`sluice ")} == set()
    examples = [
        shlex.split(command, comments=True)[1:]
        for line in re.findall(r"^\$ (sluice .*)$", text, flags=re.MULTILINE)
        for command in line.split("; ")
        if command.startswith("sluice ")
    ]
    assert len(examples) > 20
    for example in examples:
        parse(example)
