"""Random models that a transformers family can express: it loads them and computes the same logits."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from architecture_fixtures import shape
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.model.parity import BOUND, logits_of, logits_of_ours, make_ours, read_by_transformers
from sluice.model.architecture.config import TransformerConfig
from sluice.model.directory import load_transformer, save_transformer
from sluice.model.huggingface import family_of

LAYER_NORM: dict[str, Any] = {
    "norm": "layer",
    "norm_bias": True,
    "positions": "learned",
    "attention_bias": "all",
    "feedforward_bias": True,
    "kv_heads": 4,
    "head_size": 8,
}


_LLAMA_LIKE = (
    *("llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen3_moe", "smollm3", "granite", "olmo2"),
    *("gemma", "gemma2", "gemma3"),
)
_LAYER_NORM_LIKE = ("stablelm", "gpt_neox", "falcon")


@st.composite
def expressible(draw: st.DrawFn) -> TransformerConfig:
    def one(*values: Any) -> Any:
        return draw(st.sampled_from(values))

    kind = one(*_LLAMA_LIKE, *_LAYER_NORM_LIKE, "gpt2", "bert", "t5", "mamba2")
    options: dict[str, Any] = {
        "vocab_size": 96,
        "context": 48,
        "layers": one(1, 2, 3),
        "tie_embeddings": one(True, False),
    }
    if kind in _LLAMA_LIKE:
        options |= {
            "kv_heads": one(1, 2, 4),
            "head_size": one(8, 12),
            "feedforward": one("swiglu", "geglu", "geglu_tanh"),
            "norm_eps": one(1e-5, 1e-6),
            "rope_theta": one(1e4, 5e5),
            "rope_scaling": one(
                None,
                {"kind": "linear", "factor": 2.5},
                {"kind": "yarn", "factor": 3.0},
                {"kind": "llama3", "factor": 4.0, "original_context": 24, "high_frequency_factor": 3.0},
                {"kind": "dynamic", "factor": 3.0},
                {"kind": "yarn", "factor": 2.0, "original_context": 20, "beta_fast": 4.0, "attention_factor": 1.5},
            ),
        }
    match kind:
        case "smollm3":
            options |= {
                "rope_pattern": one(None, (True, False), (True, False, True)),
                "attention_bias": one("none", "all"),
            }
        case "granite":
            options |= {
                "embedding_scale": one(1.0, 6.0),
                "residual_scale": one(1.0, 0.3),
                "logit_scale": one(0.125, 1 / 13),
            }
            options |= {"attention_scale": one(None, 0.2), "feedforward_bias": one(True, False)}
        case "olmo2":
            options |= {"norm_position": "output", "qk_norm": True, "qk_norm_over": "all_heads"}
        case "gemma" | "gemma2" | "gemma3":
            options |= {"norm_plus_one": True, "embedding_scale": 32**0.5, "attention_bias": one("none", "all")}
            if kind == "gemma":
                options["feedforward"] = one("geglu_tanh", "swiglu")
            else:
                pattern = one(("attention",), ("window", "attention"))
                options |= {"norm_position": "sandwich", "attention_scale": one(8, 12) ** -0.5, "pattern": pattern}
                options |= {"logit_soft_cap": one(None, 4.0), "window": 7 if "window" in pattern else None}
            if kind == "gemma2":
                options["attention_soft_cap"] = one(None, 3.0)
            if kind == "gemma3":
                options |= {
                    "qk_norm": True,
                    "window_rope_theta": 5e4 if "window" in options["pattern"][: options["layers"]] else None,
                }
        case "qwen3_moe":
            mixture = {"experts": 4, "per_token": 2, "intermediate_size": 20, "normalize": one(True, False)}
            options |= {"mixture": mixture, "qk_norm": True, "window": one(None, 7)}
        case "stablelm":
            options |= {"norm": "layer", "norm_bias": True, "rope_fraction": one(0.25, 0.5, 1.0)}
            options |= {"attention_bias": one("none", "qkv"), "sublayers": one("sequential", "parallel_one_norm")}
        case "gpt_neox":
            options |= {
                **LAYER_NORM,
                "positions": "rope",
                "rope_fraction": one(0.25, 1.0),
                "feedforward": one("gelu", "relu"),
            }
            options |= {"attention_bias": one("none", "all"), "sublayers": one("sequential", "parallel")}
        case "falcon":
            options |= {**LAYER_NORM, "positions": "rope", "feedforward": one("gelu", "gelu_tanh")}
            sublayers, kv_heads = one(
                ("parallel", 2), ("parallel", 4), ("parallel_one_norm", 1), ("parallel_one_norm", 2)
            )
            options |= {"sublayers": sublayers, "kv_heads": kv_heads}
            options |= one({}, {"attention_bias": "none", "feedforward_bias": False})
        case "llama":
            options |= {"attention_bias": one("none", "all"), "feedforward_bias": one(True, False)}
        case "mistral":
            options |= {"window": one(1, 7)}
        case "qwen2" | "qwen3":
            options |= {"attention_bias": "qkv"} if kind == "qwen2" else {"qk_norm": True}
            pattern = one(None, ("window", "attention"), ("attention", "window"))
            options |= {"window": 7, "pattern": pattern} if options["layers"] > 1 and pattern else {}
        case "mixtral":
            options["mixture"] = {"experts": one(2, 5), "per_token": 2, "intermediate_size": one(None, 20)}
            options["window"] = one(None, 7)
        case "gpt2":
            options |= {
                **LAYER_NORM,
                "feedforward": one("gelu", "gelu_tanh", "relu"),
                "attention_scale": one(None, 1.0),
            }
        case "bert":
            options |= {**LAYER_NORM, "feedforward": one("gelu", "gelu_tanh", "relu"), "kind": "encoder"}
            options |= {"norm_position": "post", "embedding_norm": True, "token_types": 2, "head_transform": True}
            options["tie_embeddings"] = True
        case "t5":
            options |= {"kind": "encoder-decoder", "encoder_layers": one(1, 2), "positions": "relative", "kv_heads": 4}
            options |= {"attention_scale": 1.0, "head_size": one(8, 12), "logit_scale": one(1.0, 32**-0.5)}
            options |= {"relative_buckets": one(8, 32), "relative_distance": one(20, 128)}
            options["feedforward"] = one("relu", "gelu", "geglu_tanh", "swiglu")
        case "mamba2":
            space = {"state_size": one(8, 16), "head_size": one(8, 16), "groups": one(1, 2), "conv_width": one(2, 4)}
            space |= {"bias": one(True, False), "conv_bias": one(True, False), "expand": one(1, 2), "chunk": one(7, 64)}
            options |= {"pattern": ("state_space",), "positions": "none", "state_space": space}
    return shape(options)


@given(expressible())
@settings(max_examples=25, deadline=None)
def test_transformers_computes_what_we_wrote_for_it(config: TransformerConfig) -> None:
    family = family_of(config)
    assert family is not None
    model = make_ours(config)
    with tempfile.TemporaryDirectory() as name:
        save_transformer(Path(name), model)
        theirs, again = read_by_transformers(Path(name), family.name), load_transformer(Path(name))
    assert again.config == config
    expected, found = logits_of(theirs), logits_of_ours(model)
    assert torch.equal(found, logits_of_ours(again))
    # Untied, unscaled logits are larger than the table's: the bound is on the scale of the largest.
    assert float((found - expected).abs().max()) <= BOUND * max(1.0, float(expected.abs().max()))
