"""Fields of a config.json that cannot change a logit, told by name and value.

transformers' own class of a family reads a known set of fields, which `Family.read` takes first. What is left over
comes from other programs, and counts as inert if one of these rules says so; others might
describe a computation.

| rule | example |
| --- | --- |
| null is an unset field | `sliding_window: null` |
| a program's name at the beginning; private, without a word of a computation | `unsloth_version`, `_commit_hash` |
| transformers' settings of generation, outputs, labels and files | `temperature`, `id2label`, `auto_map` |
| ids and texts of special tokens, lengths in tokens | `image_token_id`, `model_max_length` |
| training: dropout, initialization, losses, checkpointing | `hidden_dropout`, `router_z_loss_coef` |
| a choice of kernel, cache or dtype | `use_flash_attn`, `kv_cache_dtype` |
| text under a name that no computation has | `base_model`, `license` |
| a known feature, at the value that turns it off | `rope_interleaved: false`, `logit_scale: 1.0` |
| false, zero or empty, unless the name belongs to something that is on by default | `use_moe: false` |
"""

import re
from typing import Any

GENERATION = frozenset(
    {
        "assistant_confidence_threshold",
        "assistant_early_exit",
        "assistant_ensemble_weight",
        "assistant_lookbehind",
        "bad_words_ids",
        "begin_suppress_tokens",
        "bos_token_id",
        "cache_config",
        "cache_implementation",
        "compile_config",
        "constraints",
        "continuous_batching_config",
        "decoder_start_token_id",
        "disable_compile",
        "diversity_penalty",
        "do_sample",
        "dola_layers",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "encoder_repetition_penalty",
        "eos_token_id",
        "epsilon_cutoff",
        "eta_cutoff",
        "exponential_decay_length_penalty",
        "force_words_ids",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "guidance_scale",
        "is_assistant",
        "length_penalty",
        "low_memory",
        "max_cache_len",
        "max_length",
        "max_matching_ngram_size",
        "max_new_tokens",
        "max_time",
        "min_length",
        "min_new_tokens",
        "min_p",
        "no_repeat_ngram_size",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "output_scores",
        "pad_token_id",
        "penalty_alpha",
        "prefill_chunk_size",
        "prompt_lookup_num_tokens",
        "remove_invalid_values",
        "renormalize_logits",
        "repetition_penalty",
        "return_dict_in_generate",
        "sequence_bias",
        "speculation_type",
        "stop_strings",
        "suppress_tokens",
        "target_lookbehind",
        "temperature",
        "token_healing",
        "top_h",
        "top_k",
        "top_p",
        "transformers_version",
        "typical_p",
        "use_cache",
        "use_mtp",
        "watermarking_config",
    }
)
"""Fields of transformers' GenerationConfig: how tokens are chosen from the logits."""

_TRANSFORMERS = frozenset(
    {
        "auto_map",
        "chunk_size_feed_forward",
        "custom_pipelines",
        "dtype",
        "feature_extractor_type",
        "finetuning_task",
        "id2label",
        "is_decoder",
        "label2id",
        "model_parallel",
        "num_labels",
        "prefix",
        "pretraining_tp",
        "problem_type",
        "return_dict",
        "sentence_transformers",
        "task_specific_params",
        "tf_legacy_loss",
        "tokenizer_class",
        "torch_dtype",
        "torchscript",
        "use_bfloat16",
        "use_return_dict",
    }
)
"""Fields of PreTrainedConfig, now or in earlier versions, that describe outputs, labels and files. `is_decoder` is true
of every family that does not read it.
"""

_WRITERS = re.compile(
    r"(unsloth|axolotl|transformers\.js|transformers_js|llama_?factory|mergekit|merge_method|mlx|onnx|openvino|neuron|"
    r"optimum|trl|peft|wandb|deepspeed|fsdp|megatron|nemo|torchtune|autotrain|vllm|sglang|gguf|trainer|hf|hub)(?![a-z])"
)
"""Beginnings of names: those of programs that leave a note in config.json."""

