"""config.json: what is written reads back equal, and unsupported settings are refused by name."""

import json
from typing import Any

import pytest
import torch
from architecture_fixtures import ENCODER_DECODERS, shape, shapes
from hypothesis import HealthCheck, given, settings

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.transformer import Transformer
from sluice.model.huggingface import (
    FAMILIES,
    NATIVE,
    family_fields,
    family_of,
    from_huggingface,
    obstacles,
    read_config,
    tidy,
    to_huggingface,
    why_none,
    write_config,
)

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 260,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
GPT2: dict[str, Any] = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
BERT: dict[str, Any] = {
    **{name: value for name, value in LLAMA.items() if name != "num_key_value_heads"},
    "model_type": "bert",
}
T5: dict[str, Any] = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
MAMBA2: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_heads": 8,
    "head_dim": 8,
    "n_groups": 2,
}
_ALIKE = ("llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen3_moe", "phi3", "smollm3", "granite", "olmo2")
_ALONE = {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}
SMALLEST: dict[str, dict[str, Any]] = {
    **dict.fromkeys((*_ALIKE, "gemma", "gemma2", "gemma3_text", "stablelm"), LLAMA),
    **dict.fromkeys(("gpt_neox",), _ALONE),
    "falcon": {name: value for name, value in _ALONE.items() if name != "intermediate_size"},
    "gpt2": GPT2,
    "bert": BERT,
    "t5": T5,
    "mamba2": MAMBA2,
}


