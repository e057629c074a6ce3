"""A tokenizer from elsewhere."""
# ruff: noqa: F811

import hashlib
from pathlib import Path

import pytest
from tokenization_fixtures import library, train  # noqa: F401
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from sluice.data.tokenization import END_OF_TEXT, SPECIAL_TOKENS, load_tokenizer
from sluice.data.tokenization.bpe import by_tokenizers
from sluice.data.tokenization.encoder import load_encoder


def test_a_tokenizer_of_ours_is_taken_as_it_is(library: Path, tmp_path: Path):
    train(library, tmp_path / "one")
    path = tmp_path / "one" / "tokenizer.json"
    report = train(library, tmp_path / "two", path=str(path))
    assert (tmp_path / "two" / "tokenizer.json").read_bytes() == path.read_bytes()
    assert (report.trainer, report.algorithm, report.encoder) == ("given", "bpe", "tiktoken")
    assert (report.changes, report.training_documents) == ([], 0)
    assert report.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_missing_special_tokens_are_added_and_additions_to_texts_removed(library: Path, tmp_path: Path):
    given = by_tokenizers(["some text " * 40], 300, 2, ["<s>", END_OF_TEXT])
    size = given.get_vocab_size()
    given.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    given.enable_truncation(8)
    given.enable_padding()
    given.save(str(tmp_path / "given.json"))
    report = train(library, tmp_path / "out", path=str(tmp_path / "given.json"), special_tokens=["<|tool|>"])
    assert report.changes == [
        "added <|user|>",
        "added <|assistant|>",
        "added <|end|>",
        "added <|tool|>",
        "removed truncation",
        "removed padding",
        "removed post-processor TemplateProcessing",
    ]
    assert report.vocab_size == size + 4
    assert report.round_trip == 1
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer.token_to_id(END_OF_TEXT) == 1
    assert all(tokenizer.token_to_id(token) is not None for token in SPECIAL_TOKENS)
    text = "a text of more than eight tokens " * 4
    assert tokenizer.encode(text).ids == load_encoder(tmp_path / "out").encode_batch([text])[0]
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_word_of_its_vocabulary_becomes_special_with_its_id(library: Path, tmp_path: Path):
    given = by_tokenizers(["some text " * 40], 300, 2, [])
    given.add_tokens([END_OF_TEXT])
    index = given.token_to_id(END_OF_TEXT)
    given.save(str(tmp_path / "given.json"))
    train(library, tmp_path / "out", path=str(tmp_path / "given.json"))
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer.token_to_id(END_OF_TEXT) == index
    assert index not in tokenizer.encode(END_OF_TEXT).ids


def lossy() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocab={"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=60, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(["only a few letters"], trainer)
    return tokenizer


def test_a_lossy_one_fails_the_gate_unless_it_is_allowed(library: Path, tmp_path: Path):
    lossy().save(str(tmp_path / "given.json"))
    path = str(tmp_path / "given.json")
    with pytest.raises(ValueError, match="fails its gate: round_trip 0 < 1"):
        train(library, tmp_path / "one", path=path)
    report = train(library, tmp_path / "two", path=path, min_round_trip=None)
    assert (report.algorithm, report.encoder) == ("wordpiece", "tokenizers")
    assert report.coverage < 1, "unknown tokens are not covered"


def test_a_file_that_is_none_is_refused(library: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"is not a file: name a tokenizer\.json"):
        train(library, tmp_path / "one", path=str(tmp_path / "absent.json"))
    (tmp_path / "bad.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"is not a tokenizer\.json"):
        train(library, tmp_path / "two", path=str(tmp_path / "bad.json"))
