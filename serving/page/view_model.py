"""Content of the page, from the server's state alone. Pure.

`view_model(state)` turns the answer of /admin/state into texts and positions; the templates only place them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

LOWEST_E, HIGHEST_E = 1e-3, 1e4
"""Ends of the e-values' axis; what lies beyond is drawn at its end."""
Kind = Literal["good", "bad", "warning", "neutral"]
_SIGNALS = {
    "error_rate": "Errors",
    "error_increase": "Errors over the champion's",
    "first_token": "Slow first tokens",
    "between_tokens": "Slow later tokens",
    "parity": "Other answers than the gate's",
}
_OUTCOMES: dict[str, tuple[Kind, str]] = {
    "pass": ("good", "shown good"),
    "fail": ("bad", "shown bad"),
    "inconclusive": ("neutral", "not shown yet"),
}
_VERDICTS: dict[str, Kind] = {"promote": "good", "hold": "warning", "reject": "bad"}


@dataclass(frozen=True)
class Badge:
    """A short state with its colour."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class VersionView:
    """One row of the table of versions."""

    name: str
    role: str
    """champion, challenger, previous champion, kept ready, or gone."""
    status: Badge
    marks: tuple[str, ...]
    """Why it may serve, where that is not the evidence alone: forced, or promoted by hand."""
    requests: str
    errors: str
    error_rate: str
    not_judged: str
    votes: str
    first_token_ms: str
    """Median and p95."""
    latency_ms: str
    """Median and p95 of the answer's time per token."""


@dataclass(frozen=True)
class TrafficView:
    """How the live traffic is split, in percent."""

    champion: str
    challenger: str
    actual: int
    wanted: int
    note: str
    """Why wanted and actual differ; empty where they do not."""


@dataclass(frozen=True)
class StepView:
    """One step of the rollout."""

    label: str
    state: Literal["done", "current", "ahead"]


@dataclass(frozen=True)
class RolloutView:
    """The rollout in progress."""

    version: str
    status: Badge
    reason: str
    steps: tuple[StepView, ...]
    replays: str
    live: str
    not_judged: str
    since: str
    """When the step began."""
    holder: str
    """Controller that measures it; empty without one."""


@dataclass(frozen=True)
class EValueView:
    """An e-value and its place on the axis."""

    text: str
    position: float
    """0 at LOWEST_E, 1 at HIGHEST_E, on a log scale."""
    is_shown: bool
    """Whether it has reached the threshold."""


@dataclass(frozen=True)
class SignalView:
    """One signal of the rollout with its two tests."""

    name: str
    outcome: Badge
    value: str
    bound: str
    n: str
    advance: EValueView | None
    drop: EValueView | None
    threshold: EValueView


@dataclass(frozen=True)
class VerdictView:
    """The gate's verdict on a version."""

    version: str
    outcome: Badge
    reason: str
    policy: str
    time: str
    checks: tuple[tuple[str, Badge, str], ...]
    """Metric, outcome and reason."""


@dataclass(frozen=True)
class EntryView:
    """One entry of the ledger."""

    sequence: str
    time: str
    action: str
    version: str
    actor: str
    reason: str
    mark: str
    """forced, by hand or empty."""


@dataclass(frozen=True)
class ActionView:
    """A button, and the dialog that asks before it acts."""

    name: str
    path: str
    label: str
    is_allowed: bool
    is_dangerous: bool
    title: str
    consequence: str
    version: str
    """Version that it acts on; the server refuses if that is no longer so."""
    choices: tuple[str, ...] = ()
    """Versions to roll back to, the default first."""


@dataclass(frozen=True)
class AlertView:
    """A finding of the monitor."""

    kind: Kind
    title: str
    text: str
    time: str


@dataclass(frozen=True)
class PageView:
    """Everything on the page."""

    health: Badge
    announcement: str
    """The state in one sentence, for screen readers; changes only with the release or its step."""
    notices: tuple[Badge, ...]
    traffic: TrafficView
    rollout: RolloutView | None
    signals: tuple[SignalView, ...]
    versions: tuple[VersionView, ...]
    verdict: VerdictView | None
    entries: tuple[EntryView, ...]
    actions: tuple[ActionView, ...]
    alerts: tuple[AlertView, ...]