def through_json(fields: dict[str, Any]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(json.dumps(fields))
    return loaded


@given(shapes())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_any_configuration_comes_back_equal(config: TransformerConfig) -> None:
    written = through_json(write_config(config))
    read, family = read_config(written)
    assert read == config
    assert (family is None) == (written["model_type"] == NATIVE)


@given(shapes())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_any_state_comes_back_equal(config: TransformerConfig) -> None:
    state = Transformer(config).state_dict()
    for weight in state.values():
        torch.nn.init.normal_(weight)
    back = from_huggingface(to_huggingface(state, config), config)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_family_reads_it_expresses(name: str) -> None:
    read, family = read_config({**SMALLEST[name], "model_type": name})
    assert family is FAMILIES[name]
    assert obstacles(read, family) == []
    again, _ = read_config(through_json(family_fields(read, family)))
    assert again == read
    first = family_of(read)
    assert first is not None
    # Without what they add, these are a Llama.
    assert first is family or (first.name == "llama" and name in {"mistral", "phi3", "smollm3"})


def test_dropout_and_the_weights_of_losses_are_kept_beside_the_familys_fields() -> None:
    options = {"dropout": 0.1, "mixture": {"experts": 4, "balance_weight": 0.02, "capacity_factor": 1.25}}
    config = shape({**options, "mixture": {**options["mixture"], "z_weight": 0.5}})  # type: ignore[dict-item]
    written = through_json(write_config(config))
    assert written["model_type"] == "mixtral"
    assert written["router_aux_loss_coef"] == 0.02
    assert written[NATIVE].keys() == {"dropout", "mixture"}
    assert read_config(written)[0] == config


@pytest.mark.parametrize(
    ("name", "beside", "said"),
    [
        ("llama", {"context": 1_000_000}, "max_position_embeddings 1000000, not 64"),
        ("llama", {"attention_dropout": 0.1}, "attention_dropout 0.1, not 0.0"),
        ("mixtral", {"mixture": {"experts": 8, "balance_weight": 0.5}}, "router_aux_loss_coef 0.5, not 0.001"),
        ("t5", {"context": 1000}, "n_positions 1000, not None"),
        ("t5", {"dropout": 0.3}, "dropout_rate 0.3, not 0.1"),
    ],
)
def test_what_a_familys_own_field_says_it_alone_says(name: str, beside: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"sluice contradicts the other fields: {said}; leave it out of sluice"):
        read_config({**SMALLEST[name], "model_type": name, NATIVE: beside})


def test_a_family_without_a_field_for_the_context_has_it_beside_the_others() -> None:
    assert read_config({**MAMBA2, "model_type": "mamba2", NATIVE: {"context": 1000}})[0].context == 1000


def test_nothing_stands_beside_our_own_fields() -> None:
    with pytest.raises(ValueError, match=r"unknown field sluice = \{'dropout': 0.5, 'nonsense': 1\}"):
        read_config({"model_type": NATIVE, "vocab_size": 96, NATIVE: {"dropout": 0.5, "nonsense": 1}})


def test_what_stands_beside_the_familys_fields_may_not_contradict_them() -> None:
    with pytest.raises(ValueError, match=r"sluice contradicts the other fields: heads 2, not 4"):
        read_config({**LLAMA, NATIVE: {"heads": 2, "head_size": 16}})
    with pytest.raises(ValueError, match="sluice is 3, not an object"):
        read_config({**LLAMA, NATIVE: 3})
    with pytest.raises(ValueError, match="headz"):
        read_config({**LLAMA, NATIVE: {"headz": 2}})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"positions": "alibi"}, "(llama, mistral, phi3, smollm3, granite: positions 'alibi', not 'rope')"),
        ({"attention_soft_cap": 5.0}, "granite: attention_soft_cap 5.0, not None"),
        ({"rope_scaling": {"kind": "ntk", "factor": 2.0}}, "granite: rope_scaling"),
        ({"qk_norm": True, "attention_bias": "qkv"}, "qwen2: qk_norm True, not False"),
        ({"mixture": {"experts": 3, "shared": 1}}, "mixtral: mixture.shared 1, not 0"),
        (ENCODER_DECODERS["vaswani"], "positions 'sinusoidal', not 'relative', norm 'layer', not 'rms'"),
    ],
)
def test_what_no_family_computes_is_native_and_says_why(options: dict[str, Any], said: str) -> None:
    config = shape(options)
    assert family_of(config) is None
    assert write_config(config)["model_type"] == NATIVE
    why = why_none(config)
    assert said in why
    assert "\n" not in why
    # Only families of the same kind are near.
    assert ("t5: " in why) == (config.kind == "encoder-decoder")


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("qwen2", {"use_mrope": True}, "use_mrope is True, but only False is supported"),
    ("llama", {"sliding_window": 4096}, "unknown field sliding_window = 4096 could change the logits: import with"),
    ("llama", {"hiden_size": 64}, r"unknown field hiden_size = 64 \(did you mean hidden_size\?\)"),
    ("llama", {"vocab_size": "x"}, "config.json: vocab_size must be a valid integer, .* not 'x'"),
    ("llama", {"a": 1, "b": 2, "c": 3, "d": 4}, "unknown fields a = 1, b = 2, c = 3 and 1 more could"),
    ("llama", {"quantization_config": {"bits": 4}}, r"quantized by unknown \(4 bits\).*dequantize them first"),
    ("llama", {"hidden_act": "relu"}, "hidden_act is 'relu', but only 'silu', 'gelu', 'gelu_pytorch_tanh'"),
    ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "architectures is"),
    ("llama", {"rope_parameters": {"rope_type": "axial", "factor": 8.0}}, "rope_type 'axial'.* 'default', 'linear'"),
    ("llama", {"rope_parameters": {"rope_type": "dynamic"}}, "rope_type 'dynamic' but no factor"),
    ("llama", {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0] * 4}}, "long_factors is missing"),
    (
        "llama",
        {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}},
        "short_factors has 1 numbers, but a head has .* pairs that rotate",
    ),
    ("llama", {"rope_scaling": {"type": "linear"}}, "rope_scaling has rope_type 'linear' but no factor"),
    (
        "llama",
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "short_factor": 0.7}},
        "rope_parameters.short_factor is 0.7",
    ),
    ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
    ("llama", {"rope_parameters": 3}, "rope_parameters is 3"),
    ("llama", {"rope_parameters": 0}, "rope_parameters is 0, not an object"),
    (
        "llama",
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "yarn", "nonsense": 1}},
        "rope_parameters.nonsense is 1",
    ),
    (
        "llama",
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "linear", "factor": 4.0}},
        "rope_scaling is .*'factor': 2.0} and rope_parameters .*'factor': 4.0}: leave one out",
    ),
    (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "type": "yarn", "factor": 2.0}},
        "rope_parameters has rope_type 'linear' and type 'yarn': leave one out",
    ),
    (
        "llama",
        {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e4}},
        "rope_parameters.rope_theta is 10000.0 and rope_theta 500000.0: leave one out",
    ),
    ("t5", {"num_decoder_layers": 0}, "num_decoder_layers is 0, but must be a whole number of at least 1"),
    ("t5", {"num_decoder_layers": -1}, "num_decoder_layers is -1"),
    ("llama", {"num_key_value_heads": 3}, "num_attention_heads 4 must be a multiple of num_key_value_heads 3"),
    ("llama", {"attention_bias": "false"}, "attention_bias is 'false', but must be true or false"),
    ("gpt2", {"scale_attn_weights": None}, "scale_attn_weights is None, but must be true or false"),
    ("llama", {"vocab_size": "many"}, "vocab_size"),
    ("llama", {"num_attention_heads": 0}, "config.json: "),
    ("llama", {"hidden_size": 34}, "hidden_size 34 is no multiple of num_attention_heads 4"),
    ("llama", {"model_type": "bloom"}, "model_type is 'bloom', but only llama, mistral, .* sluice"),
    ("llama", {"model_type": None}, "model_type is None"),
    ("qwen2", {"use_sliding_window": True, "layer_types": ["sliding_attention"]}, "for each of 3 layers"),
    ("qwen2", {"layer_types": ["sliding_attention"] * 3}, "use_sliding_window is not true"),
    ("qwen2", {"layer_types": ["chunked_attention"] * 3}, "chunked_attention"),
    ("mixtral", {"num_experts_per_tok": 9}, "num_experts_per_tok 9 must be at most num_local_experts 8"),
    ("mamba2", {"n_groups": 3}, "n_groups 3 must divide its 8 heads"),
    ("gpt2", {"activation_function": "swish"}, "activation_function is 'swish'"),
    ("gpt2", {"embd_pdrop": 0.0}, "embd_pdrop is 0.0, but only resid_pdrop's 0.1"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True"),
    ("bert", {"is_decoder": True}, "is_decoder is True"),
    ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
    ("bert", {"tie_word_embeddings": False}, "tie_word_embeddings is False"),
    ("t5", {"feed_forward_proj": "gated-relu"}, "feed_forward_proj is 'gated-relu'"),
    ("t5", {"is_encoder_decoder": False}, "is_encoder_decoder is False"),
    ("mamba2", {"num_heads": 7}, "num_heads is 7"),
    ("mamba2", {"time_step_limit": [0.0, 0.5]}, "time_step_limit"),
    ("mamba2", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
]


@pytest.mark.parametrize(("name", "change", "said"), CASES)
def test_what_is_not_computed_here_is_refused_by_name(name: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        read_config({**SMALLEST[name], "model_type": name, **change})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_missing_field_and_one_of_the_wrong_type_are_named(name: str) -> None:
    for field in SMALLEST[name].keys() - {"model_type", "num_key_value_heads", "num_heads", "head_dim", "n_groups"}:
        fields = {**SMALLEST[name], "model_type": name}
        optional = {"t5": {"d_kv", "num_heads"}, "falcon": {"max_position_embeddings"}}
        if field not in optional.get(name, set()):
            without = {key: value for key, value in fields.items() if key != field}
            with pytest.raises(ValueError, match=field):
                read_config(without)
        for wrong in ("many", None, [3], -1, 0, float("nan")):
            with pytest.raises(ValueError, match=r"config\.json"):
                read_config({**fields, field: wrong})


@pytest.mark.parametrize("name", FAMILIES)
def test_truth_for_a_number_is_named_as_the_file_names_it(name: str) -> None:
    family = FAMILIES[name]
    fields = {**family_fields(read_config({**SMALLEST[name], "model_type": name})[0], family), "model_type": name}
    numbers = [field for field, value in fields.items() if type(value) in (int, float)]
    assert len(numbers) > 5
    for field in numbers:
        with pytest.raises(ValueError, match=rf"^config\.json: .*\b{field}\b"):
            read_config({**fields, field: True})


@pytest.mark.parametrize("name", FAMILIES)
def test_a_size_below_one_is_named_as_the_file_names_it(name: str) -> None:
    family = FAMILIES[name]
    fields = {**family_fields(read_config({**SMALLEST[name], "model_type": name})[0], family), "model_type": name}
    sizes = {theirs for theirs in family.fields.values() if type(fields.get(theirs)) is int and fields[theirs] > 0}
    assert len(sizes) >= 2
    for size in sizes:
        with pytest.raises(ValueError, match=rf"config\.json: .*\b{size}\b"):
            read_config({**fields, size: -1})


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("gpt2", {"n_ctx": 64, "n_special": 0, "predict_special_tokens": True, "task_specific_params": None}),
        ("qwen2", {"use_mrope": False, "use_sliding_window": False}),
    ],
)
def test_fields_of_published_checkpoints_without_effect_are_taken(name: str, published: dict[str, Any]) -> None:
    fields = {**SMALLEST[name], "model_type": name}
    assert read_config({**fields, **published})[0] == read_config(fields)[0]


