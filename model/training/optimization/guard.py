"""Steps to skip: their loss or gradient norm is far above that of the last steps (OLMo-core's skip-step)."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

_LEAST_SPREAD = 1e-3
"""Least standard deviation, relative to the mean: where values hardly differ, any other would be an outlier."""


class Band(NamedTuple):
    """Range of the next step's value, from those of the last steps."""

    mean: float
    bound: float
    """Largest value that is not an outlier."""
    steps: int
    """Number of the last steps."""


def band(values: Sequence[float], sigma: float) -> Band:
    """`sigma` standard deviations above the mean of `values`."""
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    spread = max(deviation, _LEAST_SPREAD * abs(mean))
    return Band(mean, mean + sigma * spread, len(values))


def outlier(name: str, value: float, values: Sequence[float], sigma: float) -> str | None:
    """The comparison that `value` fails, or None."""
    if not math.isfinite(value):
        return f"{name} {value} is not finite"
    known = band(values, sigma)
    if value <= known.bound:
        return None
    return f"{name} {value:.4g} > {known.bound:.4g}, {sigma:g} sigma above the mean {known.mean:.4g}, n={known.steps}"


class StepGuard:
    """Judges a step by the `window` steps before it, once there are half as many.

    Loss and norm must be those of all workers, so that each makes the same decision.
    """

    def __init__(self, sigma: float, window: int = 128) -> None:
        if not sigma > 0 or window < 2:
            raise ValueError(f"sigma {sigma} must be above 0 and window {window} at least 2")
        self.sigma, self.least = sigma, window // 2
        self._losses: deque[float] = deque(maxlen=window)
        self._norms: deque[float] = deque(maxlen=window)

    def judge(self, loss: float, norm: float) -> str | None:
        """Why a step of this loss (nats a token) and global gradient norm is skipped; None: it is not."""
        if len(self._losses) < self.least:
            return None
        return outlier("loss", loss, self._losses, self.sigma) or outlier(
            "gradient norm", norm, self._norms, self.sigma
        )

    def observe(self, loss: float, norm: float) -> None:
        """Add a step, after it was judged, skipped or not.

        An outlier counts as the bound: one spike must not hide the next, and where all steps lie higher from now on,
        the band follows within some of them.
        """
        full = len(self._losses) >= self.least
        for value, values in ((loss, self._losses), (norm, self._norms)):
            if math.isfinite(value):
                values.append(min(value, band(values, self.sigma).bound) if full else value)

    def state_dict(self) -> dict[str, Any]:
        """State as JSON, exact to the last bit."""
        return {"losses": list(self._losses), "norms": list(self._norms)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what `state_dict` returned; of a longer window the newest steps are kept."""
        for values, saved in ((self._losses, state["losses"]), (self._norms, state["norms"])):
            values.clear()
            values.extend(saved)
