"""Dropout's numbers: where they begin, and how they go on."""

import pytest
import torch

from sluice.model.training.checkpointing.randomness import random_state, seed_random, set_random_state


def drawn() -> list[float]:
    return torch.rand(4).tolist()


def test_every_seed_and_rank_has_numbers_of_its_own_and_always_the_same() -> None:
    found = []
    for seed, rank in ((1, 0), (1, 1), (2, 0), (2**62, 0), (1, 0)):
        seed_random(seed, rank)
        found.append(tuple(drawn()))
    assert found[0] == found[-1] and len(set(found)) == 4


def test_numbers_go_on_where_they_were() -> None:
    seed_random(1, 0)
    drawn()
    state = random_state()
    expected = drawn()
    seed_random(5, 3)
    set_random_state(state)
    assert drawn() == expected


def test_a_gpus_numbers_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for CUDA: its state is in what is saved, and is given back."""
    device = {"state": torch.arange(16, dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: device["state"].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: device.update(state=state))
    state = random_state()
    device["state"] = torch.zeros(16, dtype=torch.uint8)
    set_random_state(state)
    assert device["state"].tolist() == list(range(16))
