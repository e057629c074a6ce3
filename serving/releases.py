"""Which version serves: a pure fold over the ledger, and the intents that move it.

`transition(state, intent)` decides and says why not; `Releases` does the reading and writing around it: the ledger
first (the lock and the truth), MLflow's aliases second (a view of it). A process that dies between the two leaves
aliases behind the ledger, and `reconcile` brings them up.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal, Protocol

from sluice.core.manifest import file_hash
from sluice.model.evaluation.verdict import read_verdict
from sluice.serving.ledger import GENESIS, Entry, Ledger, LedgerCheck, LedgerConflict, RecordedEntry

Action = Literal["propose", "weight", "promote", "drop", "rollback"]

CHAMPION, CHALLENGER, PREVIOUS_CHAMPION = "champion", "challenger", "previous-champion"
MAX_TRIES = 5
"""Times a decision is taken anew because another writer was first."""


class ReleaseRefused(ValueError):
    """The intent is not allowed in the present state; the message says why and what to do."""


@dataclass(frozen=True)
class ReleaseState:
    """What serves. Versions are MLflow's version numbers as text."""

    champion: str | None = None
    challenger: str | None = None
    previous_champion: str | None = None
    challenger_weight: int = 0
    """Percent of the traffic."""
    challenger_forced: bool = False
    """The challenger was forced past the gate."""
    challenger_verdict: str = ""
    """sha256 of the verdict that the challenger was proposed with."""
    earlier_champions: tuple[str, ...] = ()
    """Champions before the previous one, oldest first: where further rollbacks lead."""
    rolled_back: tuple[str, ...] = ()
    """Versions that were rolled back and not promoted again since."""
    sequence: int = 0
    """Number of the newest ledger entry that this state contains."""

    def aliases(self) -> dict[str, str | None]:
        """MLflow alias -> version, in the order in which they are moved: the way back is there before it is needed."""
        return {PREVIOUS_CHAMPION: self.previous_champion, CHAMPION: self.champion, CHALLENGER: self.challenger}


@dataclass(frozen=True)
class Evidence:
    """What is known about a version when it is proposed or promoted."""

    outcome: str
    """The verdict's outcome: promote, hold or reject."""
    verdict_hash: str
    judged_model: str
    """Hash of the model that the verdict speaks of."""
    registered_model: str
    """Hash of the model that would serve."""


@dataclass(frozen=True)
class Intent:
    """What somebody wants to happen."""

    action: Action
    reason: str
    time: float
    """Seconds since the epoch."""
    actor: str
    version: str | None = None
    """Version to propose; for the other actions the version that the caller believes it acts on, None for any."""
    weight: int = 0
    forced: bool = False
    evidence: Evidence | None = None
    """Of the version to propose or promote."""


@dataclass(frozen=True)
class Refusal:
    """Why an intent is not carried out."""

    reason: str


def fold(entries: Iterable[RecordedEntry]) -> ReleaseState:
    """The state after `entries`, oldest first."""
    return reduce(apply, entries, ReleaseState())


def apply(state: ReleaseState, entry: RecordedEntry) -> ReleaseState:
    """The state after one more entry. The ledger holds only what `transition` allowed."""
    state = replace(state, sequence=entry.sequence)
    idle = replace(state, challenger=None, challenger_weight=0, challenger_forced=False, challenger_verdict="")
    match entry.action:
        case "propose":
            return replace(
                idle,
                challenger=entry.version,
                challenger_forced=entry.details["forced"],
                challenger_verdict=entry.details["verdict_sha256"],
            )
        case "weight":
            return replace(state, challenger_weight=entry.details["percent"])
        case "promote":
            before = (state.previous_champion,) if state.previous_champion else ()
            return replace(
                idle,
                champion=entry.version,
                previous_champion=state.champion,
                earlier_champions=(*state.earlier_champions, *before),
                rolled_back=tuple(version for version in state.rolled_back if version != entry.version),
            )
        case "drop":
            return idle
        case "rollback":
            # A version that was champion twice must not come back as the way out of itself.
            spent = (entry.version, state.previous_champion)
            earlier = tuple(version for version in state.earlier_champions if version not in spent)
            return replace(
                idle,
                champion=state.previous_champion,
                previous_champion=earlier[-1] if earlier else None,
                earlier_champions=earlier[:-1],
                rolled_back=(*state.rolled_back, entry.version),
            )
    raise ValueError(f"ledger entry {entry.sequence} has the unknown action {entry.action!r}: update sluice to read it")


