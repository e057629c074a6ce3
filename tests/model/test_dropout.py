"""Dropout: what is zeroed and scaled up in return, in training only."""

from collections.abc import Callable

import pytest
import torch
from architecture_fixtures import DECODERS, ENCODER_DECODERS, inputs_of, lively, shape, tokens
from torch import Tensor, nn

from sluice.model.architecture.attention import Attention
from sluice.model.architecture.attention_mask import AttentionMask
from sluice.model.architecture.block import ForwardContext
from sluice.model.architecture.kernels import KernelName
from sluice.model.architecture.transformer import Transformer

SHARE = 0.25


class Returns(nn.Module):
    """Stands in for a sublayer."""

    def __init__(self, y: Tensor) -> None:
        super().__init__()
        self.y = y

    def forward(self, *_: object) -> Tensor:
        return self.y


def made(**options: object) -> Transformer:
    return lively(shape({**DECODERS["gpt2"], **options}))


def seeded(compute: Callable[[], Tensor]) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return compute()


def assert_dropped(found: Tensor, whole: Tensor) -> None:
    """A share of `whole`'s entries is zero, and the others are as much larger."""
    zeroed = found == 0
    spread = (SHARE * (1 - SHARE) / found.numel()) ** 0.5
    assert float(zeroed.float().mean()) == pytest.approx(SHARE, abs=4 * spread)
    torch.testing.assert_close(found[~zeroed], whole[~zeroed] / (1 - SHARE))


def test_embeddings_are_dropped_in_training() -> None:
    model, ids = made(dropout=SHARE), tokens(16, 24)

    def embedded() -> Tensor:
        return model.embed(ids, torch.arange(24), None)

    whole = seeded(embedded)
    assert torch.equal(whole, model.embedding(ids) + model.position_embedding(torch.arange(24)))
    model.train()
    assert_dropped(seeded(embedded), whole)


@pytest.mark.parametrize("position", ["pre", "post"])
def test_what_a_sublayer_adds_is_dropped_in_training(position: str) -> None:
    block = made(dropout=SHARE, norm_position=position).layers[0]
    x, added = torch.zeros(8, 24, 32), torch.rand(8, 24, 32, generator=torch.Generator().manual_seed(1)) + 1
    block.attention_norm, block.feedforward_norm = nn.Identity(), nn.Identity()
    context = ForwardContext({})
    for adding, other in (("attention", "feedforward"), ("feedforward", "attention")):
        setattr(block, adding, Returns(added))
        setattr(block, other, Returns(x))
        assert torch.equal(block.eval()(x, context), added)
        block.train()
        assert_dropped(seeded(lambda: block(x, context)), added)


@pytest.mark.parametrize("kernel", ["sdpa", "reference"])
def test_probabilities_of_attention_are_dropped_in_training(kernel: KernelName) -> None:
    """Without scores every key in sight has an equal share, and values that are unit vectors show the shares."""
    length, model = 24, made(attention_dropout=SHARE, heads=1, kv_heads=1)
    attention = model.layers[0].attention
    assert isinstance(attention, Attention)
    with torch.no_grad():
        for each in (attention.query, attention.key, attention.value, attention.output):
            each.weight.copy_(torch.eye(32) if each in (attention.value, attention.output) else torch.zeros(32, 32))
            each.bias.zero_()
    x = torch.eye(32)[:length].expand(16, -1, -1)
    context = ForwardContext({"attention": AttentionMask.self_attention(length, causal=True)}, kernel=kernel)

    def shares() -> Tensor:
        return attention(x, context)[..., :length][:, torch.ones(length, length).tril().bool()]

    whole = seeded(shares)
    rows, _ = torch.ones(length, length).tril().nonzero(as_tuple=True)
    torch.testing.assert_close(whole, (1 / (rows + 1)).expand(16, -1))
    model.train()
    assert_dropped(seeded(shares), whole)


@pytest.mark.parametrize("name", ["gpt2", "post_norm", "hybrid", "t5"])
@pytest.mark.parametrize("kind", ["dropout", "attention_dropout"])
def test_it_changes_training_and_nothing_else(name: str, kind: str) -> None:
    options = {**DECODERS, **ENCODER_DECODERS}[name]
    dropping, without = (lively(shape({**options, **more})) for more in ({kind: SHARE}, {}))
    ids, beside = tokens(2, 20), inputs_of(without.config, 2)
    expected = seeded(lambda: without(ids, **beside))
    assert torch.equal(seeded(lambda: dropping(ids, **beside)), expected)
    dropping.train()
    first, again = (seeded(lambda: dropping(ids, **beside)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, expected, atol=0.05)
