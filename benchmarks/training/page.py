"""The measured sections of docs/training.md."""

import math
import statistics
from collections.abc import Iterable, Sequence

from benchmarks.training.case import BETAS, CLIP, DECAY, LEARNING_RATE, Measured
from benchmarks.training.plots import CHOICES_PLOT, COPYING_PLOT, PLOT, RESUME_PLOT
from benchmarks.training.results import (
    Ablation,
    Accelerated,
    CopyingRun,
    Outcome,
    Results,
    Resumed,
    Shakespeare,
    largest_difference,
    reached,
)
from benchmarks.training.targets import SAVE_EVERY, SOON, Target, down, shares, targets

SAME_LOSS = 1e-3
"""Most relative difference of the first step's losses, in fp32."""

NO_ACCELERATOR = (
    "No GPU was at hand when this page was written. Where there is one, `make bench-train` measures the fraction of "
    "its dense bf16 peak that whole steps reach at 350M and 1B parameters, 2048 tokens, eager and compiled, without "
    "Ray (`ARGS='--only accelerator'` for that alone)."
)

_LEAST_SEEDS = 3
"""Without as many nothing is said of a change."""


def render(results: Results) -> str:
    """All sections, as Markdown. ValueError where nothing was measured."""
    if not (found := sections(results)):
        raise ValueError("nothing was measured: run the benchmark without --again once")
    return "\n\n".join(found.values())


def sections(results: Results) -> dict[str, str]:
    """Of the page, by the name of its marks there, those of which something was measured."""
    found = {}
    if results.measured:
        found["speed"] = _speed(results)
    if results.resumed:
        found["resume"] = _resume(results)
    if results.choices is not None or results.copying or results.others is not None:
        found["choices"] = _choices(results)
    return found


def _speed(results: Results) -> str:
    held = list(targets(results))
    missed = [each.name for each in held if not each.is_met]
    peaks = ", ".join(f"{flops / 1e9:.0f} GFLOP/s in {name}" for name, flops in results.matmul.items())
    lines = [
        "## Speed",
        "",
        f"`make bench-train` {_measured_on(results, ('speed', 'shakespeare'))}. The largest matrix product reached "
        f"{peaks}. Figures are rounded against us.",
        "",
        *_table(("", "measured", "bound", ""), (_target(each) for each in held)),
        "",
        f"Not met, not measured or not judged: {'; '.join(missed)}." if missed else "None is missed.",
        "",
        f"![tokens a second, and the preset's loss]({PLOT})",
        "",
        "### Beside the Trainer",
        "",
        _work(results),
        "",
        *_table(_CASE_HEAD, (_case(each, results) for each in results.measured)),
        "",
        _agreement(results),
        "",
        "### Where the time goes",
        "",
        *_ranks(results),
        "",
        _shares(results),
        "",
        "### On a GPU",
        "",
        NO_ACCELERATOR if results.accelerated is None else accelerated(results.accelerated),
    ]
    if results.shakespeare is not None:
        lines += ["", "### The preset", "", *_shakespeare(results.shakespeare)]
    return "\n".join(lines)


def _resume(results: Results) -> str:
    return "\n".join(["## Killed and resumed", "", *_resumed(results.resumed)])


def _choices(results: Results) -> str:
    lines = [
        "## The choices of the default run",
        "",
        f"`make bench-train ARGS='--artifacts DIR'` {_measured_on(results, ('choices', 'copying', 'others'))}.",
    ]
    if results.choices is not None:
        lines += ["", *_choices_table(results.choices, busy=results.busy_at("choices"))]
    if results.copying:
        lines += ["", "### When a run learns to copy", "", *_copying(results.copying)]
    if results.others is not None:
        lines += [
            "",
            "### What other choices would give",
            "",
            *_others_table(results.others, busy=results.busy_at("others")),
        ]
    return "\n".join(lines)


