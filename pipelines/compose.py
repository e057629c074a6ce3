"""conf/ and the command line's key=value -> validated settings -> params.yaml."""

import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sluice.components.file_hashes import with_hashes
from sluice.components.params import BLOCKS, Params, load_block, validate, validate_block
from sluice.components.saved_files import read_mapping
from sluice.components.workspace import Workspace
from sluice.core.files import atomic_write
from sluice.core.settings.block import Block
from sluice.core.settings.files import AnyBlock, map_paths, path_in_workspace
from sluice.pipelines.overrides import check_overrides, is_mapping, read_value

_HEADER = "# Composed from conf/ by `sluice run`; change conf/ or pass key=value rather than editing this file.\n"
_OF_ONE_COMMAND = {"cluster"}
"""Groups whose block one command alone has; for others, their part of conf/ is left out."""
_CORRECT = "correct it, or take it from the repository again"
_BLOCK_NAMES = {kind.block_name for kind in BLOCKS}
_PACKAGE = re.compile(r"^# @package (\S+)$", re.MULTILINE)


def compose(workspace: Workspace, overrides: Sequence[str], more: Sequence[type[Block]] = ()) -> Params:
    """All settings, with the sha256 of every file that they name; as `compose_without_files` otherwise."""
    params = compose_without_files(workspace, overrides, more)
    return Params(tuple(with_hashes(block, workspace.root) for block in params.blocks))


def compose_without_files(
    workspace: Workspace, overrides: Sequence[str], more: Sequence[type[Block]] = (), here: Path | None = None
) -> Params:
    """All settings, without a look at the files that they name; `more` are blocks of one command.

    Paths in `overrides` are from the folder `here`, by default the current one, those in conf/ from the workspace.
    Raises ValueError naming the key and what is allowed.
    """
    kinds = {kind.block_name: kind for kind in (*BLOCKS, *more)}
    groups = conf_groups(workspace, kinds)
    given = check_overrides(overrides, kinds, groups)
    # Imported after the checks: a mistake is reported at once.
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    here = here or Path.cwd()
    moved: dict[str, str] = {}

    def move(path: str) -> str:
        found = path_in_workspace(path, workspace.root, here)
        if "://" not in path:
            moved[str(Path(path))] = str(Path(found))
        return found

    try:
        # Every field's own default, without the blocks' rules: only the composed whole has to be legal. A default that
        # those rules would convert is no mistake, of which pydantic need not warn.
        defaults = {
            name: kind.model_construct().model_dump(mode="json", warnings=False) for name, kind in kinds.items()
        }
        conf = _conf_values(workspace.conf, {key: option for key, option in given.items() if key in groups})
        composed = OmegaConf.merge(defaults, *conf)
        for key, text in given.items():
            if key not in groups:
                block, _, field = key.partition(".")
                value = map_paths(kinds[block], {field: read_value(kinds[block], field, text)}, move)[field]
                OmegaConf.update(composed, key, value, merge=not is_mapping(kinds[block], field), force_add=True)
        values: Any = OmegaConf.to_container(composed, resolve=True)
        for name in _OF_ONE_COMMAND - kinds.keys():
            values.pop(name, None)
    except (OmegaConfBaseException, yaml.YAMLError, OSError) as error:
        text = " ".join(str(error).split())
        text = "a mapping and another kind of value do not go together" if "merg" in text else text
        raise ValueError(f"{' '.join(overrides) or 'conf/'}: {text} (settings lie in conf/)") from None
    names_sources = "data.sources" in given and any(key.startswith("pack.mix") for key in given)
    if names_sources and isinstance(mix := values["pack"]["mix"], dict):
        # A source has the name there that it was typed with.
        values["pack"]["mix"] = {moved.get(str(Path(name)), name): share for name, share in mix.items()}
    return validate(values, tuple(kinds.values()))


def override_block(workspace: Workspace, kind: type[AnyBlock], overrides: Sequence[str]) -> AnyBlock:
    """One block of the last run's params.yaml with `block.key=value` laid over it; the other blocks stay as they ran.

    Raises ValueError for another block's key, an unknown key or a wrong value.
    """
    values = load_block(workspace, kind).model_dump(mode="json")
    for override in overrides:
        check_overrides([override], {each.block_name: each for each in BLOCKS}, conf_groups(workspace))
        key, value = override.split("=", 1)
        if not key.startswith(f"{kind.block_name}."):
            raise ValueError(f"'{key}' has no effect here: only {kind.block_name}.key=value does")
        values[key.removeprefix(f"{kind.block_name}.")] = yaml.safe_load(value)
    return validate_block(kind, values)


