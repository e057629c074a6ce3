"""The decisions of a rollout: whether a challenger gets more traffic, is promoted or is dropped. Pure, without I/O.

`sluice.serving.rollout` sends the traffic and counts (`sluice.serving.evidence`). At every poll it calls `decide` with
the totals since the rollout began. Each signal is a share of bad answers, held by two anytime-valid tests at level
alpha (`sluice.monitoring.sequential`), so it may be looked at after every answer:

| signal | drops if shown | lets advance if shown |
|---|---|---|
| errors | above `max_error_rate`, and more than the champion's part of the failures | below `unacceptable_error_rate` |
| error increase, where set | above `max_error_increase` over the champion | below it |
| slow first tokens, slow tokens | oftener than the champion's | below `unacceptable_slow` |
| quality of the answers | see `sluice.serving.quality.signals` | |

A step is left once every signal lets advance and its least counts and time are reached; the last one promotes. In
between the rollout holds, and after the step's longest time it drops the challenger: no data is never a pass. Prompts
on which both arms fail speak against neither. While the champion's own error rate is shown above the limit, the
rollout is paused: it is still judged and can drop, but does not advance, and the step's time stands still. While that
is not shown but more likely than not (e-value above 1), the rollout waits, and at last is suspended.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sluice.core.check import Check, compare_exact
from sluice.monitoring.sequential import log_e_above, log_e_below, log_e_increase, log_e_uneven, threshold
from sluice.serving.config import RolloutConfig
from sluice.serving.evidence import Evidence, LiveCounts, Pairs
from sluice.serving.quality.signals import quality_signals
from sluice.serving.signals import Signal, Test, e_value, percent

Action = Literal["advance", "wait", "pause", "promote", "abort", "suspend"]


@dataclass(frozen=True)
class RolloutState:
    """Progress of a rollout."""

    step: int = 0
    """Index into `RolloutConfig.steps`."""
    elapsed_s: float = 0.0
    """Seconds since the step began, pauses included."""
    paused_s: float = 0.0
    """Seconds of the step's pauses that have ended."""
    paused_at: float | None = None
    """`elapsed_s` at which the present pause began."""
    replays_before: int = 0
    """Replayed pairs before the step began."""
    peaks: Mapping[str, float] = field(default_factory=dict)
    """Largest log e-value so far of each test."""
    accepted: tuple[str, ...] = ()
    """Metrics of differences that a person has looked at and accepted: they hold the rollout no more."""
    paused_by_hand: bool = False
    """Somebody has paused the rollout: it is judged and may be dropped, but does not advance."""


@dataclass(frozen=True)
class RolloutDecision:
    """The next action, its reason, the state to continue from, and the checks behind it."""

    action: Action
    reason: str
    state: RolloutState = RolloutState()
    checks: tuple[Check, ...] = ()
    held: tuple[str, ...] = ()
    """Metrics of differences at which a person has to look before the rollout goes on."""


def decide(state: RolloutState, evidence: Evidence, config: RolloutConfig) -> RolloutDecision:
    """Decide the next action from the totals since the rollout began."""
    step = config.steps[state.step]
    at_weight = f"challenger at {step.weight} %"
    if fault := implausible(evidence):
        return RolloutDecision("abort", f"{at_weight}: {fault}", state)

    found = signals(evidence, config)
    judged = [signal.judge(state.peaks, config.alpha) for signal in found]
    checks = tuple(check for check, _ in judged)
    peaks = {name: log_e for _, found in judged for name, log_e in found.items()}
    state = replace(state, peaks=peaks)
    failed = [check.reason for check in checks if check.outcome == "fail"]
    if failed:
        return RolloutDecision("abort", f"{at_weight}: {'; '.join(failed)}", state, checks)

    held = [
        check
        for signal, check in zip(found, checks, strict=True)
        if signal.policy == "hold" and not check.passed and check.metric not in state.accepted
    ]
    champion_fails = champion_over_limit(evidence, config)
    by_hand = "paused by hand: `sluice rollout resume` goes on" if state.paused_by_hand else ""
    if reason := champion_fails or _look_at(held) or by_hand:
        paused_at = state.elapsed_s if state.paused_at is None else state.paused_at
        if reason == by_hand:
            # A pause that a person asked for, and nothing else, may last, and is no part of one that follows it.
            state, paused_at = replace(state, paused_s=state.paused_s + state.elapsed_s - paused_at), state.elapsed_s
        is_over = state.elapsed_s - paused_at >= config.longest_pause_s
        action: Action = "suspend" if is_over else "pause"
        awaited = () if champion_fails else tuple(check.metric for check in held)
        return RolloutDecision(action, reason, replace(state, paused_at=paused_at), checks, awaited)
    if state.paused_at is not None:
        pause_s = state.elapsed_s - state.paused_at
        state = replace(state, paused_s=state.paused_s + pause_s, paused_at=None)

    elapsed_s = state.elapsed_s - state.paused_s
    unclear = [check.reason for check in checks if not check.passed and check.metric not in state.accepted]
    missing, doubt = [*_missing(state, evidence, config, elapsed_s), *unclear], champion_in_doubt(evidence, config)
    if missing or doubt:
        if elapsed_s < step.longest_s:
            return RolloutDecision("wait", (missing or [doubt])[0], state, checks)
        if not missing:
            return RolloutDecision("suspend", doubt, state, checks)
        waited = f"inconclusive after {elapsed_s:.0f} s >= {step.longest_s:.0f} s"
        return RolloutDecision("abort", f"{at_weight}: {waited}: {'; '.join(missing)}", state, checks)

    shown = [check.reason for signal, check in zip(found, checks, strict=True) if signal.policy == "drop"]
    accepted = [f"{check.reason}, accepted by a person" for check in checks if check.metric in state.accepted]
    reason = f"{at_weight}: {'; '.join([*shown, *accepted, *evidence.quality.notes])}; {_traffic(evidence)}"
    if state.step + 1 == len(config.steps):
        return RolloutDecision("promote", reason, state, checks)
    following = RolloutState(
        state.step + 1, replays_before=evidence.errors.n, peaks=peaks, accepted=tuple(state.accepted)
    )
    return RolloutDecision("advance", reason, following, checks)


