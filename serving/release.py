"""Which version serves: the state is a fold over the ledger's entries, and intents move it. Pure.

`transition(state, intent)` returns the ledger entry that carries out an intent, or a refusal with its reason;
`sluice.serving.releases.Releases` reads and writes around it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Literal

from sluice.serving.ledger_chain import Entry, RecordedEntry

Action = Literal["propose", "weight", "pause", "resume", "promote", "drop", "rollback"]
REPAIR = "repair"
"""Action of the entry that ends the repair of a broken ledger: the release stays that of the entries kept."""

MAX_EARLIER_CHAMPIONS = 100
"""Champions before the previous one that a rollback may restore; older ones are forgotten, so a state stays small."""

DAY_S = 86_400.0

CHAMPION, CHALLENGER, PREVIOUS_CHAMPION = "champion", "challenger", "previous-champion"


@dataclass(frozen=True)
class ReleaseState:
    """The versions that serve, as MLflow's version numbers in text."""

    champion: str | None = None
    challenger: str | None = None
    previous_champion: str | None = None
    challenger_weight: int = 0
    """Percent of the traffic."""
    challenger_forced: bool = False
    """Whether the challenger was forced past the gate."""
    challenger_forced_reason: str = ""
    """Reason with which the challenger was forced past the gate."""
    challenger_verdict: str = ""
    """sha256 of the verdict with which the challenger was proposed."""
    earlier_champions: tuple[str, ...] = ()
    """Champions before the previous one, oldest first: the targets of further rollbacks."""
    first_champion: str | None = None
    """The first version that was promoted, from which the gate counts its budgets, whatever was rolled back since."""
    rolled_back: tuple[str, ...] = ()
    """Versions that were rolled back and have not been promoted since."""
    paused: bool = False
    """Whether the challenger's rollout is paused: it is judged and may be dropped, but gets no more traffic."""
    champion_forced: str = ""
    """How the champion got past the gate or the rollout: "forced: REASON", "by hand: REASON", both, or empty."""
    former_forced: Mapping[str, str] = field(default_factory=dict)
    """The same of the former champions that have such a mark, by version."""
    sequence: int = 0
    """Number of the newest ledger entry in this state."""

    def former_champions(self) -> tuple[str, ...]:
        """Return what a rollback may restore, oldest first."""
        return (*self.earlier_champions, self.previous_champion) if self.previous_champion else ()

    def aliases(self) -> dict[str, str | None]:
        """Return MLflow alias -> version, in the order in which they are moved: the rollback target comes first."""
        return {PREVIOUS_CHAMPION: self.previous_champion, CHAMPION: self.champion, CHALLENGER: self.challenger}


@dataclass(frozen=True)
class VerifiedVerdict:
    """A version's verdict, its signature checked, and the hash of the version's files, computed anew."""

    outcome: str
    """promote, hold or reject."""
    verdict_hash: str
    judged_model: str
    """Hash of the model that the gate judged."""
    registered_model: str
    """Hash of the model that would serve."""
    baseline_model: str | None
    """Hash of the champion with which the gate compared it, None where none served."""
    policy: str
    """sha256 of the policy by which it was judged."""
    judged_at: float | None = None
    """When the gate judged, in seconds since the epoch; None if the verdict does not say."""
    sets: Mapping[str, str] = field(default_factory=dict)
    """sha256 of each evaluation set that was measured, by name."""


@dataclass(frozen=True)
class VerdictRequirements:
    """Requirements of a verdict besides its signature, its model and its outcome."""

    max_age_days: float = 30.0
    sets: Mapping[str, str] = field(default_factory=dict)
    """sha256 of each evaluation set in force, by name; one of the same name in the verdict must be the same."""


@dataclass(frozen=True)
class Intent:
    """A requested change of the release."""

    action: Action
    reason: str
    time: float
    """Seconds since the epoch."""
    actor: str
    version: str | None = None
    """Version to propose; for the other actions the version that the caller expects to act on, None for any."""
    weight: int = 0
    to: str | None = None
    """Earlier champion to roll back to, None for the previous one."""
    forced: bool = False
    by_hand: bool = False
    """A person promotes, not the rollout: allowed while it is paused, and marked in the history."""
    verdict: VerifiedVerdict | None = None
    """Verdict of the version to propose or promote."""
    champion_model: str | None = None
    """Hash of the model that serves, None where none does."""
    policy: str | None = None
    """sha256 of the gate's policy in force, for a proposal."""
    sets: Mapping[str, str] = field(default_factory=dict)
    """sha256 of each evaluation set that must have been measured, by name, for a proposal."""
    requirements: VerdictRequirements = field(default_factory=VerdictRequirements)
    """For a proposal and a promotion."""
    decision: Mapping[str, Any] | None = None
    """Inputs of the rollout's decision to do this, from which it can be recomputed."""


@dataclass(frozen=True)
class Refusal:
    """The reason for which an intent is not carried out."""

    reason: str