def write_params(path: Path, params: Params) -> bool:
    """Write a params.yaml if it changes; True where it did."""
    text = _HEADER + yaml.safe_dump(params.dump(), sort_keys=False, allow_unicode=True)
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    with atomic_write(path) as partial:
        partial.write_text(text)
    return True


def find_workspace() -> Workspace:
    """The workspace of the current folder with settings: those of conf/ where no run has composed any yet.

    Raises ValueError where there is no workspace.
    """
    workspace = Workspace.find()
    if not workspace.params.is_file():
        write_params(workspace.params, compose(workspace, []))
    return workspace


def conf_groups(workspace: Workspace, kinds: Container[str] = ()) -> dict[str, list[str]]:
    """Groups that the `defaults` of config.yaml name, with their options, which are the files of the group's folder.

    `kinds` are the blocks of the command.
    """
    defaults = read_mapping(workspace.conf / "config.yaml", _CORRECT).get("defaults")
    if not isinstance(defaults, list):
        raise ValueError(f"{workspace.conf / 'config.yaml'} has no list `defaults`: {_CORRECT}")
    listed = {name for entry in defaults if isinstance(entry, dict) for name in entry}
    names = sorted(name for name in listed if name in kinds or name not in _OF_ONE_COMMAND)
    return {name: sorted(path.stem for path in (workspace.conf / name).glob("*.yaml")) for name in names}


def _conf_values(conf: Path, chosen: Mapping[str, str]) -> list[Any]:
    """The values of conf/ in the order of the `defaults` of config.yaml, of which later ones win.

    `chosen` options replace those of the list, and an option's own `override /group: option` those of groups before it.
    """
    root = _load(conf / "config.yaml")
    defaults = list(root.pop("defaults"))
    values: list[Any] = []
    # As in Hydra, a file without `_self_` comes after its list.
    for position, entry in reversed(list(enumerate(defaults if "_self_" in defaults else [*defaults, "_self_"]))):
        if entry == "_self_":
            values.append(root)
            continue
        if isinstance(entry, str):
            raise ValueError(f"{conf / 'config.yaml'}: '{entry}' in `defaults` is no group: write `GROUP: OPTION`")
        earlier = {name for each in defaults[:position] if not isinstance(each, str) for name in each}
        for group, option in entry.items():
            if (name := chosen.get(group, option)) is not None:
                path = conf / group / f"{name}.yaml"
                found = _load(path)
                for choice in found.pop("defaults", []):
                    if choice == "_self_":
                        continue
                    if isinstance(choice, str) or not all(key.startswith("override /") for key in choice):
                        raise ValueError(
                            f"{path}: {choice!r} is not supported in `defaults` of an option: list `override /GROUP: "
                            "OPTION` for another group, and copy what another option of this group sets"
                        )
                    if late := {key.removeprefix("override /") for key in choice} - earlier:
                        raise ValueError(
                            f"{path}: `override /{min(late)}` has no effect: of the `defaults` in config.yaml, the "
                            f"groups before {group} can be overridden, which are {', '.join(sorted(earlier)) or 'none'}"
                        )
                    chosen = {key.removeprefix("override /"): other for key, other in choice.items()} | dict(chosen)
                package = _PACKAGE.search(path.read_text())
                place = package[1] if package else group
                if place == group and group not in {*_BLOCK_NAMES, *_OF_ONE_COMMAND}:
                    fault = f"begin it with `# @package _global_`, as '{group}' is no block of settings"
                    raise ValueError(f"{path}: {fault}: {_CORRECT}")
                values.append(found if place == "_global_" else {place: found})
    return values[::-1]


def _load(path: Path) -> Any:
    """A file of conf/ as OmegaConf has it. Raises ValueError naming it if it is no mapping."""
    from omegaconf import DictConfig, OmegaConf

    try:
        found = OmegaConf.load(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}): {_CORRECT}") from None
    if not isinstance(found, DictConfig):
        raise ValueError(f"{path} is damaged (it is no mapping): {_CORRECT}")
    return found
