"""The plan that moves the server towards the release."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sluice.serving.lease import LOST_S, LeaseRow
from sluice.serving.reconcile import ControllerWatch, ObservedVersions, plan_reconcile
from sluice.serving.release import ReleaseState
from sluice.serving.routing import Routes

VERSIONS = st.sampled_from(["1", "2", "3", "4"])


def test_a_cold_start_loads_the_champion_first_and_routes_to_nobody() -> None:
    release = ReleaseState(champion="2", challenger="3", previous_champion="1", challenger_weight=10)
    step = plan_reconcile(release, ObservedVersions(), Routes())
    assert step.deploy == step.waiting == ("2", "3", "1")
    assert (step.routes.champion, step.routes.challenger, step.routes.challenger_weight) == (None, None, 0)


def test_the_challenger_gets_traffic_when_it_is_ready() -> None:
    release = ReleaseState(champion="1", challenger="2", challenger_weight=10)
    before = plan_reconcile(release, ObservedVersions(loading={"2"}, ready={"1"}), Routes(champion="1")).routes
    after = plan_reconcile(release, ObservedVersions(ready={"1", "2"}), before).routes
    assert (before.champion, before.challenger, before.challenger_weight) == ("1", None, 0)
    assert (after.champion, after.challenger, after.challenger_weight) == ("1", "2", 10)


def test_a_promotion_changes_roles_and_keeps_both_loaded() -> None:
    step = plan_reconcile(
        ReleaseState(champion="2", previous_champion="1"),
        ObservedVersions(ready={"1", "2"}),
        Routes(champion="1", challenger="2"),
    )
    assert (step.routes.champion, step.routes.challenger, step.deploy, step.unneeded) == ("2", None, (), ())


def test_the_old_champion_answers_until_the_new_one_is_ready() -> None:
    release = ReleaseState(champion="2", previous_champion="1")
    during = plan_reconcile(release, ObservedVersions(loading={"2"}, ready={"1"}), Routes(champion="1"))
    assert during.routes.champion == "1"
    # Even when the release has forgotten it.
    forgotten = plan_reconcile(
        ReleaseState(champion="2"), ObservedVersions(loading={"2"}, ready={"1"}), Routes(champion="1")
    )
    assert (forgotten.routes.champion, forgotten.unneeded) == ("1", ())
    done = plan_reconcile(ReleaseState(champion="2"), ObservedVersions(ready={"1", "2"}), during.routes)
    assert (done.routes.champion, done.unneeded) == ("2", ("1",))


def test_a_rollback_is_a_change_of_routes_alone() -> None:
    step = plan_reconcile(ReleaseState(champion="1"), ObservedVersions(ready={"1", "2"}), Routes(champion="2"))
    assert (step.routes.champion, step.deploy, step.unneeded) == ("1", (), ("2",))


def test_a_challenger_that_cannot_be_loaded_keeps_its_route_and_says_why() -> None:
    release = ReleaseState(champion="1", challenger="2", challenger_weight=50)
    step = plan_reconcile(release, ObservedVersions(ready={"1"}, failed={"2": "damaged"}), Routes(champion="1"))
    assert (step.routes.challenger, step.routes.challenger_weight) == ("2", 50)
    assert step.routes.deploy_errors == {"2": "damaged"}
    assert (step.deploy, step.waiting) == ((), ())
    again = plan_reconcile(
        release, ObservedVersions(ready={"1"}, failed={"2": "damaged"}, retry={"2"}), Routes(champion="1")
    )
    assert again.deploy == ("2",)


def test_the_predecessor_stands_in_for_a_champion_that_cannot_be_loaded() -> None:
    release = ReleaseState(champion="2", previous_champion="1")
    step = plan_reconcile(release, ObservedVersions(ready={"1"}, failed={"2": "damaged"}), Routes())
    assert step.routes.champion == "1"
    assert step.routes.deploy_errors == {"2": "damaged"}


def test_what_takes_long_is_said_of_wanted_versions_alone() -> None:
    observed = ObservedVersions(loading={"1", "2"}, slow={"1": "it waits for a CPU", "2": "it waits for a CPU"})
    step = plan_reconcile(ReleaseState(champion="1"), observed, Routes())
    assert step.routes.slow == {"1": "it waits for a CPU"} and step.waiting == ("1",)


RELEASES = st.builds(
    lambda names, weight, roles: ReleaseState(
        champion=names[0] if roles > 0 else None,
        challenger=names[1] if roles != 1 else None,
        previous_champion=names[2] if roles > 2 else None,
        challenger_weight=weight if roles != 1 else 0,
    ),
    st.permutations(["1", "2", "3", "4"]),
    st.integers(0, 100),
    st.integers(0, 3),
)


@given(RELEASES, st.dictionaries(VERSIONS, st.sampled_from(["loading", "ready", "failed"])), st.none() | VERSIONS)
def test_laws_of_every_plan(release: ReleaseState, states: dict[str, str], routed: str | None) -> None:
    def having(state: str) -> frozenset[str]:
        return frozenset(name for name, found in states.items() if found == state)

    ready = having("ready")
    observed = ObservedVersions(having("loading"), ready, dict.fromkeys(having("failed"), "why"))
    step = plan_reconcile(release, observed, Routes(champion=routed))
    wanted = {release.champion, release.challenger, release.previous_champion} - {None}
    # Live traffic goes to versions that are ready, and a champion that is ready is the champion.
    assert step.routes.champion is None or step.routes.champion in ready
    assert release.champion not in ready or step.routes.champion == release.champion
    # Who answered goes on answering until somebody else can.
    if routed in ready and release.champion is not None and routed != release.challenger:
        assert step.routes.champion is not None
    # Nothing in use is deleted, nothing that is there is loaded again.
    assert not {*step.unneeded} & {*wanted, step.routes.champion}
    assert {*step.deploy} <= wanted - states.keys()
    assert step.routes.challenger in (None, release.challenger)


def test_a_controller_is_lost_once_its_beat_stands_still_and_found_when_the_next_one_begins() -> None:
    now = 0.0
    watch = ControllerWatch(lambda: now)
    lease = LeaseRow("process 1 on here", "a", 1, "2")
    assert not watch.is_lost(None, None) and not watch.is_lost("2", lease)
    now += LOST_S
    assert not watch.is_lost("2", lease)
    now += 0.1
    assert watch.is_lost("2", lease)
    assert not watch.is_lost("3", lease), "the lost one measured another challenger"
    assert not watch.is_lost("2", replace(lease, beat=2)), "it was only slow"
    now += LOST_S + 0.1
    assert watch.is_lost("2", replace(lease, beat=2))
    assert not watch.is_lost("2", LeaseRow("process 2 on here", "b", 1, "2"))


def test_a_challenger_without_a_lease_has_a_while_to_get_one_or_to_end() -> None:
    now = 0.0
    watch = ControllerWatch(lambda: now)
    for lease in (None, LeaseRow("process 1 on here", "a", 1, "2"), None):
        now += LOST_S
        assert not watch.is_lost("2", lease)
    now += 0.1
    assert watch.is_lost("2", None) and not watch.is_lost("3", None)
    now += LOST_S + 0.1
    assert watch.is_lost("3", None) and not watch.is_lost(None, None)


def test_what_is_asked_for_is_loaded_beside_the_release_and_gets_no_traffic() -> None:
    release = ReleaseState(champion="2", previous_champion="1")
    observed = ObservedVersions(ready={"1", "2"})
    plan = plan_reconcile(release, observed, Routes(champion="2"), {"0"})
    assert (plan.deploy, plan.unneeded, plan.routes.champion) == (("0",), (), "2")
    loaded = ObservedVersions(ready={"0", "1", "2"})
    assert plan_reconcile(release, loaded, plan.routes, {"0"}).unneeded == ()
    assert plan_reconcile(release, loaded, plan.routes).unneeded == ("0",)
