"""Tables, bounds and plot of "Speed" in docs/model.md."""

from collections.abc import Iterator

from matplotlib.figure import Figure

from benchmarks.markers import markdown
from benchmarks.model.shapes import SHAPES
from benchmarks.model.turns import Comparison, Measured, ModelResults, ModelsOnGpu
from benchmarks.report import Bound, bounds_table, down, rate_bars

SAME_PRECISION, BEST, GENERATION = 1.15, 1.6, 2.0
"""Least factors over transformers."""
DEFAULT = "fp32, eager"
NO_GPU = "Not measured: no GPU was available."


def bounds(results: ModelResults) -> list[Bound]:
    """Factors over transformers. ValueError where nothing was compared."""
    held = []
    for work, compared, least, whole in (
        *(("Training", each, (SAME_PRECISION, BEST), "") for each in results.training),
        *(("Generating", each, (GENERATION, GENERATION), " in all, batch 1") for each in results.generation),
    ):
        where = f"{work} {compared.shape}, {compared.sequence} tokens{whole}"
        for name, ours in compared.candidates.items():
            if ours.case.library == "sluice" and (peer := _peer(compared, ours)):
                setting = name.removeprefix("sluice, ")
                held.append(Bound(f"{where}: {setting}, both", ours.rate / peer.rate, least[0]))
        own = [each for each in compared.candidates.values() if each.case.library == "sluice"]
        best = max(own, key=lambda each: each.rate)
        times = best.rate / compared.default.rate
        held.append(Bound(f"{where}: our {best.case.setting} over its {DEFAULT}", times, least[1]))
    if not held:
        raise ValueError("nothing was compared: run the benchmark without --accelerator-only once")
    return held


def _peer(compared: Comparison, ours: Measured) -> Measured | None:
    return compared.candidates.get(f"transformers, {ours.case.setting}")


def tables(results: ModelResults) -> dict[str, str]:
    compared = [*results.training, *results.generation]
    kernels = (kernel for one in compared for each in one.candidates.values() for kernel in each.started.kernels)
    shapes = [SHAPES[name] for name in dict.fromkeys(each.shape for each in results.training)]
    conditions = [
        ("machine", results.machine),
        ("threads of both sides", str(results.threads)),
        ("libraries", results.libraries),
        ("rounds, of which the median counts", str(results.rounds)),
        *((f"largest matrix product, {name}", f"{flops / 1e9:.0f} GFLOP/s") for name, flops in results.matmul.items()),
        *(
            (f"memory after importing {library}", f"{max(sizes) / 1e6:.0f} MB")
            for library in ("sluice", "transformers")
            if (sizes := [each.started.import_bytes for one in results.training for each in one.of(library)])
        ),
        (
            "attention kernels chosen",
            "; ".join(dict.fromkeys(kernels)),
        ),
        *_agreement(results),
        *results.conditions(),
    ]
    head, times = "model | >tokens {} | | >tokens/s | >{} | >peak memory, MB", f">times transformers {DEFAULT}"
    return {
        "speed-conditions": markdown("measured on | ", conditions),
        "speed-bounds": bounds_table(bounds(results)),
        "shapes": markdown(
            "model | >parameters | >layers | >width | >heads | >kv heads | >feed-forward | >vocabulary | >step tokens",
            [
                (
                    *(shape.name, f"{shape.parameters / 1e6:.1f}M", f"{shape.layers}", f"{shape.hidden_size}"),
                    *(f"{shape.heads}", f"{shape.kv_heads}", f"{shape.intermediate_size}"),
                    *(f"{shape.vocab_size:,}", f"{shape.step_tokens:,}"),
                )
                for shape in shapes
            ],
        ),
        "training-speed": markdown(
            f"{head.format('a row', 'of the peak')} | >slowest round / fastest | {times}", _training(results)
        ),
        "generation-speed": markdown(
            f"{head.format('in all', 'ms a token')} | >times its same setting | {times}", _generation(results)
        ),
        "gpu-speed": NO_GPU if results.accelerated is None else gpu_tables(results.accelerated),
    }


