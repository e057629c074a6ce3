"""Live figures of a release: rollouts and rollbacks under load, the cost of a poll to users, a long ledger.

`python -m benchmarks.rollout.live --write` serves the canary demo's models through Ray Serve, with users who ask all
the time, and writes the table of docs/release.md. Figures depend on the machine, and on what else it does.
"""

import argparse
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from benchmarks.markers import markdown, replace_tables
from sluice.components.ray_head import prepare_own_ray
from sluice.components.register_model import propose_version
from sluice.components.stores import make_server, open_ledger, open_releases, who
from sluice.components.workspace import WORKSPACE_VARIABLE, Workspace
from sluice.pipelines.demo import make_workspace, release, replayed_prompts, train_model
from sluice.serving.client import Client
from sluice.serving.config import ServeConfig
from sluice.serving.lease import Lease, LeaseTable
from sluice.serving.ledger_chain import Entry, to_row
from sluice.serving.ledger_table import TABLE
from sluice.serving.releases import Releases

PAGE = Path(__file__).parents[2] / "docs" / "release.md"
WEIGHTS = (1, 5, 25, 50, 100)
POLL_S = 0.2
_CHUNK = 20_000
_READY_S = 900.0
_NEW_PROCESS = """
import time
from sluice.components.stores import open_releases
from sluice.components.workspace import Workspace
started = time.perf_counter()
releases = open_releases(Workspace.find())
assert releases.state().sequence == {entries}
print(1e3 * (time.perf_counter() - started))
"""


@dataclass(frozen=True)
class Answer:
    """One answered request of a user; times are of a clock that never goes back, in seconds."""

    began: float
    ended: float
    status: int
    version: str


@dataclass
class Load:
    """Requests of users so far."""

    answers: list[Answer] = field(default_factory=list)

    def between(self, began: float, ended: float) -> list[Answer]:
        """Return the answers to requests that began in this time."""
        return [answer for answer in list(self.answers) if began <= answer.began < ended]


@contextmanager
def load(client: Client, users: int, think_s: float) -> Iterator[Load]:
    """Have `users` ask for completions, each `think_s` after its last answer, until the end."""
    found, done, prompts = Load(), threading.Event(), replayed_prompts()

    def ask(number: int) -> None:
        chance = random.Random(number)
        while not done.wait(think_s):
            began = time.monotonic()
            answer = client.complete(chance.choice(prompts), 16, chance.randrange(2**31), "live")
            found.answers.append(Answer(began, time.monotonic(), answer.status, answer.version))

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(users)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        done.set()
        for thread in threads:
            thread.join(60)


def rollouts_and_rollbacks(
    workspace: Workspace, client: Client, users: Load, versions: tuple[str, str], count: int
) -> list[float]:
    """Roll the second of `versions` out `count` times, and back to the first.

    Return the seconds from each call of the rollback to the beginning of the last request that the version rolled back
    answered, at least those to the end of the call.
    """
    champion, challenger = versions
    releases, table, seconds = open_releases(workspace), LeaseTable(workspace.database_url), []
    for number in range(count):
        if releases.state().challenger != challenger:
            propose_version(workspace, challenger, f"live figures, rollout {number + 1}", who())
        with Lease(table, releases.model, challenger):
            for weight in WEIGHTS:
                releases.set_weight(weight, f"live figures, {weight} %", version=challenger)
                await_answer(users, lambda answer: answer.version == challenger, at_least=1 if weight > 1 else 0)
            releases.promote("live figures", version=challenger)
        client.wait_for_champion(challenger)
        began = time.monotonic()
        releases.rollback("live figures", version=challenger)
        called = time.monotonic() - began
        client.wait_for_champion(champion)
        await_answer(users, lambda answer: answer.version == champion, at_least=10)
        late = [
            answer.began - began for answer in users.between(began, time.monotonic()) if answer.version == challenger
        ]
        seconds.append(max([called, *late]))
    return seconds


def await_answer(users: Load, is_wanted: Callable[[Answer], bool], at_least: int) -> None:
    """Wait until `at_least` requests that begin from now on are answered as wanted; TimeoutError after 120 s."""
    began = time.monotonic()
    while sum(map(is_wanted, users.between(began, time.monotonic()))) < at_least:
        if time.monotonic() - began > 120:
            raise TimeoutError("users did not get the wanted answers within 120 s")
        time.sleep(0.02)


def added_by_polls(
    url: str, key: str, users: Load, versions: tuple[str, ...], *, seconds: float, turns: int
) -> list[float]:
    """Return the users' 99th percentile in ms with polls less that without, of `turns` pairs of equal times.

    The polls come from a process of their own, as a rollout's do: in this one they would hold up the users' threads.
    """
    context = multiprocessing.get_context("spawn")
    is_polled, has_ended = context.Event(), context.Event()
    poller = context.Process(target=poll_totals, args=(url, key, versions, is_polled, has_ended), daemon=True)
    poller.start()

    def p99() -> float:
        began = time.monotonic()
        time.sleep(seconds)
        times = [1e3 * (answer.ended - answer.began) for answer in users.between(began, time.monotonic())]
        return float(np.quantile(times, 0.99))

    added = []
    for _ in range(turns):
        is_polled.set()
        with_polls = p99()
        is_polled.clear()
        added.append(with_polls - p99())
    has_ended.set()
    is_polled.set()
    poller.join()
    return added


