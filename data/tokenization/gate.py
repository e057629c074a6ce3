"""The tokenizer gate: bounds of the settings against the report, as a pure decision."""

import math
from collections.abc import Iterable
from operator import ge, le

from pydantic import BaseModel

from sluice.data.config import TokenizerConfig
from sluice.data.tokenization.report import TokenizerReport


class Check(BaseModel):
    """One bound and what was measured."""

    metric: str
    value: float
    bound: float
    passed: bool
    reason: str
    """The comparison, such as `bytes_per_token 3.1 < 3.5`."""


def judge(report: TokenizerReport, config: TokenizerConfig) -> list[Check]:
    """A check for every bound that is set. A NaN, or a report without held-out text, never passes."""
    bounds = [
        ("bytes_per_token", report.bytes_per_token, config.min_bytes_per_token, True),
        ("fertility", report.fertility, config.max_fertility, False),
        ("round_trip", report.round_trip, config.min_round_trip, True),
    ]
    measured = report.held_out_documents > 0
    return [
        _check(metric, value if measured else math.nan, bound, least)
        for metric, value, bound, least in bounds
        if bound is not None
    ]


def _check(metric: str, value: float, bound: float, least: bool) -> Check:
    passed = (ge if least else le)(value, bound)
    sign = (">=" if passed else "<") if least else ("<=" if passed else ">")
    reason = f"{metric} {value:.4g} {sign} {bound:g}"
    if math.isnan(value):
        reason = f"{metric} is not a number, bound {bound:g}"
    return Check(metric=metric, value=value, bound=bound, passed=passed, reason=reason)


def refuse(checks: Iterable[Check]) -> None:
    """ValueError naming each metric that fails, its value and its bound."""
    failed = [check.reason for check in checks if not check.passed]
    if failed:
        raise ValueError(
            f"the tokenizer fails its gate: {'; '.join(failed)}; raise tokenizer.vocab_size, add text or move the bound"
        )
