"""Our rule, fast: the real decision function, called only at those polls at which it could do other than wait.

The totals of all polls and the log e-values of all tests are computed as arrays. A poll is skipped if no test can have
crossed its threshold, no pause begins or ends, and no time is over: there, `decide` would only keep the largest
evidence so far, which the arrays have. tests/serving/test_rollout_errors.py compares with decisions at every poll.
"""

import math
from bisect import insort
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.rollout.rules import PAIRS_A_POLL, Ending, ended
from benchmarks.rollout.traffic import BLOCK, Replays
from sluice.monitoring.sequential import FACTORS, STAKES, _alternatives, threshold
from sluice.serving.canary import RolloutState, decide
from sluice.serving.config import RolloutConfig
from sluice.serving.evidence import Evidence, Pairs, quantile_below

Counts = npt.NDArray[np.int64]
Logs = npt.NDArray[np.float64]
POLLS = BLOCK // PAIRS_A_POLL
SLACK = 1e-9
"""The arrays round otherwise than the tests do, so a poll this near to a threshold is decided by the real function."""
NEITHER, CHALLENGER, CHAMPION, BOTH = range(4)


class Totals:
    """Totals and evidence of one rollout at every poll, at one speed."""

    def __init__(self, replays: Replays, replays_per_second: float, config: RolloutConfig) -> None:
        self._replays, self._rate, self._config = replays, replays_per_second, config
        self._kept: tuple[list[float], list[float]] = ([], [])
        self._counts: Counts = np.zeros((0, 3, 4), dtype=np.int64)
        self.logs: dict[str, Logs] = {}
        self.peaks: dict[str, Logs] = {}
        self.paused: npt.NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self.dropped: npt.NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self.may_advance: npt.NDArray[np.bool_] = np.zeros(0, dtype=bool)

    def __len__(self) -> int:
        return len(self._counts)

    def evidence(self, poll: int) -> Evidence:
        """Return what the decision function gets at that poll."""
        errors, first_token, between_tokens = (Pairs(*map(int, counts)) for counts in self._counts[poll])
        return Evidence(errors, first_token, between_tokens)

    def peaks_before(self, poll: int) -> Mapping[str, float]:
        """Return the largest log e-values at the polls before."""
        return {name: float(peaks[poll - 1]) for name, peaks in self.peaks.items()} if poll else {}

    def extend(self) -> None:
        """Count the next block of prompts."""
        index = len(self) // POLLS
        block, failed = self._replays.block(index), self._replays.failed(index, self._rate)
        answered = ~failed.any(axis=1)
        kinds = np.zeros((BLOCK, 3, 4), dtype=np.int64)
        kinds[np.arange(BLOCK), 0, failed[:, 1] + 2 * failed[:, 0]] = 1
        for signal, times_ms in enumerate((block.first_token_ms, block.between_tokens_ms), 1):
            kept = self._kept[signal - 1]
            for number in np.flatnonzero(answered).tolist():
                champion_ms, challenger_ms = times_ms[number].tolist()
                if (bound := quantile_below(kept, self._config.max_slow)) is not None:
                    slow = (challenger_ms > self._config.slow_factor * bound) + 2 * (champion_ms > bound)
                    kinds[number, signal, slow] = 1
                insort(kept, champion_ms)
        before = self._counts[-1] if len(self) else 0
        added = before + np.cumsum(kinds, axis=0)[PAIRS_A_POLL - 1 :: PAIRS_A_POLL]
        self._counts = np.concatenate([self._counts, added])
        self._test(added)

    def _test(self, added: Counts) -> None:
        """Append the evidence of the new polls."""
        config, level = self._config, threshold(self._config.alpha)
        errors, n = added[:, 0], added.sum(axis=2)
        judged = n - added[:, :, BOTH]
        bad, champion = added[:, :, CHALLENGER], added[:, :, CHAMPION]
        logs = {
            "errors": log_e_share(bad[:, 0], judged[:, 0], config.max_error_rate, "above"),
            "errors_over_champion": log_e_uneven(bad[:, 0], champion[:, 0]),
            "errors_below": log_e_share(bad[:, 0], judged[:, 0], config.unacceptable_error_rate, "below"),
        }
        for signal, name in enumerate(("first_token", "between_tokens"), 1):
            logs[name] = log_e_uneven(bad[:, signal], champion[:, signal])
            logs[f"{name}_below"] = log_e_share(bad[:, signal], judged[:, signal], config.unacceptable_slow, "below")
        if (bound := config.max_error_increase) is not None:
            counts = bad[:, 0], champion[:, 0], n[:, 0]
            logs["error_increase"] = log_e_increase(*counts, bound, 1)
            logs["error_increase_below"] = log_e_increase(*counts, bound, -1)
        start = len(self._counts) - len(added)
        for name, values in logs.items():
            before = self.peaks[name][-1] if start else 0.0
            peaks = np.maximum(before, np.maximum.accumulate(values))
            self.peaks[name] = np.concatenate([self.peaks.get(name, np.zeros(0)), peaks])
        new = {name: peaks[start:] for name, peaks in self.peaks.items()}
        dropped = (new["errors"] >= level - SLACK) & (new["errors_over_champion"] >= level - math.log(2) - SLACK)
        for name in ("first_token", "between_tokens", "error_increase"):
            if name in new:
                dropped |= new[name] >= level - SLACK
        champion_bad = errors[:, CHAMPION] + errors[:, BOTH]
        champion_logs = log_e_share(champion_bad, n[:, 0], config.max_error_rate, "above")
        may_advance = champion_logs <= SLACK
        for name, peak in new.items():
            if name.endswith("_below"):
                may_advance &= (peak >= level - SLACK) & (logs[name] >= -SLACK)
        self.paused = np.concatenate([self.paused, champion_logs >= level - SLACK])
        self.dropped = np.concatenate([self.dropped, dropped])
        self.may_advance = np.concatenate([self.may_advance, may_advance])

    def next_poll(self, poll: int, state: RolloutState, began: int, replays_per_second: float) -> int:
        """Return the next poll, from `poll` on, at which the decision function may do other than wait."""
        step, is_paused = self._config.steps[state.step], state.paused_at is not None
        over_s = step.longest_s + state.paused_s
        if state.paused_at is not None:
            over_s = state.paused_at + self._config.longest_pause_s
        due = max(poll, math.floor((over_s * replays_per_second + began) / PAIRS_A_POLL) - 1)
        least = max(step.least_replays, math.floor((step.least_s + state.paused_s) * replays_per_second))
        advance = max(poll, (began + least) // PAIRS_A_POLL - 1)
        while True:
            if len(self) <= poll:
                self.extend()
            found = self.dropped[poll:] | (self.paused[poll:] != is_paused)
            if not is_paused and advance < len(self):
                found[advance - poll :] |= self.may_advance[advance:]
            first = poll + int(found.argmax()) if found.any() else len(self)
            if min(first, due) < len(self):
                return min(first, due)
            poll, advance = len(self), max(len(self), advance)


def ours(totals: Totals, replays_per_second: float, config: RolloutConfig) -> Ending:
    """The real decision function, polled as the executor does. A rollout that stays paused is open."""
    state, began, poll = RolloutState(), 0, 0
    while True:
        poll = totals.next_poll(poll, state, began, replays_per_second)
        number = (poll + 1) * PAIRS_A_POLL
        state = replace(state, peaks=totals.peaks_before(poll), elapsed_s=(number - began) / replays_per_second)
        decision = decide(state, totals.evidence(poll), config)
        if (ending := ended(decision, number)) is not None:
            return ending
        if decision.action == "advance":
            began = number
        state, poll = decision.state, poll + 1


def log_e_share(bad: Counts, n: Counts, limit: float, shown: Literal["above", "below"]) -> Logs:
    """Return `log_e_above` or `log_e_below` of `sluice.monitoring.sequential`, by element."""
    weights, if_bad, if_good = np.array(_alternatives(limit, shown)).T
    return _log_mean(weights, np.outer(bad, if_bad) + np.outer(n - bad, if_good))


def log_e_uneven(first: Counts, second: Counts) -> Logs:
    """Return `log_e_uneven` of pairs, by element."""
    factors, weights = np.array(FACTORS).T
    scales = np.log((1 + factors) / 2)
    return _log_mean(np.log(weights), np.outer(first, np.log(factors) - scales) - np.outer(second, scales))


def log_e_increase(first: Counts, second: Counts, n: Counts, bound: float, sign: int) -> Logs:
    """Return `log_e_increase`, by element; `sign` is 1 for "above" and -1 for "below"."""
    parts, weights = np.array(STAKES).T
    stakes = sign * parts / (1 + sign * bound)
    logs = np.outer(first, np.log1p(stakes * (1 - bound))) + np.outer(second, np.log1p(-stakes * (1 + bound)))
    return _log_mean(np.log(weights), logs + np.outer(n - first - second, np.log1p(-stakes * bound)))


def _log_mean(log_weights: Logs, logs: Logs) -> Logs:
    terms = log_weights + logs
    largest = terms.max(axis=1)
    summed: Logs = largest + np.log(np.exp(terms - largest[:, np.newaxis]).sum(axis=1))
    return summed