def test_no_quantization_is_no_obstacle() -> None:
    assert read_config({**LLAMA, "quantization_config": None}) == read_config(LLAMA)


def test_older_spellings_of_rotary_settings() -> None:
    theta, _ = read_config({**LLAMA, "rope_theta": 5e5, "rope_scaling": None})
    assert (theta.rope_theta, theta.rope_scaling) == (5e5, None)
    older = {**LLAMA, "rope_theta": 5e5, "rope_scaling": {"type": "yarn", "factor": 4.0}}
    yarn, _ = read_config(older)
    assert yarn.rope_theta == 5e5
    assert yarn.rope_scaling is not None
    # As transformers has it where the field is absent: the context as it is now.
    assert yarn.rope_scaling.original_context == 64


def test_rotary_settings_said_twice_alike_are_read() -> None:
    # transformers 4 wrote the kind under both of its names.
    said = {"type": "linear", "rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    once, _ = read_config({**LLAMA, "rope_parameters": said})
    assert once.rope_scaling is not None
    assert (once.rope_theta, once.rope_scaling.kind, once.rope_scaling.factor) == (5e5, "linear", 2.0)
    twice = {**LLAMA, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": said}
    assert read_config(twice)[0] == once


def test_t5s_scale_has_two_spellings() -> None:
    read = {
        (tied, scaled): read_config(
            {**T5, "model_type": "t5", "tie_word_embeddings": tied}
            | ({} if scaled is None else {"scale_decoder_outputs": scaled})
        )[0]
        for tied in (True, False)
        for scaled in (None, True, False)
    }
    assert {key: config.logit_scale == 32**-0.5 for key, config in read.items()} == {
        (True, None): True,
        (False, None): False,
        (True, True): True,
        (False, True): True,
        (True, False): False,
        (False, False): False,
    }
    assert all(config.tie_embeddings == key[0] for key, config in read.items())


def test_weights_that_are_not_the_models_are_named() -> None:
    config, family = read_config({**LLAMA, "tie_word_embeddings": True})
    assert family is not None
    state = to_huggingface(Transformer(config).state_dict(), config)
    with pytest.raises(ValueError, match=r"weight 'model.norm.weight' is missing"):
        from_huggingface({name: weight for name, weight in state.items() if name != "model.norm.weight"}, config)
    with pytest.raises(ValueError, match=r"unknown weights \['model.layers.0.mlp.bias'\]"):
        from_huggingface({**state, "model.layers.0.mlp.bias": torch.zeros(3)}, config)
    with pytest.raises(ValueError, match=r"norm.weight has shape \(3,\), but config.json asks for \(32,\)"):
        from_huggingface({**state, "model.norm.weight": torch.zeros(3)}, config)
    with pytest.raises(ValueError, match=r"torch.int8: quantized"):
        from_huggingface({**state, "model.norm.weight": torch.zeros(32, dtype=torch.int8)}, config)
    copy = {**state, "lm_head.weight": state["model.embed_tokens.weight"].clone()}
    assert tidy(copy, family, tied=True).left_out == ("lm_head.weight",)
    assert tidy(copy, family, tied=False).left_out == ()
    assert tidy({**copy, "lm_head.weight": copy["lm_head.weight"] + 1}, family, tied=True).own_head


def test_a_weight_under_an_old_and_a_new_name_has_one_value() -> None:
    family, old, new = FAMILIES["gpt_neox"], "lm_head.weight", "embed_out.weight"
    assert tidy({old: torch.ones(2), new: torch.ones(2)}, family, tied=False).weights.keys() == {new}
    with pytest.raises(ValueError, match=r"weight embed_out\.weight is there under two names"):
        tidy({old: torch.ones(2), new: torch.zeros(2)}, family, tied=False)
