"""One quality rule: a bound on one score. Rules are listed beside the functions that compute their scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sluice.data.config import RefineConfig


@dataclass(frozen=True, slots=True)
class QualityRule:
    """One bound on one score; `reason` is the name under which dropped documents are counted."""

    reason: str
    score: str
    is_minimum: bool
    setting: str | None
    """The field of RefineConfig with the threshold, null turning the rule off; None: the threshold is always 1."""
    languages: frozenset[str] | None = None
    """Languages that the rule applies to; documents of others pass. None: every language."""
    exempt: frozenset[str] = frozenset()
    """Languages that the rule does not apply to."""

    def bound(self, config: RefineConfig) -> float | None:
        return 1 if self.setting is None else getattr(config, self.setting)

    def applies_to(self, languages: Sequence[str]) -> NDArray[np.bool_]:
        """Return whether the rule applies to each of these languages, [languages] bool."""
        if self.languages is None and not self.exempt:
            return np.ones(len(languages), np.bool_)
        included = self.languages
        return np.fromiter(
            ((included is None or each in included) and each not in self.exempt for each in languages),
            np.bool_,
            len(languages),
        )
