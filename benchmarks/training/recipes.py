"""The default run, the same without each of its choices, and the same with others: what is compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig

Packing = Literal["as it is", "best_fit"]
DEFAULT = "the default"


@dataclass(frozen=True)
class Change:
    """Settings in place of the default's."""

    pretrain: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    packing: Packing = "as it is"


_FULL = "every layer sees all"
_EVERY_LAYER_SEES_ALL: Mapping[str, Any] = {"pattern": None, "window": None}

UNDONE: Mapping[str, Change] = {
    # AdamW's rate is the one that its own default has.
    "AdamW for Muon": Change({"optimizer": "adamw", "learning_rate": 3e-3}),
    "twice the batch, fewer steps": Change({"batch_size": 16, "micro_batch_size": 8}),
    "a line down from the warm-up on": Change({"decay_fraction": 1.0}),
    "no norms of queries and keys": Change(model={"qk_norm": False}),
    "one head of keys and values": Change(model={"kv_heads": 1}),
    _FULL: Change(model=_EVERY_LAYER_SEES_ALL),
    "the default of before": Change(
        {"batch_size": 16, "micro_batch_size": 8, "decay_fraction": 1.0},
        {"qk_norm": False, "kv_heads": 1, **_EVERY_LAYER_SEES_ALL},
    ),
}
"""The default's choices undone one by one; at last the default that this one replaced."""

COPYING = (DEFAULT, _FULL)
"""Recipes whose loss is measured separately for copies, to see when heads that copy form."""

CHANGES: Mapping[str, Change] = {
    "twice the learning rates": Change({"learning_rate": 8e-3, "muon_learning_rate": 0.04}),
    "half a cosine": Change({"schedule": "cosine", "decay_fraction": 1.0}),
    "a plateau, and a line over the last fifth": Change({"decay_fraction": 0.2}),
    "a window of 4 tokens": Change(model={"window": 4}),
    "a head of its own": Change(model={"tie_embeddings": False}),
    "an average of the weights": Change({"average_decay": 0.95}),
    "z-loss of 1e-4": Change({"z_loss": 1e-4}),
    "documents isolated": Change({"isolate_documents": True}),
    "best-fit rows": Change(packing="best_fit"),
}
"""Alternatives to the default's choices, and additions."""


@dataclass(frozen=True)
class Recipe:
    """All that decides a run but its seed and its number of steps."""

    name: str
    pretrain: PretrainConfig
    model: ModelConfig
    packing: Packing = "as it is"


def recipes(pretrain: PretrainConfig, model: ModelConfig, changes: Mapping[str, Change]) -> list[Recipe]:
    """The default first, then each change of it. ValueError for a change that the default has already."""
    found = [Recipe(DEFAULT, pretrain, model)]
    for name, change in changes.items():
        recipe = Recipe(name, _with(pretrain, change.pretrain), _with(model, change.model), change.packing)
        if (recipe.pretrain, recipe.model, recipe.packing) == (pretrain, model, "as it is"):
            raise ValueError(
                f"'{name}' changes nothing: the default has it already; mend benchmarks/training/recipes.py"
            )
        found.append(recipe)
    return found


def _with(block: Any, settings: Mapping[str, Any]) -> Any:
    return type(block).model_validate(block.model_dump() | dict(settings))


def in_equal_time(steps: int, step_seconds: Mapping[str, float]) -> dict[str, int]:
    """Steps of every recipe that take as long as `steps` of the default; at least one."""
    budget = steps * step_seconds[DEFAULT]
    return {name: max(1, round(budget / seconds)) for name, seconds in step_seconds.items()}


def shortened(config: PretrainConfig, steps: int, seed: int) -> PretrainConfig:
    """The run in one process and `steps` steps, its warm-up the same share of them."""
    settings = {
        "workers": 1,
        "zero_stage": 0,
        "steps": steps,
        "warmup_steps": round(config.warmup_steps * steps / config.steps),
        "micro_batch_size": config.batch_size,
        "checkpoint_every": steps,
        "validate_every": steps,
        "metrics_every": None,
        "seed": seed,
    }
    return PretrainConfig.model_validate(config.model_dump() | settings)
