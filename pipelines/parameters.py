"""conf/ and the command line's key=value -> params.yaml, composed by Hydra, checked by the rooms' own models."""

import difflib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from components.params import BLOCKS, load_block, validate, validate_block
from components.paths import PATHS, from_workspace, with_paths
from components.workspace import Workspace
from data.config import Block
from pipelines.hashes import with_hashes

_HEADER = "# Composed from conf/ by `sluice run`; change conf/ or pass key=value rather than editing this file.\n"


def compose(
    workspace: Workspace, overrides: list[str], more: Mapping[str, type[Block]] = MappingProxyType({})
) -> dict[str, Any]:
    """All blocks as plain values, with the sha256 of every file that they name; as `compose_blocks` otherwise."""
    blocks = compose_blocks(workspace, overrides, more)
    return {name: with_hashes(block, workspace.root).model_dump(mode="json") for name, block in blocks.items()}


def compose_blocks(
    workspace: Workspace, overrides: list[str], more: Mapping[str, type[Block]] = MappingProxyType({})
) -> dict[str, Block]:
    """All blocks, and no file that they name is read for it; `more` are blocks of one command.

    Paths of `overrides` are from the current folder, those of conf/ from the workspace. Raises ValueError naming the
    key and what is allowed.
    """
    known = {**BLOCKS, **more}
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        _check_form(workspace, override, known)
    overrides = [_at_home(override) for override in overrides]
    ConfigStore.instance().store(name="blocks", node=_defaults(known), package="_global_")
    try:
        with initialize_config_dir(str(workspace.conf), version_base="1.3"):
            composed = hydra_compose("config", overrides)
        values = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_one_line(workspace, overrides, error)) from None
    assert isinstance(values, dict)
    given = [setting for setting in PATHS if any(override.startswith(f"{setting}=") for override in overrides)]
    here = partial(from_workspace, root=workspace.root, here=Path.cwd())
    return validate(with_paths({str(name): block for name, block in values.items()}, here, given), known)


def write_params(workspace: Workspace, values: dict[str, Any]) -> bool:
    """Write params.yaml if it says something new; True where it did."""
    text = render_params(values)
    if workspace.params.is_file() and workspace.params.read_text() == text:
        return False
    temporary = workspace.params.with_suffix(".partial")
    temporary.write_text(text)
    temporary.replace(workspace.params)
    return True


def override_block(workspace: Workspace, block: str, overrides: list[str]) -> Block:
    """One block of the last run's params.yaml with `block.key=value` laid over it; the other blocks stay as they ran.

    Raises ValueError for another block's key, an unknown key or a wrong value.
    """
    values = load_block(workspace, block).model_dump(mode="json")
    for override in overrides:
        _check_form(workspace, override, BLOCKS)
        key, value = override.split("=", 1)
        if not key.startswith(f"{block}."):
            raise ValueError(f"'{key}' has no effect here: only {block}.key=value does")
        values[key.removeprefix(f"{block}.")] = yaml.safe_load(value)
    return validate_block(block, values)


def render_params(values: dict[str, Any]) -> str:
    return _HEADER + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _defaults(known: Mapping[str, type[Block]]) -> dict[str, Any]:
    """Every field's own default, without the models' rules: the composed whole is what has to be legal."""
    return {name: _field_defaults(block) for name, block in known.items()}


def _field_defaults(block: type[Block]) -> dict[str, Any]:
    return {name: field.get_default(call_default_factory=True) for name, field in block.model_fields.items()}


def _groups(workspace: Workspace) -> list[str]:
    return sorted(folder.name for folder in workspace.conf.iterdir() if folder.is_dir())


def _options(workspace: Workspace, group: str) -> list[str]:
    return sorted(path.stem for path in (workspace.conf / group).glob("*.yaml"))


def _check_form(workspace: Workspace, override: str, known: Mapping[str, type[Block]]) -> None:
    """Hydra's grammar can add, delete and sweep; a run only sets. So the form and the key are checked here, in our
    words.
    """
    match = re.fullmatch(r"([A-Za-z_][\w.]*)=(.*)", override, flags=re.DOTALL)
    if not match:
        raise ValueError(f"'{override}' is not key=value: for example pretrain.steps=100 or profile=tiny")
    key, value = match.groups()
    groups = _groups(workspace)
    if key in groups and "." not in key:
        options = _options(workspace, key)
        if value not in options:
            raise ValueError(f"{key}={value}: allowed are {', '.join(options)}")
        return
    block, _, field = key.partition(".")
    if block not in known:
        raise ValueError(f"unknown key '{key}': {_hint(block, [*known, *groups])}")
    if not field:
        settable = ", ".join(f"{key}.{name}" for name in known[block].model_fields)
        raise ValueError(f"'{key}' is a block of settings: set one of {settable}")
    if field.split(".")[0] not in known[block].model_fields:
        raise ValueError(f"unknown key '{key}': {_hint(field, list(known[block].model_fields))}")


def _at_home(override: str) -> str:
    """A shell leaves the tilde of `key=~/texts` alone, and Hydra's grammar has none."""
    key, _, value = override.partition("=")
    return f"{key}={Path(value).expanduser()}" if value.startswith("~/") else override


def _hint(wrong: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(wrong, allowed, n=1)
    meant = f"did you mean '{near[0]}'? " if near else ""
    return f"{meant}allowed are {', '.join(dict.fromkeys(allowed))}"


def _one_line(workspace: Workspace, overrides: list[str], error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{' '.join(overrides) or 'conf/'}: {text} (settings lie in {Path(workspace.conf).name}/)"
