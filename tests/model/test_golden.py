"""Golden prompts: what breaks an answer is named, and a sound model passes."""

# ruff: noqa: F811  (pytest finds the imported fixtures by name)

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from evaluation_fixtures import corpus, side_of, tiny_model, tokenizer, train  # noqa: F401

from sluice.model.architecture.cache import Cache
from sluice.model.evaluation.golden import Answer, failed_checks, load_prompts, run_golden
from sluice.model.evaluation.metrics.latency import measure_latency
from sluice.model.text.prompt import PromptEncoder

SOUND = Answer(ids=[5, 6, 7, 8], again=[5, 6, 7, 8], text="all is well", logits_finite=True, max_tokens=8)
SPECIAL = frozenset({0, 1, 2, 3})
PROMPTS = Path(__file__).parents[2] / "conf" / "golden.yaml"


def test_a_sound_answer_passes():
    assert failed_checks(SOUND, SPECIAL) == []


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"logits_finite": False}, ["finite_logits"]),
        ({"again": [5, 6, 7, 9]}, ["deterministic"]),
        ({"ids": [], "again": [], "text": ""}, ["not_empty"]),
        ({"text": " \n "}, ["not_empty"]),
        ({"text": "a \ufffd b"}, ["valid_utf8"]),
        ({"text": "stopped inside \ufffd"}, ["valid_utf8"]),
        ({"ids": [5, 2, 7, 8], "again": [5, 2, 7, 8]}, ["no_special_tokens"]),
        ({"ids": [5, 6] * 5, "again": [5, 6] * 5}, ["within_length"]),
        ({"ids": [5] * 4, "again": [5] * 4}, ["not_one_token_repeated"]),
    ],
)
def test_what_breaks_an_answer_is_named(change, failed):
    assert failed_checks(replace(SOUND, **change), SPECIAL) == failed


def test_a_character_cut_by_the_length_limit_is_no_fault():
    assert failed_checks(replace(SOUND, text="caf\ufffd", max_tokens=4), SPECIAL) == []


def test_the_committed_prompts_are_distinct_and_cover_both_kinds():
    prompts = load_prompts(PROMPTS)
    assert len(prompts) == 12 == len({p.id for p in prompts}) == len({p.item_id for p in prompts})
    assert {p.kind for p in prompts} == {"chat", "completion"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "has no prompts"),
        ("{", "is not YAML"),
        ("- {id: a, kind: essay, prompt: x}", r"prompt 1: kind=essay"),
        ("- {id: a, kind: chat, prompt: x}\n- {id: b, kind: chat}", "prompt 2: prompt is missing"),
    ],
)
def test_a_file_of_another_form_is_refused_with_its_fault(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(ValueError, match=reason) as refusal:
        load_prompts(tmp_path / "mine.yaml")
    assert "\n" not in str(refusal.value)


def test_a_trained_model_passes_and_the_same_one_broken_fails(corpus, tokenizer):
    model = train(tiny_model(tokenizer), tokenizer, side_of(corpus, "train"), 150)
    prompts = [prompt for prompt in load_prompts(PROMPTS) if prompt.kind == "completion"]
    assert [result.failed for result in run_golden(model, PromptEncoder(tokenizer), prompts, 16)] == [[]] * len(prompts)
    with torch.no_grad():
        model.norm.weight[0] = math.nan
    assert all("finite_logits" in result.failed for result in run_golden(model, PromptEncoder(tokenizer), prompts, 16))


def test_prompts_longer_than_the_context_are_cut(tokenizer):
    results = run_golden(tiny_model(tokenizer, context=16), PromptEncoder(tokenizer), load_prompts(PROMPTS), 32)
    assert len(results) == 12


def test_latency_counts_prompts_times_rounds(tokenizer):
    (timings,) = measure_latency(
        [(tiny_model(tokenizer), PromptEncoder(tokenizer))], ["one text", "another"], rounds=3, max_tokens=4
    )
    assert timings["first_token_samples"] == 6 and timings["per_token_samples"] == 2
    for name in ("first_token", "per_token", "answer"):
        p50, p95, p99 = (timings[f"{name}_p{share}_ms"] for share in (50, 95, 99))
        assert p50 <= p95 <= p99
    assert "price_per_1000_answers" not in timings


def test_costs_of_models_are_measured_in_turns_by_their_own_tokens(tokenizer, monkeypatch):
    """A clock that counts generated tokens: a second each, for the second model two."""
    encoder = PromptEncoder(tokenizer)
    models = [tiny_model(tokenizer), tiny_model(tokenizer, context=32)]
    order, now = [], [0.0]

    def counted(model, prompt, tokens):
        order.append(models.index(model))
        now[0] += tokens * (1 + models.index(model))
        return [0] * tokens

    monkeypatch.setattr("sluice.model.architecture.generation.generate", counted)
    one, two = measure_latency(
        [(model, encoder) for model in models],
        ["one text", "another"],
        rounds=2,
        max_tokens=5,
        price_per_hour=7.2,
        clock=lambda: now[0],
    )
    assert order == [0, 1] * 7, "one to warm up, two rounds of two prompts, two whole answers"
    assert (one["first_token_p95_ms"], one["per_token_p50_ms"], one["answer_p99_ms"]) == (1000, 1000, 5000)
    assert (two["first_token_p95_ms"], two["answer_p50_ms"]) == (2000, 10_000)
    assert (one["tokens_per_s"], two["tokens_per_s"]) == (1.0, 0.5)
    # 7.2 an hour are 0.002 a second: 5 s and 10 s an answer.
    assert one["price_per_1000_answers"] == pytest.approx(10.0)
    assert two["price_per_1000_answers"] == pytest.approx(20.0)
    weights = sum(weight.nbytes for weight in models[0].parameters())
    assert one["memory_bytes"] == weights + Cache(models[0].config, 1).size_bytes > two["memory_bytes"]
