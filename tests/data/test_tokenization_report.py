"""The report by language and kind, and the gate on it."""
# ruff: noqa: F811

import itertools
import math
from pathlib import Path

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st
from tokenization_fixtures import library, train  # noqa: F401

from sluice.data.config import TokenizerConfig
from sluice.data.document import content_id
from sluice.data.tokenization import TokenizerReport, load_tokenizer
from sluice.data.tokenization.encoder import load_encoder
from sluice.data.tokenization.gate import judge, refuse
from sluice.data.tokenization.report import measure, prose_and_code

GOOD = TokenizerReport(
    vocab_size=600,
    training_documents=3,
    training_bytes=3000,
    held_out_documents=2,
    bytes_per_token=3.5,
    fertility=1.6,
    round_trip=1.0,
)


def document(text: str, **metadata: str) -> Document:
    return Document(text=text, id=content_id(text), metadata=dict(metadata))


@given(st.text(alphabet=" \n\r\tax\u2028"))
def test_runs_of_prose_and_code_are_the_text(text: str):
    runs = list(prose_and_code(text))
    assert "".join(run for _, run in runs) == text
    assert all(one[0] != other[0] for one, other in itertools.pairwise(runs))


def test_indented_lines_are_code():
    text = "Call it:\n\n    x = f()\n\n    y = 2\n\nThat is all.\n"
    assert list(prose_and_code(text)) == [
        ("prose", "Call it:\n\n"),
        ("code", "    x = f()\n\n    y = 2\n\n"),
        ("prose", "That is all.\n"),
    ]


def test_parts_add_up(library: Path, tmp_path: Path):
    train(library, tmp_path / "out")
    texts = [
        ("import this and that\n\n    x = import_this(1)\n", "en"),
        ("日本語の文章です。", "ja"),
        ("no language", None),
    ]
    documents = [document(text, **({"language": language} if language else {})) for text, language in texts]
    tokenizer, encoder = load_tokenizer(tmp_path / "out"), load_encoder(tmp_path / "out")
    report = measure(tokenizer, encoder, documents)
    size = sum(len(text.encode()) for text, _ in texts)
    assert set(report.by_language) == {"en", "ja", "undetermined"}
    assert set(report.by_kind) == {"prose", "code"}
    assert sum(part["bytes"] for part in report.by_language.values()) == size
    assert sum(part["bytes"] for part in report.by_kind.values()) == size
    assert report.by_language["en"]["coverage"] == 1
    assert report.by_language["ja"]["coverage"] < 0.2, "three bytes a character, and hardly a token holds them all"
    assert report.compression == pytest.approx(8 * report.bytes_per_token / math.log2(600))
    assert 0.8 < report.unused_vocabulary < 1


def test_nothing_held_out_is_not_a_number(library: Path, tmp_path: Path):
    train(library, tmp_path / "out")
    report = measure(load_tokenizer(tmp_path / "out"), load_encoder(tmp_path / "out"), [])
    assert math.isnan(report.round_trip)
    assert not any(check.passed for check in judge(report, TokenizerConfig()))


def test_bounds_that_hold_pass_and_say_the_comparison():
    checks = judge(GOOD, TokenizerConfig(min_bytes_per_token=3.5, max_fertility=2))
    assert [check.reason for check in checks] == [
        "bytes_per_token 3.5 >= 3.5, n=2",
        "fertility 1.6 <= 2, n=2",
        "round_trip 1 >= 1, n=2",
    ]
    assert all(check.passed for check in checks)
    refuse(checks)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"min_bytes_per_token": 3.6}, "bytes_per_token 3.5 < 3.6, n=2"),
        ({"max_fertility": 1.5}, "fertility 1.6 > 1.5, n=2"),
    ],
)
def test_a_bound_that_does_not_hold_is_named(settings: dict[str, float], reason: str):
    with pytest.raises(ValueError, match=reason):
        refuse(judge(GOOD, TokenizerConfig.model_validate(settings)))


def test_a_bound_of_null_is_no_check():
    assert judge(GOOD, TokenizerConfig(min_round_trip=None)) == []


def test_what_is_not_a_number_fails():
    report = GOOD.model_copy(update={"round_trip": math.nan})
    (check,) = judge(report, TokenizerConfig())
    assert (check.passed, check.reason) == (False, "round_trip is NaN, bound 1, n=2")


def test_no_held_out_text_fails():
    report = GOOD.model_copy(update={"held_out_documents": 0})
    assert not judge(report, TokenizerConfig())[0].passed
