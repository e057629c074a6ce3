"""Anytime-valid tests for a canary: test after every request, stop at any time, and keep the level.

An e-process starts at 1 and is, under the null hypothesis, a non-negative supermartingale; by Ville's inequality it
ever reaches 1/alpha with probability at most alpha (arXiv 2210.01948; for deployments 2205.14762). So no correction for
the number of looks is needed, where repeating a fixed-sample test at 0.05 over 20 looks falsely aborts about every
fourth healthy canary.

Standard library only: the gateway imports this.
"""

import math
from dataclasses import dataclass, field

ODDS_STEP = 1.25
"""Neighbouring alternatives of the error-rate mixture differ by this factor in odds."""
HIGHEST_RATE = 0.99
LARGEST_LOG = 700.0
"""exp of more than about 709 does not fit a float."""


@dataclass
class ErrorRateTest:
    """Tests the null hypothesis "error rate <= limit" for one arm.

    The e-value is a mixture of binomial likelihood ratios of rates above the limit against the limit itself: a
    beta-binomial with the prior Beta(-1/2, 1/2) cut off at the limit and laid on a grid. Each ratio is a
    supermartingale under every rate <= limit, hence so is any mixture, whatever the grid. It depends on the totals
    alone, so nothing accumulates rounding.
    """

    limit: float
    alpha: float = 0.05
    errors: int = 0
    requests: int = 0
    _largest_log_e: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.limit < 1:
            raise ValueError(f"error-rate limit {self.limit} must lie between 0 and 1")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha {self.alpha} must lie between 0 and 1")
        # Alternatives from just above the limit to nearly 1, evenly spaced in log odds.
        self._rates: list[float] = []
        odds = self.limit / (1 - self.limit) * ODDS_STEP
        while odds / (1 + odds) < HIGHEST_RATE:
            self._rates.append(odds / (1 + odds))
            odds *= ODDS_STEP
        self._rates.append(max(HIGHEST_RATE, (1 + self.limit) / 2))
        # Near rates weigh more: they are the slow ones to tell, and one early error alone must not condemn a canary.
        weights = [((1 - rate) / rate) ** 0.5 for rate in self._rates]
        self._log_weights = [math.log(weight / sum(weights)) for weight in weights]

    def update(self, errors: int, requests: int) -> "ErrorRateTest":
        """Add `errors` failures among `requests` further requests."""
        if not 0 <= errors <= requests:
            raise ValueError(f"errors {errors} must lie between 0 and requests {requests}")
        self.errors += errors
        self.requests += requests
        self._largest_log_e = max(self._largest_log_e, self.log_e_value)
        return self

    @property
    def log_e_value(self) -> float:
        successes = self.requests - self.errors
        ratios = [
            self.errors * math.log(rate / self.limit) + successes * (math.log1p(-rate) - math.log1p(-self.limit))
            for rate in self._rates
        ]
        terms = [ratio + weight for ratio, weight in zip(ratios, self._log_weights, strict=True)]
        largest = max(terms)
        return largest + math.log(sum(math.exp(term - largest) for term in terms))

    @property
    def e_value(self) -> float:
        """Evidence against the null now; `inf` where it no longer fits a float."""
        return math.exp(self.log_e_value) if self.log_e_value < LARGEST_LOG else math.inf

    @property
    def rejected(self) -> bool:
        """Return whether the error rate was shown to exceed the limit at any look so far."""
        return self._largest_log_e >= -math.log(self.alpha)

    def reason(self) -> str:
        sign, bound = (">=", "shown above") if self.rejected else ("<", "not shown above")
        rate = f"{self.errors / self.requests:.1%}" if self.requests else "unknown"
        evidence = math.exp(min(self._largest_log_e, LARGEST_LOG))
        return (
            f"error rate {rate} {bound} {self.limit:.1%}: "
            f"largest e-value {evidence:.3g} {sign} {1 / self.alpha:.3g}, n={self.requests}"
        )
