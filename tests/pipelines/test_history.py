"""`sluice history` and `status` on a ledger that somebody changed, and the way out that they name."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from sluice.components.stores import open_ledger
from sluice.components.workspace import Workspace
from sluice.pipelines.cli import main
from sluice.serving.ledger import Ledger
from sluice.serving.ledger_chain import GENESIS, Entry

PROMOTED = {"forced": False, "verdict_sha256": "v"}


@pytest.fixture
def ledger(tmp_path: Path, default_params: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Two champions in a row: a ledger of four entries."""
    monkeypatch.setenv("SLUICE_WORKSPACE", str(tmp_path))
    (tmp_path / "conf").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_text(default_params.read_text())
    ledger, head = open_ledger(Workspace(tmp_path)), GENESIS
    for version in ("1", "2"):
        for action in ("propose", "promote"):
            head = ledger.append(
                Entry(1.7e9, action, version, "test", f"{action} it", PROMOTED), expected_head=head
            ).hash
    return ledger


def tamper(ledger: Ledger, statement: str) -> None:
    with sa.create_engine(ledger.url).begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER sluice_ledger_no_DELETE")
        connection.exec_driver_sql(statement)


def said(capsys: pytest.CaptureFixture[str], *command: str, code: int) -> str:
    assert main(list(command)) == code
    return capsys.readouterr().out


def test_a_whole_ledger(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "history", code=0).splitlines()
    assert len(lines) == 5 and lines[-1] == "4 entries; hash chain whole"
    assert said(capsys, "history", "--verify", code=0) == "4 entries; hash chain whole\n"
    assert "ledger whole" in said(capsys, "status", code=0)


def test_history_names_the_actor_and_marks_what_was_forced_or_done_by_hand(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    forced = Entry(1.7e9, "propose", "3", "key:page", "a drill\n\x1b[2J; DROP TABLE", {**PROMOTED, "forced": True})
    head = ledger.append(forced, expected_head=ledger.history()[-1].hash).hash
    head = ledger.append(Entry(1.7e9, "weight", "3", "rollout", "step", {"percent": 5}), expected_head=head).hash
    head = ledger.append(Entry(1.7e9, "pause", "3", "ann@laptop", "look"), expected_head=head).hash
    lines = said(capsys, "history", code=0).splitlines()
    assert "  key:page    propose    v3    forced: a drill\\n\\x1b[2J; DROP TABLE" in lines[4]
    assert "  rollout     weight     v3    step" in lines[5]
    shown = said(capsys, "status", code=0)
    assert "champion v2   challenger v3 at 5 %, paused" in shown
    assert "challenger v3 forced: a drill\\n\\x1b[2J; DROP TABLE" in shown
    by_hand = Entry(1.7e9, "promote", "3", "ann@laptop", "good enough", {"by_hand": True})
    ledger.append(by_hand, expected_head=head)
    assert "  ann@laptop  promote    v3    by hand: good enough" in said(capsys, "history", code=0)
    marks = "forced: a drill\n\x1b[2J; DROP TABLE; by hand: good enough"
    found = json.loads(said(capsys, "status", "--json", code=0))
    assert (found["champion_forced"], found["challenger"], found["paused"]) == (marks, None, False)
    assert "champion v3 forced: a drill" in said(capsys, "status", code=0)
    listed = json.loads(said(capsys, "history", "--json", code=0))["entries"]
    assert [each["actor"] for each in listed[4:]] == ["key:page", "rollout", "ann@laptop", "ann@laptop"]


def test_a_chain_cut_at_its_end_is_said_and_repaired(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    tamper(ledger, "DELETE FROM sluice_ledger WHERE sequence > 2")
    way_out = "sluice history --repair 2"
    for command in (["history"], ["history", "--verify"]):
        assert "hash chain broken at entry 3: the chain was cut off" in (found := said(capsys, *command, code=1))
        assert way_out in found
    found = json.loads(said(capsys, "status", "--json", code=0))
    assert found["ledger_ok"] is False and way_out in found["ledger"]
    # The release as far as it is verified.
    assert found["champion"] == "1"
    assert main(["history", "--repair", "2"]) == 1
    assert "a repair needs a reason" in capsys.readouterr().err


def test_a_forged_entry_is_marked(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    tamper(
        ledger,
        "INSERT INTO sluice_ledger SELECT model, 5, 1e300, 'rollback', version, actor, 'hello', 'no json', hash, "
        "'garbage' FROM sluice_ledger WHERE sequence = 4",
    )
    lines = said(capsys, "history", code=1).splitlines()
    assert "rollback   v2    BROKEN  hello" in lines[4]
    assert "the details of entry 5 are not as they were written" in lines[5]
    found = json.loads(said(capsys, "history", "--json", code=1))
    assert (found["ok"], found["broken_at"], len(found["entries"])) == (False, 5, 5)
    assert json.loads(said(capsys, "status", "--json", code=0))["champion"] == "2"
