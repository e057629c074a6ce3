"""Small legal shapes for tests: one of each architecture by name, and a hypothesis strategy over all combinations."""

from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st
from pydantic import ValidationError

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.transformer import Transformer

VOCAB, CONTEXT = 61, 24
_BASE: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "context": 24}
_STATE_SPACE = {"state_size": 8, "head_size": 16, "chunk": 5}
_GPT2: dict[str, Any] = {
    "positions": "learned",
    "norm": "layer",
    "norm_bias": True,
    "feedforward": "gelu_tanh",
    "feedforward_bias": True,
    "attention_bias": "all",
    "kv_heads": 4,
}
_MIXTURE = {"experts": 4, "per_token": 2}

DECODERS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mqa": {"kv_heads": 1},
    "qk_norm": {"qk_norm": True, "head_size": 12},
    "gpt2": _GPT2,
    "post_norm": {**_GPT2, "norm_position": "post", "positions": "sinusoidal"},
    "alibi": {"positions": "alibi", "feedforward": "geglu"},
    "relative": {"positions": "relative", "feedforward": "relu", "attention_scale": 1.0},
    "yarn": {"rope_scaling": {"kind": "yarn", "factor": 4.0}},
    "llama3": {"rope_scaling": {"kind": "llama3", "factor": 4.0}},
    "partial_rope": {"rope_fraction": 0.5, "rope_pattern": (True, False)},
    "output_norm": {"norm_position": "output", "qk_norm": True, "qk_norm_over": "all_heads"},
    "sandwich": {"norm_position": "sandwich", "norm_plus_one": True, "qk_norm": True, "residual_scale": 0.5},
    "parallel": {**_GPT2, "positions": "rope", "rope_fraction": 0.25, "sublayers": "parallel"},
    "parallel_one_norm": {"sublayers": "parallel_one_norm", "kv_heads": 1},
    "two_thetas": {"window": 4, "pattern": ("window", "attention"), "window_rope_theta": 50.0},
    "window": {"window": 4},
    "window_with_globals": {"window": 4, "global_tokens": 2, "pattern": ("window", "attention")},
    "alibi_window": {"positions": "alibi", "window": 3, "pattern": ("attention", "window")},
    "soft_caps": {"attention_soft_cap": 5.0, "logit_soft_cap": 3.0},
    "mixture": {"mixture": _MIXTURE},
    "switch": {"mixture": {"experts": 3, "per_token": 1, "normalize": False, "shared": 1}},
    "mamba": {"pattern": ("state_space",), "state_space": _STATE_SPACE, "positions": "none", "norm": "rms"},
    "hybrid": {"pattern": ("state_space", "attention"), "state_space": _STATE_SPACE, "positions": "none"},
    "hybrid_mixture": {
        "pattern": ("state_space", "window"),
        "window": 5,
        "state_space": {**_STATE_SPACE, "groups": 2},
        "state_space_feedforward": True,
        "mixture": _MIXTURE,
    },
}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {
        **_GPT2,
        "kind": "encoder",
        "norm_position": "post",
        "feedforward": "gelu",
        "token_types": 2,
        "embedding_norm": True,
        "head_transform": True,
    },
    "modern_encoder": {"kind": "encoder", "window": 3, "global_tokens": 1, "pattern": ("window", "attention")},
    "alibi_encoder": {"kind": "encoder", "positions": "alibi"},
}
ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "t5": {
        "kind": "encoder-decoder",
        "positions": "relative",
        "relative_buckets": 8,
        "relative_distance": 12,
        "feedforward": "relu",
        "attention_scale": 1.0,
        "kv_heads": 4,
        "logit_scale": 32**-0.5,
    },
    "vaswani": {
        **_GPT2,
        "kind": "encoder-decoder",
        "norm_position": "post",
        "positions": "sinusoidal",
        "feedforward": "relu",
        "encoder_layers": 1,
        "embedding_scale": 32**0.5,
    },
    "modern_encoder_decoder": {"kind": "encoder-decoder", "encoder_layers": 3, "window": 4},
}


def shape(options: dict[str, Any]) -> TransformerConfig:
    """The small shape with these choices."""
    fields = {**_BASE, **options}
    return TransformerConfig.from_settings(TransformerConfig(**fields), fields["vocab_size"])


