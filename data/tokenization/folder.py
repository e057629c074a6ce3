"""Tokenizer folders: tokenizer.json, and tokenizer_config.json with the chat template (Hugging Face layout)."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from sluice.data.tokenization.special import CHAT_TEMPLATE, END_OF_TEXT


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a folder, set to encode special tokens inside text as plain characters.

    A document that quotes `<|endoftext|>` must not end there; callers that need a special token add its id.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run the tokenizer step first")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, special: tuple[str, ...], out: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, which depend on the tokenizer and its special tokens alone."""
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": [token for token in special if token != END_OF_TEXT],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
