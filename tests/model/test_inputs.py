"""Invalid inputs of a forward pass: each is refused by name, before anything is computed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cached_architectures import built, shape, tokens

from sluice.model.architecture.cache import Cache
from sluice.model.architecture.transformer import Transformer

SEQ = 5
Given = dict[str, Any]


def decoder() -> Transformer:
    return built("llama")


def translator() -> Transformer:
    return built("encoder-decoder")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ids": torch.zeros(1, SEQ)}, "ids of type float32 must be int32 or int64"),
        ({"mask": torch.ones(1, SEQ, dtype=torch.int64)}, "mask of type int64 must be bool"),
        (
            {"mask": torch.ones(1, 3, dtype=torch.bool)},
            r"^mask of shape \[1, 3\] must be that of the ids, \[1, 5\]$",
        ),
        ({"positions": torch.zeros(1, SEQ)}, "positions of type float32 must be int32 or int64"),
        ({"documents": torch.zeros(1, SEQ)}, "documents of type float32 must be int32 or int64"),
        ({"documents": torch.zeros(1, 3, dtype=torch.int64)}, r"documents of shape \[1, 3\] must be that of the ids"),
    ],
)
def test_what_stands_beside_the_ids_is_named(given: Given, said: str) -> None:
    beside = {"ids": tokens(SEQ)} | given
    with pytest.raises(ValueError, match=said):
        decoder()(beside.pop("ids"), **beside)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "needs a source"),
        ({"source": torch.full((1, 4), 61)}, "source's token id 61 is outside the vocabulary"),
        ({"source": torch.zeros(2, 4, dtype=torch.int64)}, "source of 2 rows must have one for each of the 1 rows"),
        ({"source": torch.zeros(1, 0, dtype=torch.int64)}, r"source of shape \[1, 0\] hold no token"),
        (
            {"source": torch.zeros(1, 4, dtype=torch.int64), "source_mask": torch.ones(1, 3, dtype=torch.bool)},
            r"source_mask of shape \[1, 3\] must be that of the source, \[1, 4\]",
        ),
        (
            {"source": torch.zeros(1, 4, dtype=torch.int64), "source_mask": torch.ones(1, 4)},
            "source_mask of type float32 must be bool",
        ),
    ],
)
def test_what_is_wrong_with_a_source_is_named(given: Given, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        translator()(tokens(SEQ), **given)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"window": 4}, "its window is 4, the model's None"),
        ({"layers": 3}, "its layers is 3, the model's 2"),
        ({"kv_heads": 4}, "its kv_heads is 4, the model's 2"),
    ],
)
def test_the_cache_of_another_model_is_refused(changed: Given, said: str) -> None:
    model = decoder()
    other = type(model.config)(**(model.config.model_dump() | changed))
    with pytest.raises(ValueError, match=f"the cache is of another model: {said}"):
        model(tokens(SEQ), cache=Cache(other, 1))


def test_a_cache_made_from_an_equal_configuration_is_taken() -> None:
    model = decoder()
    with torch.no_grad():
        found = model(tokens(SEQ), cache=Cache(shape("llama"), 1))
        torch.testing.assert_close(found, model(tokens(SEQ)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["slots", "counts"])
def test_slots_and_counts_are_integers(name: str) -> None:
    model, make = decoder(), {"slots": torch.zeros, "counts": torch.ones}
    beside: dict[str, Callable[..., torch.Tensor]] = {name: make[name]}
    with pytest.raises(ValueError, match=f"{name} of type float32 must be int32 or int64"):
        model(tokens(SEQ), cache=Cache(model.config, 1), **{key: value(1) for key, value in beside.items()})
