"""The server on Ray Serve, with real models, registry and ledger: one cluster and one server for all tests."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from release_fixtures import POLICY

from sluice.core.local_ray import RayFailed
from sluice.model.directory import model_hash
from sluice.model.evaluation.verdict import ComparedModel, Verdict, write_verdict
from sluice.serving.client import Client, ServerError, find_server, server_file
from sluice.serving.config import ServeConfig
from sluice.serving.keys import KeyTable
from sluice.serving.lease import Lease, LeaseTable
from sluice.serving.ledger import Ledger
from sluice.serving.ledger_trust import LedgerTrust
from sluice.serving.registry import Evidence, Registry
from sluice.serving.release import ReleaseState
from sluice.serving.releases import Releases

if TYPE_CHECKING:
    from sluice.serving.ray_serve.server import Server

KEY = "a-key-of-this-test-that-is-long"
WAIT_S = 900.0
"""No state takes so long to come on the slowest machine: what does never comes."""
pytestmark = pytest.mark.usefixtures("ray_head")


@dataclass
class World:
    """A workspace, its server and a client."""

    root: Path
    registry: Registry
    releases: Releases
    server: "Server"
    client: Client
    config: ServeConfig

    def register(self, folder: Path) -> str:
        """Registers a model with a verdict that lets it pass the champion."""
        champion = self.releases.state().champion
        baseline = ComparedModel(model=model_hash(self.releases.model_folder(champion))) if champion else None
        verdict = Verdict(
            outcome="promote",
            reason="for the test",
            checks=[],
            confidence=0.95,
            correction="none",
            hashes={"model": model_hash(folder)},
            is_first_version=baseline is None,
            policy=POLICY,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            baseline=baseline,
        )
        path = self.root / f"verdict-{folder.name}.json"
        write_verdict(verdict, path, self.root / "keys")
        return self.registry.register(folder, path, Evidence())

    def propose(self, folder: Path) -> str:
        """Registers a model and makes it the challenger."""
        version = self.register(folder)
        self.releases.propose(version, self.registry.verdict_path(version), "for the test", policy=POLICY.sha256)
        return version

    def wait_until(self, what: Callable[[dict[str, object]], bool], name: str) -> None:
        """Polls the server's state."""
        deadline = time.monotonic() + WAIT_S
        while not what(state := self.client.state()):
            assert time.monotonic() < deadline, f"{name}: not within {WAIT_S} s; the state is {state}"
            time.sleep(0.05)

    def requests_by_status(self) -> Counter[str]:
        """Counts of the gateway so far."""
        exposed = self.client._http.get("/metrics").text
        counted: Counter[str] = Counter()
        for family in text_string_to_metric_families(exposed):
            for sample in family.samples:
                if sample.name == "sluice_requests_total":
                    counted[sample.labels["status"]] += int(sample.value)
        return counted


