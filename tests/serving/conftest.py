"""Tiny models to serve, in the layout that training leaves behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sluice.components.ray_head import prepare_environment

# Importing ray fixes its authentication mode, so the token has to be there before.
prepare_environment()

TEXT = """A request joins the running batch at the next step, and leaves it when its answer is complete.
Größe, naïve, 日本語のテキスト, эта строка, 🙂🙃: characters of two, three and four bytes.
The champion answers when the challenger fails, and nobody notices. The quick brown fox jumps over the lazy dog.
"""

ModelFactory = Callable[..., Path]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer with the chat template's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


@pytest.fixture(scope="session")
def make_model(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFactory:
    """make_model(seed, context=64, poisoned=False, **shape) -> model directory."""
    import torch

    from sluice.model.architecture.config import ModelConfig, TransformerConfig
    from sluice.model.architecture.initialization import initialize
    from sluice.model.architecture.transformer import Transformer
    from sluice.model.directory import save_model

    def make(seed: int, *, poisoned: bool = False, vocab_size: int = 400, **shape: Any) -> Path:
        settings = ModelConfig(**{"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "context": 64, **shape})
        model = Transformer(TransformerConfig.from_settings(settings, vocab_size))
        initialize(model, seed)
        with torch.no_grad():
            # Sharper than at initialisation, so that greedy answers differ from prompt to prompt.
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(8.0)
            if poisoned:
                model.norm.weight.fill_(torch.nan)
        folder = tmp_path_factory.mktemp("model") / f"seed-{seed}"
        save_model(folder, model, tokenizer_folder, {})
        return folder

    return make
