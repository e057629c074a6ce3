"""Tables, bounds and plots of the measured sections of docs/training.md."""

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from benchmarks.markers import markdown
from benchmarks.model.shapes import ACCELERATOR_SHAPES
from benchmarks.report import BOUND, OURS, THEIRS, Bound, bounds_table, down, rate_bars, up
from benchmarks.training.case import Measured
from benchmarks.training.results import (
    Ablation,
    CopyingRun,
    Outcome,
    Resumed,
    Shakespeare,
    TrainingOnGpu,
    TrainingResults,
    largest_difference,
    reached,
)

DEFAULTS, BEST = 1.6, 1.1
"""Least factors over the Trainer."""
OVERHEAD = 0.05
"""Most share of the time that communication, data and checkpoints may take together, on one device."""
SOON = 10
"""Steps in which a resumed run is compared before rounding errors have grown."""
SAVE_EVERY = 100
"""Steps between checkpoints in the share of checkpoints, those of the laptop profile."""
SHAKESPEARE = 1.58
RESUMED = 1e-5
"""Most difference of losses (nats a token) and weights where another layout resumes."""
MFU = 0.5
"""Least share of a GPU's dense bf16 peak, by its data sheet."""
SAME_LOSS = 1e-3
"""Most relative difference of the first step's losses, in fp32: else the work was not the same."""
NO_GPU = "Not measured: no GPU was available."
_LEAST_SEEDS = 3
"""Fewer seeds do not judge a change."""


def bounds(results: TrainingResults) -> Iterator[Bound]:
    """Every figure that has a bound; NaN for those that this run did not measure."""
    # As many processes as the Trainer has: two ranks that share the cores have a table of their own.
    own = [each.rate for each in results.measured if each.case.library == "sluice" and each.case.ranks == 1]
    ours, quiet = max(own, default=math.nan), not results.busy_at("speed")
    for what, least, peer in (
        ("defaults", DEFAULTS, results.of("transformers", "fp32", compiled=False)),
        ("bf16 compiled", BEST, results.of("transformers", "bf16", compiled=True)),
    ):
        times = ours / peer.rate if peer else math.nan
        yield Bound(f"our best over the Trainer's {what}, times", times, least, is_judged=quiet)
    found = shares(results)

    def at_most(name: str, value: float, bound: float, *, is_judged: bool = True) -> Bound:
        return Bound(name, value, bound, at_least=False, digits=3, is_judged=is_judged)

    together = found.together if found else math.nan
    yield at_most("share of communication, data and checkpoints", together, OVERHEAD, is_judged=quiet)
    preset = results.shakespeare
    nats = statistics.fmean(preset.ours) if preset and preset.is_tiny_shakespeare else math.nan
    yield at_most("tiny Shakespeare, nats a character", nats, SHAKESPEARE)
    same = [each for each in results.resumed if each.same_layout]
    lost = max((len(each.resumed) - each.identical + (not each.weights_identical) for each in same), default=math.nan)
    yield at_most("killed and resumed: losses of 50, and weights, that are not the same bits", lost, 0)
    moved = [each for each in results.resumed if not each.same_layout]
    soon = max((each.loss_apart_within(SOON) for each in moved), default=math.nan)
    yield at_most(f"resumed in another layout: difference of the next {SOON} losses", soon, RESUMED)
    late = max((max(each.loss_apart, each.weights_apart) for each in moved), default=math.nan)
    yield at_most("resumed in another layout: difference of 50 losses, and weights", late, RESUMED)
    gpu = results.accelerated
    for shape in ACCELERATOR_SHAPES:
        # Without a data sheet there is no peak to compare with.
        mfu = gpu.best(shape) / gpu.peak_flops if gpu and gpu.peak_flops else math.nan
        yield Bound(f"MFU on {gpu.device if gpu else 'a GPU'}, {shape}", mfu, MFU)


@dataclass(frozen=True)
class Shares:
    """Shares of the time of a run on one device with a checkpoint every `SAVE_EVERY` steps."""

    communication: float
    data: float
    checkpoints: float
    save_seconds: float
    """Seconds that a checkpoint takes from the run, its writing beside the steps included."""
    snapshot_seconds: float
    """The part of those seconds in which no step runs."""
    pace: float
    """Tokens a second with the checkpoints of the measured case, over those without."""

    @property
    def together(self) -> float:
        return self.communication + self.data + self.checkpoints


