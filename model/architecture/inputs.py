"""Optional inputs of a forward pass, and their validation: every check raises ValueError."""

from typing import TypedDict

import torch
from torch import Tensor

from sluice.model.architecture.cache import Cache
from sluice.model.architecture.config import TransformerConfig


class Inputs(TypedDict, total=False):
    """Arguments of `Transformer.hidden` besides the ids."""

    cache: Cache | None
    slots: Tensor | None
    counts: Tensor | None
    lengths: Tensor | None
    positions: Tensor | None
    documents: Tensor | None
    mask: Tensor | None
    types: Tensor | None
    source: Tensor | None
    source_mask: Tensor | None


_BOOLEAN = {"mask", "source_mask", "counted"}
_INTEGERS = {torch.int64, torch.int32}


def check_inputs(config: TransformerConfig, ids: Tensor, given: Inputs, *, training: bool) -> None:
    """Validate the inputs of the decoder or the only stack."""
    beside = {"positions": given.get("positions"), "documents": given.get("documents")}
    check_rows(config, ids, beside | {"mask": given.get("mask"), "types": given.get("types")}, training=training)

    reads_source, source, cache = config.kind == "encoder-decoder", given.get("source"), given.get("cache")
    if not reads_source and source is not None:
        raise ValueError(f"a source was given, but a model of kind {config.kind} reads none")
    if reads_source and source is None and cache is None:
        raise ValueError("an encoder-decoder needs a source [batch, source] beside the ids")
    if source is None and given.get("source_mask") is not None:
        raise ValueError("source_mask belongs to a source, and none was given")
    if source is not None and source.shape[0] != ids.shape[0]:
        raise ValueError(f"source of {source.shape[0]} rows must have one for each of the {ids.shape[0]} rows of ids")

    names = {name for name, value in given.items() if value is not None}
    if cache is None and names & {"slots", "counts", "lengths"}:
        raise ValueError("slots, counts and lengths belong to a cache, and none was given")
    if "positions" in names and config.positions in {"alibi", "relative", "none"}:
        raise ValueError(f"positions were given, but a model with positions {config.positions} reads none")
    if cache is not None and "positions" in names:
        raise ValueError("positions follow from the cache: give one of the two")
    if cache is not None and names & {"documents", "mask"}:
        raise ValueError("documents and mask are for whole sequences: a cache has a slot for each sequence")
    if cache is not None and config.kind == "encoder":
        raise ValueError("an encoder reads whole sequences and generates none: leave out the cache")
    if "documents" in names and config.kind == "encoder-decoder":
        raise ValueError("documents cannot be packed for an encoder-decoder: give a row to each")
    if "mask" in names and "state_space" in config.layer_kinds:
        raise ValueError("state_space layers read every token: pad on the right and leave out the mask")

    if cache is None:
        return
    if cache.config is not config and cache.config != config:
        ours, theirs = config.model_dump(), cache.config.model_dump()
        name = next(name for name in ours if ours[name] != theirs[name])
        raise ValueError(f"the cache is of another model: its {name} is {theirs[name]}, the model's {ours[name]}")
    by_row = {"slots": given.get("slots"), "counts": given.get("counts"), "lengths": given.get("lengths")}
    for name, tensor in by_row.items():
        if tensor is not None:
            _check_type(name, tensor)
    if (lengths := by_row["lengths"]) is not None and lengths.shape != ids.shape[:1]:
        raise ValueError(f"lengths of shape {list(lengths.shape)} must hold one for each of {len(ids)} rows")


def check_rows(
    config: TransformerConfig, ids: Tensor, beside: dict[str, Tensor | None], *, training: bool, name: str = "ids"
) -> None:
    """Validate that ids are [batch, seq] of the vocabulary, and each tensor `beside` them by shape, dtype and range.
    Errors call the ids `name`.
    """
    if ids.ndim != 2:
        raise ValueError(f"{name} of shape {list(ids.shape)} must be [batch, seq]")
    _check_type(name, ids)
    for other, tensor in beside.items():
        if tensor is None:
            continue
        if tensor.shape != ids.shape:
            raise ValueError(f"{other} of shape {list(tensor.shape)} must be that of the {name}, {list(ids.shape)}")
        _check_type(other, tensor)
    if ids.shape[1] > config.context:
        raise ValueError(f"sequence of {ids.shape[1]} tokens is longer than the context {config.context}")
    if ids.numel() == 0:
        raise ValueError(f"{name} of shape {list(ids.shape)} hold no token")
    if beside.get("types") is not None and not config.token_types:
        raise ValueError("types were given, but the model has no token_types")
    # Reading a value from a GPU stalls its queue, which training cannot afford, and breaks a compiled graph.
    stalls = (training and ids.device.type != "cpu") or torch.compiler.is_compiling()
    if stalls or ids.is_meta:
        return
    _check_range("token id" if name == "ids" else f"{name}'s token id", ids, config.vocab_size, "the vocabulary")
    if (positions := beside.get("positions")) is not None:
        _check_range("position", positions, config.context, f"the context {config.context}")
    if (types := beside.get("types")) is not None:
        _check_range("token type", types, config.token_types, "the model's token_types")


def check_targets(config: TransformerConfig, ids: Tensor, targets: Tensor, counted: Tensor | None) -> None:
    """Validate that `targets` and `counted` have the shape of the ids, and that counted targets are in the vocabulary.
    In the later stages of a pipeline the ids are hidden states, [batch, seq, hidden].
    """
    shape = ids.shape[:2]
    for name, tensor in {"targets": targets, "counted": counted}.items():
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ValueError(f"{name} of shape {list(tensor.shape)} must be that of the ids, {list(shape)}")
        _check_type(name, tensor)
    if targets.device.type != "cpu" or torch.compiler.is_compiling():
        return
    read = targets if counted is None else targets[counted]
    if read.numel():
        _check_range("target", read, config.vocab_size, "the vocabulary")


def _check_type(name: str, tensor: Tensor) -> None:
    allowed = {torch.bool} if name in _BOOLEAN else _INTEGERS
    if tensor.dtype not in allowed:
        names = " or ".join(sorted(str(dtype).removeprefix("torch.") for dtype in allowed))
        raise ValueError(f"{name} of type {str(tensor.dtype).removeprefix('torch.')} must be {names}")


def _check_range(what: str, ids: Tensor, size: int, where: str) -> None:
    low, high = (int(value) for value in torch.aminmax(ids))
    if low < 0 or high >= size:
        raise ValueError(f"{what} {low if low < 0 else high} is outside {where} of 0 to {size - 1}")