def accelerated(found: Accelerated) -> str:
    """The fractions of the data sheet's peak and of the measured one, a line a case."""
    sheet = f"{found.peak_flops / 1e12:.0f} TFLOP/s" if found.peak_flops else "not listed here"
    lines = [
        f"{found.device}; {found.libraries}. Dense bf16 by its data sheet: {sheet}; the largest product reached "
        f"{found.matmul_flops / 1e12:.1f} TFLOP/s.",
    ]
    if found.measured:
        case, rounds = found.measured[0].case, len(found.measured[0].rounds)
        lines += [
            "",
            f"Whole steps of `sluice train`'s loop in one process: bf16 weights with float32 masters (ZeRO 1), "
            f"gradients clipped at {CLIP:g}, AdamW, {case.rows * case.sequence:,} tokens a step in rows of "
            f"{case.sequence} random tokens. Each run has {case.steps} steps, of which the last "
            f"{case.steps - case.skipped} count; the figure is the median of {rounds}. FLOPs are those of matrix "
            "products, attention's over the visible half; what is computed again counts once.",
            "",
            *_table(_ACCELERATED_HEAD, (_on_accelerator(each, found) for each in found.measured)),
        ]
    if found.refused:
        lines += ["", "Could not run:", "", *(f"- {name}: {reason}" for name, reason in found.refused.items())]
    return "\n".join(lines)


_ACCELERATED_HEAD = (
    "",
    "rows of a micro-batch",
    "activations computed again",
    "tokens/s",
    "of the data sheet's peak",
    "of the matrix peak",
    "peak memory, GB",
    "fastest / slowest",
)


def _on_accelerator(each: Measured, found: Accelerated) -> tuple[str, ...]:
    flops, case = reached(each), each.case
    return (
        f"{case.shape}, {case.name}",
        f"{case.micro_rows}",
        "yes" if case.recomputed else "no",
        f"{each.rate:,.0f}",
        f"{down(100 * flops / found.peak_flops, 1):.1f} %" if found.peak_flops else "none",
        f"{down(100 * flops / found.matmul_flops, 1):.1f} %",
        f"{each.peak_bytes / 1e9:.1f}",
        f"{each.spread:.2f}",
    )


def _target(each: Target) -> tuple[str, ...]:
    sign = "≥" if each.at_least else "≤"
    shown = "none" if math.isnan(each.value) else each.shown
    return each.name, shown, f"{sign} {each.bound:g}", _verdict(each)


def _verdict(each: Target) -> str:
    if not each.is_judged:
        return "**not judged**: a busy machine"
    if math.isnan(each.value):
        return "**not measured**"
    return "met" if each.is_met else "**not met**"


def _work(results: Results) -> str:
    case, rounds = results.measured[0].case, len(results.measured[0].rounds)
    counted = case.steps - case.skipped
    return (
        f"Both train one model of {case.shape} parameters from the same weights on the same rows in the same order, "
        f"{case.rows} of {case.sequence} tokens a step, by AdamW (rate {LEARNING_RATE:g} falling to zero in a line, "
        f"betas {BETAS[0]:g} and {BETAS[1]:g}, decay {DECAY:g}, gradients clipped at {CLIP:g}), without dropout. Each "
        f"run is a process of its own of {case.steps} steps, of which the last {counted} count, all between them "
        f"included; the figure is the median of {rounds}, memory and processor time are the largest. Ours in bf16 has "
        "bf16 weights with float32 masters (ZeRO 1), the Trainer's casts float32 weights in each product."
    )


_CASE_HEAD = (
    "",
    "tokens/s",
    "of the matrix peak",
    "peak memory of a rank, MB",
    "processor seconds a million tokens",
    "fastest / slowest",
    "first loss",
    "mean loss",
)


def _case(each: Measured, results: Results) -> tuple[str, ...]:
    share = each.rate * results.flops_per_token / results.matmul[each.case.precision]
    return (
        each.case.name,
        f"{each.rate:,.0f}",
        f"{down(100 * share, 1):.1f} %",
        f"{each.peak_bytes / 1e6:,.0f}",
        f"{each.cpu_seconds:,.0f}",
        f"{each.spread:.2f}",
        f"{each.rounds[-1].first_loss:.4f}",
        f"{each.rounds[-1].mean_loss:.4f}",
    )


def _agreement(results: Results) -> str:
    """Whether the two libraries did the same work, by their losses."""
    truth = results.of("transformers", "fp32", compiled=False)
    ours = results.of("sluice", "fp32", compiled=False)
    if truth is None or ours is None:
        return "**Whether both did the same work was not checked.**"
    first = apart(ours.rounds[-1].first_loss, truth.rounds[-1].first_loss)
    mean = apart(ours.rounds[-1].mean_loss, truth.rounds[-1].mean_loss)
    said = (
        f"In fp32 the losses of the first step are a share of {first:.1e} apart, the means of all steps {mean:.1e}: "
        "ours learns from all tokens of a row, transformers' from all but the last."
    )
    return said if first <= SAME_LOSS else f"**Not the same work.** {said} At most {SAME_LOSS:g} was allowed."