def gpu_tables(found: ModelsOnGpu) -> str:
    """Share of the data sheet's peak, or of the largest product measured where the device is not listed."""
    peak = found.peak_flops or found.matmul_flops
    rows = [
        (
            *(compared.shape, f"{compared.sequence}", name, f"{each.rate:,.0f}"),
            f"{down(100 * each.rate * SHAPES[compared.shape].training_flops(compared.sequence) / peak, 1):.1f} %",
            f"{each.peak_bytes / 1e9:.1f}",
        )
        for compared in found.comparisons
        for name, each in compared.candidates.items()
    ]
    head = "model | >tokens a row | | >tokens/s | >of the peak | >peak memory, GB"
    return found.tables(head, rows, device=found.device)


def _training(results: ModelResults) -> Iterator[tuple[str, ...]]:
    for compared in results.training:
        flops = SHAPES[compared.shape].training_flops(compared.sequence)
        for name, each in compared.candidates.items():
            share = 100 * each.rate * flops / results.matmul[each.case.precision]
            yield (
                *(compared.shape, str(compared.sequence), name, f"{each.rate:,.0f}", f"{down(share, 0):.0f} %"),
                *(f"{each.peak_bytes / 1e6:,.0f}", f"{each.spread:.2f}", _times(each.rate / compared.default.rate)),
            )


def _generation(results: ModelResults) -> Iterator[tuple[str, ...]]:
    for compared in results.generation:
        for name, each in compared.candidates.items():
            peer = _peer(compared, each)
            yield (
                *(compared.shape, str(compared.sequence), name, f"{each.rate:,.0f}", f"{1000 / each.rate:.2f}"),
                f"{each.peak_bytes / 1e6:,.0f}",
                "" if peer is None else _times(each.rate / peer.rate),
                _times(each.rate / compared.default.rate),
            )


def _agreement(results: ModelResults) -> Iterator[tuple[str, str]]:
    """Whether the candidates did the same work: losses on a common batch by precision, and tokens generated in fp32."""
    apart: dict[str, float] = {}
    for each in results.training:
        truth = each.default.started.check[0]
        for found in each.candidates.values():
            away = abs(found.started.check[0] - truth) / truth
            apart[found.case.precision] = max(away, apart.get(found.case.precision, 0.0))
    for precision, share in apart.items():
        yield (
            f"loss on a common batch, {precision}, most relative difference from transformers {DEFAULT}",
            f"{share:.1e}",
        )
    different = [
        f"{each.shape}, {each.sequence} tokens"
        for each in results.generation
        if len({tuple(one.started.check) for one in each.candidates.values() if one.case.precision == "fp32"}) != 1
    ]
    yield "tokens generated in fp32", f"**different at {'; '.join(different)}**" if different else "the same"


def _times(value: float) -> str:
    return f"{down(value, 2):.2f}"


def figure(results: ModelResults) -> Figure:
    """Tokens a second of training; columns are models and lengths."""
    columns = 2
    rows = -(-len(results.training) // columns)
    drawn = Figure(figsize=(9, 2.7 * rows), layout="constrained")
    drawn.get_layout_engine().set(h_pad=0.1, w_pad=0.1)  # type: ignore[union-attr, call-arg]
    # Once: below each of them it is wider than they are.
    drawn.supxlabel(f"tokens a second; line: {BEST:g} times transformers {DEFAULT}", fontsize=9)
    grid = drawn.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(results.training) :]:
        axes.set_visible(False)
    for axes, compared in zip(grid.flat, results.training, strict=False):
        rates = {name: each.rate for name, each in compared.candidates.items()}
        rate_bars(axes, rates, BEST * compared.default.rate)
        axes.set_title(f"{compared.shape} parameters, rows of {compared.sequence} tokens", fontsize=9)
        axes.tick_params(labelsize=8)
    return drawn