def shares(results: TrainingResults) -> Shares | None:
    """Shares from the runs with and without checkpoints in the Trainer's default setting; None without both."""
    plain = results.of("sluice", "fp32", compiled=False)
    saving = results.of("sluice", "fp32", compiled=False, saves=True)
    if plain is None or saving is None:
        return None

    def largest(measured: Measured, name: str) -> float:
        found = [getattr(each, name) for each in measured.rounds]
        return math.nan if None in found else max(found)

    snapshot = largest(saving, "snapshot_seconds")
    lost = plain.case.counted_tokens * (1 / saving.rate - 1 / plain.rate) / saving.case.saves
    # The pace of the two runs differs by chance too, but the time in which no step ran is known.
    each = max(lost, snapshot)
    step_seconds = plain.case.rows * plain.case.sequence / plain.rate
    return Shares(
        communication=largest(plain, "communication_share"),
        data=largest(plain, "data_share"),
        checkpoints=each / (each + SAVE_EVERY * step_seconds),
        save_seconds=each,
        snapshot_seconds=snapshot,
        pace=saving.rate / plain.rate,
    )


def tables(results: TrainingResults) -> dict[str, str]:
    """Every generated table of the page that has figures, by name. ValueError where nothing was measured."""
    found: dict[str, str] = {}
    if results.measured:
        found["trainer"] = markdown(
            "| >tokens/s | >of the matrix peak | >peak memory of a rank, MB | >CPU seconds a million tokens"
            "| >fastest / slowest | >first loss | >mean loss",
            (_case(each, results) for each in results.measured),
        )
        found["same-work"] = markdown("relative difference of the losses in fp32 | >", _agreement(results))
        found["ranks"] = markdown(
            "| >tokens/s, one rank on all cores | >two ranks that share them | >times | >communication", _ranks(results)
        )
        found["shares"] = markdown("of the time, on one device, fp32 | >", _shares(results))
    if results.measured or results.accelerated is not None:
        found["gpu"] = NO_GPU if results.accelerated is None else gpu_tables(results.accelerated)
    if results.shakespeare is not None:
        found["preset"] = _shakespeare(results.shakespeare)
    if results.resumed:
        found["resumed"] = markdown(
            f"| >killed at step | >resumed from | >same bits in the next | >difference of {SOON} losses | >of all"
            "| >without a kill | >of the last weights",
            _resumed(results.resumed),
        )
    for name, compared in (("choices", results.choices), ("others", results.others)):
        if compared is not None:
            found[name] = _compared(compared, busy=results.busy_at(name))
    if results.copying:
        rows = [(each.name, "never" if each.learned_at is None else f"{each.learned_at}") for each in results.copying]
        found["copying"] = markdown("seed 0 | >copies learned after steps", rows)
    if not found:
        raise ValueError("nothing was measured: run the benchmark without --again once")
    if results.measured or results.resumed:
        found["bounds"] = bounds_table(bounds(results))
    return {
        "conditions": markdown("section (load average before) | machine | libraries", _conditions(results)),
        **found,
    }


