"""The tokenizer: deterministic, lossless, and loadable by transformers as it stands."""

from pathlib import Path

import pytest

from data.config import PackConfig, TokenizerConfig
from data.document import read_documents
from data.split import split_of
from data.tokenizer import SPECIAL_TOKENS, TokenizerReport, load_tokenizer, train_tokenizer

SPLIT = PackConfig(valid_fraction=0.1, test_fraction=0.2)


def train(corpus: Path, out: Path, **settings: int) -> TokenizerReport:
    out.mkdir()
    return train_tokenizer(TokenizerConfig.model_validate({"vocab_size": 600} | settings), corpus, out, split=SPLIT)


def test_two_trainings_are_byte_identical(corpus: Path, tmp_path: Path):
    train(corpus, tmp_path / "one")
    train(corpus, tmp_path / "two")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_report_is_of_held_out_text(corpus: Path, tmp_path: Path):
    report = train(corpus, tmp_path / "out")
    sides = [split_of(document.id, SPLIT) for document in read_documents(corpus)]
    assert report.held_out_documents == sides.count("test")
    assert report.training_documents == sides.count("train")
    assert report.vocab_size == 600
    assert report.round_trip == 1.0
    assert 1.5 < report.bytes_per_token < 6
    assert report.fertility > 1


def test_any_text_survives_the_round_trip_special_tokens_included(corpus: Path, tmp_path: Path):
    train(corpus, tmp_path / "out")
    tokenizer = load_tokenizer(tmp_path / "out")
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3]
    for text in ("", " \n\t ", "naïve 日本語 🎉\x00", "a <|endoftext|> b <|user|>", "x" * 5000, "1234567 12,5"):
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert not set(ids) & {0, 1, 2, 3}, "text must not be able to write a special token"


def test_transformers_loads_it_and_renders_the_chat_template(corpus: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    train(corpus, tmp_path / "out")
    loaded = AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    text = "The quick brown fox, def f(x): return 1234"
    assert loaded(text)["input_ids"] == load_tokenizer(tmp_path / "out").encode(text).ids
    assert loaded.eos_token_id == 0
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
    assert loaded.apply_chat_template(turns, tokenize=False) == "<|user|>What?<|end|><|assistant|>That.<|end|>"
    prompt = loaded.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|user|>What?<|end|><|assistant|>"
    ids = loaded.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=False)
    assert (ids[0], ids[-2], ids[-1]) == (1, 3, 2)
    with pytest.raises(Exception, match="role must be user or assistant"):
        loaded.apply_chat_template([{"role": "root", "content": "x"}], tokenize=False)


def test_a_vocabulary_larger_than_the_text_fills_is_refused(corpus: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"tokenizer.vocab_size 500000 is more than the text fills \(\d+\)"):
        train(corpus, tmp_path / "out", vocab_size=500_000)


def test_a_missing_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="run the tokenizer step first"):
        load_tokenizer(tmp_path)
