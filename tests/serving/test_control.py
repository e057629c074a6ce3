"""Commands of the API: who may give them, in which order they are done, and what they write."""

import asyncio
import threading
from collections.abc import Callable

import httpx
import pytest
from idle_gateway import NoBackends, NoTraffic

from sluice.serving import control
from sluice.serving.auth import KeyRing, workspace_key
from sluice.serving.config import ServeConfig
from sluice.serving.control import Command, Commander, CommandQueue, CommandResult
from sluice.serving.gateway import create_app
from sluice.serving.routing import Routes, RouteTable

KEY = "k" * 32
WAIT_S = 60.0


def command(action: control.Action, **fields: str) -> Command:
    return Command(action=action, actor="key:anna", **fields)


def test_aborts_are_named_first_and_others_in_their_order() -> None:
    async def work() -> None:
        queue = CommandQueue()
        given = [command("pause"), command("promote"), command("abort"), command("resume")]
        waiting = [asyncio.ensure_future(queue.result(each)) for each in given]
        await asyncio.sleep(0)
        assert [each.action for each in queue.pending()] == ["abort", "pause", "promote", "resume"]
        queue.finish([CommandResult(each.id, error=each.action) for each in given] + [CommandResult("stranger")])
        assert [result.error for result in await asyncio.gather(*waiting)] == ["pause", "promote", "abort", "resume"]
        assert queue.pending() == []

    asyncio.run(work())


def test_a_command_that_nobody_carries_out_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "COMMAND_TIMEOUT_S", 0.01)

    async def work() -> None:
        queue = CommandQueue()
        with pytest.raises(TimeoutError):
            await queue.result(command("pause"))
        assert queue.pending() == [], "it is not carried out later"

    asyncio.run(work())


def test_an_abort_overtakes_what_waits_and_each_command_is_done_once() -> None:
    done, first_began, let_go = [], threading.Event(), threading.Event()

    def do(each: Command) -> CommandResult:
        if each.action == "load":
            first_began.set()
            assert let_go.wait(WAIT_S)
        done.append(each.action)
        if each.action == "abort":
            let_go.set()
        return CommandResult(each.id)

    commander, given = Commander(do), [command("load"), command("promote")]
    commander.begin(given)
    assert first_began.wait(WAIT_S)
    given.append(command("abort"))
    commander.begin(given)
    commander.begin(given)
    for future in list(commander._begun.values()):
        future.result(WAIT_S)
    assert done == ["abort", "load", "promote"]
    assert {result.id for result in commander.results()} == {each.id for each in given}
    commander.begin([])
    assert not commander.is_busy and commander.results() == []
    commander.stop()


def test_an_unexpected_failure_is_the_commands_answer() -> None:
    def do(each: Command) -> CommandResult:
        raise OSError("the registry does not answer")

    commander, given = Commander(do), [command("promote"), command("abort")]
    commander.begin(given)
    for future in list(commander._begun.values()):
        future.result(WAIT_S)
    assert {result.error for result in commander.results()} == {"OSError: the registry does not answer"}
    commander.stop()


class Gateway:
    """A gateway whose commands a loop answers as the reconciler does."""

    def __init__(self) -> None:
        self.queue, self.seen = CommandQueue(), list[Command]()
        keys, routes = KeyRing([workspace_key(KEY)]), RouteTable(Routes())
        app = create_app(NoBackends(), ServeConfig(), keys, NoTraffic(), routes, commands=self.queue)
        headers = {"authorization": f"Bearer {KEY}"}
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers)

    async def post(self, path: str, body: object, answer: Callable[[Command], CommandResult]) -> httpx.Response:
        sent = asyncio.ensure_future(self.client.post(path, json=body))
        while not sent.done():
            pending = self.queue.pending()
            self.seen += pending
            self.queue.finish([answer(each) for each in pending])
            await asyncio.sleep(0)
        return await sent


def test_the_api_queues_commands_and_answers_with_their_results() -> None:
    async def work() -> None:
        gateway = Gateway()

        def fine(each: Command) -> CommandResult:
            return CommandResult(each.id, state={"champion": "1"})

        for path, body, action in (
            ("rollout/pause", {"reason": " look ", "version": "2"}, "pause"),
            ("rollout/resume", {"reason": "go"}, "resume"),
            ("rollout/promote", {"reason": "go", "version": ""}, "promote"),
            ("rollout/abort", {"reason": "bad", "to": None}, "abort"),
            ("rollback", {"reason": "bad", "to": "1", "version": "2"}, "rollback"),
            ("load", {"version": "1"}, "load"),
        ):
            answer = await gateway.post(f"/admin/{path}", body, fine)
            assert (answer.status_code, answer.json()) == (200, {"state": {"champion": "1"}})
            last = gateway.seen[-1]
            assert (last.action, last.actor) == (action, "key:workspace")
        assert [(each.reason, each.version, each.to) for each in gateway.seen] == [
            ("look", "2", None),
            ("go", None, None),
            ("go", None, None),
            ("bad", None, None),
            ("bad", "2", "1"),
            ("", "1", None),
        ]
        refused = await gateway.post(
            "/admin/rollback", {"reason": "x"}, lambda each: CommandResult(each.id, "no: <b>why</b>")
        )
        assert (refused.status_code, refused.json()["error"]["message"]) == (409, "no: <b>why</b>")

    asyncio.run(work())


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("load", {}, 400, "version: is missing"),
        ("rollback", {"reason": "  "}, 400, "reason: is missing"),
        ("rollback", {"reason": 1}, 400, "reason: "),
        ("rollback", {"reason": "x" * 1001}, 400, "reason: "),
        ("rollback", {"why": "x"}, 400, "unknown field why"),
        ("rollback", [], 400, "the body must be a JSON object"),
        ("rollout/delete", {"reason": "x"}, 400, "action: "),
    ],
)
def test_a_command_that_is_none_is_refused(path: str, body: object, status: int, message: str) -> None:
    async def work() -> None:
        gateway = Gateway()
        answer = await gateway.client.post(f"/admin/{path}", json=body)
        assert answer.status_code == status and answer.json()["error"]["message"].startswith(message)
        assert gateway.queue.pending() == []

    asyncio.run(work())
