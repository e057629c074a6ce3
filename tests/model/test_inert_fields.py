"""Fields of a config.json that change no logit are kept; a field that could change one is refused in one short line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, PreTrainedModel

from benchmarks.model.parity import BOUND, CASES, enliven, logits_of, make_theirs
from sluice.model.directory import read_json, read_stored
from sluice.model.huggingface import FAMILIES, NATIVE, read_config, write_config
from sluice.model.huggingface.convert import export_model, import_model
from sluice.model.huggingface.equivalence import differences
from sluice.model.huggingface.inert import COMPUTING_WORDS, GENERATION, is_inert

INERT: dict[str, Any] = {
    # transformers: files, outputs, labels, earlier versions
    "auto_map": {"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"},
    "tokenizer_class": "LlamaTokenizerFast",
    "_name_or_path": "meta-llama/Llama-2-7b-hf",
    "_commit_hash": "0123abcd",
    "_attn_implementation_autoset": True,
    "_label_numbers": [1, 2],
    "transformers_version": "4.31.0",
    "torch_dtype": "bfloat16",
    "torchscript": False,
    "use_bfloat16": True,
    "pruned_heads": {},
    "id2label": {"0": "LABEL_0"},
    "num_labels": 2,
    "problem_type": None,
    "finetuning_task": None,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "is_decoder": True,
    "is_encoder_decoder": False,
    "tie_encoder_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "tf_legacy_loss": False,
    "pretraining_tp": 2,
    "return_dict": True,
    "prefix": "translate: ",
    # generation
    "max_length": 4096,
    "min_length": 0,
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.9,
    "top_k": 50,
    "repetition_penalty": 1.05,
    "num_beams": 1,
    "use_cache": True,
    "bos_token_id": 1,
    "eos_token_id": [1, 2],
    "sep_token_id": None,
    "pad_token_id": -1,
    "image_token_id": 200,
    "pad_token": "<pad>",
    # other programs
    "unsloth_version": "2025.1.5",
    "unsloth_fixed": True,
    "unsloth_tied_embeddings": True,
    "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}, "use_external_data_format": 1},
    "axolotl_config": {"sequence_len": 4096},
    "mlx_version": "0.20",
    "mergekit_version": "0.0.5",
    "is_llama_config": True,
    "rope_interleaved": False,
    "_flash_attn_2_enabled": True,
    "use_flash_attn": True,
    "attn_implementation": "flash_attention_2",
    "use_fused_rmsnorm": True,
    "kv_cache_dtype": "fp8",
    "quantization_config": None,
    "gradient_checkpointing": True,
    "hidden_dropout": 0.1,
    "embd_pdrop": 0.1,
    "initializer_range": 0.02,
    "router_z_loss_coef": 0.001,
    "training_seed": 7,
    "model_max_length": 4096,
    "max_sequence_length": 2048,
    "seq_length": 4096,
    "n_ctx": 4096,
    "base_model": "meta-llama/Llama-2-7b-hf",
    "summary": "",
    "license": "apache-2.0",
    "use_moe": False,
    "num_experts": 0,
    "use_sliding_window": False,
    "logit_scale": 1.0,
    "attn_logit_softcapping": None,
    "partial_rotary_factor": 1.0,
    "qkv_bias": False,
}

EFFECTIVE: dict[str, Any] = {
    "hiden_size": 64,
    "sliding_window": 4096,
    "use_sliding_window": True,
    "logit_scale": 0.0625,
    "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0,
    "partial_rotary_factor": 0.5,
    "rope_interleaved": True,
    "rotary_type": "interleaved",
    "rope_fraction": 0.0,
    "use_rope": False,
    "no_rope_layers": [1, 1, 0],
    "is_causal": False,
    "causal_mask": False,
    "use_causal_mask": 0,
    "norm_type": "layernorm",
    "layer_norm_type": "pre",
    "use_post_norm": True,
    "apply_residual": False,
    "residual_multiplier": 0.22,
    "embedding_multiplier": 12.0,
    "scale_embeddings": True,
    "use_qk_norm": True,
    "parallel_attn": True,
    "alibi": True,
    "use_alibi": "true",
    "new_feature": "true",
    "new_number": 3,
    "new_table": {"a": 1},
    "pos_emb": "alibi",
    "encoding": "alibi",
    "is_neox_style": False,
    "rotate_half": False,
    "moe_normalize_expert_weights": False,
    "use_swiglu": False,
    "pretraining_max_position_embeddings": 2048,
    "use_dynamic_ntk": True,
    "activation": "relu",
    "mlp_class_name": "GptNeoxMLP",
    "num_experts": 8,
    "attention_multiplier": 1.0,
    "_remove_final_layer_norm": True,
    "_window_size": 16,
    "scoring_func": "sigmoid",
    "feed_forward_proj": "relu",
    "afn": "gelu",
    "token_mixer": "conv",
    "pre_ln": False,
    "scale_factor": 0,
    "normalize_embeddings": True,
    "layernorm_zero_centered": True,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 512,
    "pruned_heads": {"0": [1]},
}


def smallest() -> dict[str, Any]:
    config = {"model_type": "llama", "vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2}
    return {**config, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64}


@pytest.mark.parametrize("name", INERT)
def test_an_inert_field_is_no_obstacle(name: str) -> None:
    assert read_config({**smallest(), name: INERT[name]}) == read_config(smallest())


@pytest.mark.parametrize("name", EFFECTIVE)
def test_a_field_that_could_change_a_logit_is_refused_in_one_short_line(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"unknown field {name} = .* could change the logits: .*--ignore {name} "
    ) as no:
        read_config({**smallest(), name: EFFECTIVE[name]})
    assert len(str(no.value)) < 220
    assert "\n" not in str(no.value)


def test_inert_fields_stand_beside_our_own_ones_too() -> None:
    config, _ = read_config({**write_config(read_config(smallest())[0])})
    native = {"model_type": NATIVE, **config.model_dump(mode="json")}
    assert read_config({**native, "unsloth_version": "1", "temperature": 1.0, "eos_token_id": 2})[0] == config
    with pytest.raises(ValueError, match=r"unknown field heds = 3 .did you mean heads.*: remove it"):
        read_config({**native, "heds": 3})


def test_the_settings_of_generation_are_those_of_transformers() -> None:
    theirs = {name for name in GenerationConfig().to_dict() if not name.startswith("_")}
    assert theirs == GENERATION


@given(
    st.sampled_from(sorted(COMPUTING_WORDS)),
    st.sampled_from(["{}", "{}_size", "use_{}", "my_{}_2", "new{}Kind"]),
    st.one_of(
        st.integers(2), st.floats(0.001, 0.999), st.just([1]), st.just({"a": 1}), st.just("other"), st.just(True)
    ),
)
def test_no_value_but_off_is_inert_under_the_name_of_a_computation(word: str, pattern: str, value: Any) -> None:
    name = pattern.format(word.title() if pattern == "new{}Kind" else word)
    assert not is_inert(name, value)
    assert is_inert(name, None)


def _values(given: Any) -> list[Any]:
    """Other values that a field may have which has this one."""
    number = [given + 1, given * 2, 0, 1] if isinstance(given, int | float) and not isinstance(given, bool) else []
    return [*number, True, False, None, "gelu", "other", 0.25, 3]


def _read_alike(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every config.json with one field changed that we read as the same model."""
    base, _ = read_config(fields)
    others = {"return_dict", "output_attentions", "output_hidden_states", "use_cache", "id2label", "label2id"}
    for name in sorted(fields.keys() - others - {"model_type", "architectures", "dtype", "transformers_version"}):
        for value in _values(fields[name]):
            try:
                read, _ = read_config({**fields, name: value})
            except ValueError:
                continue
            if value != fields[name] and not differences(read, base):
                yield {**fields, name: value}