def view_model(state: Mapping[str, Any]) -> PageView:
    """Return the page for the answer of /admin/state. Fields that an earlier server does not send have defaults."""
    release, view = state.get("release") or {}, state.get("view") or {}
    progress = view.get("rollout") or {}
    if progress.get("version", release.get("challenger")) != release.get("challenger"):
        progress = {}
    traffic = _traffic(state, release)
    rollout = _rollout(release, progress, traffic) if release.get("challenger") else None
    return PageView(
        health=_health(state),
        announcement=_announcement(traffic, rollout),
        notices=_notices(state, release),
        traffic=traffic,
        rollout=rollout,
        signals=tuple(_signal(check) for check in progress.get("checks") or ()),
        versions=_versions(state, release),
        verdict=_verdict(view.get("verdict")),
        entries=tuple(_entry(entry) for entry in view.get("entries") or ()),
        actions=_actions(release),
        alerts=tuple(_alert(alert) for alert in view.get("alerts") or ()),
    )


def place(e_value: float) -> float:
    """Return the position of an e-value on the axis, from 0 to 1; NaN stands at 1, where evidence begins to count."""
    if math.isnan(e_value):
        e_value = 1.0
    low, high = math.log10(LOWEST_E), math.log10(HIGHEST_E)
    return (math.log10(min(max(e_value, LOWEST_E), HIGHEST_E)) - low) / (high - low)


def _health(state: Mapping[str, Any]) -> Badge:
    if not state.get("champion"):
        return Badge("bad", "no champion")
    return Badge("warning", "release not followed") if state.get("error") else Badge("good", "serving")


def _announcement(traffic: TrafficView, rollout: RolloutView | None) -> str:
    serving = f"{_named(traffic.champion)} is the champion" if traffic.champion else "No version serves"
    if rollout is None:
        return f"{serving}. No rollout is in progress."
    current = next((step.label for step in rollout.steps if step.state == "current"), "")
    at = f", step {current}" if current else ""
    return f"{serving}. Rollout of {rollout.version}: {rollout.status.text}{at}, {traffic.actual} % of the traffic."


def _notices(state: Mapping[str, Any], release: Mapping[str, Any]) -> tuple[Badge, ...]:
    found = [Badge("bad", state["error"])] if state.get("error") else []
    if view_error := (state.get("view") or {}).get("error"):
        found.append(Badge("bad", f"Ledger and verdict are not up to date: {view_error}"))
    found += [
        Badge("bad", f"{_named(name)} could not be loaded: {why}")
        for name, why in (state.get("deploy_errors") or {}).items()
    ]
    found += [
        Badge("warning", f"{_named(name)} is still being loaded: {why}")
        for name, why in (state.get("slow") or {}).items()
    ]
    if state.get("unwatched"):
        found.append(
            Badge(
                "bad",
                f"No controller watches {_named(release.get('challenger'))}, so the champion has all live traffic. "
                "Start the rollout again, or abort it.",
            )
        )
    if release.get("champion_forced"):
        found.append(
            Badge(
                "warning",
                f"{_named(release['champion'])} serves without all the evidence ({release['champion_forced']}).",
            )
        )
    if release.get("challenger_forced"):
        why = release.get("challenger_forced_reason") or "no reason is known"
        found.append(Badge("warning", f"{_named(release.get('challenger'))} was forced past the gate: {why}"))
    if state.get("traffic_records_lost"):
        found.append(Badge("bad", f"{state['traffic_records_lost']} traffic records could not be written."))
    return tuple(found)


def _traffic(state: Mapping[str, Any], release: Mapping[str, Any]) -> TrafficView:
    challenger = release.get("challenger") or ""
    wanted = release.get("challenger_weight") or 0
    is_routed = bool(challenger) and state.get("challenger") == challenger and not state.get("unwatched")
    actual = (state.get("challenger_weight") or 0) if is_routed else 0
    note = ""
    if wanted != actual:
        note = "no controller watches it" if state.get("unwatched") else f"{_named(challenger)} is not ready"
    return TrafficView(
        champion=state.get("champion") or "", challenger=challenger, actual=actual, wanted=wanted, note=note
    )


