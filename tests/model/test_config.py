"""Legal combinations of settings, and the messages for those that are not."""

from typing import Any

import pytest
from architecture_fixtures import DECODERS, ENCODER_DECODERS, ENCODERS, shape
from pydantic import ValidationError

from sluice.model.architecture.config import ModelConfig, TransformerConfig

STATE_SPACE = {"state_space": {"state_size": 8, "head_size": 16}, "pattern": ("state_space",), "positions": "none"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": 3}, "hidden_size 32 must be a multiple of heads 3"),
        ({"kv_heads": 3}, "heads 4 must be a multiple of kv_heads 3"),
        ({"head_size": 7}, "head size 7 must be even for rope"),
        ({"pattern": ("window", "attention")}, "needs window"),
        ({"window": 4, "pattern": ("attention",)}, "window 4 has no effect"),
        ({"global_tokens": 2}, "global_tokens 2 has no effect without window"),
        ({"window": 4, "global_tokens": 30}, "global_tokens 30 must be at most the context, 24"),
        ({"pattern": ()}, "at least 1 item"),
        (
            {"rope_scaling": {"kind": "yarn", "factor": 2, "beta_fast": 1, "beta_slow": 2}},
            "rope_scaling.beta_fast 1 must be at least beta_slow 2",
        ),
        ({"pattern": ("state_space",)}, "set both, or none"),
        ({**STATE_SPACE, "kind": "encoder"}, "set kind to decoder"),
        ({**STATE_SPACE, "positions": "rope"}, "positions rope has no effect"),
        ({**STATE_SPACE, "norm_position": "post"}, "norm_position pre only"),
        ({**STATE_SPACE, "state_space": {"head_size": 24}}, "head_size 24 must divide"),
        ({**STATE_SPACE, "state_space": {"head_size": 16, "groups": 3}}, "groups 3 must divide its 4 heads"),
        ({**STATE_SPACE, "mixture": {"experts": 2}}, "no layer has a feed-forward network"),
        ({**STATE_SPACE, "feedforward": "gelu"}, "feedforward gelu has no effect: no layer has a feed-forward network"),
        ({**STATE_SPACE, "feedforward_bias": True}, "feedforward_bias True has no effect"),
        ({**STATE_SPACE, "intermediate_size": 48}, "intermediate_size 48 has no effect"),
        ({**STATE_SPACE, "intermediate_multiple": 8}, "intermediate_multiple 8 has no effect"),
        ({"state_space_feedforward": True}, "no effect without state_space"),
        ({"positions": "alibi", "rope_scaling": {"kind": "linear", "factor": 2}}, "rope_scaling has no effect"),
        ({"positions": "alibi", "rope_theta": 500.0}, "rope_theta 500 has no effect"),
        ({"head_size": 2, "rope_scaling": {"kind": "ntk", "factor": 2}}, "a head of 2 entries has one only"),
        ({"rope_theta": 1.0, "rope_scaling": {"kind": "yarn", "factor": 2}}, "rope_theta 1 must be above 1"),
        (
            {"rope_scaling": {"kind": "linear", "factor": 2, "beta_fast": 4}},
            "beta_fast 4 has no effect",
        ),
        ({"rope_scaling": {"kind": "yarn", "factor": 2, "low_frequency_factor": 2}}, "low_frequency_factor 2 has no"),
        (
            {"rope_scaling": {"kind": "llama3", "factor": 2, "low_frequency_factor": 4}},
            "rope_scaling.high_frequency_factor 4 must be above low_frequency_factor 4",
        ),
        ({"rope_scaling": {"kind": "longrope", "factor": 2}}, "rope_scaling.short_factors is missing"),
        (
            {
                "rope_scaling": {"kind": "longrope", "factor": 2, "short_factors": (1, 2), "long_factors": (1, 2)},
                "head_size": 8,
            },
            "short_factors has 2 numbers, but a head has 4 pairs that rotate",
        ),
        (
            {
                "rope_scaling": {"kind": "longrope", "factor": 2, "short_factors": (1, 0), "long_factors": (1, 2)},
                "head_size": 4,
            },
            "short_factors [1.0, 0.0] must be positive numbers",
        ),
        ({"rope_fraction": 0.4}, "rope_fraction 0.4 rotates 3 of 8 entries of a head"),
        ({"positions": "alibi", "rope_fraction": 0.5}, "rope_fraction 0.5 has no effect with positions alibi"),
        ({"rope_pattern": (False, False)}, "rotates no layer: set positions to none"),
        ({"window_rope_theta": 5.0}, "window_rope_theta 5 has no effect without a 'window' layer"),
        ({"qk_norm_over": "all_heads"}, "qk_norm_over all_heads has no effect without qk_norm"),
        ({"norm": "layer", "norm_plus_one": True}, "norm_plus_one goes with norm rms only"),
        (
            {"sublayers": "parallel", "norm_position": "sandwich"},
            "sublayers parallel goes with norm_position pre and one stack of layers, not with norm_position sandwich",
        ),
        ({"sublayers": "parallel", "kind": "encoder-decoder"}, "not with norm_position pre and kind encoder-decoder"),
        ({**STATE_SPACE, "sublayers": "parallel"}, "with sublayers sequential"),
        ({"relative_buckets": 8}, "relative_buckets 8 has no effect with positions rope"),
        ({**STATE_SPACE, "qk_norm": True}, "qk_norm True has no effect without an attention layer"),
        ({**STATE_SPACE, "attention_bias": "all"}, "attention_bias all has no effect"),
        ({"positions": "none", "kind": "encoder"}, "without the order of its tokens"),
        ({"positions": "relative", "relative_distance": 16}, "must be above relative_buckets / 2, 16"),
        ({"norm_bias": True}, "no effect with norm rms"),
        ({"encoder_layers": 2}, "no effect with kind decoder"),
        ({"token_types": 2}, "kind encoder only"),
        ({"kind": "encoder", "head_transform": True}, "the gated feedforward swiglu"),
        ({"mixture": {"experts": 2, "per_token": 3, "normalize": False}}, "per_token 3 must be at most experts 2"),
        ({"dropout": 1.0}, "less than 1"),
        ({"rope_scalling": None}, "Extra inputs are not permitted"),
    ],
)
def test_what_makes_no_sense_together_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        shape(options)
    assert said in str(caught.value)


