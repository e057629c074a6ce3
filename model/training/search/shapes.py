"""Other shapes of a model: a ladder of smaller ones, and ones of about its size that are deeper or wider."""

from sluice.model.architecture.config import ModelConfig

DEPTHS = (1.0, 2.0, 0.5)
"""Layers of the shapes beside each other, over the model's own."""
_FINER = 8
"""Sizes tried per rung, where few of them differ."""


def scaled(model: ModelConfig, width: float, depth: float) -> ModelConfig:
    """The model with `width` times the hidden size and `depth` times the layers, its heads as wide as before.

    Key-value heads keep their share where it comes out even; else every head has its own. The feed-forward network
    follows from the width. ValueError for a model whose sizes do not follow from its width.
    """
    if model.intermediate_size is not None or model.head_size is not None:
        raise ValueError(
            "a ladder scales the width, and the sizes that follow from it: leave model.intermediate_size and "
            "model.head_size unset"
        )
    heads = max(1, round(model.heads * width))
    shared = model.heads // model.kv_heads
    kv_heads = heads // shared if heads % shared == 0 else heads
    sizes = {"hidden_size": heads * model.head_width, "heads": heads, "kv_heads": kv_heads}
    layers = max(len(model.pattern or (1,)), round(model.layers * depth))
    return ModelConfig.model_validate(model.model_dump() | sizes | {"layers": layers})


def ladder(model: ModelConfig, rungs: int) -> list[ModelConfig]:
    """At most `rungs` models from a quarter of the width to the model itself, smallest first, no two alike."""
    if rungs < 2:
        raise ValueError(f"{rungs} rungs do not make a ladder: take at least 2")
    made = _shapes(model, rungs)
    if len(made) < rungs:
        # Few heads and layers round to few sizes: try those between.
        finer = _shapes(model, _FINER * rungs)
        places = [round(rung * (len(finer) - 1) / (rungs - 1)) for rung in range(rungs)]
        made = [finer[place] for place in sorted({*places})]
    return made


def _shapes(model: ModelConfig, count: int) -> list[ModelConfig]:
    """Distinct values of so many equal factors from a quarter to one."""
    factors = [0.25 ** (1 - rung / (count - 1)) for rung in range(count)]
    made = [scaled(model, factor, factor) for factor in factors]
    return [shape for i, shape in enumerate(made) if shape not in made[:i]]


def alternatives(model: ModelConfig) -> list[ModelConfig]:
    """The model, a deeper and narrower one, and a wider and shallower one; weights of the layers about alike."""
    made = [scaled(model, depth**-0.5, depth) for depth in DEPTHS]
    return [shape for i, shape in enumerate(made) if shape not in made[:i]]


def shape_name(model: ModelConfig) -> str:
    return f"{model.layers} x {model.hidden_size}"
