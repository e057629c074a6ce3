"""The tokenizer gate: the report against the bounds of the settings, as a pure decision."""

import math
from collections.abc import Iterable

from sluice.core.check import Check, Side, compare_exact
from sluice.data.config import TokenizerConfig
from sluice.data.tokenization.report import TokenizerReport


def judge(report: TokenizerReport, config: TokenizerConfig) -> list[Check]:
    """Return a check for every bound that is set. NaN, or a report without held-out text, never passes."""
    bounds: list[tuple[str, float, float | None, Side]] = [
        ("bytes_per_token", report.bytes_per_token, config.min_bytes_per_token, "above"),
        ("fertility", report.fertility, config.max_fertility, "below"),
        ("round_trip", report.round_trip, config.min_round_trip, "above"),
    ]
    n = report.held_out_documents
    return [
        compare_exact(metric, value if n > 0 else math.nan, bound, good=good, n=n, show="{:g}".format)
        for metric, value, bound, good in bounds
        if bound is not None
    ]


def refuse(checks: Iterable[Check]) -> None:
    """Raise ValueError naming each metric that fails, its value and its bound."""
    failed = [check.reason for check in checks if not check.passed]
    if failed:
        raise ValueError(
            f"the tokenizer fails its gate: {'; '.join(failed)}; raise tokenizer.vocab_size, add text or move the bound"
        )
