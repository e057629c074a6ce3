"""How devices share a model and its batch: data, tensor and pipeline parallelism, and which of them go together."""

from typing import Literal

from pydantic import Field

from sluice.model.architecture.config import TransformerConfig
from sluice.model.config import PretrainConfig
from sluice.model.planner.base import Record
from sluice.model.planner.settings import PlanConfig
from sluice.model.planner.weights import Stack, StateSpaceShape, Weight

ZeroStage = Literal[0, 1, 2, 3]


class Layout(Record):
    """devices = data x tensor x pipeline. ZeRO (arXiv 1910.02054) shares states out over the data-parallel ones."""

    devices: int = Field(default=1, ge=1)
    tensor: int = Field(default=1, ge=1)
    pipeline: int = Field(default=1, ge=1)
    zero_stage: ZeroStage = 0

    @property
    def data(self) -> int:
        return self.devices // (self.tensor * self.pipeline)


def layout_of(run: PretrainConfig, settings: PlanConfig | None = None) -> Layout:
    """The run's own, but for what `settings` name."""
    settings = settings or PlanConfig()
    return Layout(
        devices=settings.devices or run.workers,
        tensor=settings.tensor or run.tensor_parallel,
        pipeline=settings.pipeline or run.pipeline_stages,
        zero_stage=run.zero_stage if settings.zero_stage is None else settings.zero_stage,
    )


def check_layout(config: TransformerConfig, layout: Layout) -> None:
    """Raises ValueError for degrees that do not divide what they share out, and for ways that do not go together."""
    tensor, pipeline = layout.tensor, layout.pipeline
    if layout.devices % (tensor * pipeline):
        raise ValueError(f"devices {layout.devices} must be a multiple of tensor x pipeline = {tensor} x {pipeline}")
    if pipeline > 1 and config.kind == "encoder-decoder" and config.tie_embeddings:
        raise ValueError(
            f"pipeline {pipeline} over an encoder-decoder with tie_embeddings: encoder, decoder and head would share "
            "one matrix across three stages; set pipeline to 1 or model.tie_embeddings to false"
        )
    if pipeline > 1 and layout.zero_stage > 1:
        raise ValueError(
            f"zero_stage {layout.zero_stage} with pipeline {pipeline}: stages accumulate gradients of several "
            "micro-batches, which ZeRO 2 and 3 would share out after each; zero_stage 0 or 1 goes with a pipeline"
        )
    layers = config.layers + len(config.encoder_kinds)
    if layers % pipeline:
        raise ValueError(f"pipeline {pipeline} must divide the {layers} layers")
    for name, value in divided_sizes(config).items():
        if value % tensor:
            raise ValueError(f"tensor {tensor} must divide {name} {value}")


def divided_sizes(config: TransformerConfig) -> dict[str, int]:
    """What tensor parallelism shares out, by name."""
    divided: dict[str, int] = {}
    if config.has_attention:
        divided |= {"heads": config.heads, "kv_heads": config.kv_heads}
    if config.state_space is not None:
        divided["state_space.groups"] = config.state_space.groups
        divided["state space heads"] = StateSpaceShape.of(config.hidden_size, config.state_space).heads
    if config.mixture is not None:
        divided["width of an expert"] = config.mixture.intermediate_size or config.feedforward_width
    elif config.has_attention or config.state_space_feedforward:
        divided["intermediate_size"] = config.feedforward_width
    return divided


def stage_layers(config: TransformerConfig, pipeline: int) -> list[list[tuple[Stack, int]]]:
    """The layers of each pipeline stage, in the order that data takes: the encoder's before the decoder's."""
    encoder: list[tuple[Stack, int]] = [("encoder", layer) for layer in range(len(config.encoder_kinds))]
    layers = [*encoder, *(("decoder", layer) for layer in range(config.layers))]
    size = len(layers) // pipeline
    return [layers[stage * size : (stage + 1) * size] for stage in range(pipeline)]


def held_by(config: TransformerConfig, weight: Weight, stage: int, stages: list[list[tuple[Stack, int]]]) -> bool:
    """Whether a stage holds a weight. Every stage that embeds has the embedding, and the last where the head is it."""
    if weight.layer is not None:
        return weight.layer in stages[stage]
    is_first, is_last = stage == 0, stage == len(stages) - 1
    embeds = is_first or ("decoder", 0) in stages[stage]
    if weight.name == "embedding.weight":
        return embeds or (is_last and config.tie_embeddings)
    if weight.component in {"embedding", "positions"} or weight.name.startswith("embedding_norm"):
        return embeds
    return is_last
