"""Tokenizers: train byte-level BPE, WordPiece or Unigram or adopt an existing one, measure them, encode text."""

from sluice.data.tokenization.folder import load_tokenizer
from sluice.data.tokenization.report import TokenizerReport
from sluice.data.tokenization.special import ASSISTANT, CHAT_TEMPLATE, END_OF_TEXT, END_OF_TURN, SPECIAL_TOKENS, USER
from sluice.data.tokenization.train import train_tokenizer

__all__ = [
    "ASSISTANT",
    "CHAT_TEMPLATE",
    "END_OF_TEXT",
    "END_OF_TURN",
    "SPECIAL_TOKENS",
    "USER",
    "TokenizerReport",
    "load_tokenizer",
    "train_tokenizer",
]
