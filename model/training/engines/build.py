"""Which engine a run trains through."""

from pathlib import Path

from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.training.engines.engine import TrainingEngine
from sluice.model.training.engines.pipeline import PipelineEngine
from sluice.model.training.engines.zero import ZeroEngine


def build_engine(model: Transformer, config: PretrainConfig, extensions: Path) -> TrainingEngine:
    """The engine of `config`. `model` must be complete and the same on every process, and is reduced to its part."""
    if config.pipeline_stages == 1:
        return ZeroEngine(model, config, extensions)
    return PipelineEngine(model, config, extensions)
