"""Multiple choice: fair items, the same wherever they are built, and a score that follows the question."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import math
import random

import torch
from evaluation_fixtures import corpus, document_text, tiny_model, tokenizer  # noqa: F401

from sluice.model.evaluation.likelihood import Span, negative_log_likelihoods
from sluice.model.evaluation.prompts import chat_prompt
from sluice.model.evaluation.tasks import ChoiceItem, answer_items, build_items, count_items
from sluice.model.text.prompt import PromptEncoder, encode_plain

DOCUMENTS = [(f"id{n}", document_text(n)) for n in range(40)]
SETTINGS = {"items": 60, "choices": 4, "max_passage_bytes": 200, "seed": 1}


def test_items_are_the_same_for_the_same_documents_in_any_order():
    shuffled = random.Random(0).sample(DOCUMENTS, len(DOCUMENTS))
    items = build_items(DOCUMENTS, **SETTINGS)
    assert items == build_items(shuffled, **SETTINGS)
    assert len(items) == 60 and len({item.id for item in items}) == 60
    assert items != build_items(DOCUMENTS, **(SETTINGS | {"seed": 2}))


def test_items_are_fair():
    owner = {}
    for name, text in DOCUMENTS:
        for block in text.split("\n\n"):
            owner[block] = name
    items = build_items(DOCUMENTS, **SETTINGS)
    for item in items:
        assert len(set(item.passages)) == 4
        sizes = [len(passage.encode()) for passage in item.passages]
        assert max(sizes) <= 200 and min(sizes) >= 0.6 * max(sizes)
        documents = [next(d for block, d in owner.items() if block.startswith(p)) for p in item.passages]
        assert documents.count(documents[item.answer]) == 1
        assert not item.passages[item.answer].startswith(item.question)
    # Chance is a quarter: every place holds the answer about equally often.
    places = [sum(item.answer == place for item in items) for place in range(4)]
    assert min(places) >= 6


def test_a_question_of_every_document_comes_before_a_second_of_any():
    items = build_items(DOCUMENTS, **(SETTINGS | {"items": 40}))
    assert len({item.question.rsplit(" ", 1)[1] for item in items}) == 40


def test_documents_without_headings_ask_which_passage_follows():
    plain = [(name, "\n\n".join(b for b in text.split("\n\n") if not b.startswith("#"))) for name, text in DOCUMENTS]
    items = build_items(plain, **SETTINGS)
    assert len(items) == 60
    texts = dict(plain)
    for item in items:
        whole = next(text for text in texts.values() if item.question in text and item.passages[item.answer] in text)
        assert whole.index(item.passages[item.answer]) >= whole.index(item.question) + len(item.question)


def test_headings_that_stand_over_several_sections_are_not_asked():
    twice = [("x", "## Examples\n\n" + "First of all. " * 9), ("y", "## examples\n\n" + "Another thing. " * 9)]
    questions = {item.question for item in build_items([*DOCUMENTS, *twice], **(SETTINGS | {"items": 500}))}
    assert questions and not any(question.casefold() == "examples" for question in questions)


def test_a_passage_that_repeats_its_heading_loses_that_line():
    body = "Opening a socket\n\n" + "A socket is opened by its owner and closed by it too. " * 3
    items = build_items([*DOCUMENTS, ("z", f"# Opening a socket\n\n{body}")], **(SETTINGS | {"items": 500}))
    (item,) = [item for item in items if item.question == "Opening a socket"]
    assert item.passages[item.answer].startswith("A socket is opened")
    assert item.passages[item.answer].endswith(("socket", "owner", "and", "it", "too.", "by", "its", "closed"))


def test_too_few_documents_make_no_item_rather_than_an_unfair_one():
    assert build_items(DOCUMENTS[:1], **SETTINGS) == []
    assert build_items([], **SETTINGS) == []


def test_the_number_of_items_is_known_without_building_them():
    for documents in (DOCUMENTS, DOCUMENTS[:1], DOCUMENTS[:2], DOCUMENTS[:4], []):
        for changed in ({}, {"items": 7}, {"items": 5000}, {"choices": 6}):
            wanted = SETTINGS | changed
            assert count_items(documents, **wanted) == len(build_items(documents, **wanted))


def test_a_model_that_reads_the_question_is_right_and_an_untrained_one_is_not(tokenizer):
    words = ("cache", "queue", "router", "session", "template", "cursor", "signal", "worker")
    model = tiny_model(tokenizer, context=32)
    items = [_item(word, words) for word in words]
    assert sum(answer_items(model, PromptEncoder(tokenizer), items)) < 6
    # As tuning does: answers to their question, and to none.
    texts = [
        [*chat_prompt(PromptEncoder(tokenizer), question), *encode_plain(tokenizer, _passage(word))]
        for word in words
        for question in (word, "")
    ]
    width = max(map(len, texts))
    batch = torch.tensor([ids + [0] * (width - len(ids)) for ids in texts])
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    for _ in range(120):
        logits = model(batch[:, :-1]).flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, batch[:, 1:].flatten(), ignore_index=0).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert sum(answer_items(model.eval(), PromptEncoder(tokenizer), items)) == 8


def _passage(word):
    return f"The {word} closes when it is read."


def _item(word, words):
    options = random.Random(word).sample([other for other in words if other != word], 3)
    place = len(word) % 4
    options.insert(place, word)
    return ChoiceItem(word, tuple(map(_passage, options)), place)


def test_long_questions_and_passages_are_cut_to_the_context(tokenizer):
    model = tiny_model(tokenizer, context=16)
    item = ChoiceItem("why " * 50, tuple(f"{letter} because " * 40 for letter in "abcd"), 2)
    assert answer_items(model, PromptEncoder(tokenizer), [item])[0] in (0.0, 1.0)


def test_a_model_without_finite_logits_answers_nan(tokenizer):
    model = tiny_model(tokenizer)
    with torch.no_grad():
        model.norm.weight[0] = math.nan
    items = build_items(DOCUMENTS, **(SETTINGS | {"items": 3}))
    assert all(map(math.isnan, answer_items(model, PromptEncoder(tokenizer), items)))


def test_item_ids_change_with_anything_asked():
    item = ChoiceItem("q", ("a", "b"), 0)
    others = [ChoiceItem("r", ("a", "b"), 0), ChoiceItem("q", ("b", "a"), 0), ChoiceItem("q", ("a", "b"), 1)]
    assert len({item.id, *(other.id for other in others)}) == 4


def test_a_passage_cut_to_the_context_is_divided_by_the_bytes_that_were_scored(tokenizer):
    model, encoder, context = tiny_model(tokenizer, context=48), PromptEncoder(tokenizer), 48
    question, long = "the cache", "the cache stores what the worker reads and drops it when the router closes " * 20
    before = [chat_prompt(encoder, text) for text in (question, "")]
    space = context + 1 - max(map(len, before))

    def gain(passage):
        """Nats that the question gains for the passage, and the bytes of the passage that fit."""
        ids = encode_plain(tokenizer, passage)[:space]
        given, without = negative_log_likelihoods(model, [Span([*prompt, *ids], len(prompt)) for prompt in before])
        return without - given, len(tokenizer.decode(ids).encode())

    nats, scored = gain(long)
    shorts = [f"{first} {second}." for first in ("queue", "schema", "token", "worker") for second in "abcdefgh"]
    between = [
        short
        for short, (other, size) in zip(shorts, map(gain, shorts), strict=True)
        if nats / len(long) < other / size < nats / scored or nats / scored < other / size < nats / len(long)
    ]
    assert between, "divided by all its bytes, the long passage would change places with these"
    for short in between:
        expected = float(nats / scored > gain(short)[0] / gain(short)[1])
        assert answer_items(model, encoder, [ChoiceItem(question, (long, short), 0)]) == [expected]
