"""`sluice register` and `sluice rollout ..` on a workspace with a registry, without a server."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import json
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from release_fixtures import empty_database, write_model  # noqa: F401

from sluice.components import rollout as rollout_step
from sluice.components.artifact import read_metrics
from sluice.components.evidence import policy_in_force, sets_in_force
from sluice.components.params import load_block
from sluice.components.register_model import propose_version
from sluice.components.stores import open_releases
from sluice.components.workspace import Workspace
from sluice.core.files import holding_lock
from sluice.model.config import GateConfig
from sluice.model.evaluation.verdict import ComparedModel, PolicyIdentity, SuiteIdentity, Verdict, write_verdict
from sluice.model.model_files import model_hash
from sluice.pipelines.cli import main
from sluice.pipelines.commands.rollout import progress_lines
from sluice.serving.canary import RolloutDecision, RolloutState, decide
from sluice.serving.config import RolloutConfig
from sluice.serving.decision_record import record_decision
from sluice.serving.evidence import Evidence, Pairs
from sluice.serving.lease import Lease, LeaseRow, LeaseTable
from sluice.serving.releases import Releases


@pytest.fixture
def workspace(
    tmp_path: Path, root: Path, default_params: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    """A workspace with settings and an empty registry."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    for folder in ("conf", "model"):
        (tmp_path / folder).symlink_to(root / folder)
    (tmp_path / "params.yaml").write_text(default_params.read_text())
    (tmp_path / ".sluice").mkdir()
    (tmp_path / ".sluice" / "mlflow.db").write_bytes(empty_database.read_bytes())
    monkeypatch.setenv("SLUICE_WORKSPACE", str(tmp_path))
    return Workspace(tmp_path)