def lively(config: TransformerConfig, seed: int = 0) -> Transformer:
    """A model whose weights are far from their small start, so that a mistake in any of them shows."""
    model = Transformer(config)
    initialize(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("A_log", "dt_bias")):
                continue
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise * 0.2 if weight.ndim > 1 else weight + noise * 0.3)
    return model.eval()


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def inputs_of(config: TransformerConfig, rows: int, seed: int = 7) -> dict[str, Any]:
    """Inputs that the kind of model requires besides the ids."""
    return {"source": tokens(rows, 9, seed)} if config.kind == "encoder-decoder" else {}


@st.composite
def shapes(draw: st.DrawFn, kinds: tuple[str, ...] = ("decoder", "encoder", "encoder-decoder")) -> TransformerConfig:
    """Any legal combination of the choices."""

    def one(*values: Any) -> Any:
        return draw(st.sampled_from(values))

    kind = one(*kinds)
    attention: dict[str, Any] = {
        "kind": kind,
        "layers": one(1, 2, 3),
        "kv_heads": one(1, 2, 4),
        "head_size": one(None, 6, 12),
        "qk_norm": one(True, False),
        "residual_scale": one(1.0, 0.5),
        "attention_scale": one(None, 1.0),
        "attention_soft_cap": one(None, 4.0),
        "attention_bias": one("none", "qkv", "all"),
        "positions": one("rope", "learned", "sinusoidal", "alibi", "relative", "none"),
        "pattern": one(None, ("attention",), ("window", "attention"), ("state_space", "attention"), ("state_space",)),
        "norm": one("rms", "layer"),
        "norm_position": one("pre", "post", "output", "sandwich"),
        "feedforward": one("relu", "gelu", "gelu_tanh", "geglu", "geglu_tanh", "swiglu"),
        "intermediate_size": one(None, 40),
        "intermediate_multiple": one(8, 64),
        "feedforward_bias": one(True, False),
        "tie_embeddings": one(True, False),
        "embedding_scale": one(1.0, 2.0),
        "embedding_norm": one(True, False),
        "logit_scale": one(1.0, 0.5),
        "logit_soft_cap": one(None, 6.0),
    }
    options = {**attention, **_what_goes_with(attention, one)}
    try:
        return shape(options)
    except ValidationError:
        # A combination that the rules refuse; test_config.py holds what they say.
        assume(False)
        raise


def _what_goes_with(chosen: dict[str, Any], one: Any) -> dict[str, Any]:
    """Choices that only some of the others allow."""
    pattern, more = chosen["pattern"] or (), dict[str, Any]()
    if "window" in pattern:
        more |= {"window": one(2, 5), "global_tokens": one(0, 2)}
    if "state_space" in pattern:
        more |= {
            "state_space": {
                **_STATE_SPACE,
                "groups": one(1, 2),
                "conv_bias": one(True, False),
                "bias": one(True, False),
            },
            "state_space_feedforward": one(True, False),
            "norm_position": "pre",
        }
    elif chosen["norm_position"] == "pre" and chosen["kind"] != "encoder-decoder":
        more["sublayers"] = one("sequential", "parallel", "parallel_one_norm")
    if pattern == ("state_space",):
        more |= {"positions": "none", "qk_norm": False, "attention_scale": None}
        more |= {"attention_soft_cap": None, "attention_bias": "none"}
        if not more["state_space_feedforward"]:
            more |= {"feedforward": "swiglu", "feedforward_bias": False}
            more |= {"intermediate_size": None, "intermediate_multiple": 256}
    more["norm_bias" if chosen["norm"] == "layer" else "norm_plus_one"] = one(True, False)
    if chosen["qk_norm"] and pattern != ("state_space",):
        more["qk_norm_over"] = one("head", "all_heads")
    if chosen["kind"] == "encoder":
        more |= {"token_types": one(0, 2), "head_transform": one(True, False)}
    if chosen["kind"] == "encoder-decoder":
        more["encoder_layers"] = one(None, 1, 3)
    if chosen["positions"] == "rope":
        scaling = one(None, "linear", "ntk", "yarn", "llama3")
        more["rope_scaling"] = scaling and {"kind": scaling, "factor": 3.0}
        more["rope_fraction"] = one(1.0, 0.7)
        more["rope_pattern"] = one(None, (True, False))
        more["window_rope_theta"] = one(None, 300.0) if "window" in pattern else None
    if pattern != ("state_space",) and one(True, False):
        top = one(1, 2)
        more["mixture"] = {"experts": 3, "per_token": top, "normalize": top > 1, "shared": one(0, 1)}
    return more