def _look_at(held: list[Check]) -> str:
    """Return the reason to pause until a person has looked at differences; empty without any."""
    if not held:
        return ""
    told = "; ".join(check.reason for check in held)
    return f"paused for a person: {told}: look at the answers, then `sluice rollout resume` or `sluice rollout abort`"


def _missing(state: RolloutState, evidence: Evidence, config: RolloutConfig, elapsed_s: float) -> list[str]:
    """Return what the step still needs, signals apart."""
    step, found = config.steps[state.step], []
    replays = evidence.errors.n - state.replays_before
    if replays < step.least_replays:
        found.append(f"{replays} of {step.least_replays} replayed prompts")
    live = evidence.live[state.step] if state.step < len(evidence.live) else LiveCounts(step.weight)
    # Traffic is waited for only if it is thick enough to reach the least count in time.
    expected = (live.challenger + live.champion) * step.weight / 100 * step.longest_s / max(elapsed_s, 1.0)
    if live.challenger < step.least_live <= expected:
        found.append(f"{live.challenger} of {step.least_live} live challenger requests")
    if elapsed_s < step.least_s:
        found.append(f"{elapsed_s:.1f} of {step.least_s:g} s")
    return found


def _traffic(evidence: Evidence) -> str:
    live = sum(step.challenger for step in evidence.live)
    told = f"{live} live requests" if live else "no live traffic: decided on replays alone"
    return f"{evidence.errors.n} replayed prompts, {told}"


def signals(evidence: Evidence, config: RolloutConfig) -> list[Signal]:
    """Return all signals that the settings ask for."""
    found = [_errors(evidence, config)]
    if config.max_error_increase is not None:
        found.append(_increase(evidence.errors, config.max_error_increase))
    found.append(_slowness("first_token", "slow first tokens", evidence.first_token, config))
    found.append(_slowness("between_tokens", "slow tokens", evidence.between_tokens, config))
    return found + quality_signals(evidence.quality, evidence.live, config.quality)


def _errors(evidence: Evidence, config: RolloutConfig) -> Signal:
    pairs, limit, unacceptable = evidence.errors, config.max_error_rate, config.unacceptable_error_rate
    bad = pairs.challenger + sum(step.challenger_faults for step in evidence.live)
    n = pairs.n - pairs.both + sum(step.challenger for step in evidence.live)
    # Requests are routed at random, so under equal rates the live failures of a step are split as its traffic is.
    splits = [(pairs.challenger, pairs.champion, 0.5)]
    splits += [
        (step.challenger_faults, step.champion_faults, step.weight / 100)
        for step in evidence.live
        if 0 < step.weight < 100
    ]
    return Signal(
        metric="error_rate",
        label=f"error rate {percent(bad, n)}",
        value=bad / n if n else None,
        n=n,
        limit=limit,
        # The second test only keeps what hits both arms from dropping the challenger, so it may be less strict: four
        # failures of the challenger alone are enough, where five would delay the drop at 10 % errors.
        drops=(
            Test("errors", log_e_above(bad, n, limit), f"above {limit:.1%}"),
            Test("errors_over_champion", log_e_uneven(splits), "above the champion's", levels=2),
        ),
        advances=Test("errors_below", log_e_below(bad, n, unacceptable), f"below {unacceptable:.1%}"),
    )