def model_with_verdict(workspace: Workspace, text: str, outcome: str = "promote") -> Path:
    """A model directory with the gate's verdict in it, compared with the present champion."""
    folder = write_model(workspace.root / "models" / text, text)
    releases, policy = open_releases(workspace), policy_in_force(workspace)
    champion = releases.state().champion
    baseline = ComparedModel(model=model_hash(releases.model_folder(champion))) if champion else None
    verdict = Verdict.model_validate(
        {
            "outcome": outcome,
            "reason": f"the gate says {outcome}",
            "checks": [],
            "confidence": 0.95,
            "correction": "none",
            "hashes": {"model": model_hash(folder)},
            "is_first_version": baseline is None,
            "policy": PolicyIdentity(name=policy.name, version=str(policy.version), sha256=policy.sha256),
            "suites": {name: SuiteIdentity(sha256=sha256) for name, sha256 in sets_in_force(workspace).items()},
            "baseline": baseline,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    write_verdict(verdict, folder / "verdict.json", workspace.keys)
    return folder


@pytest.fixture
def releases(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Releases:
    """Version 1 is champion, version 2 challenger; both were registered by the command."""
    releases = open_releases(workspace)
    for version, text in (("1", "one"), ("2", "two")):
        assert main(["register", str(model_with_verdict(workspace, text))]) == 0
        propose_version(workspace, version, None, "me@here")
        if version == "1":
            releases.promote("the first one")
    capsys.readouterr()
    return releases


def test_a_model_directory_becomes_a_version_once(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model_with_verdict(workspace, "one")
    for _ in range(2):
        assert main(["register", str(folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {
            "version": "1",
            "verdict": "promote",
            "reason": "the gate says promote",
        }
    assert main(["register", str(model_with_verdict(workspace, "two", "reject"))]) == 0
    said = capsys.readouterr().out
    assert "as v2: verdict reject" in said and "`sluice promote 2 --force --reason ..`" in said
    with pytest.raises(ValueError, match="the verdict of version 2 is reject, not promote"):
        propose_version(workspace, "2", None, "me@here")
    propose_version(workspace, "2", "somebody asked for it", "me@here")
    newest = open_releases(workspace).history()[-1]
    assert (newest.actor, newest.reason, newest.details["forced"]) == ("me@here", "somebody asked for it", True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "verdict.json").unlink(), "has no verdict, neither"),
        (lambda folder: (folder / "config.json").write_text("another"), "is about model"),
        (lambda folder: (folder / "config.json").unlink(), "does not exist: not a model directory"),
        (lambda folder: (folder / "verdict.json").write_text("{}"), "verdict"),
    ],
    ids=["none", "of another model", "no model", "forged"],
)
def test_a_model_without_a_verdict_on_it_is_refused_with_what_to_run(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], change: object, said: str
) -> None:
    folder = model_with_verdict(workspace, "one")
    change(folder)  # type: ignore[operator]
    assert main(["register", str(folder)]) == 1
    refusal = capsys.readouterr().err
    assert said in refusal and refusal.count("\n") == 1
    if "model" not in said:
        assert "sluice gate check" in refusal or "verdict" in refusal
    if said == "has no verdict, neither":
        assert f" --data {workspace.artifact('refine')} --out EVAL`" in refusal
        assert f"--policy {load_block(workspace, GateConfig).policy}`" in refusal


def test_a_rollout_is_paused_resumed_and_promoted_by_hand(
    releases: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollout", "pause"]) == 0
    assert releases.state().paused
    assert main(["rollout", "pause"]) == 1
    assert "the rollout of version 2 is paused already" in capsys.readouterr().err
    assert main(["rollout", "resume", "--reason", "looked at it"]) == 0
    assert not releases.state().paused
    assert main(["rollout", "promote", "--reason", "seen enough"]) == 0
    assert (releases.state().champion, releases.state().champion_forced) == ("2", "by hand: seen enough")
    assert main(["rollout", "abort"]) == 1
    assert "there is no challenger" in capsys.readouterr().err


def test_abort_beats_a_pause(releases: Releases, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", "pause"]) == main(["rollout", "abort", "--reason", "looks wrong"]) == 0
    assert capsys.readouterr().out.endswith("dropped v2: looks wrong; v1 serves\n")
    assert releases.state().challenger is None


def test_promotion_by_hand_needs_a_reason(releases: Releases, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["rollout", "promote"])
    assert "--reason" in capsys.readouterr().err
    assert releases.state().challenger == "2"


def test_status_shows_the_controllers_newest_decision(
    workspace: Workspace, releases: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollout", "status"]) == 0
    assert "no controller measures it: `sluice rollout start 2` goes on" in capsys.readouterr().out
    progress = {
        "step": 1,
        "steps": [{"weight": 0, "shadow": True}, {"weight": 100, "shadow": False}],
        "reason": "3 of 50 replayed prompts",
        "replays": 3,
        "live": 7,
        "checks": [
            {
                "metric": "error_rate",
                "outcome": "inconclusive",
                "value": None,
                "bound": 0.02,
                "n": 0,
                "e_advance": 1.0,
                "e_drop": None,
                "threshold": 20.0,
            }
        ],
    }
    with Lease(LeaseTable(workspace.database_url), "sluice", "2") as lease:
        lease.set(progress=progress)
        lease.renew()
        assert main(["rollout", "status"]) == 0
        said = capsys.readouterr().out
        assert "v2 against v1: 0 % of the traffic" in said and lease.holder in said
        assert "steps shadow [100 %]   3 replayed prompts, 7 live requests" in said
        assert "error_rate  inconclusive  -      0.02   0  1          -       20" in said
        assert main(["rollout", "status", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["controller"], found["progress"]) == (lease.holder, progress)
    releases.drop("done")
    assert main(["rollout", "status"]) == 0
    assert capsys.readouterr().out == "no rollout: v1 serves alone\n"
    assert progress_lines({}) == ["no decision yet: waiting for the challenger's first answer"]


def test_status_names_no_controller_that_has_ended(
    workspace: Workspace, releases: Releases, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = LeaseRow(f"process 4194999 on {socket.gethostname()}", "token", 7, "2", progress={"step": 1})
    assert LeaseTable(workspace.database_url).replace("sluice", None, ended)
    assert main(["rollout", "status"]) == 0
    assert "no controller measures it: `sluice rollout start 2` goes on" in capsys.readouterr().out


def test_force_is_not_ignored_for_a_version_in_rollout(workspace: Workspace, releases: Releases) -> None:
    with pytest.raises(ValueError, match="version 2 is in rollout without force: drop it first"):
        propose_version(workspace, "2", "somebody asked for it", "me@here")
    releases.drop("to force it")
    for _ in range(2):
        propose_version(workspace, "2", "somebody asked for it", "me@here")
    assert releases.state().challenger_forced_reason == "somebody asked for it"


def decision(releases: Releases, **changes: object) -> RolloutDecision:
    """Write a weight with the decision that 200 good pairs make, `changes` made in its record."""
    config, evidence, state = RolloutConfig(), Evidence(Pairs(200), Pairs(200), Pairs(200)), RolloutState()
    decided = decide(state, evidence, config)
    record = record_decision(state, evidence, config, decided) | changes
    releases.set_weight(1, decided.reason, decision=record)
    return decided


def test_a_rollout_that_is_aborted_while_another_is_waited_for_does_not_begin(
    workspace: Workspace, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def waited_for(path: Path, holder: str) -> Iterator[bool]:
        releases.drop("aborted meanwhile")
        with holding_lock(path, holder) as held:
            yield held

    monkeypatch.setattr(rollout_step, "holding_lock", waited_for)
    monkeypatch.setattr(rollout_step, "held_out_prompts", lambda _: [str(number) for number in range(100)])
    monkeypatch.setattr(rollout_step, "a_server", lambda _: pytest.fail("a rollout of nothing begins"))
    assert rollout_step.rollout(workspace, "2") == "dropped"
    assert read_metrics(workspace, "rollout")["reason"].startswith("v2 is no longer the challenger")


def test_replay_computes_all_recorded_decisions_again(releases: Releases, capsys: pytest.CaptureFixture[str]) -> None:
    assert decision(releases).action == "advance"
    assert main(["rollout", "replay"]) == 0
    assert capsys.readouterr().out == "1 decisions computed again, 0 differ\n"
    decision(releases, reason="something else")
    decision(releases, settings={"max_error_rate": math.pi})
    assert main(["rollout", "replay", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["differing"] == 2
    differences = [each["difference"] for each in found["decisions"]]
    assert differences[0] == "" and differences[1].startswith("recorded advance: something else; now advance: ")
    assert differences[2].startswith("cannot be computed: ")


def test_a_decision_of_other_code_may_differ(releases: Releases, capsys: pytest.CaptureFixture[str]) -> None:
    decision(releases, reason="by an older rule", code="0.1+older")
    assert main(["rollout", "replay"]) == 0
    told = capsys.readouterr()
    assert told.out == "1 decisions computed again, 0 differ; 1 of another version of the code differ\n"
    assert "decided by code 0.1+older: recorded advance: by an older rule; now advance: " in told.err


def test_a_stranger_version_is_refused(workspace: Workspace, releases: Releases) -> None:
    with pytest.raises(ValueError, match="sluice has no version 7; registered: 1, 2"):
        propose_version(workspace, "7", None, "me@here")
    assert yaml.safe_load(workspace.params.read_text())["register"]["model_name"] == "sluice"
