"""Which engine a run trains through."""

from pathlib import Path

from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.training.engines.engine import Engine
from sluice.model.training.engines.pipeline import PipelineEngine
from sluice.model.training.engines.zero import ZeroEngine


def build_engine(model: Transformer, config: PretrainConfig, processes: int, extensions: Path) -> Engine:
    """The engine that `config` asks for. `model` is whole and the same in every process, and is left as a part."""
    if config.pipeline_stages == 1:
        return ZeroEngine(model, config, processes, extensions)
    return PipelineEngine(model, config, processes, extensions)
