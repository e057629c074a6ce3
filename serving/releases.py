"""Changes of the release, with the reading and writing around `sluice.serving.release`.

The ledger is written first: it is the lock and the truth. MLflow's aliases follow. If a process dies between the two
writes, `reconcile` repairs the aliases.
"""

import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import asdict, replace
from datetime import datetime
from functools import cache, reduce
from pathlib import Path
from typing import Any, Protocol

from sluice.core.manifest import file_hash
from sluice.model.evaluation.verdict import Verdict, read_verdict
from sluice.serving import release
from sluice.serving.ledger import CHUNK, Ledger, LedgerBroken, LedgerCheck, LedgerConflict
from sluice.serving.ledger_chain import GENESIS, Entry, RecordedEntry
from sluice.serving.ledger_trust import Head
from sluice.serving.release import (
    REPAIR,
    Action,
    Intent,
    Refusal,
    ReleaseState,
    VerdictRequirements,
    VerifiedVerdict,
    apply,
    fold,
    transition,
)

MAX_TRIES = 20
"""Attempts at a change when other writers are faster."""
CHECKPOINT_EVERY = 100
"""Entries of other processes after which a reader notes a checkpoint; a writer notes one with each entry."""


class ReleaseRefused(ValueError):
    """The change is not allowed in the present state; the message gives the reason and the next step."""


class VersionStore(Protocol):
    """The model registry as releases use it (implemented by `sluice.serving.registry.Registry`)."""

    model_name: str

    def aliases(self) -> dict[str, str]: ...
    def has(self, version: str) -> bool: ...
    def anchor(self) -> Head | None: ...
    def note_anchor(self, sequence: int, digest: str, *, repaired: bool = False) -> None: ...
    def set_alias(self, name: str, version: str) -> None: ...
    def drop_alias(self, name: str) -> None: ...
    def check_model(self, version: str) -> str: ...
    def model_folder(self, version: str, model_hash: str | None = None) -> Path: ...
    def verdict_path(self, version: str) -> Path: ...


