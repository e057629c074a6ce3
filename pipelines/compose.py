"""conf/ and the command line's key=value -> params.yaml, composed by Hydra, checked by the rooms' own models."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from sluice.components.params import BLOCKS, load_block, validate, validate_block
from sluice.components.paths import PATHS, from_workspace, with_paths
from sluice.components.workspace import Workspace
from sluice.core.settings.block import Block
from sluice.pipelines.hashes import with_hashes
from sluice.pipelines.overrides import check_form, check_together, keys_as_typed, quoted_name_hint, to_hydra

_HEADER = "# Composed from conf/ by `sluice run`; change conf/ or pass key=value rather than editing this file.\n"
_ADVICE = re.compile(r" (?:To append to your config use|See https?://|1\. To use it as)")
"""Where Hydra goes on to advise what its own grammar takes, and ours does not."""


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
    for override in overrides:
        check_form(workspace, override, known)
    check_together(overrides)
    # Only now: Hydra takes a while, and a mistake is told at once.
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    asked = [each for override in overrides for each in to_hydra(override, known)]
    ConfigStore.instance().store(name="blocks", node=_defaults(known), package="_global_")
    try:
        with initialize_config_dir(str(workspace.conf), version_base="1.3"):
            composed = hydra_compose("config", asked)
        values = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_one_line(workspace, overrides, error, known)) from None
    assert isinstance(values, dict)
    given = [setting for setting in PATHS if any(override.startswith(f"{setting}=") for override in overrides)]
    here = partial(from_workspace, root=workspace.root, here=Path.cwd())
    typed = {str(name): keys_as_typed(block) for name, block in values.items()}
    changed = with_paths(typed, here, given)
    if "data.sources" in given and any(override.startswith("pack.mix") for override in overrides):
        changed["pack"]["mix"] = _named_alike(typed, changed)
    return validate(changed, known)


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
        check_form(workspace, override, BLOCKS)
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


def _named_alike(typed: Mapping[str, Any], changed: Mapping[str, Any]) -> Any:
    """`pack.mix`, where a source that is named as it was typed has the name that it has in the settings now."""
    names = dict(zip(_uris(typed), _uris(changed), strict=True))
    mix = changed["pack"]["mix"]
    return {names.get(str(Path(name)), name): share for name, share in mix.items()} if isinstance(mix, Mapping) else mix


def _uris(values: Mapping[str, Any]) -> list[str]:
    """Sources as they are named elsewhere: without the slash at the end, and without `./`."""
    sources = values["data"]["sources"]
    listed = sources if isinstance(sources, list) else [sources]
    uris = [str(each.get("uri") if isinstance(each, Mapping) else each) for each in listed]
    return [uri if "://" in uri else str(Path(uri)) for uri in uris]


def _one_line(workspace: Workspace, overrides: list[str], error: Exception, known: Mapping[str, type[Block]]) -> str:
    text = _ADVICE.split(" ".join(str(error).split()).replace("++", ""))[0]
    if text.startswith("Error merging"):
        text = "a mapping and another kind of value do not go together"
    hint = quoted_name_hint(overrides, known) or f"settings lie in {Path(workspace.conf).name}/"
    return f"{' '.join(overrides) or 'conf/'}: {text} ({hint})"