_TOKENS = re.compile(r".*_token_ids?|.*_token_index|.*_(start|end)_token")
_LENGTHS = re.compile(
    r"(model_|tokenizer_)?max_(seq_?|sequence_|model_|new_|input_|output_)?len(gth)?|seq_len(gth)?|n_ctx"
)
_FEATURE_OFF: dict[str, tuple[Any, ...]] = {
    "clip_qkv": (0, 0.0),
    "embedding_multiplier": (1, 1.0),
    "final_logit_softcapping": (0, 0.0),
    "is_llama_config": (True, False),
    "layer_norm_scale": (False,),
    "logit_scale": (1, 1.0),
    "logits_scaling": (1, 1.0),
    "no_bias": (True,),
    "norm_head": (False,),
    "num_experts": (1,),
    "num_local_experts": (1,),
    "partial_rotary_factor": (1, 1.0),
    "qk_layernorm": (False,),
    "qk_norm": (False,),
    "residual_multiplier": (1, 1.0),
    "rope_interleaved": (False,),
    "rope_pct": (1, 1.0),
    "rotary_pct": (1, 1.0),
    "scale_attn_by_inverse_layer_idx": (False,),
    "scale_embedding": (False,),
    "scale_embeddings": (False,),
    "tie_encoder_decoder": (False,),
    "use_mrope": (False,),
    "use_qk_layernorm": (False,),
    "use_qk_norm": (False,),
    "use_scaled_rope": (False,),
}
"""Features of other families at the values that turn them off."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TRAINING_WORDS = _words(
    """
    dropout pdrop init initializer initialization loss losses lr learning train training pretraining optimizer warmup
    checkpointing seed epochs epoch smoothing jitter dataset datasets
    """
)
_KERNEL_WORDS = _words(
    """
    flash flashattention fused fuse xformers sdpa triton kernels cache cached caching compile compiled dtype
    implementation backend offload offloading
    """
)
COMPUTING_WORDS = _words(
    """
    act activation afn algorithm alibi attention attn bias block blocks causal connection conv cross decoder emb embd
    embed embedding embeddings encoder encoding encodings expert experts feed ffn fn forward func function gate gated
    gating geglu gelu glu head heads hidden interleaved key kind layer layernorm layers layout linear ln logit logits
    mask masked method mixer mlp mode moe multiplier neox nonlinearity norm normalise normalize normalized norms ntk
    order parallel pattern pe pooling pos position positional positions postnorm prenorm proj projection qk qkv query
    relu renormalize residual rms rmsnorm rope rotary rotate router routing scale scaled scaling score scoring silu
    sliding softcap softmax ssm strategy style swiglu theta tie tied topology type value variant weight weights window
    """
)
"""Words of names of what a model computes: text under them, such as `norm_type`, may choose a computation."""
_ON_BY_DEFAULT = _words(
    """
    base causal emb embd embed embedding embeddings encoding encodings eps epsilon factor gated geglu glu interleaved
    layernorm ln mask masked multiplier neox norm normalise normalize normalized norms pe pos position positional
    positions postnorm prenorm renormalize residual rms rmsnorm rope rotary rotate scale scaled scaling softmax swiglu
    theta tie tied
    """
)
"""Words of what a model has unless it is switched off: false or zero under them may change a logit."""


def is_inert(name: str, value: Any) -> bool:
    """Return whether a field that the family does not read cannot change a logit, by the rules of this module."""
    if value is None or name in GENERATION or name in _TRANSFORMERS or _WRITERS.match(name):
        return True
    # Of the same type too: 1 is not True here.
    if any(value == off and isinstance(value, bool) == isinstance(off, bool) for off in _FEATURE_OFF.get(name, ())):
        return True
    if _TOKENS.fullmatch(name) or _LENGTHS.fullmatch(name) or (name.endswith("_token") and isinstance(value, str)):
        return True
    words = frozenset(re.split(r"[_.\-]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()))
    if words & _TRAINING_WORDS and not words & {"context", "position", "rope", "rotary"}:
        return True
    if words & _KERNEL_WORDS and isinstance(value, bool | str):
        return True
    if name.startswith("_") and not words & COMPUTING_WORDS:
        return True
    if isinstance(value, str) and value:
        return not words & COMPUTING_WORDS and not re.fullmatch(r"(?i)true|false|[-+.\de]+", value)
    return value in (False, 0, "", [], {}) and not words & _ON_BY_DEFAULT
