"""Small models of every architecture that generates, for the tests of caches and of generation."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sluice.model.architecture.config import ModelConfig, TransformerConfig
from sluice.model.architecture.initialization import initialize
from sluice.model.architecture.mixture_config import MixtureConfig
from sluice.model.architecture.rope_scaling_config import RopeScaling
from sluice.model.architecture.state_space_config import StateSpaceConfig
from sluice.model.architecture.transformer import Transformer

VOCAB, CONTEXT, SOURCE = 61, 24, 7

_STATE = StateSpaceConfig(state_size=8, head_size=8, groups=2, chunk=4)
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "multi-query": {"kv_heads": 1, "qk_norm": True, "attention_bias": "all"},
    "yarn": {"rope_scaling": RopeScaling(kind="yarn", factor=2)},
    "gpt2": {
        "kv_heads": 4,
        "positions": "learned",
        "norm": "layer",
        "norm_bias": True,
        "feedforward": "gelu_tanh",
        "attention_bias": "all",
    },
    "post-norm": {"positions": "sinusoidal", "norm_position": "post", "norm": "layer", "embedding_scale": 30.0},
    "alibi": {"positions": "alibi"},
    "relative": {"positions": "relative", "relative_buckets": 8, "relative_distance": 12},
    "no positions": {"positions": "none", "tie_embeddings": False},
    "soft caps": {"attention_soft_cap": 2.0, "logit_soft_cap": 3.0, "logit_scale": 0.5, "embedding_scale": 2.0},
    "window": {"window": 5},
    "window of one": {"window": 1, "pattern": ("attention", "window")},
    "window, global tokens": {"window": 4, "global_tokens": 3},
    "window, alibi": {"window": 4, "global_tokens": 1, "positions": "alibi"},
    "window, relative": {"window": 6, "positions": "relative", "relative_buckets": 8, "relative_distance": 12},
    "window wider than the context": {"window": 40},
    "windows in turn with all": {"window": 3, "global_tokens": 2, "pattern": ("window", "attention")},
    "partial rotation, no rotation": {"rope_fraction": 0.5, "rope_pattern": (True, False)},
    "llama3": {"rope_scaling": RopeScaling(kind="llama3", factor=2)},
    "output norm": {"norm_position": "output", "qk_norm": True, "qk_norm_over": "all_heads"},
    "sandwich, two thetas": {"norm_position": "sandwich", "norm_plus_one": True, "residual_scale": 0.5, "window": 4,
                             "pattern": ("window", "attention"), "window_rope_theta": 100.0},
    "parallel": {"sublayers": "parallel", "norm": "layer", "norm_bias": True},
    "parallel, one norm": {"sublayers": "parallel_one_norm", "kv_heads": 1},
    "mixture": {
        "mixture": MixtureConfig(experts=4, per_token=2, shared=1, intermediate_size=16),
        "intermediate_size": None,
    },
    "state space": {"positions": "none", "pattern": ("state_space",), "state_space": _STATE, "intermediate_size": None},
    "hybrid": {"layers": 4, "window": 4, "pattern": ("state_space", "attention", "state_space", "window"),
               "state_space": _STATE, "state_space_feedforward": True},
    "encoder-decoder": {"kind": "encoder-decoder", "norm": "layer"},
    "t5": {
        "kind": "encoder-decoder",
        "kv_heads": 4,
        "positions": "relative",
        "relative_buckets": 8,
        "relative_distance": 12,
        "feedforward": "geglu_tanh",
        "attention_scale": 1.0,
        "encoder_layers": 1,
    },
    "encoder-decoder, window": {"kind": "encoder-decoder", "window": 4, "global_tokens": 1, "positions": "learned"},
}  # fmt: skip
WITH_KEYS = [name for name in ARCHITECTURES if name != "state space"]


def shape(name: str) -> TransformerConfig:
    small = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "context": CONTEXT, "intermediate_size": 48}
    return TransformerConfig.from_settings(ModelConfig(**(small | ARCHITECTURES[name])), VOCAB)


@cache
def built(name: str) -> Transformer:
    """The model with weights large enough for every token to leave its mark on every later one."""
    model = Transformer(shape(name))
    initialize(model, 0)
    with torch.no_grad():
        for parameter_name, weight in model.named_parameters():
            if weight.ndim >= 2 and "embedding" not in parameter_name and "conv" not in parameter_name:
                weight.mul_(10)
    return model.eval().requires_grad_(False)


def tokens(length: int, seed: int = 0) -> Tensor:
    """[1, length]."""
    return torch.randint(0, VOCAB, (1, length), generator=torch.Generator().manual_seed(seed))


def source_of(
    model: Transformer, seeds: list[int], mask: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """Inputs of a first step besides its ids: one source per row for an encoder-decoder, nothing for others."""
    if model.config.kind != "encoder-decoder":
        return {}
    source = torch.cat([tokens(SOURCE, seed=100 + seed) for seed in seeds])
    return {"source": source} if mask is None else {"source": source, "source_mask": mask(source)}


def alone(model: Transformer, ids: Tensor, seed: int = 0) -> Tensor:
    """[1, seq] -> [1, seq, vocab]: the sequence read whole, without a cache."""
    return model(ids, **source_of(model, [seed]))