def _increase(pairs: Pairs, bound: float) -> Signal:
    counts = pairs.challenger, pairs.champion, pairs.n
    points = 100 * (pairs.challenger - pairs.champion) / pairs.n if pairs.n else math.nan
    return Signal(
        metric="error_increase",
        label=f"error rate {points:+.1f} points over the champion's" if pairs.n else "error increase unknown",
        value=points / 100 if pairs.n else None,
        n=pairs.n,
        limit=bound,
        drops=(Test("error_increase", log_e_increase(*counts, bound, "above"), f"above {100 * bound:.1f}"),),
        advances=Test("error_increase_below", log_e_increase(*counts, bound, "below"), f"below {100 * bound:.1f}"),
    )


def _slowness(metric: str, label: str, pairs: Pairs, config: RolloutConfig) -> Signal:
    bad, n = pairs.challenger, pairs.n - pairs.both
    return Signal(
        metric=metric,
        label=f"{label} {percent(bad, n)} (champion {percent(pairs.champion, n)})",
        value=bad / n if n else None,
        n=n,
        limit=config.max_slow,
        drops=(
            Test(
                metric,
                log_e_uneven([(pairs.challenger, pairs.champion, 0.5)]),
                f"more than {config.slow_factor:g} times as slow as the champion",
            ),
        ),
        advances=Test(
            f"{metric}_below",
            log_e_below(bad, n, config.unacceptable_slow),
            f"below {config.unacceptable_slow:.1%}",
        ),
    )


def champion_over_limit(evidence: Evidence, config: RolloutConfig) -> str:
    """Return the reason to pause while the champion's own error rate is shown above the limit; empty otherwise."""
    log_e, label = _champion_errors(evidence, config)
    return f"paused: {label.replace(' may be ', ' is shown ')}" if log_e >= threshold(config.alpha) else ""


def champion_in_doubt(evidence: Evidence, config: RolloutConfig) -> str:
    """Return the reason to wait while the totals rather speak for a champion above the limit; empty otherwise.

    Otherwise a rollout could be over before so bad a champion is shown, and pauses it.
    """
    log_e, label = _champion_errors(evidence, config)
    return f"{label}: e-value {e_value(log_e)} > 1" if log_e > 0 else ""


def _champion_errors(evidence: Evidence, config: RolloutConfig) -> tuple[float, str]:
    pairs = evidence.errors
    bad = pairs.champion + pairs.both + sum(step.champion_faults for step in evidence.live)
    n = pairs.n + sum(step.champion for step in evidence.live)
    label = f"the champion's own error rate {percent(bad, n)} may be above {config.max_error_rate:.1%}, n={n}"
    return log_e_above(bad, n, config.max_error_rate), label


def smoke(answered: int, faults: int, invalid: str, config: RolloutConfig) -> RolloutDecision:
    """Decide on the first version, which has no champion to compare with: it must answer every smoke prompt."""
    if invalid:
        return RolloutDecision("abort", f"smoke test: {invalid}")
    n, whole = answered + faults, "{:.0f}".format
    errors = compare_exact("errors", faults, 0, good="below", n=n, show=whole)
    answers = compare_exact("answers", answered, config.smoke_prompts, good="above", n=n, show=whole)
    for check in (errors, answers):
        if not check.passed:
            return RolloutDecision("abort", f"smoke test: {check.reason}", checks=(errors, answers))
    return RolloutDecision("promote", f"smoke test: {errors.reason}; {answers.reason}", checks=(errors, answers))


def implausible(evidence: Evidence) -> str:
    """Return the reason why these cannot be measurements; empty if they can."""
    if evidence.invalid:
        return evidence.invalid
    measured = {name: getattr(evidence, name) for name in ("errors", "first_token", "between_tokens")}
    measured |= {"known answers": evidence.quality.known, "judge": evidence.quality.judged, **evidence.quality.text}
    for name, pairs in measured.items():
        if not all(_is_count(value) for value in (pairs.neither, pairs.challenger, pairs.champion, pairs.both)):
            return f"{name}: {pairs} are not counts"
    for step in evidence.live:
        for requests, faults in ((step.challenger, step.challenger_faults), (step.champion, step.champion_faults)):
            if not (_is_count(requests) and _is_count(faults) and faults <= requests):
                return f"{faults} errors in {requests} live requests are not a measurement"
        for votes, bad in (
            (step.challenger_votes, step.challenger_bad_votes),
            (step.champion_votes, step.champion_bad_votes),
        ):
            if not (_is_count(votes) and _is_count(bad) and bad <= votes):
                return f"{bad} bad votes among {votes} are not a measurement"
    quality = evidence.quality
    if not (_is_count(quality.parity_different) and quality.parity_different <= quality.parity_compared):
        return f"{quality.parity_different} of {quality.parity_compared} different answers are not a measurement"
    return ""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0
