"""The rollout loop: gives the challenger a rising share of the traffic, until it is promoted or a check fails.

`run_rollout` replays prompts to both versions through the live server, counts the pairs of answers and the server's
totals of live requests, asks `sluice.serving.canary` for the decision, and moves weights through `Releases`.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from sluice.core.progress import Progress, no_progress
from sluice.monitoring.traffic.classify import JUDGED, AttemptClass
from sluice.serving.canary import RolloutDecision, RolloutState, decide, smoke
from sluice.serving.config import RolloutConfig
from sluice.serving.decision_record import recompute, record_decision
from sluice.serving.evidence import Evidence, LiveCounts, ReplayTotals, Reply, is_duration
from sluice.serving.lease import LeaseLost
from sluice.serving.ledger_chain import RecordedEntry
from sluice.serving.measurements import Measurements
from sluice.serving.progress import rollout_progress
from sluice.serving.quality.probes import RolloutQuality
from sluice.serving.release import ReleaseState
from sluice.serving.releases import ReleaseRefused, Releases
from sluice.serving.routing import Arm, TrafficSource

POLL_S = 0.2


@dataclass(frozen=True)
class Completion:
    """One answered request, as the client saw it."""

    version: str
    """Version that answered."""
    arm: str
    status: int
    """HTTP status."""
    text: str
    attempt_class: AttemptClass
    """Class of the first attempt, which a fallback may have hidden."""
    first_token_ms: float
    """Time to the first token without the time in the queue; NaN without an answer."""
    per_token_ms: float | None
    """Mean time between later tokens; None for an answer of one token."""
    total_ms: float
    fell_back: bool
    """The challenger failed and the champion answered in its place."""
    finish_reason: str = ""
    """stop or length; empty without an answer."""


class ServingClient(Protocol):
    """The server as a rollout uses it. Calls are bounded in time and raise if the server does not answer."""

    def complete(
        self, prompt: str, max_tokens: int, seed: int, source: TrafficSource = "replay", arm: Arm | None = None
    ) -> Completion:
        """Return one completion, routed by weight or pinned to an arm."""

    def measurements(self, version: str) -> Measurements:
        """Return the totals of all attempts of `version`, those hidden by a fallback included."""

    def shadow(self, after: int) -> dict[str, Any]:
        """Return the shadow requests' pairs of answers with a number above `after`, and the `last` number."""


class Told(Protocol):
    """Receiver of a rollout's decisions (implemented by `sluice.serving.lease.Lease`)."""

    def set(self, *, shadow: bool | None = None, progress: Mapping[str, Any] | None = None) -> None:
        """Tell whether live requests are to be shadowed, and the newest decision. Raises LeaseLost."""


class WallClock(Protocol):
    """Time as a rollout sees it; tests replace it."""

    def now(self) -> float:
        """Return seconds since the epoch."""

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class StepReport:
    """The end of one step."""

    weight: int
    requests: int
    """Challenger requests since the rollout began."""
    errors: int
    live: int
    """Live requests to the challenger in this step."""
    reason: str


Outcome = Literal["promoted", "dropped", "superseded", "paused"]
"""A rollout that ends `paused` keeps its challenger, at weight 0: the champion's errors made it impossible to judge."""


@dataclass
class RolloutReport:
    """The end of a rollout."""

    version: str
    outcome: Outcome
    reason: str
    steps: list[StepReport] = field(default_factory=list)
    replayed: int = 0
    unanswered: int = 0
    """Replayed requests whose status was not 200: failures that a user would have seen."""
    not_judged: dict[str, int] = field(default_factory=dict)
    """Replayed requests that say nothing about a version, by class."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds per step."""


