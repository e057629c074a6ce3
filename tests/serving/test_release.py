"""Releases: the transitions alone, and with a real registry and ledger, killed and raced."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import hashlib
import json
import multiprocessing
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from release_fixtures import (  # noqa: F401
    POLICY,
    Workspace,
    empty_database,
    open_workspace,
    postgresql,
    released,
    released_template,
    workspace,
)

from sluice.core.canonical import canonical_json
from sluice.serving.control import Action, Command, CommandResult, carry_out
from sluice.serving.ledger import Ledger, LedgerBroken, LedgerCheck, LedgerConflict
from sluice.serving.ledger_chain import GENESIS, Entry, RecordedEntry
from sluice.serving.ledger_trust import Head, LedgerTrust
from sluice.serving.registry import Registry
from sluice.serving.release import (
    DAY_S,
    MAX_EARLIER_CHAMPIONS,
    Intent,
    Refusal,
    ReleaseState,
    VerdictRequirements,
    VerifiedVerdict,
    apply,
    fold,
    transition,
)
from sluice.serving.releases import ReleaseRefused, Releases

GOOD = VerifiedVerdict(
    outcome="promote",
    verdict_hash="v",
    judged_model="m",
    registered_model="m",
    baseline_model=None,
    policy="p",
    judged_at=0.0,
    sets={"golden": "g"},
)


def intent(action: str, version: str | None = None, **more: object) -> Intent:
    verdict = GOOD if action in ("propose", "promote") else None
    fields: dict[str, object] = {
        "verdict": verdict, "policy": "p", "reason": "because", "time": 5.0, "actor": "test", **more
    }  # fmt: skip
    return Intent(action=action, version=version, **fields)  # type: ignore[arg-type]


def after(state: ReleaseState, wanted: Intent) -> ReleaseState:
    decided = transition(state, wanted)
    assert isinstance(decided, Entry), decided
    place = {"sequence": state.sequence + 1, "previous_hash": "", "hash": ""}
    return apply(state, RecordedEntry(**{**vars(decided), **place}))


def refusal(state: ReleaseState, wanted: Intent) -> str:
    decided = transition(state, wanted)
    assert isinstance(decided, Refusal), decided
    return decided.reason


def champions(*versions: str) -> ReleaseState:
    state = ReleaseState()
    for version in versions:
        state = after(after(state, intent("propose", version)), intent("promote"))
    return state


def test_a_version_goes_from_challenger_to_champion_to_previous_champion() -> None:
    state = after(ReleaseState(), intent("propose", "1"))
    assert (state.champion, state.challenger, state.challenger_weight) == (None, "1", 0)
    state = after(state, intent("weight", weight=50))
    assert state.challenger_weight == 50
    state = after(state, intent("promote"))
    assert (state.champion, state.challenger, state.challenger_weight, state.previous_champion) == ("1", None, 0, None)
    state = after(after(state, intent("propose", "2")), intent("promote"))
    assert state.aliases() == {"champion": "2", "previous-champion": "1", "challenger": None}


def test_a_dropped_challenger_leaves_the_champion_alone() -> None:
    state = after(after(champions("1"), intent("propose", "2")), intent("weight", weight=10))
    assert replace(after(state, intent("drop")), sequence=0) == replace(champions("1"), sequence=0)


def test_rollbacks_go_back_champion_by_champion_and_then_refuse() -> None:
    state = after(champions("1", "2", "3"), intent("rollback"))
    assert (state.champion, state.previous_champion, state.rolled_back) == ("2", "1", ("3",))
    state = after(state, intent("rollback"))
    assert (state.champion, state.previous_champion, state.rolled_back) == ("1", None, ("3", "2"))
    assert "version 1 has no previous champion" in refusal(state, intent("rollback"))
    assert "no version serves yet" in refusal(ReleaseState(), intent("rollback"))


def test_a_rollback_to_any_earlier_champion() -> None:
    state = after(champions("1", "2", "3", "4"), intent("rollback", to="2"))
    assert (state.champion, state.previous_champion, state.earlier_champions) == ("2", "1", ("3",))
    assert after(state, intent("rollback", to="3")).champion == "3"
    for target, why in (("4", "is the champion: choose"), ("7", "was not champion before 4: choose")):
        assert f"version {target} {why} one of 1, 2, 3" in refusal(
            champions("1", "2", "3", "4"), intent("rollback", to=target)
        )


def test_budgets_count_from_the_first_champion_whatever_is_rolled_back() -> None:
    assert (ReleaseState().first_champion, champions("1", "2", "3").first_champion) == (None, "1")
    for target in ("1", "2", "3"):
        state = after(champions("1", "2", "3", "4"), intent("rollback", to=target))
        assert state.first_champion == "1"
        assert after(after(state, intent("propose", "5")), intent("promote")).first_champion == "1"


def test_a_version_is_never_the_way_out_of_itself() -> None:
    state = after(champions("1", "2", "1"), intent("rollback"))
    assert (state.champion, state.previous_champion) == ("2", None)
    state = after(champions("1", "2", "1", "2"), intent("rollback"))
    assert (state.champion, state.previous_champion) == ("1", None)


def test_a_rolled_back_version_comes_back_by_force_alone() -> None:
    state = after(champions("1", "2"), intent("rollback"))
    assert "version 2 was rolled back" in refusal(state, intent("propose", "2"))
    again = after(state, intent("propose", "2", forced=True))
    assert again.challenger == "2" and again.challenger_forced
    assert "version 2 was rolled back" in refusal(after(again, intent("drop")), intent("propose", "2"))
    assert after(again, intent("promote")).rolled_back == ()


def test_a_rollback_ends_a_rollout() -> None:
    state = after(after(champions("1", "2"), intent("propose", "3")), intent("weight", weight=50))
    decided = transition(state, intent("rollback"))
    assert isinstance(decided, Entry) and decided.details == {"to": "1", "dropped": "3"}
    state = after(state, intent("rollback"))
    assert (state.champion, state.challenger, state.challenger_weight) == ("1", None, 0)


@pytest.mark.parametrize("forced", [False, True])
def test_a_second_challenger_is_refused_naming_the_first(forced: bool) -> None:
    state = after(after(champions("1"), intent("propose", "2")), intent("weight", weight=10))
    assert "version 2 is in rollout at 10 %" in refusal(state, intent("propose", "3", forced=forced))


@pytest.mark.parametrize("outcome", ["hold", "reject"])
def test_what_the_gate_did_not_pass_needs_force_and_a_reason(outcome: str) -> None:
    verdict = replace(GOOD, outcome=outcome)
    assert outcome in refusal(ReleaseState(), intent("propose", "1", verdict=verdict))
    nothing = intent("propose", "1", verdict=verdict, forced=True, reason=" ")
    assert "needs a reason" in refusal(ReleaseState(), nothing)
    state = after(ReleaseState(), intent("propose", "1", verdict=verdict, forced=True))
    assert state.challenger_forced
    assert after(state, intent("promote", verdict=verdict)).champion == "1"


def test_force_does_not_help_against_another_models_verdict() -> None:
    verdict = replace(GOOD, judged_model="another")
    for forced in (False, True):
        assert "force does not help" in refusal(ReleaseState(), intent("propose", "1", verdict=verdict, forced=forced))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"verdict": replace(GOOD, baseline_model="older")},
            "model older, but no champion serves now: the champion has",
        ),
        ({"champion_model": "newer"}, "with no champion, but model newer serves now: the champion has changed"),
        ({"policy": "strict"}, "by policy p, but strict is in force: a laxer policy"),
        ({"policy": None}, "by policy p, but none is in force"),
        ({"time": 31 * DAY_S}, "is 31 days old, and at most 30 are allowed (rollout.max_verdict_age_days); judge it"),
        ({"time": 2 * DAY_S, "requirements": VerdictRequirements(1)}, "is 2 days old, and at most 1 are allowed"),
        ({"time": -2 * DAY_S}, "is dated 2 days after the clock of this machine: set the clock right"),
        ({"verdict": replace(GOOD, judged_at=None)}, "does not say when it was made"),
        ({"sets": {"golden": "g", "facts": "f"}}, "was made without the evaluation set facts"),
        ({"sets": {"golden": "new"}}, "on evaluation set golden as it was (g), but new is in force"),
        ({"requirements": VerdictRequirements(sets={"golden": "new"})}, "golden as it was (g), but new is in force"),
    ],
)
def test_a_verdict_over_another_champion_policy_or_set_or_an_old_one_needs_force(
    change: dict[str, object], reason: str
) -> None:
    assert reason in refusal(ReleaseState(), intent("propose", "1", **change))
    assert after(ReleaseState(), intent("propose", "1", forced=True, **change)).challenger == "1"


def test_a_challenger_whose_champion_changed_is_not_promoted() -> None:
    state = after(champions("1"), intent("propose", "2"))
    assert "the champion has changed" in refusal(state, intent("promote", champion_model="newer"))


def test_a_promotion_is_refused_where_verdict_or_sets_are_out_of_date() -> None:
    state = after(ReleaseState(), intent("propose", "1", requirements=VerdictRequirements(sets={"new suite": "s"})))
    assert "31 days old" in refusal(state, intent("promote", time=31 * DAY_S))
    changed = intent("promote", by_hand=True, requirements=VerdictRequirements(sets={"golden": "other"}))
    assert "golden as it was (g), but other is in force" in refusal(state, changed)
    # A clock that was set back by less than a day harms nothing.
    assert after(state, intent("promote", time=-0.9 * DAY_S)).champion == "1"
    forced = after(ReleaseState(), intent("propose", "1", forced=True, time=99 * DAY_S))
    assert after(forced, intent("promote", time=99 * DAY_S)).champion == "1"


def test_promotion_checks_the_evidence_again() -> None:
    state = after(ReleaseState(), intent("propose", "1"))
    assert "a different verdict" in refusal(state, intent("promote", verdict=replace(GOOD, verdict_hash="other")))
    assert "verdict is about model" in refusal(state, intent("promote", verdict=replace(GOOD, registered_model="x")))
    assert "is hold, not promote" in refusal(state, intent("promote", verdict=replace(GOOD, outcome="hold")))


@pytest.mark.parametrize("action", ["weight", "promote", "drop"])
def test_acting_on_a_challenger_that_is_gone_is_refused(action: str) -> None:
    assert "there is no challenger" in refusal(champions("1"), intent(action, "2"))
    state = after(champions("1"), intent("propose", "3"))
    assert "version 2 is no longer the challenger, 3 is" in refusal(state, intent(action, "2"))


def test_other_refusals() -> None:
    assert "champion already" in refusal(champions("1"), intent("propose", "1", forced=True))
    assert "no longer the champion, 2 is" in refusal(champions("1", "2"), intent("rollback", "1"))
    state = after(champions("1"), intent("propose", "2"))
    for weight in (-1, 101):
        assert str(weight) in refusal(state, intent("weight", weight=weight))


def test_a_paused_rollout_gets_no_more_traffic_and_can_end() -> None:
    state = after(after(champions("1"), intent("propose", "2")), intent("weight", weight=5))
    assert "is not paused" in refusal(state, intent("resume"))
    paused = after(state, intent("pause", reason="look at the answers"))
    assert paused.paused and paused.challenger_weight == 5
    assert "the rollout of version 2 is paused already" in refusal(paused, intent("pause"))
    for advance in (intent("weight", weight=25), intent("promote")):
        assert "is paused: go on by `sluice rollout resume`" in refusal(paused, advance)
    for weight in (0, 5):
        assert after(paused, intent("weight", weight=weight)).challenger_weight == weight
    assert replace(after(paused, intent("resume")), sequence=0) == replace(state, sequence=0)
    for end in (intent("drop"), intent("promote", by_hand=True)):
        assert not after(paused, end).paused and after(paused, end).challenger is None
    assert not after(after(paused, intent("drop")), intent("propose", "2")).paused


def test_who_was_forced_or_promoted_by_hand_is_marked_for_ever() -> None:
    forced = intent("propose", "2", verdict=replace(GOOD, outcome="reject"), forced=True, reason="a drill")
    two = after(after(champions("1"), forced), intent("promote", verdict=replace(GOOD, outcome="reject")))
    assert two.champion_forced == "forced: a drill"
    by_hand = intent("promote", by_hand=True, reason="looked good")
    three = after(after(two, intent("propose", "3")), by_hand)
    assert (three.champion_forced, three.former_forced) == ("by hand: looked good", {"2": "forced: a drill"})
    four = after(after(three, intent("propose", "4")), intent("promote"))
    assert four.champion_forced == ""
    for target, mark in (("3", "by hand: looked good"), ("2", "forced: a drill"), ("1", "")):
        assert after(four, intent("rollback", to=target)).champion_forced == mark
    both = after(after(four, replace(forced, version="5")), replace(by_hand, verdict=replace(GOOD, outcome="reject")))
    assert both.champion_forced == "forced: a drill; by hand: looked good"


def test_a_promotion_by_hand_is_checked_as_any_other() -> None:
    state = after(champions("1"), intent("propose", "2"))
    assert "needs a reason" in refusal(state, intent("promote", by_hand=True, reason=""))
    assert "the champion has changed" in refusal(state, intent("promote", by_hand=True, champion_model="newer"))
    decided = transition(state, intent("promote", by_hand=True))
    assert isinstance(decided, Entry) and decided.details == {"by_hand": True}


def test_only_the_newest_champions_are_targets_of_a_rollback() -> None:
    versions = [str(number) for number in range(MAX_EARLIER_CHAMPIONS + 10)]
    state = champions(*versions)
    assert state.former_champions() == tuple(versions[-MAX_EARLIER_CHAMPIONS - 2 : -1])
    assert "version 0 was not champion before" in refusal(state, intent("rollback", to="0"))
    # An earlier version of sluice allowed it.
    entry = RecordedEntry(time=0.0, action="rollback", version="109", actor="", reason="", details={"to": "0"})
    assert apply(state, entry).champion == "0" and apply(state, entry).previous_champion == versions[-2]


def test_entries_name_who_acted(released: Workspace) -> None:
    released.propose("3")
    released.releases.acting_as("key:page").pause("look at the answers")
    released.releases.acting_as("ann@laptop").resume("they are fine")
    state = released.releases.acting_as("key:page").promote("as well as it can be", by_hand=True)
    assert state.champion_forced == "by hand: as well as it can be"
    listed = [(entry.action, entry.actor, entry.details.get("by_hand")) for entry in released.releases.history()[4:]]
    assert listed == [
        ("propose", "test", None),
        ("pause", "key:page", None),
        ("resume", "ann@laptop", None),
        ("promote", "key:page", True),
    ]


INTENTS = st.builds(
    intent,
    st.sampled_from(["propose", "weight", "pause", "resume", "promote", "drop", "rollback"]),
    st.sampled_from([None, "1", "2", "3"]),
    weight=st.integers(-5, 105),
    forced=st.booleans(),
    by_hand=st.booleans(),
)


@given(st.lists(INTENTS, max_size=40))
@settings(max_examples=300, deadline=None)
def test_no_sequence_of_intents_leads_to_a_senseless_state(wanted: list[Intent]) -> None:
    state, entries = ReleaseState(), []
    for one in wanted:
        if one.action == "propose" and one.version is None:
            one = replace(one, version="4")
        decided = transition(state, one)
        if isinstance(decided, Refusal):
            assert decided.reason
            continue
        entries.append(RecordedEntry(**vars(decided), sequence=len(entries) + 1))
        before, state = state, apply(state, entries[-1])
        named = [version for version in state.aliases().values() if version is not None]
        assert len(set(named)) >= len(named) - (state.challenger == state.previous_champion)
        assert state.champion != state.challenger or state.champion is None
        assert state.champion != state.previous_champion or state.champion is None
        nobody = (state.challenger_weight, state.challenger_forced, state.challenger_forced_reason, state.paused)
        assert state.challenger is not None or nobody == (0, False, "", False)
        assert state.former_forced.keys() <= set(state.former_champions())
        assert state.champion is not None or before.champion is None
        assert not {state.champion, state.previous_champion, *state.earlier_champions} & set(state.rolled_back)
    assert fold(entries) == state


def test_aliases_follow_the_ledger(released: Workspace) -> None:
    released.propose("3")
    assert released.aliases() == {"previous-champion": "1", "champion": "2", "challenger": "3"}
    state = released.releases.set_weight(10)
    assert state == released.releases.state() and state.challenger_weight == 10
    released.releases.drop("too slow")
    released.releases.rollback("errors in production")
    assert released.aliases() == {"previous-champion": None, "champion": "1", "challenger": None}
    history = released.releases.history()
    assert [entry.action for entry in history] == [*("propose", "promote") * 2, "propose", "weight", "drop", "rollback"]
    assert history[-1].reason == "errors in production" and history[-1].version == "2" and history[-1].actor == "test"
    assert released.releases.verify().ok


@pytest.mark.parametrize("action", ["propose", "promote", "drop", "rollback"])
def test_a_process_killed_between_ledger_and_aliases_is_made_good(
    released: Workspace, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    if action in ("promote", "drop"):
        released.propose("3")
    before = released.aliases()

    def killed(self: Registry, *args: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for move in ("set_alias", "drop_alias"):
            patch.setattr(Registry, move, killed)
        with pytest.raises(KeyboardInterrupt):
            if action == "propose":
                released.propose("3")
            else:
                getattr(released.releases, action)("because")
    assert released.aliases() == before
    state = released.releases.reconcile()
    assert released.aliases() == state.aliases() != before
    assert released.releases.reconcile() == state and released.releases.verify().ok


def test_a_release_on_postgresql(postgresql: str, tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path, postgresql)
    workspace.promote(workspace.register("one"))
    workspace.promote(workspace.register("two"))
    assert workspace.releases.rollback("errors in production").champion == "1"
    assert workspace.aliases() == {"previous-champion": None, "champion": "1", "challenger": None}
    assert workspace.releases.verify().ok and len(workspace.releases.history()) == 5


def test_aliases_moved_by_hand_are_moved_back(released: Workspace) -> None:
    released.registry.set_alias("champion", "1")
    released.registry.set_alias("challenger", "2")
    released.releases.reconcile()
    assert released.aliases() == {"previous-champion": "1", "champion": "2", "challenger": None}


def test_a_verdict_of_another_model_is_refused_always(workspace: Workspace) -> None:
    version = workspace.register("one", judged="f" * 64)
    for forced in (False, True):
        with pytest.raises(ReleaseRefused, match="force does not help"):
            workspace.propose(version, forced)
    assert workspace.releases.history() == []


def test_a_verdict_from_before_the_champion_changed_is_refused(workspace: Workspace) -> None:
    early = workspace.register("two")
    workspace.promote(workspace.register("one"))
    with pytest.raises(ReleaseRefused, match=r"with no champion, but model [0-9a-f]+ serves now"):
        workspace.propose(early)
    with pytest.raises(ReleaseRefused, match="a laxer policy lets nothing pass"):
        workspace.propose(workspace.register("three", policy=POLICY.model_copy(update={"sha256": "1" * 64})))
    workspace.propose(workspace.register("four"))


def test_age_and_sets_of_a_verdict_are_checked_at_proposal_and_promotion(workspace: Workspace) -> None:
    one = workspace.register("one")
    for sets in ({"golden": "f" * 64}, {"golden": "a" * 64, "facts": "f" * 64}):
        with pytest.raises(ReleaseRefused, match="evaluation set"):
            workspace.releases.propose(one, workspace.verdicts[one], "measured", policy=POLICY.sha256, sets=sets)
    workspace.propose(one)
    in_force = VerdictRequirements(max_age_days=5, sets={"golden": "b" * 64})
    changed = Releases(workspace.registry, workspace.ledger, workspace.keys, actor="t", requirements=lambda: in_force)
    with pytest.raises(ReleaseRefused, match=r"golden as it was \(a+\), but b+ is in force"):
        changed.promote("went well")
    workspace.time_s += 31 * DAY_S
    with pytest.raises(ReleaseRefused, match="is 31 days old"):
        workspace.releases.promote("went well")
    workspace.releases.drop("too old")
    with pytest.raises(ReleaseRefused, match="is 31 days old"):
        workspace.propose(one)
    workspace.propose(one, forced=True)
    assert workspace.releases.promote("went well").champion_forced == "forced: measured"


def test_the_force_stands_in_the_ledger(workspace: Workspace) -> None:
    version = workspace.register("one", "reject")
    with pytest.raises(ReleaseRefused, match="verdict of version 1 is reject"):
        workspace.propose(version)
    workspace.propose(version, forced=True)
    (entry,) = workspace.releases.history()
    assert entry.details["forced"] is True and entry.details["verdict"] == "reject" and entry.reason == "measured"
    assert workspace.releases.promote("smoke test passed").champion == version


def test_evidence_that_changed_stops_a_proposal_and_a_promotion(workspace: Workspace) -> None:
    one, two = workspace.register("one"), workspace.register("two")
    with pytest.raises(ReleaseRefused, match="not the verdict with which version 1"):
        workspace.releases.propose(one, workspace.verdicts[two], "mixed up", policy=POLICY.sha256)
    with pytest.raises(ValueError, match="no such verdict"):
        workspace.releases.propose(one, workspace.root / "nothing.json", "mixed up", policy=POLICY.sha256)
    workspace.propose(one)
    (workspace.registry.model_folder(one) / "model.safetensors").write_text("other weights")
    with pytest.raises(ValueError, match="model hash"):
        workspace.releases.promote("went well")
    shutil.rmtree(workspace.keys)
    with pytest.raises(ValueError, match="key"):
        workspace.propose(two)
    assert [entry.action for entry in workspace.releases.history()] == ["propose"]


def test_a_rollback_to_a_version_that_is_gone_writes_nothing(released: Workspace) -> None:
    released.promote("3")
    before = released.releases.state()
    model = released.registry.model_folder("2") / "model.safetensors"
    kept = model.read_text()
    model.write_text("another model")
    try:
        with pytest.raises(ReleaseRefused, match=r"version 2 cannot serve: .*roll back to another by --to 1"):
            released.releases.rollback("errors", to="2")
        with pytest.raises(ReleaseRefused, match="version 9 was not champion before 3: choose one of 1, 2"):
            released.releases.rollback("errors", to="9")
        assert released.releases.state() == before
        assert released.releases.rollback("errors").champion == "1"
    finally:
        model.write_text(kept)
    reason = released.releases.history()[-1].reason
    assert reason.startswith("errors; version 2 cannot serve: ") and reason.endswith("; version 1 taken")
    assert released.releases.rollback("it is whole again", to="2").champion == "2"


def test_a_version_that_the_server_cannot_load_is_passed_over(released: Workspace) -> None:
    released.promote("3")
    before, asked = released.releases.history(), []

    def refuses(*versions: str) -> Callable[[str], bool]:
        def ready(version: str) -> bool:
            asked.append(version)
            if version in versions:
                raise ValueError(f"409: version {version} needs 80 GB")
            return True

        return ready

    with pytest.raises(ReleaseRefused, match=r"^version 2 cannot serve: 409: version 2 needs 80 GB; roll .* --to 1$"):
        released.releases.rollback("errors", to="2", ready=refuses("2"))
    with pytest.raises(ReleaseRefused, match="version 2 cannot serve: the server has not loaded it"):
        released.releases.rollback("errors", to="2", ready=lambda _: False)
    with pytest.raises(ReleaseRefused, match=r"^version 2 cannot .*; version 1 cannot .*; release a new version$"):
        released.releases.rollback("errors", ready=refuses("1", "2"))
    assert released.releases.history() == before
    asked.clear()
    assert released.releases.rollback("errors", ready=refuses("2")).champion == "1"
    assert asked == ["2", "1"]
    entry = released.releases.history()[-1]
    assert entry.details == {"to": "1", "dropped": None}
    assert entry.reason == "errors; version 2 cannot serve: 409: version 2 needs 80 GB; version 1 taken"


def test_a_version_whose_files_cannot_be_read_is_passed_over(
    released: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    released.promote("3")
    folder = released.registry.model_folder

    def damaged(version: str, model_hash: str | None = None) -> Path:
        if version == "2":
            raise OSError(5, "Input/output error")
        return folder(version, model_hash)

    monkeypatch.setattr(released.registry, "model_folder", damaged)
    assert released.releases.rollback("errors").champion == "1"
    reason = released.releases.history()[-1].reason
    assert reason == "errors; version 2 cannot serve: OSError: [Errno 5] Input/output error; version 1 taken"


def test_an_abort_needs_to_know_nothing_of_the_champion(workspace: Workspace) -> None:
    # Entries of an early version of sluice, without the model's hash.
    old = {"forced": False, "verdict": "promote", "verdict_sha256": "v" * 64}
    for action, version, details in (("propose", "1", old), ("promote", "1", {}), ("propose", "2", old)):
        last = workspace.ledger.last()
        entry = Entry(1.0, action, version, "run", "went well", details)
        workspace.ledger.append(entry, expected_head=last.hash if last else GENESIS)
    after = workspace.releases.drop("it fails")
    assert (after.champion, after.challenger) == ("1", None)


def test_the_release_that_changed_while_a_version_was_loaded_is_not_rolled_back(released: Workspace) -> None:
    def ready(version: str) -> bool:
        released.promote("3")
        return True

    with pytest.raises(ReleaseRefused, match="version 2 is no longer the champion, 3 is"):
        released.releases.rollback("errors", ready=ready)


def test_a_version_that_is_another_model_in_the_registry_neither_serves_nor_comes_back(released: Workspace) -> None:
    """Somebody who can write the database alone gives version 2 the files and the hash of version 1."""
    released.promote("3")
    releases, before = released.releases, released.releases.state()
    assert releases.state() == before and releases.model_folder("2") == released.registry.model_folder("2")
    with sa.create_engine(released.ledger.url).begin() as connection:
        for table, columns in (("model_versions", ("run_id", "source")), ("model_version_tags", ("value",))):
            same = "AND them.key = us.key" if table.endswith("tags") else ""
            for column in columns:
                connection.exec_driver_sql(
                    f"UPDATE {table} AS us SET {column} = (SELECT {column} FROM {table} AS them "
                    f"WHERE them.version = 1 {same}) WHERE us.version = 2"
                )
    assert released.registry.model_folder("2") == released.registry.model_folder("1")
    with pytest.raises(ValueError, match=r"but the ledger has version 2 as model \w{12}: the registry was changed"):
        releases.model_folder("2")
    with pytest.raises(ReleaseRefused, match=r"version 2 cannot serve: .*roll back to another by --to 1"):
        releases.rollback("errors", to="2")
    with pytest.raises(ValueError, match="version 9 was never proposed"):
        releases.model_folder("9")
    assert releases.state() == before


def test_a_new_process_goes_on_from_the_checkpoint(released: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    released.propose("3")
    before = released.releases.set_weight(25)
    read, starts = released.ledger.read, []

    def reading(after: int = 0, head: str = GENESIS, **more: Any) -> tuple[list[RecordedEntry], LedgerCheck]:
        starts.append(after)
        return read(after, head, **more)

    monkeypatch.setattr(released.ledger, "read", reading)
    file = released.ledger.trust.checkpoint_file(released.ledger._chain)
    kept = file.read_text()
    assert released.releases.state() == before and starts == [6]
    # An earlier one is as good.
    released.releases.set_weight(50)
    file.write_text(kept)
    starts.clear()
    fresh = released.releases
    assert fresh.state().challenger_weight == 50 and starts == [6]
    assert fresh.model_folder("2") == released.registry.model_folder("2"), "its proposal is before the checkpoint"


@pytest.mark.parametrize("fault", ["forged", "of another chain", "without key", "of other code", "no JSON", "gone"])
def test_a_checkpoint_that_is_not_ours_is_not_used(
    released: Workspace, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    released.propose("3")
    before = released.releases.state()
    trust, chain = released.ledger.trust, released.ledger._chain
    file, forged = trust.checkpoint_file(chain), replace(before, champion="3", challenger=None)
    noted = json.loads(file.read_text())
    noted["content"]["state"] = asdict(forged)
    match fault:
        case "of another chain":
            trust.note_checkpoint("other", noted["content"])
            file.write_text(trust.checkpoint_file("other").read_text())
        case "without key":
            body = b"checkpoint" + canonical_json({"chain": chain, "content": noted["content"]})
            file.write_text(json.dumps({**noted, "hmac": hashlib.sha256(body).hexdigest()}))
        case "of other code":
            trust.note_checkpoint(chain, {**noted["content"], "fold": "0" * 64})
        case "gone":
            file.unlink()
        case _:
            file.write_text(json.dumps(noted)[: None if fault == "forged" else -1])
    assert released.releases.state() == before and released.releases.verify().ok


def test_a_checkpoint_of_a_chain_that_was_repaired_is_not_used(released: Workspace) -> None:
    released.propose("3")
    file = released.ledger.trust.checkpoint_file(released.ledger._chain)
    kept = file.read_text()
    with sa.create_engine(released.ledger.url).begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER sluice_ledger_no_DELETE")
        connection.exec_driver_sql("DELETE FROM sluice_ledger WHERE sequence > 2")
    released.releases.repair(2, "restored from the report")
    for _ in range(3):
        file.write_text(kept)
        assert released.releases.state().champion == "1"
        released.promote(released.register(f"after {released.releases.state().sequence}"))
        released.releases.rollback("a drill")


def test_a_reader_that_follows_other_writers_notes_a_checkpoint(released: Workspace) -> None:
    released.propose("3")
    releases = released.releases
    for percent in range(100):
        last = released.ledger.history()[-1]
        weight = Entry(5.0, "weight", "3", "another machine", "step", {"percent": percent})
        released.ledger.append(weight, expected_head=last.hash)
    assert released.ledger.checkpoint()["state"]["sequence"] == 5
    assert releases.state().sequence == 105 == released.ledger.checkpoint()["state"]["sequence"]


FORGED_ROLLBACK = (
    "INSERT INTO sluice_ledger SELECT model, sequence + 1, time, 'rollback', version, actor, reason, "
    "'{\"to\": \"1\"}', hash, 'garbage' FROM sluice_ledger ORDER BY sequence DESC LIMIT 1"
)
FAULTS: dict[str, tuple[str, int]] = {
    "forged": (FORGED_ROLLBACK, 5),
    "edited": ("UPDATE sluice_ledger SET version = '1' WHERE sequence = 4", 3),
    "cut off": ("DELETE FROM sluice_ledger WHERE sequence > 2", 2),
    "emptied": ("DELETE FROM sluice_ledger", 0),
    "key lost": ("", 5),
}
"""Fault of a ledger whose fifth and last entry proposes version 3 -> number of entries that a repair keeps."""


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_happens_to_the_ledger_a_command_leads_out(released: Workspace, fault: str) -> None:
    released.propose("3")
    server, before = released.releases, released.releases.state()
    assert server.state() == before
    statement, keep = FAULTS[fault]
    if not statement:
        released.ledger.trust.key_file.unlink()
    else:
        with sa.create_engine(released.ledger.url).begin() as connection:
            for verb in ("UPDATE", "DELETE"):
                connection.exec_driver_sql(f"DROP TRIGGER sluice_ledger_no_{verb}")
            connection.exec_driver_sql(statement)
    rows, aliases = released.releases.history(), released.aliases()
    way_out = f"sluice history --repair {keep} "
    acts = [server.reconcile, lambda: server.rollback("because"), lambda: server.drop("because")]
    if fault == "edited":
        # Who has verified an entry does not read it again, and goes on with the state that it made.
        assert released.releases.state() == server.state() == server.reconcile() == before
        released.ledger.trust.checkpoint_file(released.ledger._chain).unlink()
        acts = []
        server = released.releases
    for act in (released.releases.state, server.state, *acts, lambda: server.promote("because")):
        with pytest.raises(LedgerBroken, match=way_out):
            act()
    assert way_out in server.verify().message
    assert released.releases.history() == rows and released.aliases() == aliases
    state = released.releases.repair(keep, "compared with the report of the last release")
    kept = {5: ("2", "3"), 3: ("1", "2"), 2: ("1", None), 0: (None, None)}[keep]
    assert (state.champion, state.challenger) == kept
    # The server, which has followed the ledger all along, goes on with it.
    assert server.state() == state and server.verify().ok
    if state.challenger:
        server.drop("not observed any more")
    released.promote(released.register(f"after {fault}"))
    assert server.state().champion == "4" == released.aliases()["champion"]


def test_a_machine_without_the_folder_sees_a_chain_that_was_cut(
    released: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released.propose("3")
    key = released.ledger.trust.key()
    assert key is not None and released.registry.anchor() == Head(5, released.ledger.history()[-1].hash)
    monkeypatch.setenv("SLUICE_LEDGER_KEY", key.decode())

    def elsewhere(folder: str) -> Releases:
        ledger = Ledger(released.ledger.url, "sluice", LedgerTrust(tmp_path / folder))
        return Releases(released.registry, ledger, released.keys, actor="pod")

    assert elsewhere("pod").inspect()[1].ok and elsewhere("pod").verify().ok
    with sa.create_engine(released.ledger.url).begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER sluice_ledger_no_DELETE")
        connection.exec_driver_sql("DELETE FROM sluice_ledger WHERE sequence > 4")
    other = elsewhere("another pod")
    for check in (other.inspect()[1], other.verify()):
        assert check.reason == "the chain was cut off: the registry notes entry 5" and check.keep == 4
    with pytest.raises(LedgerBroken, match="the registry notes entry 5"):
        other.reconcile()
    assert other.repair(4, "the proposal is not needed").champion == "2"
    last = released.ledger.history()[-1]
    assert released.registry.anchor() == Head(5, last.hash) and last.action == "repair"
    assert elsewhere("a third pod").verify().ok


def test_the_registry_keeps_its_note_through_mlflow(released: Workspace) -> None:
    released.registry.note_anchor(7, "f" * 64)
    tags = released.registry._client.get_registered_model("sluice").tags
    assert tags["ledger_head"] == f"7:{'f' * 64}" and released.registry.anchor() == Head(7, "f" * 64)
    other = Registry(released.ledger.url, released.root, "other")
    other.note_anchor(1, "f" * 64)
    assert other.anchor() is None, "no version is registered"


@pytest.mark.parametrize("reason", ["half \ud800 of it", "cut\0off"])
def test_a_reason_that_no_database_keeps_is_refused(reason: str) -> None:
    assert "characters that no database keeps" in refusal(champions("1", "2"), intent("rollback", reason=reason))


def test_odd_characters_are_kept_and_name_nothing_else(released: Workspace) -> None:
    odd = "'; DROP TABLE sluice_ledger; -- \u202e\n<script>alert(1)</script> {}%s \U0001f600"
    for version in (odd, "2' OR '1'='1", "../3", "3 ", ""):
        with pytest.raises(ValueError):
            released.releases.rollback("errors", to=version or "0")
        with pytest.raises(ValueError, match="has no version"):
            released.releases.propose(version, released.verdicts["3"], "measured", policy=POLICY.sha256)
    released.releases.acting_as(f"key:{odd}").rollback(odd)
    entry = released.releases.history()[-1]
    assert (entry.reason, entry.actor, entry.version) == (odd, f"key:{odd}", "2") and released.releases.verify().ok


def test_a_repair_is_refused_without_reason_need_or_sense(released: Workspace) -> None:
    with pytest.raises(ReleaseRefused, match="a repair needs a reason"):
        released.releases.repair(2, " ")
    with pytest.raises(ValueError, match="is whole: there is nothing to repair"):
        released.releases.repair(2, "to be sure")
    with sa.create_engine(released.ledger.url).begin() as connection:
        connection.exec_driver_sql(FORGED_ROLLBACK.replace('"to"', '"away"'))
    with pytest.raises(ReleaseRefused, match=r"entries 1 to 5 are no history of a release .*keep fewer"):
        released.releases.repair(5, "it looks right")
    assert released.releases.repair(4, "a forged rollback").champion == "2"


def test_a_conflict_is_decided_anew_in_the_new_state(released: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    released.releases.rollback("errors in production")
    released.propose("3", forced=True)
    append = released.ledger.append

    def overtaken(entry: Entry, *, expected_head: str) -> RecordedEntry:
        """Somebody else puts another challenger in place between our look and our write."""
        monkeypatch.setattr(released.ledger, "append", append)
        released.releases.drop("by hand")
        released.propose("2", forced=True)
        return append(entry, expected_head=expected_head)

    monkeypatch.setattr(released.ledger, "append", overtaken)
    with pytest.raises(ReleaseRefused, match="version 3 is no longer the challenger, 2 is"):
        released.releases.promote("went well")
    assert released.releases.state().challenger == "2"


def test_losing_for_ever_is_said(released: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def conflict(entry: Entry, *, expected_head: str) -> RecordedEntry:
        raise LedgerConflict("another writer")

    monkeypatch.setattr(released.ledger, "append", conflict)
    with pytest.raises(LedgerConflict, match="propose lost 20 times"):
        released.propose("3")


@pytest.mark.process
def test_of_two_processes_that_propose_at_once_one_wins(released: Workspace) -> None:
    released.releases.rollback("errors in production")
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(2, timeout=600), context.SimpleQueue()

    def propose(version: str) -> None:
        start.wait()
        try:
            released.propose(version, forced=True)
            results.put("")
        except ReleaseRefused as error:
            results.put(str(error))

    processes = [context.Process(target=propose, args=(version,)) for version in ("2", "3")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=600)
    reasons = sorted(results.get() for _ in processes)
    winner = released.releases.state().challenger
    assert reasons[0] == "" and f"version {winner} is in rollout" in reasons[1]
    assert released.aliases()["challenger"] == winner and released.ledger.verify().entries == 6


def test_of_twenty_promotions_at_once_one_is_written(released: Workspace) -> None:
    released.propose("3")
    start = threading.Barrier(20, timeout=300)

    def promote(number: int) -> str:
        releases = released.releases.acting_as(f"user{number}@host")
        start.wait()
        try:
            releases.promote("the rollout went well", version="3")
        except ReleaseRefused as refusal:
            return str(refusal)
        return ""

    with ThreadPoolExecutor(20) as pool:
        said = list(pool.map(promote, range(20)))
    assert said.count("") == 1 and all("no challenger" in each for each in said if each), said
    assert [entry.action for entry in released.releases.history()[5:]] == ["promote"]
    assert released.releases.state().champion == "3" == released.aliases()["champion"]
    assert released.releases.verify().ok


def test_every_weight_of_twenty_writers_at_once_gets_its_place(released: Workspace) -> None:
    released.propose("3")
    start = threading.Barrier(20, timeout=300)

    def weigh(percent: int) -> None:
        releases = released.releases
        start.wait()
        releases.set_weight(percent, version="3")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(weigh, range(20)))
    assert sorted(entry.details["percent"] for entry in released.releases.history()[5:]) == list(range(20))
    assert released.releases.verify().ok


def test_a_challenger_deleted_in_mlflow_is_not_promoted_and_can_be_dropped(released: Workspace) -> None:
    released.propose("3")
    released.releases.set_weight(25)
    released.registry._client.delete_model_version(released.registry.model_name, "3")
    for by_hand in (False, True):
        with pytest.raises(ValueError, match="sluice has no version 3"):
            released.releases.promote("went well", by_hand=by_hand)
    assert released.releases.set_weight(50).challenger_weight == 50
    state = released.releases.drop("deleted in MLflow")
    assert (state.champion, state.challenger) == ("2", None)


def test_a_locked_database_ends_a_change_with_one_line_and_nothing_written(
    released: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.serving.database.LOCK_TIMEOUT_S", 0.05)
    releases = open_workspace(released.root, released.ledger.url, released.ledger.trust.folder).releases
    before = releases.state()
    with sa.create_engine(released.ledger.url).connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        assert releases.state() == before, "readers go on"
        with pytest.raises(TimeoutError, match=r"the ledger in .* stayed locked for 0.05 s"):
            releases.rollback("errors")
    assert releases.state() == before
    assert releases.rollback("errors").champion == "1"


def test_a_clock_that_was_set_back_changes_no_order(released: Workspace) -> None:
    released.time_s -= 900.0
    released.promote("3")
    times = [entry.time for entry in released.releases.history()]
    assert times != sorted(times) and released.releases.verify().ok
    assert released.releases.state() == fold(released.releases.history())
    assert released.releases.rollback("errors").champion == "2"


def test_registry_and_ledger_must_speak_of_one_model(released: Workspace) -> None:
    other = Registry(released.ledger.url, released.root, "other")
    with pytest.raises(AssertionError, match="different models"):
        Releases(other, released.ledger, released.keys, actor="test")


@pytest.mark.parametrize("gone", [{"2"}, {"1"}, {"3"}, {"1", "2"}, {"1", "3"}, {"2", "3"}, {"1", "2", "3"}])
def test_whatever_version_is_deleted_a_command_leads_out(released: Workspace, gone: set[str]) -> None:
    """Champion 2, previous champion 1 and challenger 3; some of them are deleted in the registry."""
    released.propose("3")
    for version in gone:
        released.registry._client.delete_model_version(released.registry.model_name, version)
    released.releases.reconcile()
    assert not set(released.aliases().values()) & gone
    if "1" not in gone:
        assert released.releases.rollback("the champion is gone").champion == "1"
    else:
        with pytest.raises(ReleaseRefused, match=r"version 1 cannot serve: .*; release a new version"):
            released.releases.rollback("the champion is gone")
        released.releases.drop("its files are gone")
    released.promote(released.register(f"after {sorted(gone)} went"))
    assert released.releases.state().champion == "4" == released.aliases()["champion"]


@pytest.mark.parametrize("gone", [{"2"}, {"1"}, {"3"}, {"1", "2", "3"}])
def test_whatever_files_are_gone_a_command_leads_out(released: Workspace, gone: set[str]) -> None:
    """The same, of files that were removed behind the registry's back, and come back at last."""
    released.propose("3")
    folders = [released.registry.model_folder(version) for version in sorted(gone)]
    for folder in folders:
        folder.rename(folder.with_name("away"))
    try:
        if "3" in gone:
            with pytest.raises(ValueError, match="files of version 3"):
                released.releases.promote("the rollout went well")
            released.releases.drop("its files are gone")
        if "1" not in gone:
            assert released.releases.rollback("the champion is gone").champion == "1"
        else:
            with pytest.raises(ReleaseRefused, match=r"version 1 cannot serve: .*; release a new version"):
                released.releases.rollback("the champion is gone")
            if released.releases.state().challenger:
                released.releases.drop("judged against a champion that is gone")
        released.promote(released.register(f"after the files of {sorted(gone)} went"))
        assert released.releases.state().champion == "4" == released.aliases()["champion"]
    finally:
        for folder in folders:
            folder.with_name("away").rename(folder)
    assert released.releases.rollback("they are back", to="1" if "1" in gone else None).champion == "1"


def test_commands_change_the_release_in_the_name_of_their_key(released: Workspace) -> None:
    releases = released.releases
    released.propose("3")

    def given(action: Action, **fields: str) -> Command:
        return Command(action=action, actor="key:anna", **fields)

    def change(each: Command) -> CommandResult:
        return carry_out(releases, each)

    assert change(given("pause", reason="look at it", version="3")).state["paused"]
    assert "is paused already" in change(given("pause", reason="again")).error
    assert change(given("resume", reason="looks good")).state == asdict(releases.state())
    assert "needs a reason" in change(given("promote")).error
    assert "no longer the challenger" in change(given("abort", reason="old page", version="2")).error
    assert change(given("promote", reason="we know it", version="3")).state["champion"] == "3"
    assert "there is no challenger" in change(given("abort", reason="too late")).error
    assert change(given("rollback", reason="worse", to="1")).state["champion"] == "1"
    entries = releases.history()[-5:]
    assert [entry.action for entry in entries] == ["propose", "pause", "resume", "promote", "rollback"]
    assert {entry.actor for entry in entries[1:]} == {"key:anna"}
    assert entries[3].details["by_hand"]
