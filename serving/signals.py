"""A signal of a rollout: a share of bad answers, and the anytime-valid tests that judge it. Pure."""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from sluice.core.check import Check
from sluice.monitoring.sequential import threshold

LARGEST_LOG = 700.0
"""exp of more than about 709 does not fit a float."""


class Test(NamedTuple):
    """One test of a signal."""

    name: str
    log_e: float
    shown: str
    """Conclusion that a rejection allows."""
    levels: float = 1
    """Its level, in multiples of alpha."""


class Signal(NamedTuple):
    """A share of bad answers with its tests."""

    metric: str
    label: str
    """The observed share, in words."""
    value: float | None
    n: int
    limit: float
    drops: tuple[Test, ...]
    """The signal speaks against the challenger if all of them were shown, each at any look so far."""
    advances: Test | None
    """Lets advance if it was shown at any look so far, and the totals still speak for it (an e-value of at least 1).
    None: the signal lets advance unless `drops` were shown or something is `missing`.
    """
    missing: str = ""
    """Observations that a signal without `advances` still lacks."""
    policy: Literal["drop", "hold"] = "drop"
    """Effect of shown `drops`: the challenger is dropped, or the rollout is held for a person."""

    def judge(self, peaks: Mapping[str, float], alpha: float) -> tuple[Check, dict[str, float]]:
        """Return the check, and the largest evidence so far of each test."""
        tests = self.drops if self.advances is None else (*self.drops, self.advances)
        found = {test.name: max(test.log_e, peaks.get(test.name, 0.0)) for test in tests}
        if self.is_shown(found, alpha):
            outcome = "fail" if self.policy == "drop" else "inconclusive"
            sought = f"{1 / (self.drops[0].levels * alpha):.3g}"
            told = f"shown {' and '.join(test.shown for test in self.drops)}"
            told += f": largest e-value {e_value(found[self.drops[0].name])} >= {sought}"
        elif self.advances is None:
            outcome = "inconclusive" if self.missing else "pass"
            told = self.missing or f"not shown {' and '.join(test.shown for test in self.drops)}"
        elif (peak := found[self.advances.name]) >= threshold(alpha) and self.advances.log_e >= 0:
            outcome, told = "pass", f"shown {self.advances.shown}: largest e-value {e_value(peak)} >= {1 / alpha:.3g}"
        else:
            sought = "1" if peak >= threshold(alpha) else f"{1 / alpha:.3g}"
            outcome = "inconclusive"
            told = f"not shown {self.advances.shown}: e-value {e_value(self.advances.log_e)} < {sought}"
        check = Check.model_validate(
            {
                "metric": self.metric,
                "value": self.value,
                "bound": self.limit,
                "n": self.n,
                "outcome": outcome,
                "reason": f"{self.label} {told}, n={self.n}",
            }
        )
        return check, found

    def is_shown(self, peaks: Mapping[str, float], alpha: float) -> bool:
        """Return whether every test of `drops` reached its threshold, given the largest evidence of each."""
        return all(peaks.get(test.name, 0.0) >= threshold(test.levels * alpha) for test in self.drops)


def percent(bad: int, n: int) -> str:
    """Return a share in percent; `unknown` without trials."""
    return f"{bad / n:.1%}" if n else "unknown"


def e_value(log_e: float) -> str:
    """Return an e-value with three digits."""
    return f"{math.exp(min(log_e, LARGEST_LOG)):.3g}"
