"""Activation checkpointing computes again what it says, and nothing else changes."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.batch import Batch
from sluice.model.training.engines.criterion import Criterion
from sluice.model.training.engines.layers import each_layer, prepare_layers

SHAPE = TransformerConfig(
    vocab_size=31, hidden_size=16, layers=2, heads=4, kv_heads=2, intermediate_size=24, context=8, dropout=0.1
)


class Operations(TorchDispatchMode):
    """Counts what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, _: Any, arguments: Any = (), settings: Any = None) -> Any:
        self.counts[operation.__name__] += 1
        return operation(*arguments, **(settings or {}))


def gradients(how: str) -> tuple[dict[str, Tensor], Counter[str]]:
    model = Transformer(SHAPE)
    initialize(model, 0)
    names = [name for name, _ in model.named_parameters()]
    prepare_layers(model, PretrainConfig(activation_checkpointing=how))
    assert [name for name, _ in model.named_parameters()] == names
    ids = torch.randint(31, (2, 9), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(7)
    with Operations() as operations:
        Criterion(model)(Batch(ids[:, :-1], ids[:, 1:]), 16)[0].backward()
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}, operations.counts


@pytest.fixture(scope="module")
def plain() -> tuple[dict[str, Tensor], Counter[str]]:
    return gradients("none")


@pytest.mark.parametrize("how", ["selective", "full"])
def test_gradients_stay_the_same_with_dropout_too(how: str, plain: tuple[dict[str, Tensor], Counter[str]]) -> None:
    found, _ = gradients(how)
    assert found.keys() == plain[0].keys()
    for name, gradient in plain[0].items():
        assert torch.equal(found[name], gradient), name


def test_full_computes_products_again_and_selective_does_not(plain: tuple[dict[str, Tensor], Counter[str]]) -> None:
    products = {how: gradients(how)[1]["mm.default"] for how in ("selective", "full")}
    # All but the last product of a layer, whose output nothing in the backward pass asks for.
    assert products["full"] >= plain[1]["mm.default"] + SHAPE.layers * 6
    assert products["selective"] == plain[1]["mm.default"]
    assert gradients("selective")[1]["silu.default"] == 2 * plain[1]["silu.default"]


def test_both_stacks_have_layers() -> None:
    translator = Transformer(
        TransformerConfig(kind="encoder-decoder", vocab_size=9, hidden_size=8, layers=2, encoder_layers=3, heads=2)
    )
    layers = list(each_layer(translator))
    assert len(layers) == 5 and all(isinstance(each, nn.Module) for each in layers)
