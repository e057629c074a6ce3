"""Import and export of model directories in transformers' format. The output is complete or absent."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.core.manifest import file_hash
from sluice.model.directory import (
    BESIDE,
    CONFIG,
    LINEAGE,
    TOKENIZER_FILES,
    WEIGHTS,
    StoredModel,
    check_files,
    copy_beside,
    load_tokenizer,
    read_json,
    read_stored,
    save_weights,
    weight_files,
    write_json,
    write_lineage,
)
from sluice.model.huggingface import NATIVE, to_huggingface, why_none

TOKENIZER = TOKENIZER_FILES[0]


@dataclass(frozen=True)
class Conversion:
    """Summary of an import or export."""

    family: str
    parameters: int
    weights: int
    """Tensors in model.safetensors."""
    left_out: tuple[str, ...]
    """Weights of the source that affect no logit and were dropped."""
    unwritten: tuple[str, ...]
    """Settings that transformers has no field for; none of them affects a logit."""
    extra_tokens: int
    """Tokens of tokenizer.json that the model's vocabulary does not have."""
    kept: tuple[str, ...]
    """Tokenizer files that a user had put into the output folder, kept because the source has none."""


def import_model(
    source: Path, out: Path, *, force: bool = False, ignore: Sequence[str] = (), origin: Mapping[str, str] | None = None
) -> Conversion:
    """Convert a directory of transformers to a model directory; dtypes of the weights are kept.

    The fields of config.json named in `ignore` are left out, and kept with their values in lineage.json, as is
    `origin`: where the source came from.

    Raises ValueError for anything missing, damaged, unknown or unsupported, and for an `out` that is not a model
    directory.
    """
    check_files(source)
    stored = read_stored(source, ignore)
    if stored.family is None:
        raise ValueError(f"{source} is a model directory in our own fields already: use it as it is")
    lineage: dict[str, Any] = {"imported": {name: file_hash(source / name) for name in _weight_files(source)}}
    if origin is not None:
        lineage["origin"] = dict(origin)
    if ignore:
        content = read_json(source / CONFIG)
        lineage["ignored"] = {name: content[name] for name in ignore}
    return _written(stored, source, out, lineage, stored.content, force=force)


def export_model(folder: Path, out: Path, *, force: bool = False) -> Conversion:
    """Convert a model directory to one that contains only fields and weights of transformers.

    Raises ValueError naming the settings that transformers cannot express, and as `import_model` does.
    """
    check_files(folder)
    stored = read_stored(folder)
    if stored.family is None:
        raise ValueError(f"{folder}: {why_none(stored.config)}")
    content = {name: value for name, value in stored.content.items() if name != NATIVE}
    lineage = {"exported": {name: file_hash(folder / name) for name in _weight_files(folder)}}
    return _written(stored, folder, out, lineage, content, force=force)


def _written(
    stored: StoredModel, source: Path, out: Path, lineage: dict[str, Any], content: dict[str, Any], *, force: bool
) -> Conversion:
    assert stored.family is not None
    # The source's own fields, all of which have been read, so that fields without effect (token ids) are kept.
    content = {**content, "architectures": [stored.family.architecture]}
    weights = to_huggingface(stored.weights, stored.config, stored.family)
    kept: tuple[str, ...] = ()
    if not (source / TOKENIZER).is_file() and _is_ours(out):
        # Files that a user added to a directory written without a tokenizer.
        written = read_json(out / LINEAGE)["files"]
        kept = tuple(name for name in TOKENIZER_FILES if (out / name).is_file() and name not in written)
    extra = 0
    if (tokenizer := (out if kept else source) / TOKENIZER).is_file():
        size = 1 + max(load_tokenizer(tokenizer).get_vocab().values(), default=-1)
        extra = max(0, size - stored.config.vocab_size)

    def write(folder: Path) -> None:
        write_json(folder / CONFIG, content)
        save_weights(folder, weights)
        beside = copy_beside(source, folder, [name for name in BESIDE if name not in kept])
        for name in kept:
            shutil.copyfile(out / name, folder / name)
        # Files that a user put there get no hash, so that they may be replaced.
        write_lineage(folder, lineage, (CONFIG, WEIGHTS, *beside))

    _put(write, source, out, force=force)
    return Conversion(
        family=stored.family.name,
        parameters=sum(weight.numel() for weight in stored.weights.values()),
        weights=len(weights),
        left_out=stored.left_out,
        unwritten=tuple(sorted(stored.content.get(NATIVE, {}).keys() - content.get(NATIVE, {}).keys())),
        extra_tokens=extra,
        kept=kept,
    )


def _put(write: Callable[[Path], None], source: Path, out: Path, *, force: bool) -> None:
    """Write a sibling of `out` and rename it when it is complete. ValueError if `out` must not be replaced."""
    here, there = source.resolve(), out.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise ValueError(f"{out} and {source} lie in one another: name a folder apart")
    for parent in (out, *out.parents):
        if parent.exists() and not parent.is_dir():
            raise ValueError(f"{out}: {parent} is a file; name a folder")
    if out.exists() and any(out.iterdir()):
        if not (out / CONFIG).is_file():
            raise ValueError(f"{out} holds something that is not a model directory: name an empty or a new folder")
        if not force and not _is_ours(out):
            raise ValueError(f"{out} holds a model that this command did not write: name a new folder, or add --force")
    half, old = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.old")
    if old.is_dir() and not out.exists():
        # An earlier conversion was interrupted between the two renames below.
        old.rename(out)
    shutil.rmtree(half, ignore_errors=True)
    try:
        half.mkdir(parents=True)
        write(half)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        half.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    if not (folder / LINEAGE).is_file():
        return False
    try:
        return "files" in read_json(folder / LINEAGE)
    except ValueError:
        return False


def _weight_files(folder: Path) -> list[str]:
    return [CONFIG, *(path.name for path in weight_files(folder))]
