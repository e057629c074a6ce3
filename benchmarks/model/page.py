"""The section "Speed" of docs/model.md: benchmarks/model/guide.md with the figures of one run put in."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.model.candidate import PROMPT, WARM_UPS
from benchmarks.model.results import Accelerated, Comparison, Results
from benchmarks.model.shapes import SHAPES
from benchmarks.model.targets import DEFAULT, Target, down, targets
from benchmarks.model.turns import Measured

_GUIDE = Path(__file__).with_name("guide.md")
_PLACE = re.compile(r"\{\{(\w+)\}\}")
NO_ACCELERATOR = (
    "None was at hand when this page was written. Where there is one, `make bench-model` measures the fraction of its "
    "dense bf16 peak at 350M and 1B parameters, 2048 and 4096 tokens, for each attention kernel, eager and compiled."
)


def render(results: Results) -> str:
    """The section. ValueError for a place in the guide that nothing fills."""
    held = targets(results)
    values = {
        "machine": results.machine,
        "threads": str(results.threads),
        "libraries": results.libraries,
        "rounds": str(results.rounds),
        "warm_ups": str(WARM_UPS),
        "prompt": str(PROMPT),
        "default": DEFAULT,
        "loads": ", ".join(f"{name} {load:.1f}" for name, load in results.loads.items()),
        "minutes": f"{sum(results.seconds.values()) / 60:.0f}",
        "targets": _table((each.name, _times(each.times), f"≥ {each.least:g}", _met(each)) for each in held),
        "verdict": _verdict(held),
        "shapes": "; ".join(_shape(name) for name in dict.fromkeys(each.shape for each in results.training)),
        "agreement": _agreement(results.training),
        "imports": _imports(results.training),
        "matmul": ", ".join(f"{flops / 1e9:.0f} GFLOP/s in {name}" for name, flops in results.matmul.items()),
        "training": _table(_training(results)),
        "kernels": _kernels([*results.training, *results.generation]),
        "same_tokens": _same_tokens(results.generation),
        "generation": _table(_generation(results.generation)),
        "accelerated": NO_ACCELERATOR if results.accelerated is None else accelerated(results.accelerated),
    }
    guide = _GUIDE.read_text(encoding="utf-8")
    if unfilled := set(_PLACE.findall(guide)) - set(values):
        raise ValueError(f"nothing fills {sorted(unfilled)} in {_GUIDE.name}: give it in benchmarks/model/page.py")
    return _PLACE.sub(lambda place: values[place[1]], guide)


def accelerated(found: Accelerated) -> str:
    """The fraction of the data sheet's peak, a line a candidate."""
    peak = found.peak_flops or found.matmul_flops
    of = "dense bf16 of its data sheet" if found.peak_flops else "the largest product measured: it is not listed"
    lines = [
        f"{found.device}: fractions of {peak / 1e12:.0f} TFLOP/s, {of}; the largest product reached "
        f"{found.matmul_flops / 1e12:.0f} TFLOP/s. Forward and backward in bf16, medians.",
        "",
        "| model | tokens a row | | tokens/s | of the peak | peak memory, GB |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for compared in found.comparisons:
        flops = SHAPES[compared.shape].training_flops(compared.sequence)
        for name, each in compared.candidates.items():
            cells = (compared.shape, f"{compared.sequence}", name, f"{each.rate:,.0f}")
            share, memory = f"{down(100 * each.rate * flops / peak, 1):.1f} %", f"{each.peak_bytes / 1e9:.1f}"
            lines.append(f"| {' | '.join((*cells, share, memory))} |")
    if found.refused:
        lines += ["", "Could not run:", "", *(f"- {name}: {reason}" for name, reason in found.refused.items())]
    return "\n".join(lines)


def _training(results: Results) -> Iterator[tuple[str, ...]]:
    for compared in results.training:
        flops = SHAPES[compared.shape].training_flops(compared.sequence)
        default = compared.of("transformers", DEFAULT)
        for name, each in compared.candidates.items():
            yield (
                compared.shape,
                str(compared.sequence),
                name,
                f"{each.rate:,.0f}",
                f"{down(100 * each.rate * flops / results.matmul[each.case.precision], 0):.0f} %",
                f"{each.peak_bytes / 1e6:,.0f}",
                f"{each.spread:.2f}",
                _times(each.rate / default.rate),
            )


def _generation(compared: Iterable[Comparison]) -> Iterator[tuple[str, ...]]:
    for each in compared:
        default = each.of("transformers", DEFAULT)
        for name, found in each.candidates.items():
            peer = each.candidates.get(f"transformers, {found.case.setting}")
            yield (
                each.shape,
                str(each.sequence),
                name,
                f"{found.rate:,.0f}",
                f"{1000 / found.rate:.2f}",
                f"{found.peak_bytes / 1e6:,.0f}",
                "" if peer is None else _times(found.rate / peer.rate),
                _times(found.rate / default.rate),
            )


def _shape(name: str) -> str:
    shape = SHAPES[name]
    return (
        f"{name}: {shape.parameters / 1e6:.1f}M parameters, {shape.layers} layers of {shape.hidden_size}, "
        f"{shape.heads} heads over {shape.kv_heads}, feed-forward {shape.intermediate_size}, vocabulary "
        f"{shape.vocab_size:,}, {shape.step_tokens:,} tokens a step"
    )


def _agreement(compared: Iterable[Comparison]) -> str:
    """How far the losses of the common batch lie apart, by precision."""
    apart: dict[str, float] = {}
    for each in compared:
        truth = each.of("transformers", DEFAULT).started.check[0]
        for found in each.candidates.values():
            away = abs(found.started.check[0] - truth) / truth
            apart[found.case.precision] = max(away, apart.get(found.case.precision, 0.0))
    said = ", ".join(f"{value:.1e} in {precision}" for precision, value in apart.items())
    return f"On a common batch the losses of all candidates lie within a share of {said} of transformers' in fp32."


def _imports(compared: Iterable[Comparison]) -> str:
    largest: dict[str, int] = {}
    for found in (each for comparison in compared for each in comparison.candidates.values()):
        library = found.case.library
        largest[library] = max(found.started.import_bytes, largest.get(library, 0))
    return ", ".join(f"{library} {size / 1e6:.0f} MB" for library, size in largest.items())


def _kernels(compared: Iterable[Comparison]) -> str:
    found = (each for comparison in compared for each in comparison.candidates.values())
    return "; ".join(dict.fromkeys(kernel for each in found for kernel in each.started.kernels))


def _same_tokens(compared: Iterable[Comparison]) -> str:
    different = [f"{each.shape}, {each.sequence} tokens" for each in compared if not _agree(each.candidates)]
    if different:
        return f"**The tokens generated differ at {'; '.join(different)}, so the work was not the same.**"
    return "All candidates in fp32 generated the same tokens."


def _agree(candidates: dict[str, Measured]) -> bool:
    tokens = [tuple(each.started.check) for each in candidates.values() if each.case.precision == "fp32"]
    return len(set(tokens)) == 1


def _verdict(held: list[Target]) -> str:
    missed = [each.name for each in held if not each.is_met]
    said = f"Not met: {'; '.join(missed)}." if missed else "None is missed."
    return f"{len(held) - len(missed)} of {len(held)} are met. {said} Figures are rounded against us."


def _met(target: Target) -> str:
    return "met" if target.is_met else "**not met**"


def _times(value: float) -> str:
    return f"{down(value, 2):.2f}"


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