def run_rollout(
    releases: Releases,
    client: ServingClient,
    prompts: Sequence[str],
    config: RolloutConfig,
    *,
    quality: RolloutQuality | None = None,
    lease: Told | None = None,
    clock: WallClock | None = None,
    progress: Progress = no_progress,
) -> RolloutReport:
    """Roll out the present challenger; promote it or drop it. Without `quality`, nothing reads the answers.

    A rollout that a killed process has left at a step goes on there, with the evidence that its entry recorded, if the
    settings are the same; otherwise it begins anew. `lease` is held by the caller and told of every decision. Raises
    ValueError without a challenger or without prompts, and any error of the client. The challenger is dropped before an
    error leaves this function, so no rollout stays half done.
    """
    state = releases.state()
    if state.challenger is None:
        raise ValueError("there is no challenger to roll out: propose a version first")
    rollout = _Rollout(
        releases,
        client,
        prompts,
        config,
        state=state,
        quality=quality,
        lease=lease,
        clock=clock or SystemClock(),
        progress=progress,
    )
    try:
        return rollout.run()
    except BaseException as error:
        if isinstance(error, LeaseLost):
            return rollout.end("superseded", str(error))
        # Also on an interrupt: live traffic must not stay on an unobserved version.
        if releases.state().challenger == state.challenger:
            interrupted = isinstance(error, KeyboardInterrupt)
            reason = "interrupted" if interrupted else f"rollout failed: {type(error).__name__}: {error}"
            releases.drop(reason, version=state.challenger)
        elif isinstance(error, ReleaseRefused):
            return rollout.end("superseded", str(error))
        raise
    finally:
        rollout.close()


class _LiveMeter:
    """Counts live requests by step, from the gateway's totals: differences, which survive its restart."""

    def __init__(self, client: ServingClient, champion: str, challenger: str, steps: Sequence[LiveCounts] = ()) -> None:
        self._client = client
        self._last = {"champion": client.measurements(champion), "challenger": client.measurements(challenger)}
        self.steps = list(steps)

    def begin_step(self, weight: int) -> None:
        self.steps.append(LiveCounts(weight))

    def poll(self) -> None:
        """Add what came since the last poll to the present step."""
        for arm, last in self._last.items():
            now, step = self._client.measurements(last.version), self.steps[-1]
            before = _live_totals(last) if now.gateway_id == last.gateway_id else {}
            self.steps[-1] = replace(
                step,
                **{
                    f"{arm}{name}": getattr(step, f"{arm}{name}") + total - before.get(name, 0)
                    for name, total in _live_totals(now).items()
                },
            )
            self._last[arm] = now


class _ShadowReader:
    """Reads the answers of both arms to live requests that were shadowed from now on, once for each conversation."""

    def __init__(self, client: ServingClient, challenger: str) -> None:
        self._client, self._challenger = client, challenger
        # Only the number is wanted: texts of earlier pairs would be masked on the way, while users wait.
        self._after = client.shadow(sys.maxsize)["last"]
        self._sessions: set[str] = set()

    def poll(self) -> list[tuple[Reply, Reply]]:
        """Return what champion and challenger replied since the last poll."""
        found = self._client.shadow(self._after)
        if found["last"] < self._after:
            # The gateway, and with it the numbers, began anew.
            self._after, found = 0, self._client.shadow(0)
        replies = []
        for pair in found["pairs"]:
            self._after = pair["n"]
            # Turns of one conversation are alike, so only its first counts.
            is_new = not pair["session"] or pair["session"] not in self._sessions
            self._sessions.add(pair["session"])
            if is_new and pair["version"] == self._challenger:
                replies.append((_shadow_reply(pair["champion"]), _shadow_reply(pair["challenger"])))
        return replies


def _shadow_reply(answer: Mapping[str, Any]) -> Reply:
    return Reply(answer["attempt_class"], answer["first_token_ms"], answer["between_tokens_ms"])


def _live_totals(measurements: Measurements) -> dict[str, int]:
    """Return totals by the ends of the names that `LiveCounts` has for an arm."""
    requests, faults = measurements.judged("live")
    bad = measurements.votes.get("bad", 0)
    return {"": requests, "_faults": faults, "_votes": measurements.votes.get("good", 0) + bad, "_bad_votes": bad}


