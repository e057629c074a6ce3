"""params.yaml: one validated block a room."""

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from sluice.components.workspace import Workspace
from sluice.core.settings.block import Block
from sluice.core.settings.errors import mistake
from sluice.data.config import IngestConfig, PackConfig, RefineConfig, TokenizerConfig
from sluice.model.architecture.config import ModelConfig
from sluice.model.config import EvaluateConfig, GateConfig, PretrainConfig, TuneConfig
from sluice.monitoring.config import MonitorConfig
from sluice.serving.config import RegisterConfig, RolloutConfig, ServeConfig

BLOCKS: dict[str, type[Block]] = {
    "data": IngestConfig,
    "refine": RefineConfig,
    "tokenizer": TokenizerConfig,
    "pack": PackConfig,
    "model": ModelConfig,
    "pretrain": PretrainConfig,
    "tune": TuneConfig,
    "evaluate": EvaluateConfig,
    "gate": GateConfig,
    "register": RegisterConfig,
    "serve": ServeConfig,
    "rollout": RolloutConfig,
    "monitor": MonitorConfig,
}


def validate(values: Mapping[str, Any], known: Mapping[str, type[Block]] = BLOCKS) -> dict[str, Block]:
    """The blocks of params.yaml, checked. Raises one ValueError that names key, value and what is allowed."""
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"unknown key '{unknown[0]}': allowed are {', '.join(known)}")
    return {name: validate_block(name, values.get(name) or {}, known) for name in known}


def load_block(workspace: Workspace, name: str) -> Block:
    """One block of the workspace's params.yaml."""
    if not workspace.params.is_file():
        raise ValueError(f"{workspace.params} is missing: `sluice run` composes it from conf/")
    values = yaml.safe_load(workspace.params.read_text()) or {}
    return validate_block(name, values.get(name) or {})


def validate_block(name: str, values: Mapping[str, Any], known: Mapping[str, type[Block]] = BLOCKS) -> Block:
    """One block, checked as `validate` does."""
    try:
        return known[name].model_validate(values)
    except ValidationError as error:
        raise ValueError(mistake(known[name], error, [name])) from None