@pytest.mark.parametrize("options", [*DECODERS.values(), *ENCODERS.values(), *ENCODER_DECODERS.values()])
def test_every_named_architecture_is_legal_and_comes_back_from_its_own_fields(options: dict[str, Any]) -> None:
    config = shape(options)
    assert TransformerConfig(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"intermediate_size": 48, "mixture": {"experts": 2, "intermediate_size": 24}},
            "intermediate_size 48 has no effect with mixture.intermediate_size 24",
        ),
        ({**STATE_SPACE, "head_size": 16}, "head_size 16 has no effect without an attention layer"),
        (
            {"context": 64, "rope_scaling": {"kind": "yarn", "factor": 2, "original_context": 65}},
            "original_context 65 must be at most the context, 64",
        ),
    ],
)
def test_a_size_that_is_asked_for_has_an_effect(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ModelConfig(**options)


def test_a_whole_shape_holds_derived_sizes_beside_what_they_follow_from() -> None:
    asked = ModelConfig(hidden_size=128, intermediate_multiple=64)
    made = TransformerConfig.from_settings(asked, 96)
    assert (made.intermediate_size, made.intermediate_multiple, made.head_size) == (384, 64, 16)
    assert TransformerConfig.from_settings(made, 96) == made
    # No attention, no heads: neither their width nor that they divide the model's is asked.
    assert TransformerConfig.from_settings(ModelConfig(**STATE_SPACE, hidden_size=48, heads=10), 96).head_size is None


def test_the_default_width_of_swiglu_is_eight_thirds_rounded_up_to_256() -> None:
    widths = {hidden: ModelConfig(hidden_size=hidden).feedforward_width for hidden in (192, 384, 4096)}
    assert widths == {192: 512, 384: 1024, 4096: 11008}
    assert ModelConfig(hidden_size=256, feedforward="gelu").feedforward_width == 1024


def test_the_pattern_repeats_over_the_layers() -> None:
    config = ModelConfig(layers=5, window=8, pattern=("window", "window", "attention"))
    assert config.layer_kinds == ("window", "window", "attention", "window", "window")
    assert ModelConfig(layers=2, window=8).layer_kinds == ("window", "window")
    assert config.encoder_kinds == ()


def test_a_router_that_cannot_learn_is_refused_for_training_and_imported() -> None:
    mixture = {"mixture": {"experts": 2, "per_token": 1}}
    with pytest.raises(ValidationError, match="leaves the router untrained"):
        ModelConfig(**mixture)  # type: ignore[arg-type]
    assert shape(mixture).mixture is not None