def _conditions(results: TrainingResults) -> Iterator[tuple[str, str, str]]:
    """Each machine once, with its sections and the load average before each."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, each in results.conditions.items():
        found.setdefault((each.machine, each.libraries), []).append(f"{name} {each.load:.1f}")
    for (machine, libraries), loads in found.items():
        yield ", ".join(loads), machine, libraries
    for precision, flops in results.matmul.items():
        yield f"largest matrix product, {precision}", f"{flops / 1e9:.0f} GFLOP/s", ""
    if results.measured:
        yield "rounds of a speed case", f"{len(results.measured[0].rounds)}", ""


def _case(each: Measured, results: TrainingResults) -> tuple[str, ...]:
    share = each.rate * results.flops_per_token / results.matmul[each.case.precision]
    return (
        *(each.case.name, f"{each.rate:,.0f}", f"{down(100 * share, 1):.1f} %", f"{each.peak_bytes / 1e6:,.0f}"),
        *(f"{each.cpu_seconds:,.0f}", f"{each.spread:.2f}"),
        *(f"{loss:.4f}" for loss in (each.rounds[-1].first_loss, each.rounds[-1].mean_loss)),
    )


def _agreement(results: TrainingResults) -> Iterator[tuple[str, str]]:
    """Return whether the two libraries did the same work, by their losses."""
    truth = results.of("transformers", "fp32", compiled=False)
    ours = results.of("sluice", "fp32", compiled=False)
    if truth is None or ours is None:
        yield "**not checked**", ""
        return
    for name in ("first_loss", "mean_loss"):
        one, other = (getattr(each.rounds[-1], name) for each in (ours, truth))
        apart = abs(one - other) / other
        is_other_work = name == "first_loss" and not apart <= SAME_LOSS
        said = f"**{apart:.1e}, not the same work**: at most {SAME_LOSS:g}" if is_other_work else f"{apart:.1e}"
        yield {"first_loss": "first step", "mean_loss": "mean of all steps"}[name], said


def _ranks(results: TrainingResults) -> Iterator[tuple[str, ...]]:
    for precision, compiled in (("fp32", False), ("bf16", True)):
        one = results.of("sluice", precision, compiled=compiled)
        two = results.of("sluice", precision, compiled=compiled, ranks=2)
        if one is None or two is None:
            continue
        waits = [each.communication_share for each in two.rounds if each.communication_share is not None]
        shown = f"{100 * max(waits):.1f} %" if waits else "not seen"
        yield two.case.name, f"{one.rate:,.0f}", f"{two.rate:,.0f}", f"{down(two.rate / one.rate, 2):.2f}", shown


def _shares(results: TrainingResults) -> Iterator[tuple[str, str]]:
    found, saving = shares(results), results.of("sluice", "fp32", compiled=False, saves=True)
    if found is None or saving is None:
        yield "**not measured**", ""
        return
    yield "making batches", _percent(found.data)
    yield "communication", _percent(found.communication)
    yield f"checkpoints, one every {SAVE_EVERY} steps", _percent(found.checkpoints)
    yield "all three", _percent(found.together)
    yield f"tokens/s with a checkpoint every {saving.case.save_every} steps, over those without", f"{found.pace:.3f}"
    yield "a checkpoint, seconds", f"{found.save_seconds:.2f}"
    yield ".. in which no step runs, seconds", f"{found.snapshot_seconds:.2f}"


def _percent(share: float) -> str:
    return "unknown" if math.isnan(share) else f"{up(100 * share, 2):.2f} %"


def gpu_tables(found: TrainingOnGpu) -> str:
    """Shares of the data sheet's peak and of the measured one, a row a case."""
    rows = []
    for each in found.measured:
        flops, case = reached(each), each.case
        rows.append(
            (
                *(f"{case.shape}, {case.name}", f"{case.rows * case.sequence:,}", f"{case.micro_rows}"),
                *("yes" if case.recomputed else "no", f"{case.steps - case.skipped} of {case.steps}"),
                f"{each.rate:,.0f}",
                f"{down(100 * flops / found.peak_flops, 1):.1f} %" if found.peak_flops else "none",
                f"{down(100 * flops / found.matmul_flops, 1):.1f} %",
                *(f"{each.peak_bytes / 1e9:.1f}", f"{each.spread:.2f}"),
            )
        )
    head = (
        "| >tokens a step | >micro-batch rows | >activations recomputed | >steps counted | >tokens/s"
        "| >of the data sheet's peak | >of the matrix peak | >peak memory, GB | >fastest / slowest"
    )
    return found.tables(head, rows, device=f"{found.device}; {found.libraries}", digits=1)


def _shakespeare(found: Shakespeare) -> str:
    ours = (found.ours, found.parameters, found.tokens, found.seconds)
    theirs = (found.reference, found.reference_parameters, found.reference_tokens, found.reference_seconds)
    rows = [
        (name, f"{statistics.fmean(nats):.4f}", f"{max(nats) - min(nats):.4f}", f"{size:,}", f"{tokens:,}", f"{s:,.0f}")
        for name, (nats, size, tokens, s) in {
            "`experiment=shakespeare-char-cpu`": ours,
            "nanoGPT's recipe": theirs,
        }.items()
    ]
    rows.append(("ours / nanoGPT's", f"{up(found.ratio, 3):.3f}", "", "", "", ""))
    text = f"{found.text}, {len(found.ours)} seeds{'' if found.is_tiny_shakespeare else ' (not tiny Shakespeare)'}"
    head = "| >nats a character | >best to worst | >parameters | >tokens trained on | >seconds"
    return markdown(f"{text}{head}", rows)


def _resumed(found: list[Resumed]) -> Iterator[tuple[str, ...]]:
    undisturbed = {each.before: each.undisturbed for each in found}
    for each in found:
        other = undisturbed.get(each.after)
        alone = math.nan if other is None else largest_difference(each.expected, each.steps_of(other))
        apart = (each.loss_apart_within(SOON), each.loss_apart, alone, each.weights_apart)
        yield (
            each.before if each.same_layout else f"{each.before} → {each.after}",
            *(f"{each.killed_at}", f"{each.resumed_from}", f"{each.identical} of {len(each.resumed)}"),
            *("none" if math.isnan(value) else f"{value:.1e}" if value else "0" for value in apart),
        )


