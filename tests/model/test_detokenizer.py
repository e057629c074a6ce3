"""Text from tokens: equal to decoding at once, in whole characters, up to the first stop string."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_fixtures import TOKENIZERS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from sluice.model.text.detokenizer import Detokenizer, text_streams
from sluice.model.text.prompt import PromptEncoder


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]()


@pytest.fixture(scope="module")
def of_bytes() -> Tokenizer:
    return TOKENIZERS["byte-level"]()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 399), max_size=60))
def test_pieces_join_to_what_decoding_at_once_gives(tokenizer: Tokenizer, ids: list[int]) -> None:
    detokenizer = Detokenizer(text_streams(tokenizer)())
    decoded, found = tokenizer.decode(ids), "".join([*map(detokenizer.push, ids), detokenizer.flush()])
    # Byte fallback turns all bytes next to a wrong one into U+FFFD, also those that are out.
    is_exact = type(tokenizer.decoder).__name__ != "Sequence" or "\ufffd" not in decoded
    assert found == decoded if is_exact else len(found) <= len(decoded)


# Every byte of Tibetan is a token of its own in byte fallback.
@pytest.mark.parametrize("part", ["The quick brown fox, 日本語 and the lazy dogs. ", "གངའདལ"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_long_answer_comes_out_as_it_grows(name: str, part: str) -> None:
    tokenizer = TOKENIZERS[name]()
    text = part * 30
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    whole = tokenizer.decode(ids)
    detokenizer, out = Detokenizer(text_streams(tokenizer)()), ""
    for place, token in enumerate(ids):
        out += detokenizer.push(token)
        assert whole.startswith(out)
        before = tokenizer.decode(ids[: place + 1])
        assert len(before) - len(out) < 4 or before.endswith("\ufffd")
    assert out + detokenizer.flush() == whole


def test_a_tokenizer_without_a_decoder_separates_its_tokens() -> None:
    tokenizer = Tokenizer(models.WordLevel({"the": 0, "gate": 1}, unk_token="the"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    stream = text_streams(tokenizer)()
    assert [stream.push(token) for token in (0, 1, 1)] == ["the", " gate", " gate"]


def test_a_byte_level_decoder_of_tokens_that_are_no_bytes_is_decoded_as_any_other() -> None:
    tokenizer = Tokenizer(models.WordLevel({"日": 0, "a": 1}, unk_token="a"))
    tokenizer.decoder = decoders.ByteLevel()
    stream = text_streams(tokenizer)()
    assert "".join([stream.push(0), stream.push(1), stream.flush()]) == tokenizer.decode([0, 1])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | st.just("a<|end|>b<|endoftext|>"))
def test_any_text_comes_back_in_whole_characters(of_bytes: Tokenizer, text: str) -> None:
    detokenizer = Detokenizer(text_streams(of_bytes)())
    pieces = [detokenizer.push(token) for token in PromptEncoder(of_bytes).encode_text(text)]
    assert "".join(pieces) == text
    assert detokenizer.flush() == ""


@settings(max_examples=200, deadline=None)
@given(st.text("ab ", max_size=30), st.lists(st.text("ab ", min_size=1, max_size=4), min_size=1, max_size=3))
def test_nothing_of_a_stop_string_is_given_out(of_bytes: Tokenizer, text: str, stops: list[str]) -> None:
    detokenizer = Detokenizer(text_streams(of_bytes)(), stops)
    given_out = ""
    for character in text:
        for token in of_bytes.encode(character).ids:
            given_out += detokenizer.push(token)
        assert not any(stop in given_out for stop in stops)
    given_out += detokenizer.flush()
    found = [text.find(stop) for stop in stops if stop in text]
    assert detokenizer.stopped == bool(found)
    assert text.startswith(given_out)
    if not found:
        assert given_out == text


def test_id_without_a_token_has_no_text(tokenizer: Tokenizer) -> None:
    detokenizer = Detokenizer(text_streams(tokenizer)())
    assert detokenizer.push(10_000) + detokenizer.flush() == ""