def apart(one: float, other: float) -> float:
    """The difference as a share of `other`."""
    return abs(one - other) / other


def _ranks(results: Results) -> list[str]:
    rows = []
    for precision, compiled in (("fp32", False), ("bf16", True)):
        one = results.of("sluice", precision, compiled=compiled)
        two = results.of("sluice", precision, compiled=compiled, ranks=2)
        if one is None or two is None:
            continue
        times = f"{down(two.rate / one.rate, 2):.2f}"
        shared = [each.communication_share for each in two.rounds if each.communication_share is not None]
        waits = f"{100 * max(shared):.1f} %" if shared else "not seen"
        rows.append((two.case.name, f"{one.rate:,.0f}", f"{two.rate:,.0f}", times, waits))
    if not rows:
        return ["Two ranks were not measured."]
    head = ("", "tokens/s, one rank on all cores", "two ranks that share them", "times", "communication")
    return [
        *_table(head, rows),
        "",
        "Communication is the share of the time in which rank 0 waits in a collective: for what is sent, and for the "
        "other rank. One rank has all cores as threads.",
    ]


def _shares(results: Results) -> str:
    found = shares(results)
    if found is None:
        return "The shares of data and checkpoints were not measured."
    saving = results.of("sluice", "fp32", compiled=False, saves=True)
    assert saving is not None
    return (
        f"On one device, fp32: making batches takes {_percent(found.data)} of the time, communication "
        f"{_percent(found.communication)}. With a checkpoint every {saving.case.save_every} steps the pace is "
        f"{found.pace:.3f} times that without: {found.save_seconds:.2f} s for each, of which "
        f"{found.snapshot_seconds:.2f} s hold the steps up and the rest is written beside them. Every {SAVE_EVERY} "
        f"steps, as the laptop's profile has it, that is {_percent(found.checkpoints)} of the time; all three together "
        f"{_percent(found.together)}."
    )


def _percent(share: float) -> str:
    return "an unknown share" if math.isnan(share) else f"{-down(-100 * share, 2):.2f} %"


def _apart(difference: float) -> str:
    return "none" if math.isnan(difference) else f"{difference:.1e}" if difference else "0"


def _without_kill(each: Resumed, other: list[float] | None) -> float:
    """How far `other`, the losses of an undisturbed run of the layout that went on, are from the first layout's."""
    return math.nan if other is None else largest_difference(each.expected, each.steps_of(other))


def _resumed(found: list[Resumed]) -> list[str]:
    head = (
        *("", "killed at step", "resumed from", "same bits in the next", f"losses apart in {SOON}", "in all of those"),
        *("without a kill", "last weights apart"),
    )
    undisturbed = {each.before: each.undisturbed for each in found}
    rows = [
        (
            each.before if each.same_layout else f"{each.before} → {each.after}",
            f"{each.killed_at}",
            f"{each.resumed_from}",
            f"{each.identical} of {len(each.resumed)}",
            _apart(each.loss_apart_within(SOON)),
            _apart(each.loss_apart),
            _apart(_without_kill(each, undisturbed.get(each.after))),
            _apart(each.weights_apart),
        )
        for each in found
    ]
    return [
        f"Every run has {len(found[0].undisturbed)} steps and is killed by SIGKILL, all its processes at once, after a "
        "drawn one. It goes on from its newest checkpoint by the same command, or in another layout (→), and is held "
        "to a run of its first layout that nothing disturbed. Losses are in nats a token. Without a kill: the losses "
        "of two undisturbed runs, in the one and in the other layout, at the same steps.",
        "",
        *_table(head, rows),
        "",
        f"![losses of the undisturbed runs, and those behind the kill]({RESUME_PLOT})",
    ]