@pytest.fixture(scope="module")
def world(ray_head: str, make_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    from sluice.serving.ray_serve.server import Server

    root = tmp_path_factory.mktemp("workspace")
    url = f"sqlite:///{root / 'mlflow.db'}"
    registry, ledger = Registry(url, root / "mlartifacts"), Ledger(url, "sluice", LedgerTrust(root / "ledger"))
    releases = Releases(registry, ledger, root / "keys", actor="test")
    config = ServeConfig(port=free_port(), max_batch=4, max_tokens=400, request_timeout_s=600)
    server = Server(
        releases,
        registry.model_folder,
        config,
        state_folder=root / "state",
        key=KEY,
        stored_keys=KeyTable(url).in_force,
    )
    world = World(root, registry, releases, server, server.client, config)
    world.propose(make_model(1, context=512))
    releases.promote("the first one")
    with server:
        server.ready(WAIT_S)
        yield world
    assert not server_file(root / "state").exists()


class Users:
    """Live requests without a pause, from several threads, until told to stop."""

    def __init__(self, client: Client, threads: int = 3) -> None:
        self.answers: list[tuple[int, str]] = []
        self._client, self._done = client, threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    def __enter__(self) -> "Users":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _ask(self) -> None:
        while not self._done.is_set():
            answer = self._client.complete("The quick", 4, 1, source="live")
            self.answers.append((answer.status, answer.version))


def test_the_server_answers_and_can_be_found(world: World, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Who answers?"}]
    whole = "".join(world.client.chat(messages, stream=False, temperature=0, max_tokens=12))
    assert "".join(world.client.chat(messages, temperature=0, max_tokens=12)) == whole
    named = world.client._http.post("/v1/completions", json={"prompt": "x"}, headers={"x-request-id": "mine"})
    assert (named.json()["id"], named.headers.get_list("x-request-id")) == ("cmpl-mine", ["mine"])
    found = find_server(world.root / "state", KEY)
    assert found is not None
    assert found.url == world.server.url
    assert json.loads(server_file(world.root / "state").read_text())["pid"] == os.getpid()
    assert find_server(world.root / "state", "another key") is None
    assert find_server(world.root, KEY) is None
    assert world.client.outage() == ""
    copied = server_file(shutil.copytree(world.root / "state", tmp_path / "state"))
    assert copied.exists() and find_server(copied.parent, KEY) is None, "it is the server of another workspace"
    with pytest.raises(ServerError, match="401: send the server's key"):
        Client(world.server.url, "another key").state()


def test_a_second_server_is_refused(world: World, tmp_path: Path) -> None:
    from sluice.serving.ray_serve.server import Server

    port = int(world.server.url.rpartition(":")[2])
    again = Server(world.releases, world.registry.model_folder, ServeConfig(port=port), state_folder=tmp_path, key=KEY)
    with pytest.raises(ValueError, match="another server runs in this Ray cluster"):
        again.start()
    beside = Server(
        world.releases, world.registry.model_folder, ServeConfig(port=port), state_folder=world.root / "state", key=KEY
    )
    with pytest.raises(ValueError, match="a server of this workspace already answers"):
        beside.start()
    assert world.client.answers()


def test_promotion_and_rollback_under_load_lose_no_request(world: World, make_model: Callable[..., Path]) -> None:
    first = world.releases.state().champion
    assert first is not None
    with Users(world.client) as users:
        second = world.propose(make_model(2))
        world.releases.set_weight(50)
        world.wait_until(lambda state: state["challenger"] == second, "challenger")
        world.wait_until(lambda _: (200, second) in users.answers, "an answer of the challenger")
        world.releases.promote("it is better")
        world.client.wait_for_champion(second, WAIT_S)
        promoted = len(users.answers)
        world.wait_until(lambda _: len(users.answers) > promoted + 10, "answers after the promotion")
        assert {version for _, version in users.answers[promoted + 3 :]} == {second}
        began = time.monotonic()
        world.releases.rollback("it was not better")
        world.client.wait_for_champion(first, WAIT_S)
        print(f"rollback in force after {time.monotonic() - began:.2f} s")
        world.wait_until(lambda state: state["ready"] == [first], "removal of the version rolled back")
    assert {status for status, _ in users.answers} == {200}
    assert len(users.answers) > promoted + 10


def test_a_key_steers_the_release_until_it_is_revoked(world: World, make_model: Callable[..., Path]) -> None:
    keys = KeyTable(f"sqlite:///{world.root / 'mlflow.db'}")
    anna = Client(world.server.url, keys.issue("anna", "release"))
    ben = Client(world.server.url, keys.issue("ben", "watch"))
    world.wait_until(lambda _: anna.answers() and ben.answers(), "the new keys")
    challenger = world.propose(make_model(6))
    world.wait_until(lambda state: state["challenger"] == challenger, "challenger")
    with pytest.raises(ServerError, match="403: /admin/rollout/pause needs a key of role release"):
        ben.control("pause", "I may not")
    assert anna.control("pause", "to look at it", challenger)["paused"]
    assert world.releases.newest(1)[0].actor == "key:anna"
    with pytest.raises(ServerError, match=f"409: the rollout of version {challenger} is paused already"):
        anna.control("pause", "again")
    assert anna.control("abort", "seen enough", challenger)["challenger"] is None
    world.wait_until(lambda state: challenger not in state["ready"], "removal of the challenger")
    anna.load(challenger)
    assert challenger in anna.state()["ready"]
    with pytest.raises(ServerError, match="409: version 999 cannot serve: sluice has no version 999"):
        anna.load("999")
    world.server._reconciler._asked_for = {}
    world.wait_until(lambda state: challenger not in state["ready"], "removal of the version that was loaded")
    keys.revoke("anna")
    world.wait_until(lambda _: not anna.answers(), "the end of the key")
    assert ben.answers()


CONTROLLER = """
import sys, time
from pathlib import Path
from sluice.serving.ledger import Ledger
from sluice.serving.ledger_trust import LedgerTrust
from sluice.serving.lease import Lease, LeaseTable
from sluice.serving.registry import Registry
from sluice.serving.releases import Releases

root, url, version = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
ledger = Ledger(url, "sluice", LedgerTrust(root / "ledger"))
with Lease(LeaseTable(url), "sluice", version):
    Releases(Registry(url, root / "mlartifacts"), ledger, root / "keys", actor="rollout").set_weight(50)
    print("at 50 %", flush=True)
    time.sleep(3600)
"""
"""A controller that is about to be killed."""


def test_a_killed_controller_leaves_all_traffic_to_the_champion_until_the_next_one(
    world: World, make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, champion = f"sqlite:///{world.root / 'mlflow.db'}", world.releases.state().champion
    leases = LeaseTable(url)
    monkeypatch.setattr(world.server._reconciler, "_read_lease", lambda: leases.read("sluice"))
    challenger = world.propose(make_model(7))
    world.wait_until(lambda state: state["challenger"] == challenger, "challenger")
    with Users(world.client) as users:
        command = [sys.executable, "-c", CONTROLLER, str(world.root), url, challenger]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as controller:
            assert controller.stdout is not None and controller.stdout.readline() == "at 50 %\n"
            world.wait_until(lambda _: (200, challenger) in users.answers, "an answer of the challenger")
            assert not world.client.state()["unwatched"]
            controller.kill()
        world.wait_until(lambda state: bool(state["unwatched"]), "the champion's traffic")
        assert world.releases.state().challenger_weight == 50
        # Three requests were on their way.
        since = len(users.answers) + 3
        world.wait_until(lambda _: len(users.answers) > since + 20, "answers without a controller")
        assert {version for _, version in users.answers[since:]} == {champion}
        with Lease(leases, "sluice", challenger):
            since = len(users.answers)
            world.wait_until(lambda _: (200, challenger) in users.answers[since:], "the challenger's traffic")
            assert not world.client.state()["unwatched"]
            world.releases.drop("seen enough")
    assert {status for status, _ in users.answers} == {200}
    world.wait_until(lambda state: challenger not in state["ready"], "removal of the challenger")


def test_a_poisoned_challenger_never_reaches_the_user(world: World, make_model: Callable[..., Path]) -> None:
    champion = world.releases.state().champion
    poisoned = world.propose(make_model(3, poisoned=True))
    world.releases.set_weight(100)
    world.wait_until(lambda state: state["challenger"] == poisoned, "challenger")
    answers = [world.client.complete("The quick", 4, seed, source="live") for seed in range(8)]
    assert {(answer.status, answer.version, answer.fell_back) for answer in answers} == {(200, champion, True)}
    measured = world.client.measurements(poisoned)
    assert measured.errors == measured.requests >= len(answers)
    world.releases.drop("it answers NaN")
    world.wait_until(lambda state: state["challenger"] is None, "drop")


def test_a_version_that_cannot_be_loaded_is_told_and_harms_nobody(
    world: World, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    champion = world.releases.state().champion
    folder = tmp_path / "truncated"
    shutil.copytree(make_model(4), folder)
    (folder / "lineage.json").unlink()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    broken = world.propose(folder)
    world.wait_until(lambda state: broken in state["deploy_errors"], "deploy error")  # type: ignore[operator]
    error = world.client.state()["deploy_errors"][broken]
    assert "model.safetensors" in error
    assert "damaged" in error
    answer = world.client.complete("The quick", 4, 1, arm="challenger")
    assert (answer.status, answer.version, answer.fell_back) == (200, champion, True)
    assert world.client.measurements(broken).errors == 1
    world.releases.drop("it cannot be loaded")
    world.wait_until(lambda state: not state["deploy_errors"], "drop")


def test_a_version_that_is_not_what_was_registered_is_not_loaded(world: World, make_model: Callable[..., Path]) -> None:
    tampered = world.register(make_model(5))
    with (world.registry.model_folder(tampered) / "model.safetensors").open("ab") as file:
        file.write(b"x")
    # Proposing checks the files too, so the release is asked for by hand.
    state = world.releases.state()
    world.server._reconciler._releases = Wanting(state.champion, tampered)
    try:
        world.wait_until(lambda found: tampered in found["deploy_errors"], "deploy error")  # type: ignore[operator]
        told = world.client.state()
        assert "model.safetensors is not the file that was saved" in told["deploy_errors"][tampered]
        assert told["ready"] == [state.champion]
        answer = world.client.complete("The quick", 4, 1, arm="challenger")
        assert (answer.status, answer.version) == (200, state.champion)
    finally:
        world.server._reconciler._releases = world.releases
    world.wait_until(lambda found: not found["deploy_errors"], "recovery")
    assert world.client.state()["ready"] == [state.champion]


def test_on_a_forged_ledger_the_server_stays_where_it_was_and_says_so(world: World) -> None:
    before = world.releases.state()
    with sa.create_engine(f"sqlite:///{world.root / 'mlflow.db'}").begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO sluice_ledger SELECT model, sequence + 1, time, 'rollback', version, actor, reason, "
            "'{\"to\": \"1\"}', hash, 'garbage' FROM sluice_ledger ORDER BY sequence DESC LIMIT 1"
        )
    way_out = f"sluice history --repair {before.sequence} "
    world.wait_until(lambda state: way_out in state["error"], "the error")  # type: ignore[operator]
    for path in ("/health", "/ready"):
        answer = world.client._http.get(path)
        assert (answer.status_code, "LedgerBroken" in answer.json()["warning"]) == (200, True)
    assert 'sluice_release_error{kind="LedgerBroken"} 1.0' in world.client._http.get("/metrics").text
    answer = world.client.complete("The quick", 4, 1, source="live")
    assert (answer.status, answer.version) == (200, before.champion)
    world.releases.repair(before.sequence, "a forged rollback")
    world.wait_until(lambda state: not state["error"], "recovery")
    assert world.client.state()["champion"] == before.champion


def test_a_version_that_is_still_not_loaded_is_said_with_what_ray_says(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

    from sluice.serving.ray_serve.reconciler import Reconciler

    reconciler = Reconciler(
        world.releases, world.registry.model_folder, world.config, bool, keys=tuple, read_lease=None, salt=""
    )
    status = ApplicationStatusOverview(ApplicationStatus.DEPLOYING, "it waits for 1 CPU", 0.0, {})
    assert reconciler._observe({"model-v7": status}).slow == {}
    monkeypatch.setattr("sluice.serving.ray_serve.reconciler.SLOW_LOAD_S", -1.0)
    observed = reconciler._observe({"model-v7": status})
    assert (set(observed.loading), observed.slow) == ({"7"}, {"7": "not loaded within -1 s: it waits for 1 CPU"})
    assert reconciler._observe({}).slow == {}


class Wanting:
    """A release state of its own."""

    def __init__(self, champion: str | None, challenger: str) -> None:
        self._state = ReleaseState(champion=champion, challenger=challenger)

    def state(self) -> ReleaseState:
        return self._state


def test_a_client_that_leaves_a_stream_frees_its_slot(world: World) -> None:
    messages = [{"role": "user", "content": "Say much."}]
    counted = world.requests_by_status()
    for seed in range(20):
        # An answer may be at its end before anybody sees that its client left: then another one is asked for.
        pieces = world.client.chat(messages, max_tokens=400, temperature=1.5, seed=seed)
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
        before = counted
        deadline = time.monotonic() + WAIT_S
        while (counted := world.requests_by_status()).total() == before.total():
            assert time.monotonic() < deadline, "the request ended nowhere"
            time.sleep(0.05)
        if counted["499"] > before["499"]:
            break
    else:
        pytest.fail(f"none of 20 answers was cut short: {counted}")


def test_a_ledger_that_cannot_be_read_changes_nothing(world: World) -> None:
    class Broken:
        def state(self) -> None:
            raise OSError("the database is away")

    world.server._reconciler._releases = Broken()  # type: ignore[assignment]
    try:
        world.wait_until(lambda state: state["error"] == "OSError: the database is away", "error")
        assert world.client.complete("The quick", 4, 1).status == 200
    finally:
        world.server._reconciler._releases = world.releases
    world.wait_until(lambda state: state["error"] == "", "recovery")


def test_a_port_that_is_taken_is_said() -> None:
    from sluice.serving.ray_serve.server import _check_port

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"cannot listen on 127.0.0.1:{port}: .*set serve.port"):
            _check_port("127.0.0.1", port)
    with pytest.raises(ValueError, match="not an address of this machine"):
        _check_port("no.such.host.invalid", 8000)


def test_a_server_whose_own_ray_died_says_so_and_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray import serve

    from sluice.serving.ray_serve.server import Server

    stopped: list[bool] = []
    own = SimpleNamespace(
        why_ended=lambda timeout_s=None: "Ray died: its raylet was killed", stop=lambda: stopped.append(True)
    )
    monkeypatch.setattr(serve, "shutdown", pytest.fail)
    server = Server(Wanting(None, "1"), Path, ServeConfig(), state_folder=tmp_path, key=KEY)
    server._own_ray = own  # type: ignore[assignment]
    for waiting in (server.ready, server.wait):
        with pytest.raises(RayFailed, match="Ray died: its raylet was killed"):
            waiting()
    server.stop()
    assert stopped == [True]


def test_ray_serve_waits_for_a_slow_proxy(world: World) -> None:
    """As Ray's own processes have it: after its default of 5 s it kills what a busy machine has not started."""
    import ray

    @ray.remote(num_cpus=0)
    def bound() -> float:
        from ray.serve._private.constants import PROXY_READY_CHECK_TIMEOUT_S

        return PROXY_READY_CHECK_TIMEOUT_S

    assert ray.get(bound.remote()) >= 60


def test_what_a_killed_server_left_in_the_cluster_is_replaced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Last in this file: it takes the others' server down."""
    from sluice.serving.ray_serve import server

    # A process that is killed stops leading, and takes neither Ray Serve nor its file with it.
    world.server._reconciler.stop()
    left = json.loads(server_file(world.root / "state").read_text()) | {"pid": 2**22 + 1}
    server_file(world.root / "state").write_text(json.dumps(left))
    assert world.client.answers()
    assert find_server(world.root / "state", KEY) is None
    monkeypatch.setattr(server, "HEARTBEAT_TIMEOUT_S", 0.0)
    releases, registry = world.releases, world.registry
    again = server.Server(releases, registry.model_folder, world.config, state_folder=world.root / "state", key=KEY)
    with again:
        again.ready(WAIT_S)
        assert again.client.state()["champion"] == releases.state().champion
        assert find_server(world.root / "state", KEY) is not None
