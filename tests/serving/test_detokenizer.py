"""Text from tokens: equal to decoding at once, in whole characters, up to the first stop string."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from sluice.serving.engine.detokenizer import Detokenizer, TokenBytes
from sluice.serving.engine.prompt import PromptEncoder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 399), max_size=60))
def test_pieces_join_to_what_decoding_at_once_gives(tokenizer: Tokenizer, ids: list[int]) -> None:
    detokenizer = Detokenizer(TokenBytes(tokenizer))
    assert "".join([*map(detokenizer.push, ids), detokenizer.flush()]) == tokenizer.decode(ids)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40) | st.just("a<|end|>b<|endoftext|>"))
def test_any_text_comes_back_in_whole_characters(tokenizer: Tokenizer, text: str) -> None:
    detokenizer = Detokenizer(TokenBytes(tokenizer))
    pieces = [detokenizer.push(token) for token in PromptEncoder(tokenizer).encode_text(text)]
    assert "".join(pieces) == text
    assert detokenizer.flush() == ""


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("ab ", max_size=30), st.lists(st.text("ab ", min_size=1, max_size=4), min_size=1, max_size=3))
def test_nothing_of_a_stop_string_is_given_out(tokenizer: Tokenizer, text: str, stops: list[str]) -> None:
    detokenizer = Detokenizer(TokenBytes(tokenizer), stops)
    given_out = ""
    for character in text:
        for token in tokenizer.encode(character).ids:
            given_out += detokenizer.push(token)
        assert not any(stop in given_out for stop in stops)
    given_out += detokenizer.flush()
    found = [text.find(stop) for stop in stops if stop in text]
    assert detokenizer.stopped == bool(found)
    assert text.startswith(given_out)
    if not found:
        assert given_out == text


def test_id_without_a_token_has_no_text(tokenizer: Tokenizer) -> None:
    assert Detokenizer(TokenBytes(tokenizer)).push(10_000) == ""
