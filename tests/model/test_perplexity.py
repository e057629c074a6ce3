"""Bits per byte: the windows score every token once, and the sum is the model's own."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import math

import pytest
import torch
from architecture_fixtures import lively, shape, tokens
from evaluation_fixtures import corpus, document_text, tiny_model, tokenizer  # noqa: F401
from hypothesis import given
from hypothesis import strategies as st
from tokenizer_fixtures import TOKENIZERS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from sluice.data.tokenization import SPECIAL_TOKENS
from sluice.model.evaluation.golden import GoldenPrompt, run_golden
from sluice.model.evaluation.held_out import cut
from sluice.model.evaluation.likelihood import Span, negative_log_likelihoods
from sluice.model.evaluation.perplexity import document_bits, windows
from sluice.model.evaluation.prompts import chat_prompt, completion_prompt
from sluice.model.evaluation.tasks import ChoiceItem, answer_items
from sluice.model.text.prompt import PromptEncoder, encode_plain, start_ids


@given(st.integers(0, 200), st.integers(2, 40))
def test_windows_score_every_token_but_the_first_once_with_half_a_context_before_it(length, context):
    ids = list(range(length))
    scored = []
    for number, span in enumerate(windows(ids, context)):
        assert 1 <= span.start < len(span.ids) <= context + 1
        assert number == 0 or span.start >= context // 2
        scored += span.ids[span.start :]
    assert scored == ids[1:]


@given(st.text(max_size=40), st.integers(0, 60))
def test_cut_keeps_whole_characters(text, size):
    short = cut(text, size)
    assert text.startswith(short) and len(short.encode()) <= size
    assert short == text or len(text[: len(short) + 1].encode()) > size


def slow_bits(model, ids):
    """One forward pass a token, with the context its window gives it."""
    context, stride = model.config.context, model.config.context // 2
    bits, end = 0.0, context + 1
    for index in range(1, len(ids)):
        while index >= end:
            end = min(end + stride, len(ids))
        before = ids[max(0, min(end, len(ids)) - context - 1) : index]
        with torch.inference_mode():
            bits -= model(torch.tensor([before]))[0, -1].double().log_softmax(-1)[ids[index]].item() / math.log(2)
    return bits


def test_document_bits_agree_with_one_forward_pass_a_token(tokenizer):
    model = tiny_model(tokenizer, context=16)
    texts = [document_text(1), "Short.", "naïve 日本語"]
    found = document_bits(model, PromptEncoder(tokenizer), texts)
    for text, bits in zip(texts, found, strict=True):
        assert bits == pytest.approx(slow_bits(model, [0, *encode_plain(tokenizer, text)]), rel=1e-5)


def test_a_documents_bits_do_not_depend_on_its_neighbours(tokenizer):
    model, texts = tiny_model(tokenizer), [document_text(n) for n in range(5)]
    alone = [document_bits(model, PromptEncoder(tokenizer), [text])[0] for text in texts]
    assert document_bits(model, PromptEncoder(tokenizer), texts) == pytest.approx(alone, rel=1e-6)


def test_a_uniform_model_costs_the_logarithm_of_its_vocabulary(tokenizer):
    model = tiny_model(tokenizer)
    with torch.no_grad():
        model.norm.weight.zero_()
    text = document_text(2)
    expected = len(encode_plain(tokenizer, text)) * math.log2(tokenizer.get_vocab_size())
    assert document_bits(model, PromptEncoder(tokenizer), [text]) == [pytest.approx(expected, rel=1e-6)]


def test_quoted_special_tokens_cost_like_any_text(tokenizer):
    assert 0 not in encode_plain(tokenizer, "before <|endoftext|> after")
    assert tokenizer.decode(encode_plain(tokenizer, "a<|user|>b"), skip_special_tokens=False) == "a<|user|>b"


@pytest.mark.parametrize("before", [False, True])
def test_encoding_leaves_the_callers_tokenizer_as_it_is(tokenizer, before):
    tokenizer.encode_special_tokens = before
    chat_prompt(PromptEncoder(tokenizer), "a <|end|>")
    completion_prompt(PromptEncoder(tokenizer), "a <|end|>")
    assert tokenizer.encode_special_tokens is before


def test_a_tokenizer_that_loses_text_gets_nan_and_not_a_lower_score():
    letters = {chr(code): code for code in range(ord("a"), ord("z") + 1)}
    lossy = Tokenizer(models.BPE(vocab=letters, merges=[]))
    lossy.pre_tokenizer = pre_tokenizers.Whitespace()
    lossy.decoder = decoders.Fuse()
    lossy.add_special_tokens(list(SPECIAL_TOKENS))
    model = tiny_model(lossy)
    assert math.isnan(document_bits(model, PromptEncoder(lossy), ["abc DEF"])[0])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_costs_by_its_own_bytes_in_every_kind_of_tokenizer(name):
    made = TOKENIZERS[name]()
    model = tiny_model(made)
    with torch.no_grad():
        model.norm.weight.zero_()
    text = "The quick brown fox jumps over lazy dogs, is it?"
    ids = encode_plain(made, text)
    lost = len(text.encode()) / len(made.decode(ids).encode())
    # WordPiece puts a space before the comma's neighbours or not, but never loses a letter.
    assert lost == 1 or name == "wordpiece"
    expected = len(ids) * math.log2(made.get_vocab_size()) * max(1, lost)
    assert document_bits(model, PromptEncoder(made), [text]) == [pytest.approx(expected, rel=1e-6)]


def test_unknown_characters_give_no_number():
    for name in ("unigram", "wordpiece"):
        made = TOKENIZERS[name]()
        assert math.isnan(document_bits(tiny_model(made), PromptEncoder(made), ["the fox \u2603"])[0])


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name != "byte-level"])
def test_a_tokenizer_without_our_special_tokens_asks_in_plain_text(name):
    made = TOKENIZERS[name]()
    start = start_ids(made)
    assert completion_prompt(PromptEncoder(made), "the fox") == [*start, *encode_plain(made, "the fox")]
    assert chat_prompt(PromptEncoder(made), "the fox") == [*start, *encode_plain(made, "the fox\n\n")]
    assert chat_prompt(PromptEncoder(made), "the fox jumps", max_tokens=3) == [
        *start,
        *encode_plain(made, "the fox jumps\n\n")[:2],
    ]
    items = [ChoiceItem("the fox", ("quick dogs", "lazy answer"), 0)]
    assert answer_items(tiny_model(made), PromptEncoder(made), items)[0] in (0.0, 1.0)
    golden = [GoldenPrompt(id="a", kind=kind, prompt="the fox") for kind in ("chat", "completion")]
    assert len(run_golden(tiny_model(made), PromptEncoder(made), golden, 8)) == 2


def test_broken_weights_give_no_number(tokenizer):
    model = tiny_model(tokenizer)
    with torch.no_grad():
        model.layers[0].attention_norm.weight[0] = math.nan
    assert not math.isfinite(document_bits(model, PromptEncoder(tokenizer), [document_text(3)])[0])


def test_spans_keep_their_order_whatever_the_batches(tokenizer):
    model = tiny_model(tokenizer)
    spans = [Span(list(range(4, 4 + n)), 1 + n % 3) for n in (5, 30, 8, 60, 12)]
    alone = [negative_log_likelihoods(model, [span])[0] for span in spans]
    told = []
    assert negative_log_likelihoods(model, spans, lambda *state: told.append(state)) == pytest.approx(alone, rel=1e-6)
    assert told[-1] == (5, 5, "scoring")


def test_a_soft_cap_of_the_logits_counts():
    model = lively(shape({"logit_soft_cap": 2.0, "tie_embeddings": False}))
    ids = tokens(1, 9)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:], reduction="sum")
    assert negative_log_likelihoods(model, [Span(ids[0].tolist(), 1)]) == pytest.approx([float(expected)], rel=1e-5)