class _Rollout:
    """One rollout in progress: its replay requests, what was counted, and its report."""

    def __init__(
        self,
        releases: Releases,
        client: ServingClient,
        prompts: Sequence[str],
        config: RolloutConfig,
        *,
        state: ReleaseState,
        quality: RolloutQuality | None,
        lease: Told | None,
        clock: WallClock,
        progress: Progress,
    ) -> None:
        assert state.challenger is not None
        self._lease = lease
        self._releases, self._client, self._config = releases, client, config
        self._prompts, self._clock, self._progress = prompts, clock, progress
        self._version, self._champion, self._weight = state.challenger, state.champion, state.challenger_weight
        self._report = RolloutReport(self._version, "dropped", "")
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="replay")
        self._in_flight: dict[Future[Completion], tuple[int, Arm]] = {}
        self._submitted = 0
        self._began = resume_at(releases.since_proposal(state.challenger), config)
        """State and evidence with which the rollout begins: those of a killed one, or none."""
        self._totals = ReplayTotals(config, self._began[1])
        self._held: tuple[str, ...] = ()
        """Metrics of differences that wait for a person."""
        self._quality, self._answers = quality, dict[int, dict[Arm, Completion]]()
        self._halves: dict[int, dict[Arm, Reply]] = {}
        """Prompts that not all arms have answered yet, by turn."""

    def run(self) -> RolloutReport:
        if not self._prompts:
            raise ValueError("there are no prompts to replay: a rollout without requests measures nothing")
        started = self._clock.now()
        fault = self._await_served("challenger")
        self._report.timings["await_s"] = self._clock.now() - started
        if fault:
            return self._drop(fault)
        return self._smoke() if self._champion is None else self._canary(self._champion)

    def end(self, outcome: Outcome, reason: str) -> RolloutReport:
        self._report.outcome, self._report.reason = outcome, reason
        self._report.not_judged = dict(self._totals.not_judged)
        return self._report

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._quality is not None:
            self._quality.close()

    def _canary(self, champion: str) -> RolloutReport:
        state, begun = self._began
        live = _LiveMeter(self._client, champion, self._version, begun.live)
        if (weight := self._config.steps[state.step].weight) != self._weight:
            if self._releases.state().paused:
                told = (
                    f"the rollout is paused and stays at {self._weight} %: `sluice rollout resume`, then start it again"
                )
                return self.end("paused", told)
            self._releases.set_weight(weight, "first step" if not state.step else "resumed", version=self._version)
        started = self._clock.now() - state.elapsed_s
        if fault := self._begin_step(state.step, live):
            return self._drop(fault)
        shadow = _ShadowReader(self._client, self._version) if any(each.shadow for each in self._config.steps) else None
        while True:
            self._replay(("challenger", "champion"))
            for replies in shadow.poll() if shadow is not None and self._config.steps[state.step].shadow else ():
                self._totals.add(*replies)
            if self._quality is not None:
                self._quality.poll()
            release = self._releases.state()
            if release.challenger != self._version:
                return self.end("superseded", f"version {self._version} was removed from its rollout")
            live.poll()
            evidence = replace(self._totals.evidence, live=tuple(live.steps))
            if self._quality is not None:
                evidence = replace(evidence, quality=self._quality.totals)
            if self._held and not release.paused:
                # A person has looked at the differences, and lets the rollout go on.
                state, self._held = replace(state, accepted=(*state.accepted, *self._held)), ()
            state = replace(state, elapsed_s=self._clock.now() - started, paused_by_hand=release.paused)
            decision = decide(state, evidence, self._config)
            self._tell(state, decision, evidence)
            try:
                if ended := self._carry_out(state, decision, evidence):
                    return ended
            except ReleaseRefused:
                # Somebody may have paused it since the state was read: then it goes on being judged.
                if not self._releases.state().paused or release.paused:
                    raise
                continue
            state = decision.state
            if decision.action == "advance":
                started = self._clock.now()
                if fault := self._begin_step(state.step, live):
                    return self._drop(fault)

    def _begin_step(self, number: int, live: _LiveMeter) -> str:
        """Count live requests by this step from now on; return the reason if it does not get all traffic as it must."""
        step = self._config.steps[number]
        if len(live.steps) <= number:
            live.begin_step(step.weight)
        if self._lease is not None:
            self._lease.set(shadow=step.shadow)
        return self._await_served(None) if step.weight == 100 else ""

    def _carry_out(self, state: RolloutState, decision: RolloutDecision, evidence: Evidence) -> RolloutReport | None:
        """Write the decision into the ledger; return the report if it ends the rollout."""
        if decision.held and not state.paused_by_hand:
            # Refused if somebody else was first; the next poll sees what they did.
            with suppress(ReleaseRefused):
                self._releases.pause(decision.reason, version=self._version)
        self._held = tuple(dict.fromkeys((*self._held, *decision.held)))
        if decision.action in ("wait", "pause"):
            return None
        record = record_decision(state, evidence, self._config, decision)
        self._report_step(state, decision, evidence)
        match decision.action:
            case "abort":
                return self._drop(decision.reason, record)
            case "promote":
                return self._promote(decision.reason, record)
            case "suspend":
                self._releases.set_weight(0, decision.reason, version=self._version, decision=record)
                return self.end("paused", decision.reason)
        # Written also where the weight stays, as at the bake: a rollout goes on from here if this process is killed.
        weight = self._config.steps[decision.state.step].weight
        self._releases.set_weight(weight, decision.reason, version=self._version, decision=record)
        return None

    def _report_step(self, state: RolloutState, decision: RolloutDecision, evidence: Evidence) -> None:
        weight = self._config.steps[state.step].weight
        self._report.timings[f"step_{state.step + 1}_{weight}_s"] = state.elapsed_s
        self._report.steps.append(
            StepReport(
                weight=weight,
                requests=decision.checks[0].n if decision.checks else 0,
                errors=evidence.errors.challenger + sum(each.challenger_faults for each in evidence.live),
                live=evidence.live[state.step].challenger,
                reason=decision.reason,
            )
        )

    def _smoke(self) -> RolloutReport:
        started, wanted = self._clock.now(), self._config.smoke_prompts
        while self._report.replayed < wanted and self._clock.now() - started < self._config.ready_timeout_s:
            self._replay(("challenger",), "smoke", most=wanted)
            self._progress(min(self._report.replayed, wanted), wanted, "smoke test")
        replies = [half["challenger"] for half in self._halves.values()]
        judged = [reply for reply in replies if reply.attempt_class in JUDGED]
        faults = sum(reply.attempt_class == "model_fault" for reply in judged)
        invalid = next(
            (
                f"first_token of {reply.first_token_ms} ms is not a measurement"
                for reply in judged
                if reply.attempt_class == "answered" and not is_duration(reply.first_token_ms)
            ),
            "",
        )
        decision = smoke(len(judged) - faults, faults, invalid, self._config)
        self._report.steps.append(StepReport(0, len(judged), faults, 0, decision.reason))
        self._report.timings["smoke_s"] = self._clock.now() - started
        return self._promote(decision.reason) if decision.action == "promote" else self._drop(decision.reason)

    def _promote(self, reason: str, record: dict[str, Any] | None = None) -> RolloutReport:
        self._releases.promote(reason, version=self._version, decision=record)
        return self.end("promoted", reason)

    def _drop(self, reason: str, record: dict[str, Any] | None = None) -> RolloutReport:
        self._releases.drop(reason, version=self._version, decision=record)
        return self.end("dropped", reason)

    def _await_served(self, arm: Arm | None) -> str:
        """Wait until a request to `arm` reaches the challenger; return the reason if none does within the timeout."""
        started, status = self._clock.now(), 0
        while self._clock.now() - started < self._config.ready_timeout_s:
            answer = self._client.complete(self._prompts[0], 1, self._config.seed, arm=arm)
            # 503 means that no version is ready. Any other server error comes from a version that was tried.
            failed = answer.status >= 500 and answer.status != 503
            if answer.version == self._version or answer.fell_back or failed:
                return ""
            status = answer.status
            self._clock.sleep(POLL_S)
        limit = f"within {self._config.ready_timeout_s:.0f} s, last status {status}"
        return f"the server did not {'serve' if arm else 'route traffic to'} version {self._version} {limit}"

    def _replay(self, pinned: tuple[Arm, ...], source: TrafficSource = "replay", most: int | None = None) -> None:
        """Keep requests in flight until `concurrency` of them have finished, or none has for POLL_S.

        Each prompt goes to every arm of `pinned`, in alternating order, and counts once all of them have answered. So
        both arms answer the same prompts under the same load whatever the weight. Live requests, routed by weight, come
        on top.
        """
        finished = 0
        while finished < self._config.concurrency:
            while len(self._in_flight) < self._config.concurrency and (most is None or self._submitted < most):
                turn, position = divmod(self._submitted, len(pinned))
                prompt, arm = self._prompts[turn % len(self._prompts)], pinned[position - turn % 2]
                call = (prompt, self._config.max_tokens, self._config.seed + turn, source, arm)
                self._in_flight[self._pool.submit(self._client.complete, *call)] = turn, arm
                self._submitted += 1
            done, _ = wait(self._in_flight, timeout=POLL_S, return_when=FIRST_COMPLETED)
            if not done:
                self._clock.sleep(POLL_S)
                return
            # In the order of their turns, so that one poll counts the same whatever the order within it.
            for future in sorted(done, key=self._in_flight.__getitem__):
                self._count(future.result(), *self._in_flight.pop(future))
            finished += len(done)

    def _count(self, answer: Completion, turn: int, arm: Arm) -> None:
        self._report.replayed += 1
        self._report.unanswered += answer.status != 200
        reply = Reply(answer.attempt_class)
        if answer.status == 200 and not answer.fell_back:
            reply = Reply(answer.attempt_class, answer.first_token_ms, answer.per_token_ms)
        half, answers = self._halves.setdefault(turn, {}), self._answers.setdefault(turn, {})
        half[arm], answers[arm] = reply, answer
        if len(half) == 2:
            del self._halves[turn], self._answers[turn]
            self._totals.add(half["champion"], half["challenger"])
            if self._quality is not None:
                prompt = self._prompts[turn % len(self._prompts)]
                self._quality.add_replay(prompt, answers["champion"], answers["challenger"])

    def _tell(self, state: RolloutState, decision: RolloutDecision, evidence: Evidence) -> None:
        """Report the replays of this step, at most those that it needs, among those of all steps."""
        if self._lease is not None:
            told = rollout_progress(
                # The step that was judged, whatever comes next.
                replace(decision, state=replace(decision.state, step=state.step)),
                evidence,
                self._config,
                since=self._clock.now() - state.elapsed_s,
                paused=state.paused_by_hand,
                not_judged=self._totals.not_judged,
            )
            self._lease.set(progress={**told, "version": self._version})
        needed = [step.least_replays for step in self._config.steps]
        done = min(evidence.errors.n - state.replays_before, needed[state.step])
        weight = self._config.steps[state.step].weight
        note = f"challenger at {weight} %: {decision.reason.removeprefix(f'challenger at {weight} %: ')}"
        self._progress(sum(needed[: state.step]) + done, sum(needed), note)


def resume_at(entries: Sequence[RecordedEntry], config: RolloutConfig) -> tuple[RolloutState, Evidence]:
    """Return the state and evidence at which a rollout was left, by the entries since its version was proposed.

    That is the start if it reached no second step, or had other settings.
    """
    is_resumed = False
    for entry in reversed(entries):
        is_resumed = is_resumed or entry.action == "resume"
        record = entry.details.get("decision")
        if entry.action != "weight" or record is None:
            continue
        try:
            if RolloutConfig.model_validate(record["settings"]) != config:
                break
            decision = recompute(record)
        except (KeyError, TypeError, ValueError):
            # Of another version of sluice.
            break
        state = replace(decision.state, paused_at=None)
        if decision.action == "suspend":
            # Its pause does not count as time of the step. One that ended in doubt of the champion has the step anew.
            began_at = decision.state.paused_at
            state = replace(state, elapsed_s=state.paused_s if began_at is None else began_at)
        if is_resumed:
            # A person has looked at the differences for which it was held.
            state = replace(state, accepted=(*state.accepted, *decision.held))
        return state, Evidence.from_json(record["evidence"])
    return RolloutState(), Evidence()
