"""Divide the model into pipeline stages, from outside: each process keeps some layers, the first stage the embedding
and the last the head, under their names in the complete model.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sluice.model.architecture.attention_mask import document_positions
from sluice.model.architecture.inputs import check_rows
from sluice.model.architecture.transformer import Transformer
from sluice.model.parallelism.layout import stage_bounds


def split_stages(model: Transformer, stages: int) -> list[range]:
    """`stage_bounds` of the model by its parameters; the head's product counts for the last layer."""
    costs = [sum(each.numel() for each in layer.parameters()) for layer in model.layers]
    costs[-1] += model.head_weight.numel()
    return stage_bounds(costs, stages)


def owners(model: Transformer, bounds: Sequence[range]) -> dict[str, int]:
    """The stage that owns each parameter: for a tied matrix the first."""
    last, found = len(bounds) - 1, {}
    for name, _ in model.named_parameters():
        part, _, rest = name.partition(".")
        if part == "layers":
            layer = int(rest.partition(".")[0])
            found[name] = next(stage for stage, layers in enumerate(bounds) if layer in layers)
        else:
            found[name] = last if part in _LAST else 0
    return found


_LAST = ("norm", "head", "head_transform", "head_bias")
_FIRST = ("position_embedding", "type_embedding", "embedding_norm")


def keep_stage(model: Transformer, stage: int, bounds: Sequence[range]) -> None:
    """Remove what is not in `stage`, in place, and make `hidden` map the input of the stage to its output.

    `hidden` then takes ids [rows, seq] in the first stage and the stream [rows, seq, hidden] in the others, beside the
    documents of a packed row, and returns the stream, or in the last stage what the head is applied to.
    """
    first, last = stage == 0, stage == len(bounds) - 1
    # Keys as in the complete list, so that parameters keep their names.
    model.layers = nn.ModuleDict({str(layer): model.layers[layer] for layer in bounds[stage]})  # type: ignore[assignment]
    for names, kept in ((_FIRST, first), (_LAST, last), (("embedding",), first or (last and model.head is None))):
        for name in names:
            if not kept:
                setattr(model, name, None)

    def hidden(received: Tensor, *, documents: Tensor | None = None, **beside: Any) -> Tensor:
        assert not any(value is not None for value in beside.values()), f"a pipeline passes no {list(beside)}"
        # What the layers share is computed again in each stage, from shapes.
        ids = received if first else torch.empty(received.shape[:2], dtype=torch.int64, device=received.device)
        positions = (
            torch.arange(ids.shape[1], device=ids.device) if documents is None else document_positions(documents)
        )
        context = model.context(ids, positions, documents)
        x = received
        if first:
            check_rows(model.config, ids, {"documents": documents}, training=model.training)
            x = model.embed(ids, positions, None)
        for layer in model.layers.values():  # type: ignore[operator]
            x = layer(x, context)
        return model.finish(x) if last else x

    model.hidden = hidden  # type: ignore[assignment,method-assign]