def transition(state: ReleaseState, intent: Intent) -> Entry | Refusal:
    """The entry that carries out `intent` in `state`, or why it is refused. Pure."""
    if not intent.reason.strip():
        return Refusal(f"{intent.action} needs a reason: it is what the history is read for")
    match intent.action:
        case "propose":
            return _propose(state, intent)
        case "rollback":
            return _rollback(state, intent)
        case _:
            return _on_challenger(state, intent)


def _propose(state: ReleaseState, intent: Intent) -> Entry | Refusal:
    version, evidence = intent.version, intent.evidence
    assert version is not None and evidence is not None
    if state.challenger is not None:
        return Refusal(
            f"version {state.challenger} is in rollout at {state.challenger_weight} %: "
            f"wait for it or drop it before version {version} is proposed"
        )
    if version == state.champion:
        return Refusal(f"version {version} is the champion already")
    if version in state.rolled_back and not intent.forced:
        return Refusal(f"version {version} was rolled back: force it, with a reason, if it shall have another chance")
    if refusal := _refuse_evidence(version, evidence, intent.forced):
        return refusal
    details = {
        "forced": intent.forced,
        "verdict": evidence.outcome,
        "verdict_sha256": evidence.verdict_hash,
        "model_hash": evidence.registered_model,
    }
    return _entry(intent, version, details)


def _refuse_evidence(version: str, evidence: Evidence, forced: bool) -> Refusal | None:
    judged, registered = evidence.judged_model, evidence.registered_model
    if judged != registered:
        return Refusal(
            f"the verdict speaks of model {judged[:12]}, version {version} is model {registered[:12]}: "
            "run the gate for this version; force does not help"
        )
    if evidence.outcome != "promote" and not forced:
        return Refusal(
            f"the verdict of version {version} is {evidence.outcome}, not promote: "
            "force it, with a reason, if it shall be tried all the same"
        )
    return None


def _on_challenger(state: ReleaseState, intent: Intent) -> Entry | Refusal:
    challenger = state.challenger
    if challenger is None:
        return Refusal(f"{intent.action}: there is no challenger; propose a version first")
    if intent.version not in (None, challenger):
        return Refusal(f"{intent.action}: version {intent.version} is not the challenger any more, {challenger} is")
    if intent.action == "weight":
        if not 0 <= intent.weight <= 100:
            return Refusal(f"weight {intent.weight} must be a percentage from 0 to 100")
        return _entry(intent, challenger, {"percent": intent.weight})
    if intent.action == "promote":
        evidence = intent.evidence
        assert evidence is not None, "a promotion re-checks its evidence"
        if evidence.verdict_hash != state.challenger_verdict:
            return Refusal(f"version {challenger} was proposed with another verdict than the one found now")
        if refusal := _refuse_evidence(challenger, evidence, state.challenger_forced):
            return refusal
    return _entry(intent, challenger, {})


def _rollback(state: ReleaseState, intent: Intent) -> Entry | Refusal:
    if state.champion is None:
        return Refusal("nothing serves yet, so there is nothing to roll back")
    if intent.version not in (None, state.champion):
        return Refusal(f"rollback: version {intent.version} is not the champion any more, {state.champion} is")
    if state.previous_champion is None:
        return Refusal(f"version {state.champion} has no previous champion to roll back to")
    # A challenger was judged against the champion that turned out bad, so its rollout ends here too.
    return _entry(intent, state.champion, {"to": state.previous_champion, "dropped": state.challenger})


def _entry(intent: Intent, version: str, details: Mapping[str, Any]) -> Entry:
    return Entry(intent.time, intent.action, version, intent.actor, intent.reason, details)


class VersionStore(Protocol):
    """What a release needs of the model registry (sluice.serving.registry.Registry)."""

    model_name: str

    def aliases(self) -> dict[str, str]: ...
    def set_alias(self, name: str, version: str) -> None: ...
    def drop_alias(self, name: str) -> None: ...
    def check_model(self, version: str) -> str: ...
    def verdict_path(self, version: str) -> Path: ...
    def anchor(self) -> tuple[int, str] | None: ...
    def set_anchor(self, sequence: int, head: str) -> None: ...