def _rollout(release: Mapping[str, Any], progress: Mapping[str, Any], traffic: TrafficView) -> RolloutView:
    steps, current = progress.get("steps") or (), progress.get("step")
    if release.get("paused"):
        status = Badge("warning", "paused until resumed")
    elif progress.get("paused"):
        status = Badge("warning", "paused")
    elif progress:
        status = Badge("neutral", "in progress")
    else:
        status = Badge("neutral", f"at {traffic.wanted} %, no controller has reported")
    not_judged = progress.get("not_judged") or {}
    return RolloutView(
        version=_named(release.get("challenger")),
        status=status,
        reason=str(progress.get("reason") or ""),
        steps=tuple(
            StepView(label, "current" if number == current else "done" if number < (current or 0) else "ahead")
            for number, label in enumerate(_step_labels(steps))
        ),
        replays=_count(progress.get("replays") or 0),
        live=_count(progress.get("live") or 0),
        not_judged=", ".join(f"{number} {name.replace('_', ' ')}" for name, number in sorted(not_judged.items()))
        or "none",
        since=_time(progress.get("since")),
        holder=str(progress.get("holder") or ""),
    )


def _step_labels(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a label for each step: a second one at the weight of the one before is the bake."""
    found = []
    for number, step in enumerate(steps):
        if step.get("shadow"):
            found.append("shadow")
        elif number and step["weight"] == 100 == steps[number - 1]["weight"]:
            found.append("bake")
        else:
            found.append(f"{step['weight']} %" if step["weight"] else "replays")
    return found


def _signal(check: Mapping[str, Any]) -> SignalView:
    threshold = _number(check.get("threshold"), 20.0)
    metric = str(check.get("metric", ""))
    kind, text = _OUTCOMES.get(str(check.get("outcome")), ("neutral", str(check.get("outcome"))))
    return SignalView(
        name=_SIGNALS.get(metric, metric.replace("_", " ").capitalize()),
        outcome=Badge(kind, text),
        value=_share(check.get("value")),
        bound=_share(check.get("bound")),
        n=_count(check.get("n") or 0),
        advance=_e_value(check.get("e_advance"), threshold),
        drop=_e_value(check.get("e_drop"), threshold),
        threshold=EValueView(f"{threshold:.3g}", place(threshold), is_shown=True),
    )


def _e_value(value: Any, threshold: float) -> EValueView | None:
    if value is None:
        return None
    number = _number(value, math.nan)
    text = "unknown" if math.isnan(number) else f"{number:.3g}" if number < HIGHEST_E else f"{number:.0e}"
    return EValueView(text, place(number), is_shown=number >= threshold)


def _versions(state: Mapping[str, Any], release: Mapping[str, Any]) -> tuple[VersionView, ...]:
    measured, ready = state.get("versions") or {}, tuple(state.get("ready") or ())
    roles = {
        release.get("previous_champion"): "previous champion",
        release.get("challenger"): "challenger",
        state.get("champion") or release.get("champion"): "champion",
    }
    if release.get("champion") not in roles:
        roles[release.get("champion")] = "next champion"
    names = [name for name in (*reversed(list(roles)), *ready, *reversed(list(measured))) if name]
    found = []
    for name in dict.fromkeys(names):
        one = measured.get(name) or {}
        requests, errors, votes = one.get("requests") or 0, one.get("errors") or 0, one.get("votes") or {}
        found.append(
            VersionView(
                name=_named(name),
                role=roles.get(name) or ("kept ready" if name in ready else "gone"),
                status=_readiness(name, state, is_wanted=name in roles),
                marks=_marks(name, release),
                requests=_count(requests),
                errors=_count(errors),
                error_rate=f"{errors / requests:.2%}".replace("%", " %") if requests else "–",
                not_judged=_count(one.get("not_judged") or 0),
                votes=f"{votes.get('good', 0)} / {votes.get('bad', 0)}" if votes else "–",
                first_token_ms=_quantiles(one, "first_token"),
                latency_ms=_quantiles(one, "latency"),
            )
        )
    return tuple(found)


def _readiness(name: str, state: Mapping[str, Any], *, is_wanted: bool) -> Badge:
    if name in (state.get("deploy_errors") or {}):
        return Badge("bad", "cannot be loaded")
    if name in (state.get("ready") or ()):
        return Badge("good", "ready")
    return Badge("warning", "loading") if is_wanted else Badge("neutral", "not loaded")


def _marks(name: str, release: Mapping[str, Any]) -> tuple[str, ...]:
    if name == release.get("champion"):
        mark = release.get("champion_forced")
    elif name == release.get("challenger"):
        mark = "forced past the gate" if release.get("challenger_forced") else ""
    else:
        mark = (release.get("former_forced") or {}).get(name)
    return (str(mark),) if mark else ()


def _verdict(verdict: Mapping[str, Any] | None) -> VerdictView | None:
    if not verdict:
        return None
    return VerdictView(
        version=_named(verdict.get("version")),
        outcome=Badge(_VERDICTS.get(str(verdict.get("outcome")), "neutral"), str(verdict.get("outcome"))),
        reason=str(verdict.get("reason", "")),
        policy=str(verdict.get("policy", "")),
        time=str(verdict.get("time", "")),
        checks=tuple(
            (
                str(check.get("metric", "")),
                Badge(_OUTCOMES.get(str(check.get("outcome")), ("neutral", ""))[0], str(check.get("outcome", ""))),
                str(check.get("reason", "")),
            )
            for check in verdict.get("checks") or ()
        ),
    )


def _entry(entry: Mapping[str, Any]) -> EntryView:
    action = str(entry.get("action", ""))
    if entry.get("percent") is not None:
        action = f"{action} {entry['percent']} %"
    if entry.get("to"):
        action = f"{action} to {_named(entry['to'])}"
    return EntryView(
        sequence=str(entry.get("sequence", "")),
        time=_time(entry.get("time")),
        action=action,
        version=_named(entry.get("version")) if entry.get("version") else "",
        actor=str(entry.get("actor", "")),
        reason=str(entry.get("reason", "")),
        mark="forced" if entry.get("forced") else "by hand" if entry.get("by_hand") else "",
    )


def _actions(release: Mapping[str, Any]) -> tuple[ActionView, ...]:
    champion, challenger = release.get("champion"), release.get("challenger")
    is_paused, named = bool(release.get("paused")), _named(challenger) if challenger else "the challenger"
    previous = release.get("previous_champion")
    former = [previous, *reversed(release.get("earlier_champions") or ())] if previous else []
    choices = tuple(dict.fromkeys(version for version in former if version != champion))
    on_challenger = str(challenger or "")
    return (
        ActionView(
            "pause",
            "/admin/rollout/pause",
            "Pause",
            bool(challenger) and not is_paused,
            False,
            f"Pause the rollout of {named}?",
            "It keeps its share of the traffic and is still judged, so it may be dropped, but it does not advance.",
            on_challenger,
        ),
        ActionView(
            "resume",
            "/admin/rollout/resume",
            "Resume",
            bool(challenger) and is_paused,
            False,
            f"Resume the rollout of {named}?",
            "It advances again as soon as the evidence allows.",
            on_challenger,
        ),
        ActionView(
            "promote",
            "/admin/rollout/promote",
            "Promote",
            bool(challenger),
            True,
            f"Promote {named} by hand?",
            f"{named} gets all traffic now, before the rollout has shown that it is good. "
            "The history shows for ever that it was promoted by hand, with your reason.",
            on_challenger,
        ),
        ActionView(
            "abort",
            "/admin/rollout/abort",
            "Abort",
            bool(challenger),
            True,
            f"Abort the rollout of {named}?",
            f"{named} is dropped and {_named(champion) if champion else 'nothing'} serves alone. "
            "This beats every other command.",
            on_challenger,
        ),
        ActionView(
            "rollback",
            "/admin/rollback",
            "Roll back",
            bool(choices),
            True,
            f"Roll back {_named(champion)}?" if champion else "Roll back?",
            "The version that you choose serves as soon as it is ready."
            + (f" The rollout of {named} ends." if challenger else ""),
            str(champion or ""),
            choices,
        ),
    )


def _alert(alert: Mapping[str, Any]) -> AlertView:
    kinds: dict[str, Kind] = {"ok": "good", "alert": "warning", "rollback": "bad"}
    return AlertView(
        kind=kinds.get(str(alert.get("outcome")), "neutral"),
        title=str(alert.get("title", "")),
        text=str(alert.get("text", "")),
        time=_time(alert.get("time")),
    )


def _named(version: Any) -> str:
    return f"v{version}" if version else "none"


def _count(number: int) -> str:
    return f"{number:,}"


def _share(value: Any) -> str:
    number = _number(value, math.nan)
    return "–" if math.isnan(number) else f"{100 * number:.3g} %"


def _quantiles(one: Mapping[str, Any], name: str) -> str:
    found = [_number(one.get(f"{name}_{share}_ms"), math.nan) for share in ("p50", "p95")]
    return "–" if any(map(math.isnan, found)) else " / ".join(f"{value:.1f}" for value in found)


def _number(value: Any, default: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return default


def _time(seconds: Any) -> str:
    """Return epoch seconds as a time in UTC; empty if there is none."""
    number = _number(seconds, math.nan)
    try:
        return datetime.fromtimestamp(number, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return ""
