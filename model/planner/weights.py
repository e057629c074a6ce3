"""Every weight of a model by name, component and shape, from its configuration. Other counts are sums of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

from sluice.model.architecture.config import GATED, LayerKind, TransformerConfig
from sluice.model.architecture.state_space_config import StateSpaceConfig
from sluice.model.parallelism.layout import stage_bounds

Component = Literal[
    "embedding",
    "positions",
    "attention",
    "cross_attention",
    "feedforward",
    "router",
    "experts",
    "state_space",
    "norms",
    "head",
]
COMPONENTS: tuple[Component, ...] = Component.__args__  # type: ignore[attr-defined]

Stack = Literal["encoder", "decoder"]
"""The layers of a model with one stack are the decoder's, also in an encoder."""


@dataclass(frozen=True)
class WeightSpec:
    """One parameter of `Transformer`."""

    name: str
    component: Component
    shape: tuple[int, ...]
    layer: tuple[Stack, int] | None = None
    """None: outside the layers."""
    divided: bool = True
    """Whether tensor parallelism splits it (Megatron-LM, arXiv 1909.08053), or every device holds all of it."""

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def is_product(self) -> bool:
        """A matrix that tokens are multiplied with inside the model: no table, no stack of biases, no short filter."""
        inside = self.layer is not None or self.name == "head_transform.dense.weight"
        return len(self.shape) >= 2 and inside and not self.name.endswith(("conv1d.weight", "_bias"))


def list_weights(config: TransformerConfig) -> Iterator[WeightSpec]:
    """In no order that matters; a head tied to the embedding is not listed."""
    hidden = config.hidden_size
    yield WeightSpec("embedding.weight", "embedding", (config.vocab_size, hidden), divided=False)
    if config.token_types:
        yield WeightSpec("type_embedding.weight", "embedding", (config.token_types, hidden), divided=False)
    if config.positions == "learned":
        yield WeightSpec("position_embedding.weight", "positions", (config.context, hidden), divided=False)
    if config.positions == "relative":
        for prefix in ("", "encoder.") if config.encoder_kinds else ("",):
            shape = (config.relative_buckets, config.heads)
            yield WeightSpec(f"{prefix}relative.weight", "positions", shape, divided=False)
    if config.embedding_norm:
        yield from _norm(config, "embedding_norm", None)
    stacks: list[tuple[Stack, str, tuple[LayerKind, ...]]] = [("decoder", "", config.layer_kinds)]
    if config.encoder_kinds:
        stacks.append(("encoder", "encoder.", config.encoder_kinds))
    for stack, prefix, kinds in stacks:
        for layer, kind in enumerate(kinds):
            yield from _layer(config, f"{prefix}layers.{layer}", (stack, layer), kind)
        if config.norm_position != "post":
            yield from _norm(config, f"{prefix}norm", None)
    if not config.tie_embeddings:
        yield WeightSpec("head.weight", "head", (config.vocab_size, hidden), divided=False)
    if config.head_transform:
        yield WeightSpec("head_transform.dense.weight", "head", (hidden, hidden), divided=False)
        yield WeightSpec("head_transform.dense.bias", "head", (hidden,), divided=False)
        yield from _norm(config, "head_transform.norm", None, component="head")
        yield WeightSpec("head_bias", "head", (config.vocab_size,), divided=False)


def _layer(config: TransformerConfig, name: str, layer: tuple[Stack, int], kind: LayerKind) -> Iterator[WeightSpec]:
    def around(sublayer: str) -> Iterator[WeightSpec]:
        yield from _norm(config, f"{name}.{sublayer}_norm", layer)
        if config.norm_position == "sandwich":
            yield from _norm(config, f"{name}.{sublayer}_output_norm", layer)

    if kind == "state_space":
        assert config.state_space is not None
        yield from _norm(config, f"{name}.state_space_norm", layer)
        yield from _state_space(config, config.state_space, f"{name}.state_space", layer)
    else:
        yield from around("attention")
        yield from _attention(config, f"{name}.attention", layer, "attention")
        if config.kind == "encoder-decoder" and layer[0] == "decoder":
            yield from around("cross_attention")
            yield from _attention(config, f"{name}.cross_attention", layer, "cross_attention")
    if kind != "state_space" or config.state_space_feedforward:
        if config.sublayers != "parallel_one_norm":
            yield from around("feedforward")
        yield from _feedforward(config, f"{name}.feedforward", layer)


def _norm(
    config: TransformerConfig, name: str, layer: tuple[Stack, int] | None, component: Component = "norms"
) -> Iterator[WeightSpec]:
    yield WeightSpec(f"{name}.weight", component, (config.hidden_size,), layer, divided=False)
    if config.norm_bias:
        yield WeightSpec(f"{name}.bias", component, (config.hidden_size,), layer, divided=False)


def _attention(
    config: TransformerConfig, name: str, layer: tuple[Stack, int], component: Component
) -> Iterator[WeightSpec]:
    hidden, queries, keys = config.hidden_size, config.heads * config.head_width, config.kv_heads * config.head_width
    for part, rows in {"query": queries, "key": keys, "value": keys}.items():
        yield WeightSpec(f"{name}.{part}.weight", component, (rows, hidden), layer)
        if config.attention_bias != "none":
            yield WeightSpec(f"{name}.{part}.bias", component, (rows,), layer)
    yield WeightSpec(f"{name}.output.weight", component, (hidden, queries), layer)
    if config.attention_bias == "all":
        yield WeightSpec(f"{name}.output.bias", component, (hidden,), layer, divided=False)
    if config.qk_norm:
        over_all = config.qk_norm_over == "all_heads"
        for part, size in {"query_norm": queries, "key_norm": keys}.items():
            width = size if over_all else config.head_width
            yield WeightSpec(f"{name}.{part}.weight", "norms", (width,), layer, divided=False)