def poll_totals(url: str, key: str, versions: tuple[str, ...], is_polled: Event, has_ended: Event) -> None:
    """Ask for the totals of the versions as a rollout does, while `is_polled` is set, until `has_ended` is."""
    client = Client(url, key)
    while is_polled.wait() and not has_ended.is_set():
        for version in versions:
            client.measurements(version)
        time.sleep(POLL_S)


def grow_ledger(workspace: Workspace, releases: Releases, entries: int) -> None:
    """Fill the ledger with weights up to `entries`; the last one is written by the release itself."""
    ledger = open_ledger(workspace)
    last, key, challenger = ledger.last(), ledger.trust.key(), releases.state().challenger
    assert last is not None and key is not None and challenger is not None
    sequence, head = last.sequence, last.hash
    engine = sa.create_engine(workspace.database_url)
    while sequence < entries - 1:
        rows = []
        for _ in range(min(_CHUNK, entries - 1 - sequence)):
            sequence += 1
            entry = Entry(1.7e9 + sequence, "weight", challenger, "rollout", "live figures", {"percent": 0})
            rows.append(to_row(ledger.model, sequence, entry, head, key))
            head = rows[-1]["hash"]
        with engine.begin() as connection:
            connection.execute(sa.insert(TABLE), rows)
    releases.set_weight(0, "the newest entry", version=challenger)


def state_of_a_long_ledger(folder: Path, model: Path, entries: int) -> tuple[float, float]:
    """Return the ms of a poll of the state, and of a new process' first one; each the median of nine."""
    folder.mkdir()
    workspace = make_workspace(folder)
    release(workspace, model)
    releases = open_releases(workspace)
    grow_ledger(workspace, releases, entries)

    def poll() -> float:
        started = time.perf_counter()
        assert releases.state().sequence == entries
        return 1e3 * (time.perf_counter() - started)

    environment = {**os.environ, WORKSPACE_VARIABLE: str(folder)}
    command = [sys.executable, "-c", _NEW_PROCESS.format(entries=entries)]
    new = [float(subprocess.check_output(command, env=environment, text=True)) for _ in range(9)]
    return float(np.median([poll() for _ in range(9)])), float(np.median(new))


def measure(root: Path, arguments: argparse.Namespace) -> list[list[str]]:
    """Return the rows of the table: figure, goal, result."""
    rows = []
    models = [train_model(root / name, seed) for name, seed in (("one", 1), ("two", 2))]
    if arguments.entries:
        poll_ms, new_ms = state_of_a_long_ledger(root / "ledger", models[0], arguments.entries)
        rows.append([f"state of a ledger of {arguments.entries:,} entries, a poll", "5 ms", f"{poll_ms:.1f} ms"])
        rows.append(["the same in a new process, with opening the ledger", "50 ms", f"{new_ms:.1f} ms"])
    (root / "workspace").mkdir()
    workspace = make_workspace(root / "workspace")
    champion = release(workspace, models[0])
    open_releases(workspace).promote("first version", version=champion)
    config = ServeConfig.model_validate({"port": arguments.port})
    with make_server(workspace, config) as server:
        server.ready(_READY_S)
        with load(server.client, arguments.users, arguments.think_s) as users:
            challenger = release(workspace, models[1])
            began = time.monotonic()
            seconds = rollouts_and_rollbacks(
                workspace, server.client, users, (champion, challenger), arguments.rollouts
            )
            answers = users.between(began, time.monotonic())
            failed = sum(answer.status != 200 for answer in answers)
            added = added_by_polls(
                server.url,
                workspace.api_key(),
                users,
                (champion, challenger),
                seconds=arguments.poll_seconds,
                turns=arguments.poll_turns,
            )
    p95 = float(np.quantile(seconds, 0.95))
    rows.append(
        [f"trigger to full rollback, p95 of {len(seconds)}", "5 s", f"{p95:.2f} s (median {np.median(seconds):.2f} s)"]
    )
    rows.append([f"failed requests in {len(seconds)} rollouts and rollbacks", "0", f"{failed} of {len(answers)}"])
    turns = f"{arguments.poll_turns} times {arguments.poll_seconds:g} s with and without"
    rows.append([f"users' p99 that a rollout's polls add, median of {turns}", "2 ms", f"{np.median(added):+.1f} ms"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=20)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--think-s", type=float, default=0.1, help="pause of a user between answer and next request")
    parser.add_argument("--poll-seconds", type=float, default=20.0)
    parser.add_argument("--poll-turns", type=int, default=5)
    parser.add_argument("--entries", type=int, default=1_000_000, help="entries of the long ledger; 0: leave it out")
    parser.add_argument("--port", type=int, default=8898)
    parser.add_argument("--write", action="store_true", help="write the table of docs/release.md")
    arguments = parser.parse_args()
    prepare_own_ray()
    with tempfile.TemporaryDirectory(prefix="sluice-live-") as folder:
        rows = measure(Path(folder).resolve(), arguments)
    load_now = os.getloadavg()[2] / (os.cpu_count() or 1)
    table = markdown("figure | goal | result", rows)
    note = f"{arguments.users} users, {os.cpu_count()} cores, load of {load_now:.1f} a core in the last 15 minutes."
    print(f"{table}\n\n{note}")
    if arguments.write:
        replace_tables(PAGE, {"rollout-live": f"{table}\n\n{note}"})


if __name__ == "__main__":
    main()
