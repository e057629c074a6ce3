"""params.yaml: one validated block of settings for each part of the lifecycle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from sluice.components.saved_files import read_mapping
from sluice.components.workspace import Workspace
from sluice.core.settings.block import Block
from sluice.core.settings.errors import mistake
from sluice.core.settings.files import AnyBlock
from sluice.data.config import IngestConfig, PackConfig, RefineConfig, TokenizerConfig
from sluice.model.architecture.config import ModelConfig
from sluice.model.config import EvaluateConfig, GateConfig, PretrainConfig, TuneConfig
from sluice.monitoring.config import MonitorConfig
from sluice.serving.config import RegisterConfig, RolloutConfig, ServeConfig

BLOCKS: tuple[type[Block], ...] = (
    *(IngestConfig, RefineConfig, TokenizerConfig, PackConfig, ModelConfig, PretrainConfig, TuneConfig),
    *(EvaluateConfig, GateConfig, RegisterConfig, ServeConfig, RolloutConfig, MonitorConfig),
)


@dataclass(frozen=True)
class Params:
    """Validated blocks, found by their class: `params[PretrainConfig].steps`."""

    blocks: tuple[Block, ...]

    def __getitem__(self, kind: type[AnyBlock]) -> AnyBlock:
        return next(block for block in self.blocks if isinstance(block, kind))

    def dump(self) -> dict[str, Any]:
        """Plain values, as params.yaml holds them."""
        return {block.block_name: block.model_dump(mode="json") for block in self.blocks}


def validate(values: Mapping[str, Any], kinds: Sequence[type[Block]] = BLOCKS) -> Params:
    """Raises ValueError naming the first wrong key, its value and what is allowed."""
    names = [kind.block_name for kind in kinds]
    if unknown := sorted(set(values) - set(names)):
        raise ValueError(f"unknown key '{unknown[0]}': allowed are {', '.join(names)}")
    return Params(tuple(validate_block(kind, values.get(kind.block_name) or {}) for kind in kinds))


def validate_block(kind: type[AnyBlock], values: Mapping[str, Any]) -> AnyBlock:
    """Raises ValueError as `validate` does."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(mistake(kind, error, [kind.block_name])) from None


def load_block(workspace: Workspace, kind: type[AnyBlock]) -> AnyBlock:
    """One block of the workspace's params.yaml."""
    if not workspace.params.is_file():
        raise ValueError(f"{workspace.params} is missing: `sluice run` composes it from conf/")
    values = read_mapping(workspace.params, "`sluice run` composes it again from conf/ and the same key=value")
    return validate_block(kind, values.get(kind.block_name) or {})