def _feedforward(config: TransformerConfig, name: str, layer: tuple[Stack, int]) -> Iterator[WeightSpec]:
    if (mixture := config.mixture) is None:
        yield from _dense(config, name, layer, config.feedforward_width, "feedforward")
        return
    width = mixture.intermediate_size or config.feedforward_width
    yield WeightSpec(f"{name}.router.weight", "router", (mixture.experts, config.hidden_size), layer, divided=False)
    for weight in _dense(config, name, layer, width, "experts"):
        part, kind = weight.name.rsplit(".", 1)
        stacked = part if kind == "weight" else f"{part}_bias"
        yield WeightSpec(stacked, "experts", (mixture.experts, *weight.shape), layer, weight.divided)
    if mixture.shared:
        yield from _dense(config, f"{name}.shared", layer, mixture.shared * width, "experts")


def _dense(
    config: TransformerConfig, name: str, layer: tuple[Stack, int], width: int, component: Component
) -> Iterator[WeightSpec]:
    for part in ("gate", "up") if config.feedforward in GATED else ("up",):
        yield WeightSpec(f"{name}.{part}.weight", component, (width, config.hidden_size), layer)
        if config.feedforward_bias:
            yield WeightSpec(f"{name}.{part}.bias", component, (width,), layer)
    yield WeightSpec(f"{name}.down.weight", component, (config.hidden_size, width), layer)
    if config.feedforward_bias:
        yield WeightSpec(f"{name}.down.bias", component, (config.hidden_size,), layer, divided=False)


@dataclass(frozen=True)
class StateSpaceShape:
    """Sizes that follow from a Mamba-2 block's settings."""

    inner: int
    heads: int
    channels: int
    """Channels of the convolution: x, B and C."""
    projected: int
    """Rows of in_proj: the gate z, those channels and a step size a head."""

    @classmethod
    def of(cls, hidden_size: int, config: StateSpaceConfig) -> "StateSpaceShape":
        inner = hidden_size * config.expand
        heads = inner // config.head_size
        channels = inner + 2 * config.groups * config.state_size
        return cls(inner, heads, channels, inner + channels + heads)


def _state_space(
    config: TransformerConfig, state_space: StateSpaceConfig, name: str, layer: tuple[Stack, int]
) -> Iterator[WeightSpec]:
    hidden, sizes = config.hidden_size, StateSpaceShape.of(config.hidden_size, state_space)
    shapes: dict[str, tuple[int, ...]] = {
        "in_proj.weight": (sizes.projected, hidden),
        "conv1d.weight": (sizes.channels, 1, state_space.conv_width),
        "dt_bias": (sizes.heads,),
        "A_log": (sizes.heads,),
        "D": (sizes.heads,),
        "norm.weight": (sizes.inner,),
        "out_proj.weight": (hidden, sizes.inner),
    }
    if state_space.conv_bias:
        shapes["conv1d.bias"] = (sizes.channels,)
    if state_space.bias:
        shapes |= {"in_proj.bias": (sizes.projected,), "out_proj.bias": (hidden,)}
    for part, shape in shapes.items():
        yield WeightSpec(f"{name}.{part}", "state_space", shape, layer, divided=part != "out_proj.bias")


Layer = tuple[Stack, int]


def list_layers(config: TransformerConfig) -> list[Layer]:
    """The layers in the order that data takes: the encoder's before the decoder's."""
    encoder: list[Layer] = [("encoder", layer) for layer in range(len(config.encoder_kinds))]
    return [*encoder, *(("decoder", layer) for layer in range(config.layers))]


@dataclass(frozen=True)
class StageWeights:
    """Layers and weights of one pipeline stage."""

    layers: list[Layer]
    weights: list[WeightSpec]


def pipeline_stages(config: TransformerConfig, stages: int) -> list[StageWeights]:
    """The model divided into pipeline stages as the trainer divides it (`parallelism/stages.py`): by the weights of the
    layers, the head's product counting for the last one.

    The first stage embeds; a tied embedding is held by the last one too.
    """
    layers, weights = list_layers(config), list(list_weights(config))
    costs = [sum(weight.size for weight in weights if weight.layer == layer) for layer in layers]
    costs[-1] += config.vocab_size * config.hidden_size
    found = []
    for stage, bounds in enumerate(stage_bounds(costs, stages)):
        own, held = [layers[number] for number in bounds], []
        is_first, is_last = stage == 0, stage == stages - 1
        for weight in weights:
            if weight.layer is not None:
                is_held = weight.layer in own
            elif weight.name == "embedding.weight":
                is_held = is_first or (is_last and config.tie_embeddings)
            elif weight.component in {"embedding", "positions"} or weight.name.startswith("embedding_norm"):
                is_held = is_first
            else:
                is_held = is_last
            if is_held:
                held.append(weight)
        found.append(StageWeights(own, held))
    return found