def _shakespeare(found: Shakespeare) -> list[str]:
    head = ("", "nats a character", "best to worst", "parameters", "tokens trained on", "seconds")
    rows = [
        ("`experiment=shakespeare-char-cpu`", found.ours, found.parameters, found.tokens, found.seconds),
        (
            "nanoGPT's recipe",
            found.reference,
            found.reference_parameters,
            found.reference_tokens,
            found.reference_seconds,
        ),
    ]
    table = _table(
        head,
        (
            (
                name,
                f"{statistics.fmean(nats):.4f}",
                f"{max(nats) - min(nats):.4f}",
                f"{size:,}",
                f"{tokens:,}",
                f"{s:,.0f}",
            )
            for name, nats, size, tokens, s in rows
        ),
    )
    caution = "" if found.is_tiny_shakespeare else " This is not tiny Shakespeare: its figures are other figures."
    return [
        f"On {found.text}, the whole last tenth, means of {len(found.ours)} seeds.{caution} nanoGPT's recipe is run in "
        "plain PyTorch (`benchmarks/training/nanogpt.py`).",
        "",
        *table,
        "",
        f"Ours over the recipe's on the same text: {-down(-found.ratio, 3):.3f}.",
    ]


def _measured_on(results: Results, names: Sequence[str]) -> str:
    """Each machine once, with those of the sections that were measured on it and the load average before each."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, each in ((name, results.conditions[name]) for name in names if name in results.conditions):
        found.setdefault((each.machine, each.libraries), []).append(f"{name} {each.load:.1f}")
    return "; ".join(
        f"on {machine}; {libraries} (load average before {', '.join(loads)})"
        for (machine, libraries), loads in found.items()
    )


def _choices_table(found: Ablation, *, busy: bool) -> list[str]:
    return [
        f"All steps of the default run ({found.model}, {found.step_tokens:,} tokens a step), the same without one of "
        f"its choices each, and the default that it replaced. {_equal(found)}",
        "",
        *_compared(found, busy=busy),
        "",
        f"![what each choice gives]({CHOICES_PLOT})",
    ]


def _copying(found: list[CopyingRun]) -> list[str]:
    learned = "; ".join(
        f"{each.name}: {'not within the run' if each.learned_at is None else f'after {each.learned_at} steps'}"
        for each in found
    )
    return [
        "A held-out token is a copy where the token before it and it stood side by side earlier in its row of "
        "context. Induction heads find those, and need a head below them that looks back by one token (Olsson et al., "
        "arXiv 2209.11895), which is all that a window of two can do. The first look at which copies cost a nat less "
        f"than all else, seed 0: {learned}.",
        "",
        f"![held-out loss of copies and of all else, by step]({COPYING_PLOT})",
    ]


def _others_table(found: Ablation, *, busy: bool) -> list[str]:
    return [
        f"The default run with one choice changed each, in fewer steps. {_equal(found)} A longer run may rank them "
        "otherwise: short ones favour rates that stay high for long.",
        "",
        *_compared(found, busy=busy),
    ]


def _equal(found: Ablation) -> str:
    return (
        f"Every run has the time that the default needs for {found.default.steps:,} steps on one core, "
        f"{found.minutes:.1f} minutes; {found.seeds} seeds each, compared seed by seed."
    )


def _compared(found: Ablation, *, busy: bool) -> list[str]:
    head = ("", "steps", "s a step", "bits per byte", "less the default's, 95 % interval", "")
    default = found.default
    first = (default.name, f"{default.steps}", f"{default.step_seconds:.2f}", _bits(default), "", "")
    return _table(head, [first, *(_changed(found, each, busy=busy) for each in found.changed)])


def _changed(found: Ablation, outcome: Outcome, *, busy: bool) -> tuple[str, ...]:
    mean, half = found.against_default(outcome)
    if busy or found.seeds < _LEAST_SEEDS:
        # On a busy machine the times, and so the numbers of steps, are chance.
        clear = "not judged: a busy machine" if busy else "not judged: too few seeds"
    else:
        clear = "within chance" if abs(mean) <= half else "worse" if mean > 0 else "**better**"
    interval = f"{mean:+.4f} ± {half:.4f}" if math.isfinite(half) else f"{mean:+.4f}, one seed"
    return (
        outcome.name,
        f"{outcome.steps}",
        f"{outcome.step_seconds:.2f}",
        _bits(outcome),
        interval,
        clear,
    )


def _bits(outcome: Outcome) -> str:
    return f"{statistics.fmean(outcome.bits):.4f}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, ruler, *rows)]