class Releases:
    """The release of one registered model.

    `key_folder` holds the key with which verdicts are signed. `actor` is who acts, written into every entry:
    `user@host`, `key:NAME`, `rollout`, `monitor` or `run`. `requirements` returns what verdicts must be now; `clock`
    returns seconds since the epoch. Every method that changes the release returns the new state and raises
    ReleaseRefused (a ValueError) if the change is not allowed. The methods after `propose` take the `version` that the
    caller expects to act on: if it is given, a change by another process in between leads to a refusal.
    """

    def __init__(
        self,
        registry: VersionStore,
        ledger: Ledger,
        key_folder: Path,
        *,
        actor: str,
        requirements: Callable[[], VerdictRequirements] = VerdictRequirements,
        clock: Callable[[], float] = time.time,
    ) -> None:
        assert registry.model_name == ledger.model, "registry and ledger of different models"
        self._registry, self._ledger, self._key_folder = registry, ledger, key_folder
        self._actor, self._requirements, self._clock = actor, requirements, clock
        self._followed = ReleaseState(), GENESIS
        self._model_hashes: dict[str, str] = {}
        """Version -> hash of its model, by the ledger."""

    @property
    def model(self) -> str:
        """Name of the registered model."""
        return self._ledger.model

    def acting_as(self, actor: str) -> "Releases":
        """Return the same release with another actor."""
        other = copy(self)
        other._actor = actor
        return other

    def state(self) -> ReleaseState:
        """Return the present state from the ledger alone: cheap, without MLflow.

        Verifies the entries that are new since the last call, or since the checkpoint of another process. Raises
        LedgerBroken (a ValueError) for one that is forged.
        """
        return _whole(self._ledger.model, *self._follow(None))

    def inspect(self) -> tuple[ReleaseState, LedgerCheck]:
        """Return the state after the entries that are as they were written, and a check of the ledger.

        The check covers both anchors, that of this folder and the registry's, and the entries that are new since the
        checkpoint; `verify` covers all of them.
        """
        return self._follow(self._registry.anchor())

    def _follow(self, noted: Head | None) -> tuple[ReleaseState, LedgerCheck]:
        state, head = self._followed
        if not state.sequence:
            state, head = self._checkpoint()
        new = 0
        while True:
            entries, check = self._ledger.read(state.sequence, head, most=CHUNK, noted=noted)
            if not check.ok and state.sequence and check.broken_at == state.sequence:
                # The ledger may have been repaired, and then it is another one from the entry that was broken.
                state, head, new = ReleaseState(), GENESIS, 0
                self._model_hashes.clear()
                continue
            if entries:
                state, head, new = reduce(apply, entries, state), entries[-1].hash, new + len(entries)
                named = [entry for entry in entries if entry.action == "propose" and "model_hash" in entry.details]
                self._model_hashes |= {entry.version: entry.details["model_hash"] for entry in named}
            if not check.ok:
                return state, check
            self._followed = state, head
            if len(entries) < CHUNK:
                break
        if new >= CHECKPOINT_EVERY:
            self._note_checkpoint()
        return state, check

    def model_folder(self, version: str) -> Path:
        """Return the local folder of the model with which the version was proposed, by the ledger.

        The ledger decides which model that is: unlike its entries, the registry's own hash has no key. Raises
        ValueError if the registry has another model.
        """
        return self._registry.model_folder(version, self._model_hash(version))

    def _model_hash(self, version: str) -> str:
        """Return the hash of the model with which the version was last proposed."""
        if version not in self._model_hashes:
            proposal = self._ledger.find("propose", version)
            if proposal is None or "model_hash" not in proposal.details:
                raise ValueError(f"version {version} was never proposed in the ledger of {self._ledger.model}")
            self._model_hashes[version] = proposal.details["model_hash"]
        return self._model_hashes[version]

    def _checkpoint(self) -> tuple[ReleaseState, str]:
        """Return the state and the head that a process of this folder has noted; of an empty ledger without one."""
        found = self._ledger.checkpoint()
        if found is None or found["fold"] != _fold_code():
            return ReleaseState(), GENESIS
        lists_as_tuples: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in found["state"].items()
        }
        return ReleaseState(**lists_as_tuples), found["head"]

    def _note_checkpoint(self) -> None:
        state, head = self._followed
        self._ledger.note_checkpoint({"fold": _fold_code(), "state": asdict(state), "head": head})

    def history(self) -> list[RecordedEntry]:
        """Return all entries, oldest first, verified or not."""
        return self._ledger.history()

    def since_proposal(self, version: str) -> list[RecordedEntry]:
        """Return the entries after the newest proposal of the version, oldest first.

        Raises LedgerBroken (a ValueError) if one of them is forged.
        """
        proposal = self._ledger.find("propose", version)
        if proposal is None:
            return []
        entries, check = self._ledger.read(proposal.sequence, proposal.hash)
        if not check.ok:
            raise LedgerBroken(f"the ledger of {self._ledger.model} is {check.message}")
        return entries

    def newest(self, count: int) -> list[RecordedEntry]:
        """Return the last `count` entries, oldest first, verified or not."""
        return self._ledger.newest(count)

    def verdict(self, version: str) -> Verdict:
        """Return the verdict registered with a version. Raises ValueError if it is gone or its signature is wrong."""
        return read_verdict(self._registry.verdict_path(version), self._key_folder)

    def verify(self) -> LedgerCheck:
        """Check every entry of the ledger, and its end against this folder's anchor and the registry's."""
        return self._ledger.verify(self._registry.anchor())

    def repair(self, keep: int, reason: str) -> ReleaseState:
        """Keep the first `keep` entries of a broken ledger as they are listed, and go on from their state.

        Raises ValueError if the ledger is whole, or these entries are not the history of a release.
        """
        if not reason.strip():
            raise ReleaseRefused("a repair needs a reason: it is written into the history")
        kept = self._ledger.history()[:keep]
        try:
            fold(kept)
        except (KeyError, TypeError, ValueError) as error:
            wrong = f"{type(error).__name__}: {error}"
            raise ReleaseRefused(f"entries 1 to {keep} are no history of a release ({wrong}): keep fewer") from None
        entry = Entry(self._clock(), REPAIR, "", self._actor, reason)
        repaired = self._ledger.repair(keep, entry, noted=self._registry.anchor())
        self._registry.note_anchor(repaired.sequence, repaired.hash, repaired=True)
        return self.reconcile()

    def propose(
        self,
        version: str,
        verdict: Path,
        reason: str,
        forced: bool = False,
        *,
        policy: str,
        sets: Mapping[str, str] | None = None,
    ) -> ReleaseState:
        """Make `version` the challenger at weight 0; `verdict` must be the one registered with it.

        `policy` is the sha256 of the gate's policy in force: a verdict by another one is refused, as is one without one
        of the evaluation sets `sets` (name -> sha256).
        """
        verified = self._verify_verdict(version)
        if not verdict.is_file():
            raise ValueError(f"{verdict}: there is no such verdict; run the gate first")
        if file_hash(verdict) != verified.verdict_hash:
            raise ReleaseRefused(f"{verdict} is not the verdict with which version {version} was registered")
        return self._carry_out(
            "propose",
            reason,
            version=version,
            forced=forced,
            verdict=verified,
            policy=policy,
            sets=sets or {},
            # With force they are not looked at, and settings that are wrong must not stand in its way.
            requirements=VerdictRequirements() if forced else self._requirements(),
        )

    def set_weight(
        self, percent: int, reason: str = "", *, version: str | None = None, decision: Mapping[str, Any] | None = None
    ) -> ReleaseState:
        """Send `percent` of the traffic to the challenger."""
        reason = reason or f"challenger takes {percent} % of the traffic"
        return self._carry_out(
            "weight", reason, version=version or self.state().challenger, weight=percent, decision=decision
        )

    def pause(self, reason: str, *, version: str | None = None) -> ReleaseState:
        """Let the challenger's rollout advance no more; it is still judged, and may be dropped or promoted by hand."""
        return self._carry_out("pause", reason, version=version or self.state().challenger)

    def resume(self, reason: str, *, version: str | None = None) -> ReleaseState:
        """Let a paused rollout go on."""
        return self._carry_out("resume", reason, version=version or self.state().challenger)

    def promote(
        self,
        reason: str,
        *,
        version: str | None = None,
        decision: Mapping[str, Any] | None = None,
        by_hand: bool = False,
    ) -> ReleaseState:
        """champion -> previous-champion, challenger -> champion, after re-checking verdict and model files.

        `by_hand`: a person does, before the rollout has; the history marks the champion with the reason.
        """
        version = version or self.state().challenger
        verdict = self._verify_verdict(version) if version else None
        is_forced = self.state().challenger_forced
        return self._carry_out(
            "promote",
            reason,
            version=version,
            verdict=verdict,
            decision=decision,
            by_hand=by_hand,
            requirements=VerdictRequirements() if is_forced else self._requirements(),
        )

    def drop(
        self, reason: str, *, version: str | None = None, decision: Mapping[str, Any] | None = None
    ) -> ReleaseState:
        """Remove the challenger; the champion serves alone."""
        return self._carry_out("drop", reason, version=version or self.state().challenger, decision=decision)

    def rollback(
        self,
        reason: str,
        *,
        version: str | None = None,
        to: str | None = None,
        ready: Callable[[str], bool] | None = None,
    ) -> ReleaseState:
        """champion <- `to`, an earlier champion, by default the previous one. Ends a rollout in progress.

        Before anything is written the files of the version are hashed again, and `ready(version)` must hold: whether
        the server has loaded it, None where no server runs. It may load the version first, and raise ValueError with
        the reason for which it cannot. Where the default cannot serve, the next earlier champion that can is taken, and
        the entry's reason says so. Raises ReleaseRefused, with nothing written, if `to`, or all of them, cannot.
        """
        state = self.state()
        former = [each for each in dict.fromkeys(reversed(state.former_champions())) if each != state.champion]
        faults: list[str] = []
        target = to
        for candidate in [to] if to in former else [] if to else former:
            if not (fault := self._cannot_serve(candidate, ready)):
                target = candidate
                break
            faults.append(f"version {candidate} cannot serve: {fault}")
        else:
            if faults:
                others = [each for each in former if each != to and not self._cannot_serve(each, None)] if to else []
                way = f"roll back to another by --to {others[0]}" if others else "release a new version"
                raise ReleaseRefused(f"{'; '.join(faults)}; {way}")
        if faults:
            reason = f"{reason}; {'; '.join(faults)}; version {target} taken"
        return self._carry_out("rollback", reason, version=version or state.champion, to=target)

    def _cannot_serve(self, version: str, ready: Callable[[str], bool] | None) -> str:
        """Return why the version could not serve now; empty if it could."""
        try:
            self.model_folder(version)
            return "" if ready is None or ready(version) else "the server has not loaded it"
        except Exception as error:
            # Whatever is wrong with one version, its store included, must not keep an earlier one from being restored.
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            return f"{kind}{error}"

    def reconcile(self) -> ReleaseState:
        """Move MLflow's aliases to the ledger's state. Idempotent. A version that was deleted there gets none.

        Raises ValueError if the hash chain is broken: a version named by a forged ledger must not serve.
        """
        for _ in range(MAX_TRIES):
            noted = self._registry.anchor()
            state = _whole(self._ledger.model, *self._follow(noted))
            found = self._registry.aliases()
            for alias, version in state.aliases().items():
                if version is not None and found.get(alias) != version and self._registry.has(version):
                    self._registry.set_alias(alias, version)
                elif alias in found and found[alias] != version:
                    self._registry.drop_alias(alias)
            # A writer that appends after this check moves the aliases itself; one that came before it makes us loop.
            last = self._ledger.last()
            if state.sequence == (last.sequence if last else 0):
                if last is not None and noted != Head(last.sequence, last.hash):
                    self._registry.note_anchor(last.sequence, last.hash)
                return state
        raise LedgerConflict(f"the ledger of {self._ledger.model} kept changing while the aliases were set; try again")

    def _verify_verdict(self, version: str) -> VerifiedVerdict:
        """Read the registered verdict, check its signature, and hash the model's files again."""
        path = self._registry.verdict_path(version)
        verdict = read_verdict(path, self._key_folder)
        return VerifiedVerdict(
            outcome=verdict.outcome,
            verdict_hash=file_hash(path),
            judged_model=verdict.hashes.get("model", ""),
            registered_model=self._registry.check_model(version),
            baseline_model=verdict.baseline.model if verdict.baseline else None,
            policy=verdict.policy.sha256 if verdict.policy else "",
            judged_at=datetime.fromisoformat(verdict.time).timestamp() if verdict.time else None,
            sets={name: suite.sha256 for name, suite in verdict.suites.items()},
        )

    def _carry_out(self, action: Action, reason: str, **wanted: Any) -> ReleaseState:
        intent = Intent(action, reason, self._clock(), self._actor, **wanted)
        for _ in range(MAX_TRIES):
            self.state()
            state, head = self._followed
            # As the ledger names it: unlike its entries, the registry's own hash has no key.
            champion = self._model_hash(state.champion) if intent.verdict and state.champion else None
            decided = transition(state, replace(intent, champion_model=champion))
            if isinstance(decided, Refusal):
                raise ReleaseRefused(decided.reason)
            try:
                self._ledger.append(decided, expected_head=head)
            except LedgerConflict:
                continue
            self.state()
            self._note_checkpoint()
            return self.reconcile()
        raise LedgerConflict(f"{action} lost {MAX_TRIES} times to other writers of the ledger of {self._ledger.model}")


def _whole(model: str, state: ReleaseState, check: LedgerCheck) -> ReleaseState:
    if not check.ok:
        raise LedgerBroken(f"the ledger of {model} is {check.message}")
    return state


@cache
def _fold_code() -> str:
    """Return the hash of the code that makes a state of entries: a checkpoint of other code is not used."""
    return file_hash(Path(release.__file__))
