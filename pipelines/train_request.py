"""Requests of `sluice train`, `profile`, `sweep` and `scaling`: the run's settings and the tokens it reads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sluice.components.params import validate_block
from sluice.components.workspace import Workspace
from sluice.core.settings.block import Block
from sluice.data.config import TokenizerConfig
from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.config import PretrainConfig
from sluice.model.parallelism.layout import LAYOUT_SETTINGS
from sluice.model.training.batches.settings import BaseConfig, TextConfig
from sluice.pipelines.compose import compose

if TYPE_CHECKING:
    from sluice.model.training.batches.text import Packed

PATH = "data.path="
_GROUPS = ("experiment=", "profile=", "model=")
_READ = ("model.", "pretrain.", "text.", "base.")
_OF_BASE = ("model=", "model.", "text.tokenizer=", "tokenizer.")
_LAYOUT = "pretrain."
_STEPS = "steps"
_FOR_BPE = ("tokenizer.vocab_size=", "tokenizer.min_frequency=")
_INDEX = "index.json"
_LONGEST_SEQUENCE = 1024
_READ_AT_ONCE = 1 << 22
BASE_SETTINGS = {"optimizer": "adamw", "learning_rate": 1e-4}
"""Settings of a run with a base that does not name them: those for random weights would undo what it has learned."""


@dataclass(frozen=True)
class Request:
    """One training run, without the whole lifecycle around it."""

    model: ModelConfig
    """With a base, its TransformerConfig."""
    pretrain: PretrainConfig
    text: TextConfig
    tokenizer: TokenizerConfig
    base: BaseConfig

    @property
    def context(self) -> int:
        """Tokens of a training sequence."""
        return self.model.context if self.base.context is None else self.base.context

    def settings(self) -> dict[str, Any]:
        """As plain values."""
        blocks: dict[str, Block] = {
            "model": self.model,
            "pretrain": self.pretrain,
            "text": self.text,
            "tokenizer": self.tokenizer,
            "base": self.base,
        }
        return {name: block.model_dump(mode="json") for name, block in blocks.items()}


def read_request(workspace: Workspace, overrides: Sequence[str]) -> Request:
    """From conf/ and key=value. ValueError for a key that is unknown, wrong, or would have no effect."""
    paths = [each.removeprefix(PATH) for each in overrides if each.startswith(PATH)]
    if len(paths) > 1:
        raise ValueError(f"{PATH[:-1]} is given {len(paths)} times: say once what to train on")
    others = [each for each in overrides if not each.startswith(PATH)]
    # The path is not composed: the grammar of values gives meaning to some of what a file's name may hold.
    params = compose(workspace, others, [TextConfig, BaseConfig])
    text = params[TextConfig]
    if paths:
        text = text.model_copy(update={"path": paths[0]})
    is_folder = text.path is None or Path(text.path).is_dir()
    for override in others:
        if override.startswith("text.path="):
            raise ValueError(f"'{override}': name what to train on by {PATH}..")
        if override.startswith("text.") and is_folder:
            raise ValueError(f"'{override}' has no effect on packed tokens: it goes with {PATH}FILE, a plain text")
        if override.startswith(_FOR_BPE):
            if is_folder or text.tokenizer != "bpe":
                raise ValueError(f"'{override}' has no effect: no tokenizer is trained here but for text.tokenizer=bpe")
        elif not override.startswith((*_GROUPS, *_READ)):
            raise ValueError(
                f"'{override}' has no effect on training alone: what has are {PATH}.., {', '.join(_GROUPS)} and keys "
                "of model, pretrain, text and base"
            )
    pretrain = params[PretrainConfig]
    if pretrain.decay_from is not None:
        # A run is resumed from any folder.
        plateau = str((workspace.root / pretrain.decay_from).resolve())
        pretrain = pretrain.model_copy(update={"decay_from": plateau})
    request = Request(params[ModelConfig], pretrain, text, params[TokenizerConfig], params[BaseConfig])
    if request.base.path is not None:
        return _with_base(request, (workspace.root / request.base.path).resolve(), others)
    if useless := next((each for each in others if each.startswith("base.")), None):
        raise ValueError(f"'{useless}' has no effect without base.path=DIR: the run begins at random weights")
    return request


def _with_base(request: Request, path: Path, overrides: Sequence[str]) -> Request:
    """The request of a run that begins at the model in `path`. ValueError for one that cannot, and for settings that
    the base has itself.
    """
    from sluice.model.directory import CONFIG, check_files, model_hash, read_json
    from sluice.model.huggingface import read_config

    for override in overrides:
        if override.startswith(_OF_BASE):
            raise ValueError(f"'{override}' has no effect beside base.path: shape and tokenizer are those of the base")
        if override.startswith("base.sha256="):
            raise ValueError(f"'{override}' is filled in from the files: leave it out")
    if not path.is_dir():
        raise ValueError(f"base.path={path} is not a folder: name a model directory")
    check_files(path)
    try:
        model = read_config(read_json(path / CONFIG))[0]
    except ValueError as error:
        raise ValueError(f"base.path={path}: {error}") from None
    if model.kind != "decoder":
        raise ValueError(f"base.path={path} is of kind {model.kind}: only decoders are trained further")
    context = request.base.context or min(model.context, _LONGEST_SEQUENCE)
    if context > model.context:
        raise ValueError(f"base.context={context} is more than the {model.context} tokens of the model in base.path")
    base = request.base.model_copy(update={"path": str(path), "context": context, "sha256": model_hash(path)})
    named = {each.partition("=")[0].removeprefix(_LAYOUT) for each in overrides if each.startswith(_LAYOUT)}
    gentle = {name: value for name, value in BASE_SETTINGS.items() if name not in named}
    pretrain = validate_block(PretrainConfig, request.pretrain.model_dump(mode="json") | gentle)
    return replace(request, model=model, base=base, pretrain=pretrain)


def read_trial(workspace: Workspace, overrides: Sequence[str]) -> Request:
    """The same for runs in one process each, of plain PyTorch. ValueError for what that cannot train, or for a layout
    that is asked for: it would have no effect.
    """
    from sluice.model.parallelism.rules import check
    from sluice.model.training.trial import SINGLE_PROCESS, single_process

    for override in overrides:
        name = override.partition("=")[0].removeprefix(_LAYOUT)
        if override.startswith(_LAYOUT) and name in SINGLE_PROCESS and name != "dtype":
            raise ValueError(f"'{override}' has no effect: every run is one process of plain PyTorch, without ZeRO")
    layout = [f"{_LAYOUT}{name}={value}" for name, value in SINGLE_PROCESS.items() if name != "dtype"]
    request = read_request(workspace, [*overrides, *layout])
    if request.base.path is not None:
        raise ValueError(f"'base.path={request.base.path}' has no effect here: these runs begin at random weights")
    plain = single_process(request.pretrain)
    check(plain, request.model, cuda=False)
    return replace(request, pretrain=plain)


def restore_request(settings: dict[str, Any]) -> Request:
    """The request that `Request.settings` describes."""
    base = BaseConfig.model_validate(settings.get("base", {}))
    return Request(
        (ModelConfig if base.path is None else TransformerConfig).model_validate(settings["model"]),
        PretrainConfig.model_validate(settings["pretrain"]),
        TextConfig.model_validate(settings["text"]),
        TokenizerConfig.model_validate(settings["tokenizer"]),
        base,
    )


def lay_out(request: Request, overrides: Sequence[str]) -> Request:
    """The same run in another layout or with further steps. ValueError for a key=value that would make it another."""
    changed: dict[str, Any] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        name = key.removeprefix(_LAYOUT)
        if not key.startswith(_LAYOUT) or name not in (*LAYOUT_SETTINGS, _STEPS):
            raise ValueError(
                f"'{override}' would make the resumed run another one: what may change are "
                f"{', '.join(_LAYOUT + each for each in (_STEPS, *LAYOUT_SETTINGS))}; or train anew into another folder"
            )
        changed[name] = yaml.safe_load(value)
    pretrain = validate_block(PretrainConfig, request.pretrain.model_dump(mode="json") | changed)
    return replace(request, pretrain=pretrain)


def open_tokens(workspace: Workspace, request: Request, out: Path) -> "Packed":
    """The packed tokens and their tokenizer: made below `out` of a text file, else those of a folder."""
    from sluice.model.training.batches.text import Packed, pack_text

    if request.base.path is not None:
        return _open_for_base(request, Path(request.base.path), out)
    if request.text.path is None:
        if workspace.is_default:
            raise ValueError(f"nothing to train on: name a text file or a packed folder by {PATH}..")
        packed, tokenizer = workspace.artifact("pack"), workspace.artifact("tokenizer")
        if not (packed / _INDEX).is_file():
            raise ValueError(
                f"nothing to train on: name a text file or a packed folder by {PATH}.., or run the pack step first"
            )
        return Packed(packed, tokenizer)
    path = Path(request.text.path)
    if not path.is_dir():
        return pack_text(path, out, request.text, request.tokenizer)
    if not (path / _INDEX).is_file():
        raise ValueError(f"{PATH}{path} is a folder without {_INDEX}: name one that the pack step made, or a text file")
    for folder in (path, path.parent / "tokenizer"):
        if (folder / "tokenizer.json").is_file():
            return Packed(path, folder)
    raise ValueError(f"{PATH}{path}: there is no tokenizer.json in it nor in {path.parent / 'tokenizer'}: put it there")


def _open_for_base(request: Request, base: Path, out: Path) -> "Packed":
    """The tokens of a run that begins at the model in `base`, made by the base's own tokenizer."""
    from sluice.core.manifest import file_hash
    from sluice.data.packing import PackedTokens
    from sluice.model.directory import load_tokenizer
    from sluice.model.text.prompt import document_end
    from sluice.model.training.batches.text import BaseTokens, Packed, pack_text

    assert isinstance(request.model, TransformerConfig)
    if request.text.path is None:
        raise ValueError(f"nothing to train on: name a text file, or a folder packed for the base, by {PATH}..")
    path, own = Path(request.text.path), base / "tokenizer.json"
    if not own.is_file():
        raise ValueError(f"base.path: {own} does not exist, and text needs one: put the model's own there")
    if not path.is_dir():
        own_tokens = BaseTokens(base, request.model.vocab_size, document_end(base, load_tokenizer(own)))
        return pack_text(path, out, request.text, request.tokenizer, own_tokens)
    if not (path / _INDEX).is_file():
        raise ValueError(f"{PATH}{path} is a folder without {_INDEX}: name one that the pack step made, or a text file")
    made = [folder / "tokenizer.json" for folder in (path, path.parent / "tokenizer")]
    theirs = next((each for each in made if each.is_file()), None)
    if theirs is None or file_hash(theirs) != file_hash(own):
        raise ValueError(f"{PATH}{path} was not packed with the tokenizer of base.path: pack it with {own}")
    for split in ("train", "valid"):
        tokens = PackedTokens(path, split).tokens
        parts = (tokens.read(at, min(_READ_AT_ONCE, len(tokens) - at)) for at in range(0, len(tokens), _READ_AT_ONCE))
        if (highest := max((int(part.max()) for part in parts), default=0)) >= request.model.vocab_size:
            raise ValueError(f"{PATH}{path} has token {highest}, outside the vocabulary of the model in base.path")
    return Packed(path, base)