def fold(entries: Iterable[RecordedEntry]) -> ReleaseState:
    """Return the state after `entries` (oldest first)."""
    return reduce(apply, entries, ReleaseState())


def apply(state: ReleaseState, entry: RecordedEntry) -> ReleaseState:
    """Return the state after one more entry. The ledger contains only entries that `transition` allowed."""
    state = replace(state, sequence=entry.sequence)
    idle = replace(
        state,
        challenger=None,
        challenger_weight=0,
        challenger_forced=False,
        challenger_forced_reason="",
        challenger_verdict="",
        paused=False,
    )
    match entry.action:
        case "propose":
            return replace(
                idle,
                challenger=entry.version,
                challenger_forced=entry.details["forced"],
                challenger_forced_reason=entry.reason if entry.details["forced"] else "",
                challenger_verdict=entry.details["verdict_sha256"],
            )
        case "weight":
            return replace(state, challenger_weight=entry.details["percent"])
        case "pause" | "resume":
            return replace(state, paused=entry.action == "pause")
        case "promote":
            before = (state.previous_champion,) if state.previous_champion else ()
            by_force = f"forced: {state.challenger_forced_reason}" if state.challenger_forced else ""
            by_hand = f"by hand: {entry.reason}" if entry.details.get("by_hand") else ""
            champion = replace(
                idle,
                champion=entry.version,
                previous_champion=state.champion,
                earlier_champions=(*state.earlier_champions, *before)[-MAX_EARLIER_CHAMPIONS:],
                first_champion=state.first_champion or entry.version,
                rolled_back=tuple(version for version in state.rolled_back if version != entry.version),
            )
            return _with_marks(champion, state, "; ".join(filter(None, (by_force, by_hand))))
        case "drop":
            return idle
        case "repair":
            return state
        case "rollback":
            # A version that was champion twice must not become its own rollback target.
            target, former = entry.details["to"], state.former_champions()
            place = former.index(target) if target in former else len(former)
            # The one before the target is the next way back; those after it stay to be named.
            earlier = tuple(v for v in (*former[place + 1 :], *former[:place]) if v not in (entry.version, target))
            restored = replace(
                idle,
                champion=target,
                previous_champion=earlier[-1] if earlier else None,
                earlier_champions=earlier[:-1],
                rolled_back=(*state.rolled_back, entry.version),
            )
            return _with_marks(restored, state, state.former_forced.get(target, ""))
    raise ValueError(f"ledger entry {entry.sequence} has the unknown action {entry.action!r}: update sluice to read it")


def _with_marks(after: ReleaseState, before: ReleaseState, mark: str) -> ReleaseState:
    """Return `after` with the mark of its champion, and those of the former champions that it still names."""
    marks = {**before.former_forced, before.champion or "": before.champion_forced}
    former = after.former_champions()
    kept = {version: marks[version] for version in former if marks.get(version)}
    return replace(after, champion_forced=mark, former_forced=kept)


def transition(state: ReleaseState, intent: Intent) -> Entry | Refusal:
    """Return the entry that carries out `intent` in `state`, or the refusal."""
    if not intent.reason.strip():
        return Refusal(f"{intent.action} needs a reason: it is written into the history")
    if any(each == "\0" or "\ud800" <= each <= "\udfff" for each in intent.reason):
        return Refusal("the reason has characters that no database keeps (NUL, or half of a character): leave them out")
    match intent.action:
        case "propose":
            return _propose(state, intent)
        case "rollback":
            return _rollback(state, intent)
        case _:
            return _on_challenger(state, intent)


def _propose(state: ReleaseState, intent: Intent) -> Entry | Refusal:
    version, verdict = intent.version, intent.verdict
    assert version is not None and verdict is not None
    if state.challenger is not None:
        return Refusal(
            f"version {state.challenger} is in rollout at {state.challenger_weight} %: "
            f"wait for it or drop it before you propose version {version}"
        )
    if version == state.champion:
        return Refusal(f"version {version} is the champion already")
    if version in state.rolled_back and not intent.forced:
        return Refusal(f"version {version} was rolled back: to retry it, force it with a reason")
    if refusal := _refuse_verdict(version, intent, intent.forced):
        return refusal
    details = {
        "forced": intent.forced,
        "verdict": verdict.outcome,
        "verdict_sha256": verdict.verdict_hash,
        "model_hash": verdict.registered_model,
    }
    return _entry(intent, version, details)