class Releases:
    """The release of one registered model.

    `key_folder` holds the key that verdicts are signed with; `actor` is written into every entry; `clock` gives seconds
    since the epoch. Every method that changes something returns the state after it and raises ReleaseRefused
    (a ValueError) where that is not allowed. `version` of the methods after `propose` is the version that the caller
    believes it acts on: given, somebody else's change in between is a refusal and not a surprise.
    """

    def __init__(
        self,
        registry: VersionStore,
        ledger: Ledger,
        key_folder: Path,
        *,
        actor: str = "sluice",
        clock: Callable[[], float] = time.time,
    ) -> None:
        assert registry.model_name == ledger.model, "registry and ledger of different models"
        self._registry, self._ledger, self._key_folder = registry, ledger, key_folder
        self._actor, self._clock = actor, clock

    def state(self) -> ReleaseState:
        """What serves now, from the ledger alone: cheap, no MLflow."""
        return fold(self._ledger.history())

    def history(self) -> list[RecordedEntry]:
        """Every entry, oldest first."""
        return self._ledger.history()

    def verify(self) -> LedgerCheck:
        """Check the chain, and that nothing was cut off its end since the registry last noted its head."""
        return self._ledger.verify(self._registry.anchor())

    def propose(self, version: str, verdict: Path, reason: str, forced: bool = False) -> ReleaseState:
        """Make `version` the challenger at weight 0, on the evidence of `verdict`, which was registered with it."""
        evidence = self._evidence(version)
        if not verdict.is_file():
            raise ValueError(f"{verdict}: no such verdict; run the gate first")
        if file_hash(verdict) != evidence.verdict_hash:
            raise ReleaseRefused(f"{verdict} is not the verdict that version {version} was registered with")
        return self._carry_out("propose", reason, version=version, forced=forced, evidence=evidence)

    def set_weight(self, percent: int, reason: str = "", *, version: str | None = None) -> ReleaseState:
        """Send `percent` of the traffic to the challenger."""
        reason = reason or f"challenger takes {percent} % of the traffic"
        return self._carry_out("weight", reason, version=version or self.state().challenger, weight=percent)

    def promote(self, reason: str, *, version: str | None = None) -> ReleaseState:
        """champion -> previous-champion, challenger -> champion, after the evidence was read and checked again."""
        version = version or self.state().challenger
        evidence = self._evidence(version) if version else None
        return self._carry_out("promote", reason, version=version, evidence=evidence)

    def drop(self, reason: str, *, version: str | None = None) -> ReleaseState:
        """Take the challenger out; the champion serves alone."""
        return self._carry_out("drop", reason, version=version or self.state().challenger)

    def rollback(self, reason: str, *, version: str | None = None) -> ReleaseState:
        """champion <- previous-champion. Ends a rollout that is under way."""
        return self._carry_out("rollback", reason, version=version or self.state().champion)

    def reconcile(self) -> ReleaseState:
        """Bring MLflow's aliases to what the ledger says. Idempotent.

        Raises ValueError if the ledger does not hold: what a forged ledger names must not serve.
        """
        for _ in range(MAX_TRIES):
            entries = self._sound_history()
            state = fold(entries)
            self._move_aliases(state)
            if entries:
                self._registry.set_anchor(entries[-1].sequence, entries[-1].hash)
            # Whoever appends after this look moves the aliases after us; whoever did before it is followed now.
            last = self._ledger.last()
            if state.sequence == (last.sequence if last else 0):
                return state
        raise LedgerConflict(f"the ledger of {self._ledger.model} kept moving while the aliases were set")

    def _sound_history(self) -> list[RecordedEntry]:
        check = self.verify()
        if not check.ok:
            broken = f"broken at entry {check.broken_at}: {check.reason}"
            raise ValueError(f"the ledger of {self._ledger.model} is {broken}; restore the database from a backup")
        return self._ledger.history()

    def _move_aliases(self, state: ReleaseState) -> None:
        found = self._registry.aliases()
        for alias, version in state.aliases().items():
            if version is None and alias in found:
                self._registry.drop_alias(alias)
            elif version is not None and found.get(alias) != version:
                self._registry.set_alias(alias, version)

    def _evidence(self, version: str) -> Evidence:
        """Read again what was registered: the model's files, hashed anew, and the verdict, its signature checked."""
        path = self._registry.verdict_path(version)
        verdict = read_verdict(path, self._key_folder)
        return Evidence(
            outcome=verdict.outcome,
            verdict_hash=file_hash(path),
            judged_model=verdict.hashes.get("model", ""),
            registered_model=self._registry.check_model(version),
        )

    def _carry_out(self, action: Action, reason: str, **wanted: Any) -> ReleaseState:
        intent = Intent(action, reason, self._clock(), self._actor, **wanted)
        for _ in range(MAX_TRIES):
            entries = self._sound_history()
            decided = transition(fold(entries), intent)
            if isinstance(decided, Refusal):
                raise ReleaseRefused(decided.reason)
            try:
                self._ledger.append(decided, expected_head=entries[-1].hash if entries else GENESIS)
            except LedgerConflict:
                continue
            return self.reconcile()
        raise LedgerConflict(f"{action} lost {MAX_TRIES} times to other writers of the ledger of {self._ledger.model}")
