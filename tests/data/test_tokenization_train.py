"""The tokenizer step: deterministic, lossless, loadable by transformers unchanged, for each algorithm."""
# ruff: noqa: F811

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tokenization_fixtures import SPLIT, library, train  # noqa: F401

from sluice.data.config import TokenizerConfig
from sluice.data.document import read_documents, write_documents
from sluice.data.split import split_of
from sluice.data.tokenization import SPECIAL_TOKENS, load_tokenizer, train_tokenizer
from sluice.data.tokenization.encoder import load_encoder

ALGORITHMS = ("bpe", "wordpiece", "unigram")
FILES = ("tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="module", params=ALGORITHMS)
def trained(request: pytest.FixtureRequest, library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizers") / request.param
    train(library, out, algorithm=request.param)
    return out


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_files_are_a_function_of_the_set_of_documents(algorithm: str, library: Path, tmp_path: Path):
    documents = list(read_documents(library))
    random.Random(5).shuffle(documents)
    (tmp_path / "shuffled").mkdir()
    write_documents(documents, tmp_path / "shuffled", 17)
    train(library, tmp_path / "one", algorithm=algorithm)
    train(tmp_path / "shuffled", tmp_path / "two", algorithm=algorithm)
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.process
def test_files_are_the_same_from_other_processes_with_other_threads(trained: Path, library: Path, tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from sluice.data.config import *; "
        "from sluice.data.tokenization import *; "
        "train_tokenizer(TokenizerConfig(vocab_size=600, algorithm=sys.argv[3]), Path(sys.argv[1]), Path(sys.argv[2]), "
        "split=PackConfig(valid_fraction=0.1, test_fraction=0.2))"
    )
    for threads in ("1", "3"):
        out = tmp_path / threads
        out.mkdir()
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        subprocess.run([sys.executable, "-c", code, library, out, trained.name], env=environment, check=True)
        for name in FILES:
            assert (out / name).read_bytes() == (trained / name).read_bytes()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_report_is_of_held_out_text(algorithm: str, library: Path, tmp_path: Path):
    report = train(library, tmp_path / "out", algorithm=algorithm)
    sides = [split_of(document.id, SPLIT) for document in read_documents(library)]
    assert report.held_out_documents == sides.count("test")
    assert report.training_documents == sides.count("train")
    assert report.vocab_size == 600
    assert report.round_trip == 1.0
    assert 1.5 < report.bytes_per_token < 6
    assert report.fertility > 1
    assert report.algorithm == algorithm
    assert report.encoder == ("tiktoken" if algorithm == "bpe" else "tokenizers")


def test_any_text_survives_the_round_trip_special_tokens_included(trained: Path):
    tokenizer, encoder = load_tokenizer(trained), load_encoder(trained)
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3]
    for text in (
        "",
        " \n\t ",
        "naïve 日本語 🎉\x00",
        "a <|endoftext|> b <|user|>",
        "x" * 5000,
        "=" * 400,
        "1234567 12,5",
    ):
        ids = tokenizer.encode(text).ids
        assert encoder.encode_batch([text]) == [ids]
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert not set(ids) & {0, 1, 2, 3}, "text must not be able to write a special token"


def test_transformers_loads_it_and_renders_the_chat_template(trained: Path):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(str(trained))
    text = "The quick brown fox, def f(x): return 1234"
    assert loaded(text)["input_ids"] == load_tokenizer(trained).encode(text).ids
    assert loaded.eos_token_id == 0
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "That."}]
    assert loaded.apply_chat_template(turns, tokenize=False) == "<|user|>What?<|end|><|assistant|>That.<|end|>"
    prompt = loaded.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|user|>What?<|end|><|assistant|>"
    ids = loaded.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=False)
    assert (ids[0], ids[-2], ids[-1]) == (1, 3, 2)
    with pytest.raises(Exception, match="role must be user or assistant"):
        loaded.apply_chat_template([{"role": "root", "content": "x"}], tokenize=False)


def test_special_tokens_of_the_settings_follow_ours(library: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    train(library, tmp_path / "out", special_tokens=["<|tool|>"])
    assert load_tokenizer(tmp_path / "out").token_to_id("<|tool|>") == 4
    assert AutoTokenizer.from_pretrained(str(tmp_path / "out"))("a<|tool|>")["input_ids"][-1] == 4


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_vocabulary_larger_than_the_text_fills_is_refused(algorithm: str, library: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"tokenizer.vocab_size 500000 is more than the text fills \(\d+\)"):
        train(library, tmp_path / "out", vocab_size=500_000, algorithm=algorithm)


def test_a_vocabulary_smaller_than_the_bytes_is_refused(library: Path, tmp_path: Path):
    special = [f"<|s{number}|>" for number in range(50)]
    with pytest.raises(ValueError, match="it must be at least 310"):
        train(library, tmp_path / "out", vocab_size=300, special_tokens=special)


def test_a_tokenizer_below_its_gate_is_refused(library: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"fails its gate: bytes_per_token \d\.\d+ < 9, n=\d+;"):
        train(library, tmp_path / "out", min_bytes_per_token=9)


def test_no_held_out_document_is_refused(library: Path, tmp_path: Path):
    (tmp_path / "few").mkdir()
    (tmp_path / "out").mkdir()
    kept = [each for each in read_documents(library) if split_of(each.id, SPLIT) == "train"]
    write_documents(kept, tmp_path / "few", 100)
    with pytest.raises(ValueError, match="training and 0 test documents"):
        train_tokenizer(TokenizerConfig(vocab_size=600), tmp_path / "few", tmp_path / "out", split=SPLIT)


def test_a_missing_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="run the tokenizer step first"):
        load_tokenizer(tmp_path)
