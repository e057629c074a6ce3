"""Parameters: the weights of the model itself, name by name, and the totals that were published."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from architecture_fixtures import DECODERS, ENCODER_DECODERS, ENCODERS, shape, shapes
from hypothesis import HealthCheck, event, given, settings

from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.transformer import Transformer
from sluice.model.planner.parameters import count_parameters
from sluice.model.planner.weights import COMPONENTS, list_weights
from sluice.model.training.optimization.parameter_groups import parameter_groups

NAMED = {**DECODERS, **ENCODERS, **ENCODER_DECODERS}
# LLaMA 7B (arXiv 2302.13971), Llama 2 70B (2307.09288), Mixtral 8x7B (2401.04088) and GPT-2 medium as released; the
# Transformer's 65 million (1706.03762, table 3) are 63 with its vocabulary of about 37,000.
PUBLISHED = {
    "transformer-base": 63_045_632,
    "gpt2-medium": 354_823_168,
    "llama-7b": 6_738_415_616,
    "llama-2-70b": 68_976_648_192,
    "mixtral-8x7b": 46_702_792_704,
}


def preset(root: Path, name: str) -> TransformerConfig:
    blocks = yaml.safe_load((root / "conf" / "model" / f"{name}.yaml").read_text())
    return TransformerConfig.from_settings(ModelConfig(**blocks["model"]), blocks["tokenizer"]["vocab_size"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_presets_have_the_published_totals(root: Path, name: str) -> None:
    config = preset(root, name)
    with torch.device("meta"):
        model = Transformer(config)
    built = sum(weight.numel() for weight in model.parameters())
    assert count_parameters(config).total == PUBLISHED[name] == built


def test_of_mixtral_a_token_meets_13_billion(root: Path) -> None:
    parameters = count_parameters(preset(root, "mixtral-8x7b"))
    assert parameters.active == 12_879_925_248
    assert parameters.total - parameters.active == parameters.experts * 6 // 8


@pytest.mark.parametrize(
    ("change", "total"),
    [
        # Llama 3 8B and Llama 3.2 1B
        ({"vocab_size": 128_256, "kv_heads": 8, "intermediate_size": 14_336}, 8_030_261_248),
        (
            {
                "vocab_size": 128_256,
                "hidden_size": 2_048,
                "head_size": 64,
                "layers": 16,
                "kv_heads": 8,
                "intermediate_size": 8_192,
                "tie_embeddings": True,
            },
            1_235_814_400,
        ),
    ],
)
def test_other_published_totals(root: Path, change: dict[str, Any], total: int) -> None:
    assert count_parameters(preset(root, "llama-7b").model_copy(update=change)).total == total


def assert_exact(config: TransformerConfig) -> None:
    """The same names and shapes as the model's, and counts that add up."""
    with torch.device("meta"):
        model = Transformer(config)
    built = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    listed = list(list_weights(config))
    assert {weight.name: weight.shape for weight in listed} == built
    assert len(listed) == len(built)
    parameters = count_parameters(config)
    assert parameters.total == sum(getattr(parameters, name) for name in COMPONENTS)
    assert parameters.active <= parameters.total
    assert parameters.matrices == sum(weight.numel() for weight in parameter_groups(model)["matrices"])


@pytest.mark.parametrize("name", NAMED)
def test_every_architecture_is_listed_weight_by_weight(name: str) -> None:
    assert_exact(shape(NAMED[name]))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(config=shapes())
def test_every_legal_combination_is_listed_weight_by_weight(config: TransformerConfig) -> None:
    event(f"{config.kind}, {'mixture' if config.mixture else 'dense'}")
    assert_exact(config)


def test_components_hold_what_their_names_say() -> None:
    config = shape({**NAMED["hybrid_mixture"], "tie_embeddings": False, "qk_norm": True})
    found = {weight.component for weight in list_weights(config)}
    assert found == {"embedding", "attention", "router", "experts", "state_space", "norms", "head"}
    for weight in list_weights(config):
        part = weight.name.split(".")
        match weight.component:
            case "experts":
                assert "feedforward" in part and "router" not in part
            case "norms":
                assert any("norm" in piece for piece in part)
            case "state_space":
                assert "state_space" in part
