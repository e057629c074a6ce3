"""Locate the origin of a loss or gradient that is not finite, by computing the step again with hooks."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from sluice.model.parallelism.all_gather_text import all_gather_text
from sluice.model.training.batches.batch import Batch
from sluice.model.training.engines.engine import TrainingEngine

_ROWS_NAMED = 8
_ORDER = ("parameter", "output", "gradient")


@dataclass(frozen=True)
class NonFiniteValue:
    """The first value that is not finite, as far as this process can see."""

    kind: str
    """parameter, output (of a module) or gradient (of a parameter)."""
    name: str
    rows: list[int] = field(default_factory=list)
    """Rows of this worker's batch in which an output is not finite."""
    nan: int = 0
    infinite: int = 0
    elements: int = 0

    def __str__(self) -> str:
        place = {"parameter": "parameter", "output": "the output of", "gradient": "the gradient of"}[self.kind]
        return f"{place} {self.name} has {self.nan} NaN and {self.infinite} infinite of {self.elements} values"


def diagnose(engine: TrainingEngine, batch: Batch, micro_rows: int, *, step: int, what: str, folder: Path) -> str:
    """One line for the user: `what` is not finite in `step`, counted from 1, and where that began.

    Every process calls it, on the batch and the weights of that step; it leaves the engine without a gradient. A
    process that finds something writes diagnosis-rank-*.json into `folder`, with the rows and their ids.
    """
    engine.discard()
    finding = find(engine, batch, micro_rows)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    message = ""
    if finding is not None:
        # The rows of a step are distributed to the workers in order.
        rows = [engine.rank * len(batch.ids) + row for row in finding.rows]
        path = folder / f"diagnosis-rank-{rank:05d}.json"
        folder.mkdir(parents=True, exist_ok=True)
        content = {"step": step, "what": what, "worker": engine.rank, **asdict(finding), "rows": rows}
        content["ids"] = {
            row: batch.ids[own].tolist() for row, own in zip(rows, finding.rows[:_ROWS_NAMED], strict=False)
        }
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        where = ""
        if rows:
            named = ", ".join(str(row) for row in rows[:_ROWS_NAMED])
            more = f" and {len(rows) - _ROWS_NAMED} more" if len(rows) > _ROWS_NAMED else ""
            where = f" in row{'s' if len(rows) > 1 else ''} {named}{more} of the step's batch"
        # The first of the three kinds, on any process, is nearest to the cause.
        message = f"{_ORDER.index(finding.kind)}{finding}{where}; see {path}"
    device = next(engine.model.parameters()).device
    found = [each for each in all_gather_text(message, world, device=device) if each]
    first = min(found, key=lambda each: each[0])[1:] if found else "computed again, everything is finite"
    return f"{what} at step {step}: {first}"


def find(engine: TrainingEngine, batch: Batch, micro_rows: int) -> NonFiniteValue | None:
    """The first of: a parameter in the model's order, a module's output in the order of the forward pass, a
    parameter's gradient in the order of the backward pass. None where this process sees none.

    Every process goes through all three, because the passes of one need the others.
    """
    micros = batch.split(micro_rows)
    parameter = next(
        (_finding("parameter", *each) for each in engine.model.named_parameters() if _broken(each[1])), None
    )
    outputs: list[NonFiniteValue] = []
    for i, micro in enumerate(micros):
        with _watched_outputs(engine.model, outputs, i * micro_rows, len(micro.ids)):
            engine.nll_sum(micro)
    gradients: list[NonFiniteValue] = []
    with _watched_gradients(engine.model, gradients):
        engine.forward_backward(micros, max(1, batch.tokens))
    engine.discard()
    return next(iter([*([parameter] if parameter else []), *outputs, *gradients]), None)


@contextmanager
def _watched_outputs(model: nn.Module, found: list[NonFiniteValue], first_row: int, rows: int) -> Iterator[None]:
    """`found` gets the first module, innermost first, whose output is not finite."""

    def hook(name: str) -> Callable[..., None]:
        def look(_: nn.Module, __: Any, output: Any) -> None:
            for tensor in output if isinstance(output, tuple | list) else [output]:
                if found or not isinstance(tensor, Tensor) or not _broken(tensor):
                    continue
                broken: list[int] = []
                if tensor.ndim and len(tensor) == rows:
                    finite = tensor.detach().isfinite().reshape(len(tensor), -1).all(dim=1)
                    broken = (~finite).nonzero().flatten().tolist()
                found.append(_finding("output", name, tensor, [first_row + row for row in broken]))

        return look

    handles = [module.register_forward_hook(hook(name or "the model")) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _watched_gradients(model: nn.Module, found: list[NonFiniteValue]) -> Iterator[None]:
    """`found` gets the first parameter, from the loss down, whose gradient is not finite."""

    def hook(name: str) -> Callable[[Tensor], None]:
        def look(gradient: Tensor) -> None:
            if not found and _broken(gradient):
                found.append(_finding("gradient", name, gradient))

        return look

    handles = [each.register_hook(hook(name)) for name, each in model.named_parameters() if each.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _finding(kind: str, name: str, tensor: Tensor, rows: Sequence[int] = ()) -> NonFiniteValue:
    values = tensor.detach()
    return NonFiniteValue(kind, name, list(rows), int(values.isnan().sum()), int(values.isinf().sum()), values.numel())


def _broken(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(tensor.detach().isfinite().all())
