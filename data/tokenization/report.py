"""Measure how well a tokenizer fits held-out text."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain, groupby

import numpy as np
from datatrove.data import Document
from pydantic import BaseModel
from tokenizers import Tokenizer

from sluice.data.config import UNDETERMINED
from sluice.data.tokenization.bytelevel import token_bytes
from sluice.data.tokenization.encoder import TextEncoder

_TEXTS_AT_ONCE = 256
_CODE_INDENT = "    "
"""Indentation of code in the document text contract."""


class Coverage(BaseModel):
    """Counts of one part of the held-out text."""

    bytes: int = 0
    tokens: int = 0
    words: int = 0
    """Separated by white space."""
    fragments: int = 0
    """Tokens of a part of a character, or of an unknown one."""

    @property
    def bytes_per_token(self) -> float:
        return self.bytes / self.tokens if self.tokens else math.nan

    @property
    def fertility(self) -> float:
        return self.tokens / max(self.words, 1) if self.tokens else math.nan

    def figures(self) -> dict[str, float]:
        """Return the figures of the report; `coverage` is the share of tokens of whole characters."""
        covered = 1 - self.fragments / self.tokens if self.tokens else math.nan
        return {
            "bytes": self.bytes,
            "bytes_per_token": self.bytes_per_token,
            "fertility": self.fertility,
            "coverage": covered,
        }


class TokenizerReport(BaseModel):
    """How well the tokenizer fits held-out text (the test split)."""

    vocab_size: int
    training_documents: int
    training_bytes: int
    held_out_documents: int
    bytes_per_token: float
    fertility: float
    """Tokens per whitespace word."""
    round_trip: float
    """Share of held-out documents that decode to exactly what was encoded."""
    algorithm: str = ""
    trainer: str = ""
    """Library that trained it; `given` for an existing one."""
    encoder: str = ""
    """Library that encodes with it."""
    coverage: float = math.nan
    """Share of tokens of whole characters: neither a part of a character's bytes nor an unknown one."""
    unused_vocabulary: float = math.nan
    """Share of the vocabulary, without special tokens, that the held-out text does not use."""
    compression: float = math.nan
    """Bits of the held-out text over those of its tokens, each written in log2(vocab_size) bits."""
    by_language: dict[str, dict[str, float]] = {}
    """Language of the document -> bytes, bytes_per_token, fertility, coverage."""
    by_kind: dict[str, dict[str, float]] = {}
    """The same for prose and for code, which is indented."""
    changes: list[str] = []
    """Changes made to an existing tokenizer."""
    source_sha256: str | None = None
    """Hash of an existing tokenizer.json before the changes."""
    timings: dict[str, float] = {}


def measure(tokenizer: Tokenizer, encoder: TextEncoder, held_out: Sequence[Document]) -> TokenizerReport:
    """Measure the tokenizer on held-out documents; the caller fills in the fields about training.

    A document's language is its metadata's `language`, else `und`.
    """
    whole, total = _whole_characters(tokenizer, encoder.vocab_size), Coverage()
    languages: dict[str, Coverage] = defaultdict(Coverage)
    kinds: dict[str, Coverage] = {"prose": Coverage(), "code": Coverage()}
    uses = np.zeros(encoder.vocab_size, dtype=np.int64)
    exact = 0
    for start in range(0, len(held_out), _TEXTS_AT_ONCE):
        batch = held_out[start : start + _TEXTS_AT_ONCE]
        encoded = encoder.encode_batch([each.text for each in batch])
        uses += np.bincount(np.fromiter(chain.from_iterable(encoded), dtype=np.int64), minlength=len(uses))
        for document, ids in zip(batch, encoded, strict=True):
            exact += tokenizer.decode(ids, skip_special_tokens=False) == document.text
            language = str(document.metadata.get("language") or UNDETERMINED)
            for part in (total, languages[language]):
                _add(part, document.text, ids, whole)
        pieces = [piece for document in batch for piece in prose_and_code(document.text)]
        for (kind, text), ids in zip(pieces, encoder.encode_batch([text for _, text in pieces]), strict=True):
            _add(kinds[kind], text, ids, whole)
    special = tokenizer.get_added_tokens_decoder()
    plain = [index for index in tokenizer.get_vocab().values() if index not in special]
    return TokenizerReport(
        vocab_size=encoder.vocab_size,
        training_documents=0,
        training_bytes=0,
        held_out_documents=len(held_out),
        bytes_per_token=total.bytes_per_token,
        fertility=total.fertility,
        round_trip=exact / len(held_out) if held_out else math.nan,
        encoder=encoder.name,
        coverage=total.figures()["coverage"],
        unused_vocabulary=float(np.mean(uses[plain] == 0)),
        compression=8 * total.bytes_per_token / math.log2(encoder.vocab_size),
        by_language={name: part.figures() for name, part in sorted(languages.items()) if part.tokens},
        by_kind={name: part.figures() for name, part in kinds.items() if part.tokens},
    )


def prose_and_code(text: str) -> Iterator[tuple[str, str]]:
    """Runs of lines that are `prose` or `code`, which is indented by four; an empty line belongs to the run before.

    Together the runs are the text.
    """
    kind = "prose"

    def kind_of(line: str) -> str:
        nonlocal kind
        if line.strip():
            kind = "code" if line.startswith(_CODE_INDENT) else "prose"
        return kind

    for name, lines in groupby(text.splitlines(keepends=True), kind_of):
        yield name, "".join(lines)


def _add(part: Coverage, text: str, ids: list[int], whole: np.ndarray) -> None:
    part.bytes += len(text.encode())
    part.tokens += len(ids)
    part.words += len(text.split())
    part.fragments += len(ids) - int(np.count_nonzero(whole[ids])) if ids else 0


def _whole_characters(tokenizer: Tokenizer, vocab_size: int) -> np.ndarray:
    """Return whether each id is a token of whole characters, [vocab_size] bool."""
    tokens = token_bytes(tokenizer)
    whole = np.ones(vocab_size, dtype=bool)
    if tokens is None:
        unknown = getattr(tokenizer.model, "unk_token", None)
        index = tokenizer.token_to_id(unknown) if unknown else getattr(tokenizer.model, "unk_id", None)
        if index is not None:
            whole[index] = False
        return whole
    for index, token in tokens.items():
        try:
            token.decode()
        except UnicodeDecodeError:
            whole[index] = False
    return whole
