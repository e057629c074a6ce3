"""The z-loss inside the fused loss, against autograd over plain logits."""

import architecture_fixtures as shapes
import pytest
import torch
from torch.nn import functional

from sluice.model.architecture.loss import cross_entropy_sum

WEIGHT = 0.1
ARCHITECTURES = {
    "fused": {},
    "untied": {"tie_embeddings": False},
    "soft_cap": shapes.DECODERS["soft_caps"],
    "head_bias": shapes.ENCODERS["bert"],
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("masked", [True, False])
def test_the_gradient_is_autograds(name: str, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.model.architecture.loss._CHUNK_LOGITS", 5 * shapes.VOCAB)  # rows in chunks of 5
    model, ids = shapes.lively(shapes.shape(ARCHITECTURES[name])), shapes.tokens(2, 21)
    mask = torch.rand(2, 20, generator=torch.Generator().manual_seed(3)) < 0.5 if masked else None
    value, count = cross_entropy_sum(model, ids[:, :-1], ids[:, 1:], mask, z_loss=WEIGHT)
    (value / count).backward()
    ours = {each: weight.grad for each, weight in model.named_parameters()}
    model.zero_grad()

    chosen = torch.ones(2, 20, dtype=torch.bool) if mask is None else mask
    logits, targets = model(ids[:, :-1])[chosen], ids[:, 1:][chosen]
    nats = functional.cross_entropy(logits, targets, reduction="sum")
    penalty = WEIGHT * logits.logsumexp(-1).square().sum()
    ((nats + penalty) / count).backward()
    torch.testing.assert_close(value, nats)
    assert penalty > 0.05 * nats
    for each, weight in model.named_parameters():
        torch.testing.assert_close(ours[each], weight.grad, atol=1e-5, rtol=1e-4, msg=lambda m, n=each: f"{n}: {m}")


def test_without_it_nothing_changes() -> None:
    gradients = []
    for settings in ({}, {"z_loss": 0.0}, {"z_loss": WEIGHT}):
        model, ids = shapes.lively(shapes.shape({})), shapes.tokens(2, 9)
        value, _ = cross_entropy_sum(model, ids[:, :-1], ids[:, 1:], **settings)
        value.backward()
        gradients.append((value.detach(), model.embedding.weight.grad))
    assert all(torch.equal(a, b) for a, b in zip(gradients[0], gradients[1], strict=True))
    assert torch.equal(gradients[0][0], gradients[2][0]) and not torch.equal(gradients[0][1], gradients[2][1])


def test_it_pulls_the_normalizer_to_one() -> None:
    model, ids = shapes.lively(shapes.shape({})), shapes.tokens(4, 16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def normalizer() -> float:
        with torch.no_grad():
            return float(model(ids).logsumexp(-1).square().mean())

    before = normalizer()
    for _ in range(30):
        value, count = cross_entropy_sum(model, ids[:, :-1], ids[:, 1:], z_loss=1.0)
        (value / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert normalizer() < 0.7 * before