CASES_OF = dict(reversed(CASES.values()))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_as_the_same_model_has_the_same_logits_in_transformers(family: str) -> None:
    """Every field of the family's class in transformers, at many values."""
    theirs = make_theirs(family, CASES_OF[family])
    enliven(theirs, seed=1)
    expected, compared = logits_of(theirs), 0
    written = json.loads(
        theirs.config.to_json_string(use_diff=False), object_hook=lambda each: float(each.get("__float__", 0)) or each
    )
    for fields in _read_alike(written):
        try:
            config = type(theirs.config).from_dict(fields)
            config._attn_implementation = theirs.config._attn_implementation
            other: PreTrainedModel = type(theirs)(config).eval()
            other.load_state_dict(theirs.state_dict())
            found = logits_of(other)
        except (StrictDataclassFieldValidationError, KeyError, TypeError, ValueError):  # transformers refuses it
            continue
        compared += 1
        torch.testing.assert_close(found, expected, atol=BOUND, rtol=0, msg=f"{family} {fields}")
    assert compared > 10


def saved(folder: Path, **changes: Any) -> Path:
    theirs = make_theirs("llama", CASES_OF["llama"])
    enliven(theirs, seed=1)
    theirs.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**read_json(folder / "config.json"), **changes}))
    return folder


