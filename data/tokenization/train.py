"""The tokenizer step: train on the training split or adopt, measure on the test split, check the gate."""

import time
from collections.abc import Callable
from pathlib import Path

from datatrove.data import Document
from tokenizers import Tokenizer

from sluice.core.progress import Progress, no_progress
from sluice.data.config import PackConfig, TokenizerConfig
from sluice.data.document import read_documents
from sluice.data.split import split_of
from sluice.data.tokenization.bpe import train_bpe
from sluice.data.tokenization.encoder import encoder_of
from sluice.data.tokenization.existing import adopt
from sluice.data.tokenization.folder import save_tokenizer
from sluice.data.tokenization.gate import judge, refuse
from sluice.data.tokenization.report import TokenizerReport, measure
from sluice.data.tokenization.special import special_tokens
from sluice.data.tokenization.unigram import train_unigram
from sluice.data.tokenization.wordpiece import train_wordpiece

_TRAINERS: dict[str, Callable[..., tuple[Tokenizer, str]]] = {
    "bpe": train_bpe,
    "wordpiece": train_wordpiece,
    "unigram": train_unigram,
}


def train_tokenizer(
    config: TokenizerConfig,
    documents: Path,
    out: Path,
    *,
    split: PackConfig,
    progress: Progress = no_progress,
) -> TokenizerReport:
    """Write tokenizer.json and tokenizer_config.json (Hugging Face layout), trained on the training split of
    `documents` or adopted from `config.path`, and report on the test split.

    The files depend on the settings and the set of training documents alone. Raises ValueError if a required split has
    no document, the text is too small for the vocabulary, or the tokenizer fails its gate.
    """
    started = time.perf_counter()
    special = special_tokens(config)
    training, held_out = _splits(documents, split, training_needed=config.path is None)
    changes: list[str] = []
    source_sha256 = None
    if config.path is None:
        least = 256 + len(special)
        if config.vocab_size < least:
            raise ValueError(
                f"tokenizer.vocab_size {config.vocab_size} is less than the bytes and special tokens: "
                f"it must be at least {least}"
            )
        tokenizer, trainer = _TRAINERS[config.algorithm](
            training, config.vocab_size, config.min_frequency, special, progress=progress
        )
        size = tokenizer.get_vocab_size()
        if size < config.vocab_size:
            raise ValueError(
                f"tokenizer.vocab_size {config.vocab_size} is more than the text fills ({size}): "
                "lower it or add documents"
            )
    else:
        tokenizer, changes, source_sha256 = adopt(Path(config.path), special)
        trainer = "given"
    trained = time.perf_counter()
    save_tokenizer(tokenizer, special, out)
    report = measure(tokenizer, encoder_of(tokenizer), held_out)
    report.algorithm = config.algorithm if config.path is None else type(tokenizer.model).__name__.lower()
    report.trainer, report.changes, report.source_sha256 = trainer, changes, source_sha256
    report.training_documents = len(training)
    report.training_bytes = sum(len(text.encode()) for text in training)
    report.timings = {"train_s": trained - started, "measure_s": time.perf_counter() - trained}
    refuse(judge(report, config))
    return report


def _splits(documents: Path, split: PackConfig, *, training_needed: bool) -> tuple[list[str], list[Document]]:
    """Return the texts to train on, in the order of their ids, and the documents to measure on."""
    training: list[tuple[str, str]] = []
    held_out: list[Document] = []
    for document in read_documents(documents):
        side = split_of(document.id, split)
        if side == "train" and training_needed:
            training.append((document.id, document.text))
        elif side == "test":
            held_out.append(document)
    if not held_out or (training_needed and not training):
        raise ValueError(
            f"{len(training)} training and {len(held_out)} test documents: the tokenizer needs both; "
            "add documents or raise pack.test_fraction"
        )
    return [text for _, text in sorted(training)], held_out
