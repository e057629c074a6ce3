"""The section "Speed" of docs/training.md, from the figures of one run."""

import statistics
from collections.abc import Iterable

from benchmarks.training.case import Measured, Results, Shakespeare
from benchmarks.training.targets import Target, down, targets


def render(results: Results) -> str:
    """The section, as Markdown. ValueError where nothing was measured."""
    if not results.measured:
        raise ValueError("nothing was measured: run the benchmark without --again once")
    held = list(targets(results))
    missed = [each.name for each in held if not each.is_met]
    peaks = ", ".join(f"{flops / 1e9:.0f} GFLOP/s in {name}" for name, flops in results.matmul.items())
    loads = ", ".join(f"{name} {load:.1f}" for name, load in results.loads.items())
    lines = [
        "## Speed",
        "",
        f"`make bench-train` on {results.machine}; {results.libraries}. The largest matrix product reached {peaks}. "
        f"Load average before each section: {loads}. Medians of rounds in turn; figures are rounded against us.",
        "",
        *_table(("", "measured", "bound", ""), (_target(each) for each in held)),
        "",
        f"Not met, or not measured: {'; '.join(missed)}." if missed else "None is missed.",
        "",
        *_table(
            ("", "tokens/s", "of the matrix peak", "peak memory of a rank, MB", "spread", "loss"),
            (_case(each, results) for each in results.measured),
        ),
        "",
        _ranks(results),
    ]
    if results.shakespeare is not None:
        lines += ["", _shakespeare(results.shakespeare)]
    return "\n".join(lines)


def _target(each: Target) -> tuple[str, ...]:
    sign = "≥" if each.at_least else "≤"
    return each.name, each.shown, f"{sign} {each.bound:g}", "met" if each.is_met else "**not met**"


def _case(each: Measured, results: Results) -> tuple[str, ...]:
    share = each.rate * results.flops_per_token / results.matmul[each.case.precision]
    return (
        each.case.name,
        f"{each.rate:,.0f}",
        f"{down(100 * share, 1):.1f} %",
        f"{each.peak_bytes / 1e6:,.0f}",
        f"{each.spread:.2f}",
        f"{each.rounds[-1].loss:.2f}",
    )


def _ranks(results: Results) -> str:
    alone = next((each for each in results.measured if each.case.ranks == each.case.threads == 1), None)
    two = next((each for each in results.measured if each.case.ranks == 2), None)
    if alone is None or two is None or alone.case.library != "sluice":
        return "Two ranks were not measured."
    lost = 1 - two.rate / (2 * alone.rate)
    return (
        f"Two ranks of one thread reach {two.rate / alone.rate:.2f} times one such rank; {max(0.0, lost):.0%} of their "
        "time goes into communication, and into what two processes take from each other on this machine."
    )


def _shakespeare(found: Shakespeare) -> str:
    mean = statistics.fmean(found.ours)
    spread = max(found.ours) - min(found.ours)
    beside = "" if found.reference is None else f" nanoGPT's recipe in plain PyTorch, beside it: {found.reference:.4f}."
    caution = "" if found.is_tiny_shakespeare else " This is not tiny Shakespeare: its figures are other figures."
    return (
        f"`experiment=shakespeare-char-cpu` on {found.text} ({found.parameters:,} parameters, {found.tokens:,} "
        f"tokens): {mean:.4f} nats a character on the whole last tenth, mean of {len(found.ours)} seeds, {spread:.4f} "
        f"between the best and the worst.{beside}{caution}"
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, ruler, *rows)]
