"""The scheduler alone: who runs, in which slot, and in which order the rows of a step are computed."""

import random

import torch

from sluice.serving.engine.request import GenerationRequest
from sluice.serving.engine.scheduler import Scheduler
from sluice.serving.engine.sequence import Sequence


def waiting(tokens: int) -> Sequence:
    request = GenerationRequest(request_id="r", prompt="x", max_tokens=4, seed=1)
    return Sequence(request, [1] * tokens, tokens, 4, print, None, None, torch.Generator(), 0.0)  # type: ignore[arg-type]


def test_running_sequences_have_the_first_slots_and_steps_go_through_them_in_order() -> None:
    scheduler, draw = Scheduler(slots=6, max_waiting=100, max_step_tokens=8), random.Random(1)
    held: dict[int, Sequence] = {}
    for _ in range(300):
        for _ in range(draw.randrange(3)):
            scheduler.add(waiting(draw.randrange(1, 5)))
        for sequence in scheduler.admit():
            held[sequence.slot] = sequence
        passes = scheduler.schedule()
        for chunks in passes:
            slots = [chunk.sequence.slot for chunk in chunks]
            assert slots == sorted(slots)
            for chunk in chunks:
                chunk.sequence.computed += chunk.count
        for sequence in [each for each in scheduler.running if draw.random() < 0.3]:
            slot = sequence.slot
            last = scheduler.release(sequence)
            held[slot] = held[last]
            del held[last]
        assert held == {each.slot: each for each in scheduler.running}
        assert sorted(held) == list(range(len(scheduler.running)))


def test_a_sequence_that_moved_keeps_its_turn() -> None:
    scheduler = Scheduler(slots=3, max_waiting=0, max_step_tokens=4)
    first, second, third = (waiting(4) for _ in range(3))
    for each in (first, second, third):
        scheduler.add(each)
    assert scheduler.admit() == [first, second, third]
    assert (scheduler.release(first), third.slot) == (2, 0)
    assert scheduler.schedule()[0][0].sequence is second
