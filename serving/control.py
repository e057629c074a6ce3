"""Commands of the API and the page: queued by the gateway, carried out by the reconciler, which has the ledger.

They cross with the routes: every push takes along what was done, and brings back what is to be done. Light on purpose:
the gateway imports this.
"""

import asyncio
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # the gateway needs no release states
    from sluice.serving.release import ReleaseState

Action = Literal["pause", "resume", "promote", "abort", "rollback", "load"]
COMMAND_TIMEOUT_S = 60.0
"""Longest time from a command to its answer."""


class ReleaseControl(Protocol):
    """Changes of the release (implemented by `sluice.serving.releases.Releases`)."""

    def acting_as(self, actor: str) -> "ReleaseControl": ...
    def pause(self, reason: str, *, version: str | None = None) -> "ReleaseState": ...
    def resume(self, reason: str, *, version: str | None = None) -> "ReleaseState": ...
    def promote(self, reason: str, *, version: str | None = None, by_hand: bool = False) -> "ReleaseState": ...
    def drop(self, reason: str, *, version: str | None = None) -> "ReleaseState": ...
    def rollback(
        self,
        reason: str,
        *,
        version: str | None = None,
        to: str | None = None,
        ready: Callable[[str], bool] | None = None,
    ) -> "ReleaseState": ...


@dataclass(frozen=True, kw_only=True)
class Command:
    """A change of the release that a client of the server asks for."""

    action: Action
    actor: str
    """As the ledger names it: key:NAME."""
    reason: str = ""
    version: str | None = None
    """Version that the client expects to act on, None for any; of `load`, the one to load."""
    to: str | None = None
    """Version to roll back to, None for the previous champion."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class CommandResult:
    """The end of a command."""

    id: str
    error: str = ""
    """Why it was not carried out."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the release state afterwards."""


class CommandQueue:
    """The gateway's commands that wait for their results. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Command, asyncio.Future[CommandResult]]] = {}

    def pending(self) -> list[Command]:
        """Return the commands without a result, oldest first but for aborts, which overtake all others."""
        return sorted((command for command, _ in self._waiting.values()), key=lambda each: each.action != "abort")

    def finish(self, results: Collection[CommandResult]) -> None:
        """Answer the commands of these results."""
        for result in results:
            if (found := self._waiting.get(result.id)) is not None and not found[1].done():
                found[1].set_result(result)

    async def result(self, command: Command) -> CommandResult:
        """Return the command's result. Raises TimeoutError after COMMAND_TIMEOUT_S."""
        future: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
        self._waiting[command.id] = command, future
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                return await future
        finally:
            del self._waiting[command.id]


def carry_out(releases: ReleaseControl, command: Command, ready: Callable[[str], bool] | None = None) -> CommandResult:
    """Change the release as the command says, in the name of its actor; a refusal is the result's error.

    `ready` loads the target of a rollback, as `sluice.serving.releases.Releases.rollback` has it.
    """
    acting = releases.acting_as(command.actor)
    change: dict[str, Callable[[], ReleaseState]] = {
        "pause": lambda: acting.pause(command.reason, version=command.version),
        "resume": lambda: acting.resume(command.reason, version=command.version),
        "promote": lambda: acting.promote(command.reason, version=command.version, by_hand=True),
        "abort": lambda: acting.drop(command.reason, version=command.version),
        "rollback": lambda: acting.rollback(command.reason, version=command.version, to=command.to, ready=ready),
    }
    try:
        return CommandResult(command.id, state=asdict(change[command.action]()))
    except ValueError as error:
        return CommandResult(command.id, str(error))


class Commander:
    """Carries out commands one after another in a thread; an abort has its own, and the others wait for it.

    `do` returns the result of one command. Each command is done once, however often the gateway names it.
    """

    def __init__(self, do: Callable[[Command], CommandResult]) -> None:
        self._do = do
        self._others, self._aborts = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("command", "abort"))
        self._begun: dict[str, Future[CommandResult]] = {}
        self._aborting: list[Future[CommandResult]] = []

    def begin(self, commands: Collection[Command]) -> None:
        """Begin what is new among the gateway's pending commands; forget those it no longer names."""
        named = {command.id for command in commands}
        self._begun = {each: future for each, future in self._begun.items() if each in named or not future.done()}
        for command in sorted(commands, key=lambda each: each.action != "abort"):
            if command.id in self._begun:
                continue
            if command.action == "abort":
                self._begun[command.id] = self._aborts.submit(self._done, command)
                self._aborting = [each for each in self._aborting if not each.done()] + [self._begun[command.id]]
            else:
                self._begun[command.id] = self._others.submit(self._after_aborts, command)

    def results(self) -> list[CommandResult]:
        """Return the results of commands that the gateway may not have received yet."""
        return [future.result() for future in self._begun.values() if future.done()]

    @property
    def is_busy(self) -> bool:
        """Return whether a command is begun whose result the gateway has not received."""
        return bool(self._begun)

    def stop(self) -> None:
        for pool in (self._others, self._aborts):
            pool.shutdown(wait=False, cancel_futures=True)

    def _after_aborts(self, command: Command) -> CommandResult:
        for abort in self._aborting:
            abort.result()
        return self._done(command)

    def _done(self, command: Command) -> CommandResult:
        try:
            return self._do(command)
        except Exception as error:
            # Whatever happened is the client's answer; the server goes on.
            return CommandResult(command.id, f"{type(error).__name__}: {error}")
