"""Model directory in Hugging Face layout: transformers loads what it can express. Never a pickle."""

import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from sluice.core.manifest import file_hash
from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.transformer import Transformer
from sluice.model.huggingface import (
    Family,
    from_huggingface,
    own_weights,
    read_config,
    skeleton,
    tidy,
    to_huggingface,
    write_config,
)
from sluice.model.model_files import (
    CHAT_TEMPLATE_FILE,
    CONFIG,
    TOKENIZER_FILES,
    WEIGHTS,
    existing,
    model_hash,  # noqa: F401  for those that load models, and need not know where it comes from
    read_json,
    weight_files,
)

LINEAGE, GENERATION = "lineage.json", "generation_config.json"
BESIDE = (
    *TOKENIZER_FILES,
    CHAT_TEMPLATE_FILE,
    GENERATION,
    "added_tokens.json",
    "chat_template.json",
    "special_tokens_map.json",
    "tokenizer.model",
)
"""Files beside configuration and weights that belong to a model and are copied unchanged."""
_HASHED = (CONFIG, WEIGHTS, *TOKENIZER_FILES)
_STOP_TOKENS = ("<|endoftext|>", "<|end|>")
_PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"})


def save_model(folder: Path, model: Transformer, tokenizer_folder: Path, lineage: dict[str, Any]) -> None:
    """Write config.json, model.safetensors, the tokenizer's files, generation_config.json and lineage.json.

    Equal weights, tokenizer and `lineage` (plain JSON values) give equal bytes. lineage.json also contains the sha256
    of every other file, which `load_model` checks. Models that no family of transformers can express are written with
    our own fields and names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if not (tokenizer_folder / name).is_file():
            raise ValueError(f"{tokenizer_folder / name} does not exist: train the tokenizer first")
        shutil.copyfile(tokenizer_folder / name, folder / name)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if (size := tokenizer.get_vocab_size()) > model.config.vocab_size:
        raise ValueError(f"the tokenizer has {size} tokens but the model only {model.config.vocab_size}")
    stops = [token for text in _STOP_TOKENS if (token := tokenizer.token_to_id(text)) is not None]
    special = {"bos_token_id": None, "eos_token_id": stops[0] if stops else None, "pad_token_id": None}
    save_transformer(folder, model, special)
    write_json(folder / GENERATION, {"eos_token_id": stops or None})
    write_lineage(folder, lineage, (*_HASHED, GENERATION))


def save_continued(folder: Path, model: Transformer, base: Path, lineage: dict[str, Any]) -> None:
    """Write a model that was trained from the one in `base`, which has the same configuration.

    All but the weights is the base's: names and types of the weights, every field of config.json (ids of special
    tokens, fields that change no logit), generation settings, tokenizer and chat template.
    """
    stored = read_stored(base)
    assert model.config == stored.config, "a continued model has its base's configuration"
    existing(base / TOKENIZER_FILES[0])
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, stored.content)
    state = model.state_dict()
    weights = {name: state[name].detach().cpu().to(like.dtype) for name, like in stored.weights.items()}
    save_weights(folder, to_huggingface(weights, model.config, stored.family))
    beside = copy_beside(base, folder)
    write_lineage(folder, lineage, (CONFIG, WEIGHTS, *beside))


def copy_beside(source: Path, target: Path, names: Iterable[str] = BESIDE) -> list[str]:
    """Copy the files of these names that there are, and return their names."""
    found = [name for name in names if (source / name).is_file()]
    for name in found:
        shutil.copyfile(source / name, target / name)
    return found


def save_transformer(
    folder: Path, model: Transformer, special: Mapping[str, int | None] = MappingProxyType({})
) -> None:
    """Write only config.json, with the ids of `special` tokens, and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    write_json(folder / CONFIG, {**write_config(model.config), **special, "dtype": dtype})
    weights = {name: weight.detach().cpu() for name, weight in model.state_dict().items()}
    save_weights(folder, to_huggingface(weights, model.config))


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer.json; it may have more tokens than the model's vocabulary. ValueError naming a damaged file.

    Truncation and padding, which some files have for batches of their own, are off: a text is encoded whole.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises the bare Exception for any unreadable file
        raise ValueError(f"{path} is damaged: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def load_model(folder: Path, dtype: torch.dtype | None = torch.float32) -> tuple[Transformer, Tokenizer]:
    """Load the model, in evaluation mode, and its tokenizer; `dtype` None is that of the embedding on disk.

    Raises ValueError naming a file that is missing, damaged, or differs from its hash in lineage.json.
    """
    check_files(folder)
    model = load_transformer(folder, dtype)
    return model, load_tokenizer(existing(folder / "tokenizer.json"))


def load_transformer(folder: Path, dtype: torch.dtype | None = torch.float32) -> Transformer:
    """Load only the model, in evaluation mode, from a directory of any known family with one or more safetensors files.

    Raises ValueError, starting with the folder, for anything missing, damaged, unknown or unsupported.
    """
    stored = read_stored(folder)
    dtype = dtype or stored.dtype
    model = skeleton(stored.config)
    # Copied, because safetensors maps the file into memory: later changes of the file must not affect a server.
    weights = {name: weight.to(dtype, copy=True) for name, weight in stored.weights.items()}
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_().eval()


@dataclass(frozen=True)
class StoredModel:
    """Validated content of a model directory."""

    content: dict[str, Any]
    """Content of config.json, without ignored fields."""
    config: TransformerConfig
    family: Family | None
    """None: the directory uses our own fields and names."""
    weights: dict[str, torch.Tensor]
    """Weights under our names, in the file's dtype; they may map the file."""
    left_out: tuple[str, ...]
    """Weights of the file that affect no logit."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the embedding on disk."""
        return self.weights["embedding.weight"].dtype


def read_stored(folder: Path, ignore: Collection[str] = ()) -> StoredModel:
    """Read and validate a model directory, as if config.json had no field of the names in `ignore`.

    Raises ValueError, starting with the folder, for anything missing, damaged, unknown or unsupported.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: name a model directory on this machine")
    try:
        content = read_json(folder / CONFIG)
        if absent := sorted(set(ignore) - content.keys()):
            raise ValueError(f"config.json has no field {absent[0]}: there is nothing to ignore")
        content = {name: value for name, value in content.items() if name not in ignore}
        # Next to safetensors pickles are ignored.
        names = sorted(path.name for path in folder.iterdir())
        pickles = [name for name in names if Path(name).suffix in _PICKLES]
        if pickles and not any(name.endswith(".safetensors") for name in names):
            raise ValueError(
                f"{pickles[0]} may be a pickle, which runs code when it is read: save the model as safetensors"
            )
        # Faults of the small file show before the large one is read.
        config, family = read_config(content)
        state = _read_weights(folder)
        if family is None:
            return StoredModel(content, config, None, own_weights(state, config), left_out=())
        tidied = tidy(state, family, tied=config.tie_embeddings)
        config, _ = read_config(content, own_head=tidied.own_head)
        if tidied.own_head and config.tie_embeddings:
            raise ValueError(
                "config.json: tie_word_embeddings is True, but lm_head.weight is not the embedding: set it to false"
            )
        weights = from_huggingface(tidied.weights, config, family)
        return StoredModel(content, config, family, weights, tidied.left_out)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(f"{folder}/") else f"{folder}: {message}") from error


def check_files(folder: Path) -> None:
    """Compare every file that lineage.json lists with its sha256; a directory without lineage.json passes."""
    if not (folder / LINEAGE).is_file():
        return
    files = read_json(folder / LINEAGE).get("files", {})
    if not isinstance(files, dict):
        raise ValueError(f"{folder / LINEAGE} is damaged: 'files' is not an object")
    for name, expected in files.items():
        if file_hash(existing(folder / name)) != expected:
            raise ValueError(f"{folder / name} is not the file that was saved (sha256 differs): restore the directory")


def save_weights(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    # transformers requires this format name.
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def write_lineage(folder: Path, lineage: dict[str, Any], names: Iterable[str]) -> None:
    """Write lineage.json: the origin of the model, and the sha256 of the files of these names."""
    files = {name: file_hash(folder / name) for name in sorted(names)}
    write_json(folder / LINEAGE, {**lineage, "files": files})


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of the directory's safetensors files, with their names and dtypes."""
    state: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        try:
            shard = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path.name} is damaged: {error}") from error
        if twice := sorted(shard.keys() & state.keys()):
            raise ValueError(f"weight '{twice[0]}' is in {path.name} and in a file before it")
        state |= shard
    return state
