"""Memorized training text, of models that know their training documents by heart or not."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
import torch
from evaluation_fixtures import corpus, side_of, tiny_model, tokenizer
from suites.suite_fixtures import RuleModel
from tokenizers import Tokenizer

from sluice.core.progress import Progress, no_progress
from sluice.model.directory import save_model
from sluice.model.evaluation.evaluated import Continuation, ContinuationRequest
from sluice.model.evaluation.model_folder import ModelFolder
from sluice.model.evaluation.safety.extraction import EXTRACTION, HELD_OUT, difference_interval, measure_extraction

__all__ = ["corpus", "tokenizer"]

TRAIN = [f"Training document number {n}: " + "lorem ipsum dolor sit amet, " * 6 for n in range(40)]
HELD = [f"Held-out document number {n}: " + "consectetur adipiscing elit, " * 6 for n in range(30)]


class Memory(RuleModel):
    """Continues greedily what it knows by heart; a token is a character."""

    def __init__(self, known: Collection[str]) -> None:
        super().__init__()
        self.known = known

    def score(self, requests: Sequence[ContinuationRequest], progress: Progress = no_progress) -> list[Continuation]:
        found = []
        for request in requests:
            assert isinstance(request.prompt, str)
            whole = request.prompt + request.continuation
            is_known = any(text.startswith(whole) for text in self.known)
            tokens = tuple(request.continuation)
            found.append(Continuation(1.0, (), tokens, len(tokens), is_greedy=bool(request.prompt) and is_known))
        return found


def test_what_is_known_by_heart_is_extracted_and_compared_with_held_out_documents():
    run = measure_extraction(Memory(TRAIN[:10] + HELD[:1]), TRAIN, HELD)
    values = {name: [item.value for item in run.items if item.metric == name] for name in (EXTRACTION, HELD_OUT)}
    assert (sum(values[EXTRACTION]), len(values[EXTRACTION])) == (10, 40)
    assert (sum(values[HELD_OUT]), len(values[HELD_OUT])) == (1, 30)
    assert run.entry["planned"] == {EXTRACTION: 40, HELD_OUT: 30}
    assert run.entry["train"]["value"] == 0.25 and run.entry["held_out"]["value"] == pytest.approx(1 / 30, abs=1e-6)
    assert run.entry["difference"]["value"] == pytest.approx(0.25 - 1 / 30, abs=1e-6)
    low, high = run.entry["difference"]["interval"]
    assert 0 < low < 0.25 - 1 / 30 < high
    answer = run.answers[0]
    assert len(answer["prompt"]) == len(answer["targets"][0]) == 50


def test_the_difference_has_newcombes_interval():
    """Newcombe (1998), table II, example (a), method 10: 56/70 and 48/80."""
    assert difference_interval(56, 70, 48, 80, 0.95) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_a_model_that_memorized_nothing_has_no_zero_error():
    entry = measure_extraction(Memory(()), TRAIN, HELD).entry
    assert entry["train"]["value"] == entry["difference"]["value"] == 0
    assert entry["train"]["interval"][1] > 0.05 and entry["difference"]["interval"][0] < 0


def test_short_and_empty_documents_are_counted_and_left_out():
    run = measure_extraction(Memory(TRAIN), [*TRAIN[:5], "short", "", TRAIN[0]], HELD[:3])
    assert run.entry["planned"] == {EXTRACTION: 5, HELD_OUT: 3} and run.entry["too_short"] == 1


def test_the_same_documents_are_chosen_in_any_order():
    first = measure_extraction(Memory(TRAIN), TRAIN, HELD, documents=12)
    again = measure_extraction(Memory(TRAIN), TRAIN[::-1], HELD[::-1], documents=12)
    assert first == again and len(first.items) == 24


def test_a_served_model_is_inconclusive():
    run = measure_extraction(RuleModel(can_score=False), TRAIN, HELD)
    assert not run.items and run.entry["planned"] == {EXTRACTION: 40, HELD_OUT: 30}


def test_a_model_that_was_trained_on_one_document_gives_that_one_away(
    corpus: Path, tokenizer: Tokenizer, tmp_path: Path
):
    known, *others = side_of(corpus, "train")
    torch.manual_seed(0)
    model = tiny_model(tokenizer, context=128)
    # As in training, a document begins after <|endoftext|>.
    ids = torch.tensor([[0, *tokenizer.encode(known).ids[:127]]])
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    for _ in range(100):
        torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    save_model(tmp_path / "model", model.eval(), corpus / "tokenizer", {})
    run = measure_extraction(ModelFolder(tmp_path / "model"), [known, *others[:5]], side_of(corpus, "test")[:6])
    extracted = [answer for answer in run.answers if answer["scores"]["extracted"]]
    assert len(extracted) == 1 and known.startswith(extracted[0]["prompt"] + extracted[0]["targets"][0])
    assert run.entry["held_out"]["value"] == 0 and len(run.items) == 12
