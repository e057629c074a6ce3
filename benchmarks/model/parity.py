"""Parity with transformers: each family at random weights, in fp32, through files, in both directions; and published
models at tiny sizes (published.py).

`python -m benchmarks.model.parity` prints the tables and writes them into docs/model.md; `--check` only prints it.
tests/model/test_huggingface_parity.py holds the same measurements to their bounds.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from benchmarks.markers import markdown
from benchmarks.report import libraries, print_or_write
from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.transformer import Transformer
from sluice.model.directory import load_transformer, read_stored, save_transformer
from sluice.model.huggingface import FAMILIES, family_of
from sluice.model.huggingface.convert import export_model, import_model

BOUND = 1e-5
"""Largest allowed absolute difference of a logit."""
VOCAB, BATCH, SEQ, SOURCE = 96, 2, 40, 23

_WIDTHS: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": VOCAB}
_LLAMA: dict[str, Any] = {**_WIDTHS, "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
# Classes whose default padding token lies outside the vocabulary.
_NO_PADDING = {"pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2}
_GEMMA: dict[str, Any] = {"head_dim": 12, "query_pre_attn_scalar": 10, "sliding_window": 9}
_NEOX: dict[str, Any] = {**_WIDTHS, "intermediate_size": 48, "max_position_embeddings": 64}
_FALCON: dict[str, Any] = {**_WIDTHS, "max_position_embeddings": 64, "ffn_hidden_size": 48}
_GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "vocab_size": VOCAB}
_T5: dict[str, Any] = {"d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": VOCAB}
_MAMBA2: dict[str, Any] = {
    **{name: value for name, value in _WIDTHS.items() if name != "num_attention_heads"},
    "num_heads": 8,
    "head_dim": 8,
    "state_size": 16,
    "chunk_size": 16,
}
_QWEN_WINDOWS = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2}
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0, 1.05, 1.2, 1.4],
    "long_factor": [1.1, 2.0, 3.5, 4.0],
    "original_max_position_embeddings": 16,
}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama", _LLAMA),
    "Llama, tied, biases, linear scaling": (
        "llama",
        {
            **_LLAMA,
            "tie_word_embeddings": True,
            "attention_bias": True,
            "mlp_bias": True,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0},
        },
    ),
    "Llama, MQA, YaRN": ("llama", {**_LLAMA, "num_key_value_heads": 1, "rope_parameters": _YARN}),
    "Llama, Llama 3 scaling": ("llama", {**_LLAMA, "rope_parameters": _LLAMA3}),
    "Llama, LongRoPE beyond the original context": ("llama", {**_LLAMA, "rope_parameters": _LONGROPE}),
    "Llama, LongRoPE within it": (
        "llama",
        {**_LLAMA, "rope_parameters": {**_LONGROPE, "original_max_position_embeddings": 40, "attention_factor": 1.1}},
    ),
    "Llama, dynamic scaling": ("llama", {**_LLAMA, "max_position_embeddings": 16, "rope_parameters": _DYNAMIC}),
    "Mistral, window": ("mistral", {**_LLAMA, "sliding_window": 9, "head_dim": 12}),
    "Qwen2": ("qwen2", {**_LLAMA, "tie_word_embeddings": True}),
    "Qwen2, windows in the last layer": ("qwen2", {**_LLAMA, **_QWEN_WINDOWS}),
    "Qwen3": ("qwen3", {**_LLAMA, "head_dim": 12}),
    "Mixtral": ("mixtral", {**_LLAMA, "num_local_experts": 4}),
    "Mixtral, window, 3 of 5 experts": (
        "mixtral",
        {**_LLAMA, "num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 9},
    ),
    "Qwen3-MoE": (
        "qwen3_moe",
        {**_LLAMA, "head_dim": 12, "num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 24},
    ),
    "Qwen3-MoE, normalized, window": (
        "qwen3_moe",
        {
            **_LLAMA,
            **{"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True},
            **{"use_sliding_window": True, "sliding_window": 9},
        },
    ),
    "Phi-3, window": ("phi3", {**_LLAMA, **_NO_PADDING, "sliding_window": 9}),
    "Phi-4-mini, partial LongRoPE": (
        "phi3",
        {
            **_LLAMA,
            **_NO_PADDING,
            "tie_word_embeddings": True,
            "original_max_position_embeddings": 16,
            "rope_parameters": {
                **{name: value[:3] if isinstance(value, list) else value for name, value in _LONGROPE.items()},
                "partial_rotary_factor": 0.75,
            },
        },
    ),
    "SmolLM3": ("smollm3", {**_LLAMA, **_NO_PADDING, "no_rope_layer_interval": 2}),
    "SmolLM3, windows in turn": (
        "smollm3",
        {
            **_LLAMA,
            **_NO_PADDING,
            **{"use_sliding_window": True, "sliding_window": 9, "no_rope_layers": [0, 1, 0]},
        },
    ),
    "Granite": (
        "granite",
        {
            **_LLAMA,
            **{"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22},
            **{"attention_multiplier": 0.25, "tie_word_embeddings": True},
        },
    ),
    "OLMo 2": ("olmo2", {**_LLAMA, **_NO_PADDING}),
    "Gemma": ("gemma", {**_LLAMA, "head_dim": 12}),
    "Gemma 2": ("gemma2", {**_LLAMA, **_GEMMA}),
    "Gemma 2, other caps and windows": (
        "gemma2",
        {
            **_LLAMA,
            **_GEMMA,
            **{"final_logit_softcapping": 5.0, "attn_logit_softcapping": 3.0},
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        },
    ),
    "Gemma 3": ("gemma3_text", {**_LLAMA, **_GEMMA, "sliding_window_pattern": 3}),
    "Gemma 3, linear scaling": (
        "gemma3_text",
        {
            **_LLAMA,
            **_GEMMA,
            "sliding_window_pattern": 2,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "StableLM": ("stablelm", {**_LLAMA, "use_qkv_bias": True}),
    "StableLM, parallel": ("stablelm", {**_LLAMA, "use_parallel_residual": True, "partial_rotary_factor": 0.5}),
    "GPT-NeoX": ("gpt_neox", _NEOX),
    "GPT-NeoX, sequential": (
        "gpt_neox",
        {
            **_NEOX,
            "use_parallel_residual": False,
            "attention_bias": False,
            "rotary_pct": 1.0,
            "tie_word_embeddings": True,
        },
    ),
    "Falcon": ("falcon", _FALCON),
    "Falcon, new architecture": ("falcon", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "Falcon, new architecture, one norm": (
        "falcon",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1, "bias": True},
    ),
    "Falcon, sequential": (
        "falcon",
        {**_FALCON, "parallel_attn": False, "multi_query": False, "bias": True, "tie_word_embeddings": False},
    ),
    "GPT-2": ("gpt2", _GPT2),
    "GPT-2, untied, ReLU": (
        "gpt2",
        {**_GPT2, "tie_word_embeddings": False, "activation_function": "relu", "n_inner": 48},
    ),
    "BERT": ("bert", {**_WIDTHS, "intermediate_size": 48, "max_position_embeddings": 64}),
    "T5": ("t5", _T5),
    "T5 1.1, untied, 3 decoder layers": (
        "t5",
        {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 3},
    ),
    "Mamba-2": ("mamba2", {**_MAMBA2, "n_groups": 2}),
    "Mamba-2, tied, biases": ("mamba2", {**_MAMBA2, "n_groups": 1, "use_bias": True, "tie_word_embeddings": True}),
}
"""Name of a case -> family, and the fields of its configuration in transformers."""


@dataclass(frozen=True)
class Parity:
    case: str
    family: str
    initial: float
    """Largest absolute difference of a logit, of a model as transformers initializes it, read here."""
    initial_largest: float
    """Its largest absolute logit, which the difference is to be held against: T5's are far from 1."""
    imported: float
    """The same difference with lively weights."""
    exported: float
    """And of a model of ours with lively weights, read by transformers."""
    largest: float
    """Largest absolute logit of these two."""
    bit_equal: bool
    """Import, then export, gives the same tensors under the same names."""
    config_equal: bool
    """And the same configuration, as transformers reads it."""

    @property
    def is_met(self) -> bool:
        near = max(self.imported, self.exported, self.initial / max(1.0, self.initial_largest)) <= BOUND
        return near and self.bit_equal and self.config_equal


