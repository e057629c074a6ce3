"""Each block of the data package over the same text, beside the stock block where there is one."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pydantic import BaseModel
from tokenizers import Tokenizer

from benchmarks.data import stock
from benchmarks.data.clock import Rate, measure, utf8_bytes
from sluice.data.config import RefineConfig
from sluice.data.decontamination.sets import EvaluationSets, find
from sluice.data.deduplication.sketch import sketch
from sluice.data.deduplication.words import _hashes, word_hashes
from sluice.data.extraction.extract import extract
from sluice.data.privacy import mask
from sluice.data.quality.rules import score
from sluice.data.tokenization.bpe import by_tokenizers, train_bpe
from sluice.data.tokenization.encoder import Tokenizers, encoder_of
from sluice.data.tokenization.special import SPECIAL_TOKENS

_TEXTS_AT_ONCE = 64
_WARM_UP = 8


def filters(texts: list[str], runs: int) -> dict[str, Rate]:
    works: dict[str, Callable[[], object]] = {
        "sluice": lambda: [score(text) for text in texts],
        "datatrove": lambda: stock.filter_chain(texts),
    }
    score(texts[0])
    stock.filter_chain(texts[:_WARM_UP])
    return measure(works, utf8_bytes(texts), runs)


def minhash(texts: list[str], runs: int) -> dict[str, Rate]:
    """Words, shingles and signatures; nothing is written."""
    config = RefineConfig.model_validate({})

    def ours() -> None:
        _hashes.clear()  # every run meets its words for the first time
        for text in texts:
            sketch(text, config)

    sketch(texts[0], config)
    stock.signatures(texts[:_WARM_UP])
    return measure({"sluice": ours, "datatrove": lambda: stock.signatures(texts)}, utf8_bytes(texts), runs)


class Trained(BaseModel):
    """Byte-level BPE of one size of vocabulary, trained by ours and by Hugging Face's trainer."""

    vocab_size: int
    rates: dict[str, Rate]
    library: str
    bytes_a_token: dict[str, float]
    """On text that neither was trained on."""


def training(texts: list[str], held_out: list[str], vocab_size: int, min_frequency: int, runs: int) -> Trained:
    made: dict[str, Tokenizer] = {}
    libraries: set[str] = set()

    def ours() -> None:
        made["sluice"], library = train_bpe(texts, vocab_size, min_frequency, SPECIAL_TOKENS)
        libraries.add(library)

    def theirs() -> None:
        made["tokenizers"] = by_tokenizers(texts, vocab_size, min_frequency, SPECIAL_TOKENS)

    rates = measure({"sluice": ours, "tokenizers": theirs}, utf8_bytes(texts), runs)
    size = utf8_bytes(held_out)
    lengths = {
        name: size / sum(map(len, Tokenizers(tokenizer).encode_batch(held_out))) for name, tokenizer in made.items()
    }
    return Trained(vocab_size=vocab_size, rates=rates, library=", ".join(libraries), bytes_a_token=lengths)


def encoding(texts: list[str], vocab_size: int, min_frequency: int, runs: int) -> dict[str, Rate]:
    """Texts to ids, a batch at a time as packing does it. ValueError where the ids are not the same."""
    tokenizer, _ = train_bpe(texts, vocab_size, min_frequency, SPECIAL_TOKENS)
    ours, theirs = encoder_of(tokenizer), Tokenizers(tokenizer)
    batches = [texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE)]
    if any(ours.encode_batch(batch) != theirs.encode_batch(batch) for batch in batches):
        raise ValueError("the fast encoder gives other ids than tokenizer.json: its rate says nothing")
    works: dict[str, Callable[[], object]] = {
        "sluice": lambda: [ours.encode_batch(batch) for batch in batches],
        "tokenizers": lambda: [theirs.encode_batch(batch) for batch in batches],
    }
    return measure(works, utf8_bytes(texts), runs)


def others(texts: list[str], items: Sequence[Path], runs: int) -> dict[str, Rate]:
    """Blocks that datatrove has none of, or none that works without the network."""
    sets = EvaluationSets.load(items)
    hashed = [word_hashes(text) for text in texts]

    def decontaminate() -> None:
        _hashes.clear()
        for text in texts:
            find(word_hashes(text), sets)

    mask(texts[0])
    find(hashed[0], sets)
    works: dict[str, Callable[[], object]] = {
        "personal data masked": lambda: [mask(text) for text in texts],
        "decontamination, words included": decontaminate,
        "decontamination, words at hand": lambda: [find(each, sets) for each in hashed],
    }
    return measure(works, utf8_bytes(texts), runs)


def extraction(by_markup: dict[str, list[str]], runs: int) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    for markup, texts in by_markup.items():
        extract(texts[0], markup)
        rates |= measure({markup: partial(_extract, texts, markup)}, utf8_bytes(texts), runs)
    return rates


def _extract(texts: list[str], markup: str) -> None:
    for text in texts:
        extract(text, markup)