def test_inert_fields_are_passed_on(tmp_path: Path) -> None:
    source = saved(tmp_path / "theirs", **{name: value for name, value in INERT.items() if name != "torch_dtype"})
    import_model(source, tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "again")
    assert read_json(tmp_path / "again" / "config.json") == read_json(source / "config.json")


def test_an_ignored_field_is_left_out_and_stands_in_the_lineage(tmp_path: Path) -> None:
    source = saved(tmp_path / "theirs", new_number=3, no_rope_layers=[1, 0])
    with pytest.raises(ValueError, match=r"--ignore new_number --ignore no_rope_layers"):
        import_model(source, tmp_path / "ours")
    import_model(source, tmp_path / "ours", ignore=["new_number", "no_rope_layers"])
    assert read_json(tmp_path / "ours" / "lineage.json")["ignored"] == {"new_number": 3, "no_rope_layers": [1, 0]}
    assert "new_number" not in read_json(tmp_path / "ours" / "config.json")
    assert read_stored(tmp_path / "ours").config == read_stored(saved(tmp_path / "plain")).config
    with pytest.raises(ValueError, match=r"config.json has no field other: there is nothing to ignore"):
        import_model(source, tmp_path / "third", ignore=["other"])
    with pytest.raises(ValueError, match=r"field 'hidden_size' is missing or ignored"):
        import_model(source, tmp_path / "third", ignore=["hidden_size", "new_number", "no_rope_layers"])
    assert not (tmp_path / "third").exists()


def test_buffers_of_older_versions_are_skipped(tmp_path: Path) -> None:
    source = saved(tmp_path / "theirs")
    weights = load_file(source / "model.safetensors")
    buffers = ["model.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"]
    buffers += ["model.layers.0.attn.masked_bias", "model.layers.1.self_attn.rotary_emb.cos_cached"]
    save_file({**weights, **{name: torch.ones(2) for name in buffers}}, source / "model.safetensors")
    assert read_stored(source).left_out == tuple(sorted(buffers))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}, r"by GPTQ \(4 bits\)"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, r"by AWQ \(4 bits\)"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "by fp8"),
        ({"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}, "by bitsandbytes"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "by bitsandbytes"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "by compressed-tensors"),
        ({"quantization": {"group_size": 64, "bits": 4}}, r"by MLX \(4 bits\)"),
    ],
)
def test_quantized_checkpoints_are_refused_by_their_types_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said + ", which is not read: take the model"):
        read_config({**smallest(), **given})


@pytest.mark.parametrize(
    ("name", "weight", "said"),
    [
        ("model.norm.qweight", torch.zeros(2, dtype=torch.int32), "quantized by GPTQ or AWQ"),
        ("model.layers.0.mlp.up_proj.weight_scale_inv", torch.ones(1), "quantized by fp8"),
        ("model.layers.0.mlp.up_proj.weight.absmax", torch.ones(1), "quantized by bitsandbytes"),
        ("model.norm.weight", torch.ones(32).to(torch.float8_e4m3fn), "torch.float8_e4m3fn: quantized"),
    ],
)
def test_quantized_weights_without_a_field_are_refused_too(
    tmp_path: Path, name: str, weight: torch.Tensor, said: str
) -> None:
    source = saved(tmp_path / "theirs")
    save_file({**load_file(source / "model.safetensors"), name: weight}, source / "model.safetensors")
    with pytest.raises(ValueError, match=said):
        read_stored(source)


def test_one_expert_per_token_and_noise_in_training_are_imported(tmp_path: Path) -> None:
    fields = {**CASES_OF["mixtral"], "num_experts_per_tok": 1, "router_jitter_noise": 0.1}
    make_theirs("mixtral", fields).save_pretrained(tmp_path)
    mixture = read_stored(tmp_path).config.mixture
    assert mixture is not None
    assert mixture.per_token == 1