def measure(case: str, folder: Path) -> Parity:
    family, fields = CASES[case]
    theirs = make_theirs(family, fields)
    theirs.save_pretrained(folder / "initial")
    zeroth, same = logits_of(theirs), logits_of_ours(load_transformer(folder / "initial"))
    enliven(theirs, seed=1)
    theirs.save_pretrained(folder / "theirs")
    import_model(folder / "theirs", folder / "imported")
    export_model(folder / "imported", folder / "exported")
    config = read_stored(folder / "imported").config
    first, second = logits_of(theirs), logits_of_ours(load_transformer(folder / "imported"))

    ours = make_ours(config)
    save_transformer(folder / "made here", ours)
    # An earlier family may compute it too, and is written then.
    written = family_of(config)
    assert written is not None, f"no family computes {case}"
    read = read_by_transformers(folder / "made here", written.name)
    third, fourth = logits_of_ours(ours), logits_of(read)
    before, after = load_file(folder / "theirs/model.safetensors"), load_file(folder / "exported/model.safetensors")
    return Parity(
        case=case,
        family=family,
        initial=float((zeroth - same).abs().max()),
        initial_largest=float(zeroth.abs().max()),
        imported=float((first - second).abs().max()),
        exported=float((third - fourth).abs().max()),
        largest=float(torch.stack((first, third)).abs().max()),
        bit_equal=before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before),
        config_equal=config_of(folder / "theirs") == config_of(folder / "exported"),
    )