def _refuse_verdict(version: str, intent: Intent, forced: bool) -> Refusal | None:
    verdict = intent.verdict
    assert verdict is not None, f"{intent.action} re-checks the verdict"
    judged, registered = verdict.judged_model, verdict.registered_model
    if judged != registered:
        return Refusal(
            f"the verdict is about model {judged[:12]}, but version {version} is model {registered[:12]}: "
            "run the gate for this version; force does not help"
        )
    if forced:
        return None
    again = "judge it again by `sluice run`, or force it with a reason"
    if verdict.outcome != "promote":
        return Refusal(
            f"the verdict of version {version} is {verdict.outcome}, not promote: "
            "to release it all the same, force it with a reason"
        )
    if verdict.baseline_model != intent.champion_model:
        before, now = (
            f"model {model[:12]}" if model else "no champion"
            for model in (verdict.baseline_model, intent.champion_model)
        )
        return Refusal(
            f"the verdict of version {version} compares it with {before}, but {now} serves now: the champion has "
            f"changed since; {again}"
        )
    if intent.action == "propose" and verdict.policy != intent.policy:
        return Refusal(
            f"the verdict of version {version} is by policy {verdict.policy[:12] or 'none'}, but "
            f"{(intent.policy or 'none')[:12]} is in force: a laxer policy lets nothing pass; {again}"
        )
    if fault := _wrong_set(verdict, intent) or _wrong_age(verdict, intent):
        return Refusal(f"the verdict of version {version} {fault}; {again}")
    return None


def _wrong_set(verdict: VerifiedVerdict, intent: Intent) -> str:
    """Return which evaluation set is not the one in force; empty if all are."""
    known = {name: sha256 for name, sha256 in intent.requirements.sets.items() if name in verdict.sets}
    for name, wanted in {**known, **intent.sets}.items():
        measured = verdict.sets.get(name)
        if measured is None:
            return f"was made without the evaluation set {name}, which the settings name"
        if measured != wanted:
            return f"is on evaluation set {name} as it was ({measured[:12]}), but {wanted[:12]} is in force"
    return ""


def _wrong_age(verdict: VerifiedVerdict, intent: Intent) -> str:
    """Return why the verdict is too old, or dated in the future, to be relied on; empty if it is neither."""
    if verdict.judged_at is None:
        return "does not say when it was made"
    age_days = (intent.time - verdict.judged_at) / DAY_S
    if age_days > intent.requirements.max_age_days:
        return (
            f"is {age_days:.0f} days old, and at most {intent.requirements.max_age_days:g} are allowed "
            "(rollout.max_verdict_age_days)"
        )
    if age_days < -1:
        return f"is dated {-age_days:.0f} days after the clock of this machine: set the clock right"
    return ""


def _on_challenger(state: ReleaseState, intent: Intent) -> Entry | Refusal:
    challenger = state.challenger
    if challenger is None:
        return Refusal(f"{intent.action}: there is no challenger; propose a version first")
    if intent.version not in (None, challenger):
        return Refusal(f"{intent.action}: version {intent.version} is no longer the challenger, {challenger} is")
    if intent.action == "weight":
        if not 0 <= intent.weight <= 100:
            return Refusal(f"weight {intent.weight} must be a percentage from 0 to 100")
        if state.paused and intent.weight not in (0, state.challenger_weight):
            return Refusal(f"weight {intent.weight}: {_paused(challenger)}")
        return _entry(intent, challenger, {"percent": intent.weight})
    if intent.action == "promote":
        verdict = intent.verdict
        assert verdict is not None, "a promotion re-checks its verdict"
        if state.paused and not intent.by_hand:
            return Refusal(f"promote: {_paused(challenger)}")
        if verdict.verdict_hash != state.challenger_verdict:
            return Refusal(f"version {challenger} was proposed with a different verdict from the registered one")
        if refusal := _refuse_verdict(challenger, intent, state.challenger_forced):
            return refusal
        return _entry(intent, challenger, {"by_hand": True} if intent.by_hand else {})
    if intent.action == "pause" and state.paused:
        return Refusal(f"the rollout of version {challenger} is paused already")
    if intent.action == "resume" and not state.paused:
        return Refusal(f"the rollout of version {challenger} is not paused")
    return _entry(intent, challenger, {})


def _paused(challenger: str) -> str:
    return (
        f"the rollout of version {challenger} is paused: go on by `sluice rollout resume`, or end it by "
        "`sluice rollout promote` or `sluice rollout abort`"
    )


def _rollback(state: ReleaseState, intent: Intent) -> Entry | Refusal:
    if state.champion is None:
        return Refusal("no version serves yet, so there is nothing to roll back")
    if intent.version not in (None, state.champion):
        return Refusal(f"rollback: version {intent.version} is no longer the champion, {state.champion} is")
    if state.previous_champion is None:
        return Refusal(f"version {state.champion} has no previous champion to roll back to")
    former, target = state.former_champions(), intent.to or state.previous_champion
    if target == state.champion:
        return Refusal(f"version {target} is the champion: choose one of {', '.join(former)} to roll back to")
    if target not in former:
        return Refusal(f"version {target} was not champion before {state.champion}: choose one of {', '.join(former)}")
    # The challenger was judged against the champion that is rolled back, so its rollout ends too.
    return _entry(intent, state.champion, {"to": target, "dropped": state.challenger})


def _entry(intent: Intent, version: str, details: Mapping[str, Any]) -> Entry:
    decision = {} if intent.decision is None else {"decision": intent.decision}
    return Entry(intent.time, intent.action, version, intent.actor, intent.reason, {**details, **decision})