def _compared(found: Ablation, *, busy: bool) -> str:
    default = found.default
    first = (default.name, f"{default.steps}", f"{default.step_seconds:.2f}", _bits(default), "", "")
    rows = [first]
    for each in found.changed:
        mean, half = found.against_default(each)
        if busy or found.seeds < _LEAST_SEEDS:
            # On a busy machine the times, and so the numbers of steps, are chance.
            clear = f"not judged: {'a busy machine' if busy else 'too few seeds'}"
        else:
            clear = "within chance" if abs(mean) <= half else "worse" if mean > 0 else "**better**"
        interval = f"{mean:+.4f} ± {half:.4f}" if math.isfinite(half) else f"{mean:+.4f}, one seed"
        rows.append((each.name, f"{each.steps}", f"{each.step_seconds:.2f}", _bits(each), interval, clear))
    what = f"{found.model}, {found.step_tokens:,} tokens a step, {found.minutes:.1f} minutes each, {found.seeds} seeds"
    head = "| >steps | >s a step | >bits per byte | >difference from the default, 95 % interval |"
    return markdown(f"{what}{head}", rows)


def _bits(outcome: Outcome) -> str:
    return f"{statistics.fmean(outcome.bits):.4f}"


def figures(results: TrainingResults) -> dict[str, Figure]:
    found = {}
    if results.measured:
        found["training-speed.svg"] = _speed_figure(results)
    if results.resumed:
        found["training-resume.svg"] = _resume_figure(results.resumed)
    if results.choices is not None:
        found["training-choices.svg"] = _choices_figure(results.choices)
    if results.copying:
        found["training-copying.svg"] = _copying_figure(results.copying)
    return found


def _speed_figure(results: TrainingResults) -> Figure:
    preset = results.shakespeare
    panels = 1 + (preset is not None)
    figure = Figure(figsize=(8, 2.9 * panels), layout="constrained")
    speed, *rest = figure.subplots(panels, 1, squeeze=False).flat
    defaults = results.of("transformers", "fp32", compiled=False)
    line = None if defaults is None else DEFAULTS * defaults.rate
    rate_bars(speed, {each.case.name: each.rate for each in results.measured}, line)
    suffix = "" if line is None else f"; line: {DEFAULTS:g} times the Trainer's defaults"
    _label(speed, f"tokens a second{suffix}")
    if preset is not None:
        (curve,) = rest
        curve.plot(*zip(*preset.curve, strict=True), color=OURS, lw=1.5, label="training, means of 50 steps")
        curve.axhline(statistics.fmean(preset.ours), color=OURS, ls=":", label="held out, after the last step")
        curve.axhline(statistics.fmean(preset.reference), color=THEIRS, ls=":", label="nanoGPT's, held out")
        curve.legend(fontsize=8, frameon=False)
        _label(curve, f"steps of the preset on {preset.text}", "nats a character")
    return figure


def _resume_figure(found: list[Resumed]) -> Figure:
    columns = 3
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(9, 2.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, each in zip(grid.flat, found, strict=False):
        steps = range(each.resumed_from + 1, each.resumed_from + len(each.resumed) + 1)
        axes.plot(range(1, len(each.undisturbed) + 1), each.undisturbed, color=THEIRS, lw=2.5)
        axes.plot(steps, each.resumed, color=OURS, lw=1)
        axes.axvline(each.killed_at, color=BOUND, lw=1, ls=":")
        axes.set_title(each.before if each.same_layout else f"{each.before}\n→ {each.after}", fontsize=7)
        axes.tick_params(labelsize=7)
    for axes in grid.flat[len(found) :]:
        axes.set_visible(False)
    figure.supxlabel("step; grey: undisturbed, blue: resumed, dots: SIGKILL", fontsize=8)
    figure.supylabel("nats a token", fontsize=8)
    return figure


def _choices_figure(found: Ablation) -> Figure:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    means, halves = zip(*map(found.against_default, found.changed), strict=True)
    names, errors = [each.name for each in found.changed], [half if math.isfinite(half) else 0.0 for half in halves]
    axes.errorbar(means, names, xerr=errors, fmt="o", color=OURS, ms=4, capsize=3, lw=1)
    axes.axvline(0, color=BOUND, lw=1)
    axes.invert_yaxis()
    _label(axes, "held-out bits per byte less the default's, 95 % interval (right of the line is worse)")
    return figure


def _copying_figure(found: Iterable[CopyingRun]) -> Figure:
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for each, color in zip(found, (OURS, THEIRS), strict=False):
        axes.plot(each.steps, each.copies, color=color, lw=2, label=f"{each.name}: copies")
        axes.plot(each.steps, each.others, color=color, lw=1.2, ls="--", label=f"{each.name}: all else")
    axes.legend(fontsize=8, frameon=False)
    _label(axes, "step", "held out, nats a token")
    return figure


def _label(axes: Any, x: str, y: str = "") -> None:
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=8)
