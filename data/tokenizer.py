"""Byte-level BPE (Sennrich et al. 2016, arXiv 1508.07909), trained by the tokenizers library on the training split."""

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data.config import PackConfig, TokenizerConfig
from data.document import read_documents
from data.progress import Progress, no_progress
from data.split import split_of

END_OF_TEXT = "<|endoftext|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
END_OF_TURN = "<|end|>"
SPECIAL_TOKENS = (END_OF_TEXT, USER, ASSISTANT, END_OF_TURN)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['user', 'assistant'] %}"
    "{{ raise_exception('role must be user or assistant, not ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# The split of GPT-4 and Llama 3, with numbers in pairs of digits: a small vocabulary has no room for 1000 triples.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEXTS_AT_ONCE = 256


class TokenizerReport(BaseModel):
    """How well the tokenizer fits text it was not trained on (the test split)."""

    vocab_size: int
    training_documents: int
    training_bytes: int
    held_out_documents: int
    bytes_per_token: float
    fertility: float
    """Tokens a whitespace word."""
    round_trip: float
    """Share of held-out documents that decode to exactly what was encoded."""
    timings: dict[str, float] = {}


def train_tokenizer(
    config: TokenizerConfig,
    documents: Path,
    out: Path,
    *,
    split: PackConfig,
    progress: Progress = no_progress,
) -> TokenizerReport:
    """Train on the training split of `documents`; write tokenizer.json and tokenizer_config.json (Hugging Face layout).

    ValueError if no document falls into the training or the test split, or the text is too small for the vocabulary.
    """
    started = time.perf_counter()
    held_out: list[str] = []
    training: list[str] = []
    for document in read_documents(documents):
        side = split_of(document.id, split)
        if side != "valid":
            (training if side == "train" else held_out).append(document.text)
    if not training or not held_out:
        raise ValueError(
            f"{len(training)} training and {len(held_out)} test documents: the tokenizer needs both; "
            "add documents or raise pack.test_fraction"
        )
    tokenizer = _untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_told(training, progress), trainer, length=len(training))
    size = tokenizer.get_vocab_size()
    if size < config.vocab_size:
        raise ValueError(
            f"tokenizer.vocab_size {config.vocab_size} is more than the text fills ({size}): lower it or add documents"
        )
    trained = time.perf_counter()
    _save(tokenizer, out)
    report = _measure(tokenizer, held_out)
    report.training_documents = len(training)
    report.training_bytes = sum(len(text.encode()) for text in training)
    report.timings = {"train_s": trained - started, "measure_s": time.perf_counter() - trained}
    return report


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, set to read special tokens inside text as plain characters.

    A document that quotes `<|endoftext|>` must not end there; callers that mean a special token add its id.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run the tokenizer step first")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _untrained() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _told(texts: list[str], progress: Progress) -> Iterator[str]:
    for number, text in enumerate(texts, start=1):
        yield text
        if number % _TEXTS_AT_ONCE == 0 or number == len(texts):
            progress(number, len(texts), "reading the training split, then merging")


def _save(tokenizer: Tokenizer, out: Path) -> None:
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": [USER, ASSISTANT, END_OF_TURN],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _measure(tokenizer: Tokenizer, texts: list[str]) -> TokenizerReport:
    tokenizer.encode_special_tokens = True
    tokens = exact = 0
    for batch in _batches(texts):
        for text, encoding in zip(batch, tokenizer.encode_batch_fast(batch), strict=True):
            tokens += len(encoding.ids)
            exact += tokenizer.decode(encoding.ids, skip_special_tokens=False) == text
    return TokenizerReport(
        vocab_size=tokenizer.get_vocab_size(),
        training_documents=0,
        training_bytes=0,
        held_out_documents=len(texts),
        bytes_per_token=sum(len(text.encode()) for text in texts) / tokens,
        fertility=tokens / max(sum(len(text.split()) for text in texts), 1),
        round_trip=exact / len(texts),
    )


def _batches(texts: list[str]) -> Iterable[list[str]]:
    return (texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE))
