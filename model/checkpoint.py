"""The model directory: Hugging Face's Llama layout, so that transformers loads it as it stands. Never a pickle."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from model.architecture.config import TransformerConfig
from model.architecture.transformer import Transformer
from model.huggingface import from_huggingface, to_huggingface

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_HASHED = ("config.json", "model.safetensors", *_TOKENIZER_FILES)
_STOP_TOKENS = ("<|endoftext|>", "<|end|>")


def save_model(folder: Path, model: Transformer, tokenizer_folder: Path, lineage: dict[str, Any]) -> None:
    """Writes config.json, model.safetensors, the tokenizer's files, generation_config.json and lineage.json.

    The same weights, tokenizer and `lineage` (plain JSON values) give the same bytes. lineage.json also holds the
    sha256 of every other file, which `load_model` checks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in _TOKENIZER_FILES:
        if not (tokenizer_folder / name).is_file():
            raise ValueError(f"{tokenizer_folder / name} does not exist: train the tokenizer first")
        shutil.copyfile(tokenizer_folder / name, folder / name)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if (size := tokenizer.get_vocab_size()) > model.config.vocab_size:
        raise ValueError(f"the tokenizer has {size} tokens but the model only {model.config.vocab_size}")
    stops = [token for text in _STOP_TOKENS if (token := tokenizer.token_to_id(text)) is not None]
    special = {"bos_token_id": None, "eos_token_id": stops[0] if stops else None, "pad_token_id": None}
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    _write_json(folder / "config.json", {**model.config.to_huggingface(), **special, "dtype": dtype})
    _write_json(folder / "generation_config.json", {"eos_token_id": stops or None})
    weights = {name: weight.detach().cpu() for name, weight in model.state_dict().items()}
    save_file(to_huggingface(weights, model.config), folder / "model.safetensors", metadata={"format": "pt"})
    files = {name: _sha256(folder / name) for name in sorted((*_HASHED, "generation_config.json"))}
    _write_json(folder / "lineage.json", {**lineage, "files": files})


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Transformer, Tokenizer]:
    """The model in evaluation mode and its tokenizer.

    Raises ValueError naming the file that is missing, damaged, or not the one that lineage.json was written for.
    """
    check_files(folder)
    model = load_transformer(folder, dtype)
    path = _existing(folder / "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises the bare Exception for any unreadable file
        raise ValueError(f"{path} is damaged: {error}") from error
    return model, tokenizer


def load_transformer(folder: Path, dtype: torch.dtype = torch.float32) -> Transformer:
    """The model alone, from any Llama directory in safetensors (of one file or several), in evaluation mode."""
    try:
        config = TransformerConfig.from_huggingface(_read_json(folder / "config.json"))
        shards = sorted(folder.glob("model*.safetensors")) or [_existing(folder / "model.safetensors")]
        state: dict[str, torch.Tensor] = {}
        for path in shards:
            try:
                state |= load_file(path)
            except SafetensorError as error:
                raise ValueError(f"{path.name} is damaged: {error}") from error
        with torch.device("meta"):
            model = Transformer(config)
        # Copied, because safetensors maps the file: a server must not depend on what becomes of it.
        ours = {name: weight.to(dtype, copy=True) for name, weight in from_huggingface(state, config).items()}
        _check_shapes(model, ours)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    model.load_state_dict(ours, assign=True)
    return model.requires_grad_().eval()


def check_files(folder: Path) -> None:
    """Holds every file that lineage.json lists to its sha256; a directory without lineage.json passes."""
    if not (folder / "lineage.json").is_file():
        return
    files = _read_json(folder / "lineage.json").get("files", {})
    if not isinstance(files, dict):
        raise ValueError(f"{folder / 'lineage.json'} is damaged: 'files' is not an object")
    for name, expected in files.items():
        if _sha256(_existing(folder / name)) != expected:
            raise ValueError(f"{folder / name} is not the file that was saved (sha256 differs): restore the directory")


def model_hash(folder: Path) -> str:
    """sha256 hex over config, weights and tokenizer: what decides the model's answers, and nothing else."""
    digest = hashlib.sha256()
    for name in _HASHED:
        digest.update(f"{name} {_sha256(_existing(folder / name))}\n".encode())
    return digest.hexdigest()


def _check_shapes(model: Transformer, state: dict[str, torch.Tensor]) -> None:
    for name, expected in model.state_dict().items():
        if state[name].shape != expected.shape:
            found, wanted = tuple(state[name].shape), tuple(expected.shape)
            raise ValueError(f"weight {name} has shape {found}, but config.json asks for {wanted}")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path} does not exist: not a model directory, or an incomplete one")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_existing(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: not a JSON object")
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