def make_theirs(family: str, fields: Mapping[str, Any]) -> PreTrainedModel:
    torch.manual_seed(0)
    # A config.json names its class; made from fields, it is looked up by the family.
    made = getattr(transformers, FAMILIES[family].architecture)
    model: PreTrainedModel = made(made.config_class(**fields))
    if family == "t5" and not fields.get("tie_word_embeddings", True):
        # transformers ties every T5 that it makes: only a checkpoint with a head of its own undoes it.
        model.lm_head.weight = nn.Parameter(torch.randn(model.lm_head.weight.shape))
        model.all_tied_weights_keys.pop("lm_head.weight")
    return model.eval()


def make_ours(config: TransformerConfig) -> Transformer:
    model = Transformer(config)
    enliven(model, seed=3)
    return model.eval()


def enliven(model: nn.Module, seed: int, strength: float = 0.2) -> None:
    """Weights far from their small start, norms far from one, so that a mistake in any of them shows.

    T5 does not scale its scores: its initialization makes the queries small instead, and so does this. At full size
    its softmax is so sharp that fp32 cannot say what the logits are (transformers' own eager and SDPA attention then
    differ by 2e-5).
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(model, Transformer):
        is_unscaled, middle = model.config.attention_scale == 1.0, 0 if model.config.norm_plus_one else 1
    else:
        is_unscaled = isinstance(model, transformers.T5ForConditionalGeneration)
        middle = 0 if type(model).__name__.startswith("Gemma") else 1
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(noise * strength if weight.ndim > 1 else middle + noise * 0.3)
            if is_unscaled and name.endswith((".q.weight", ".query.weight")):
                weight.mul_(_T5["d_kv"] ** -0.5)


def read_by_transformers(folder: Path, family: str) -> PreTrainedModel:
    """The model that transformers reads, and nothing missing, unexpected or of another shape."""
    made = getattr(transformers, FAMILIES[family].architecture)
    model, info = made.from_pretrained(folder, output_loading_info=True)
    wrong = {name: found for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if (found := info[name])}
    assert not wrong, f"transformers reads {folder} with {wrong}"
    loaded: PreTrainedModel = model.eval()
    return loaded


def config_of(folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = AutoConfig.from_pretrained(folder).to_dict()
    return {name: value for name, value in fields.items() if name != "_name_or_path"}


def tokens(seq: int, seed: int, size: int = VOCAB) -> Tensor:
    """[BATCH, seq] int64."""
    return torch.randint(0, size, (BATCH, seq), generator=torch.Generator().manual_seed(seed))


def padding(seq: int) -> Tensor:
    """[BATCH, seq] bool: the last row ends early."""
    return torch.arange(seq) < torch.tensor([[seq]] * (BATCH - 1) + [[seq - 7]])


@torch.inference_mode()
def logits_of(model: PreTrainedModel) -> Tensor:
    """[BATCH, SEQ, VOCAB], with segments and padding where the family reads them."""
    ids, kind = tokens(SEQ, 2), model.config.model_type
    if kind == "bert":
        types, mask = tokens(SEQ, 3, 2), padding(SEQ)
        return model(ids, token_type_ids=types, attention_mask=mask.long()).logits
    if kind == "t5":
        source, mask = tokens(SOURCE, 4), padding(SOURCE)
        return model(input_ids=source, attention_mask=mask.long(), decoder_input_ids=ids).logits
    return model(ids).logits


@torch.inference_mode()
def logits_of_ours(model: Transformer) -> Tensor:
    ids = tokens(SEQ, 2)
    match model.config.kind:
        case "encoder":
            return model(ids, types=tokens(SEQ, 3, 2), mask=padding(SEQ))
        case "encoder-decoder":
            return model(ids, source=tokens(SOURCE, 4), source_mask=padding(SOURCE))
    return model(ids)


def tables(found: Iterable[Parity]) -> dict[str, str]:
    """The tables of "Parity" in docs/model.md."""
    settings = [
        ("libraries", libraries("transformers", "torch")),
        ("inputs", f"{BATCH} sequences of {SEQ} tokens"),
        ("models", "2 or 3 layers of width 32, fp32, random weights"),
    ]
    rows = [
        (
            *(each.case, f"{_error(each.initial)} ({each.initial_largest:.1f})", _error(each.imported)),
            *(_error(each.exported), f"{each.largest:.1f}"),
            "the same bits, the same config" if each.bit_equal and each.config_equal else "**differs**",
        )
        for each in found
    ]
    head = "model | from transformers, its init (largest logit) | from transformers | to transformers | largest logit"
    return {
        "parity-conditions": markdown("measured with | ", settings),
        "parity": markdown(f"{head} | import, then export", rows),
    }


def _error(error: float) -> str:
    return f"{error:.1e}" if error <= BOUND else f"**{error:.1e}**"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="print the tables and leave docs/model.md as it is")
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    found = []
    for number, case in enumerate(CASES):
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(case, Path(folder)))
        print(f"{number + 1}/{len(CASES)} {json.dumps(vars(found[-1]))}", file=sys.stderr)
    # It imports this file.
    from benchmarks.model.published import PUBLISHED, is_met, measure_published, published_tables

    published = []
    for name in PUBLISHED:
        with tempfile.TemporaryDirectory() as folder:
            published.append(measure_published(name, Path(folder)))
        print(f"{len(published)}/{len(PUBLISHED)} {json.dumps(vars(published[-1]))}", file=sys.stderr)
    print_or_write("model.md", {**tables(found), **published_tables(published)}, is_check=arguments.check)
    return 0 if all(each.is_met for each in found) and all(map(is_met, published)) else 1


if __name__ == "__main__":
    sys.exit(main())
