"""Published config.json field sets, at tiny sizes with random weights, beside transformers.

published_configs.json has the fields of each model as its publisher wrote them. `tiny` shrinks sizes and keeps every
other field, so that a checkpoint of these fields is read as the published one would be. tests/model/test_published.py
holds `measure_published` to its bounds; `python -m benchmarks.model.parity` writes the table.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from benchmarks.markers import markdown
from benchmarks.model.parity import BOUND, enliven, logits_of, logits_of_ours
from sluice.model.architecture.generation import GenerationOptions, generate
from sluice.model.architecture.transformer import Transformer
from sluice.model.directory import load_transformer
from sluice.model.huggingface.convert import import_model

FIELDS = Path(__file__).with_name("published_configs.json")
PUBLISHED: dict[str, dict[str, Any]] = json.loads(FIELDS.read_text(encoding="utf-8"))
"""Name of a published model -> the fields of its config.json."""
NOT_COMPUTED = {
    "StableLM 2 12B": "qk_layernorm",
    "Falcon RW 1B": "alibi",
    "DeepSeek V2 Lite": "model_type",
}
"""Models that are refused -> the field that the message names."""

VOCAB, CONTEXT, ORIGINAL, WINDOW, LAYERS = 160, 192, 32, 24, 4
STRENGTH = 0.1
"""Standard deviation of the random matrices."""
PROMPT, GREEDY = 24, 64
"""Tokens of the prompt, and of the greedy answer; together they pass the original context and every window."""

_SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), 64),
    **dict.fromkeys(("intermediate_size", "d_ff", "ffn_hidden_size"), 96),
    **dict.fromkeys(("num_attention_heads", "n_head"), 4),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), CONTEXT),
    **{"vocab_size": VOCAB, "moe_intermediate_size": 32, "d_kv": 16, "original_max_position_embeddings": ORIGINAL},
    **{"num_experts": 8, "num_local_experts": 8, "n_routed_experts": 8, "num_experts_per_tok": 4},
    **{"kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16},
    **{"sliding_window": WINDOW, "state_size": 16, "chunk_size": 16},
}
"""Largest value of each size in a tiny model."""


@dataclass(frozen=True)
class Published:
    """Agreement of one published model, at a tiny size, with transformers."""

    model: str
    family: str
    refused: str | None = None
    """Message, if the model is not imported."""
    error: float = 0.0
    """Largest absolute difference of a logit."""
    largest: float = 0.0
    greedy: int | None = None
    """Greedy tokens that are equal, of `GREEDY`; None for an encoder."""


def tiny(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields with small sizes: shared heads stay shared, and lists by layer or by frequency get shorter."""
    if fields["model_type"] == "mamba2":
        sizes = {"hidden_size": 64, "num_heads": 8, "head_dim": 16, "num_hidden_layers": LAYERS, "vocab_size": VOCAB}
        return {**fields, **sizes, "state_size": 16, "chunk_size": 16, "time_step_rank": 4}
    small = dict(fields)
    for name, largest in _SIZES.items():
        if isinstance(small.get(name), int):
            small[name] = min(small[name], largest)
    heads = fields.get("num_attention_heads", 0)
    if (groups := fields.get("num_key_value_heads")) is not None:
        small["num_key_value_heads"] = 4 if groups == heads else 1 if groups == 1 else 2
    if "num_kv_heads" in fields:
        small["num_kv_heads"] = 2
    if fields["model_type"] == "t5":
        small["num_heads"] = 4
    if "head_dim" in fields:
        small["head_dim"] = 16 if fields["head_dim"] * heads == fields["hidden_size"] else 24
    if "sliding_window_pattern" in fields:
        small["num_hidden_layers"] = fields["sliding_window_pattern"] + 1
    for name in ("layer_types", "no_rope_layers"):
        if name in fields:
            small[name] = fields[name][: small["num_hidden_layers"]]
    small |= {
        name: min(value, VOCAB - 1)
        for name, value in small.items()
        if name.endswith("_token_id") and isinstance(value, int)
    }
    if fields.get("rope_scaling"):
        small["rope_scaling"] = _tiny_scaling(fields["rope_scaling"], fields.get("partial_rotary_factor", 1.0))
    return small


def _tiny_scaling(scaling: Mapping[str, Any], fraction: float) -> dict[str, Any]:
    """Rotary scaling for heads of 16 entries, of which `fraction` rotates."""
    small = dict(scaling)
    pairs = int(16 * fraction) // 2
    for name in ("short_factor", "long_factor"):
        if name in small:
            factors = small[name]
            small[name] = [factors[pair * (len(factors) - 1) // (pairs - 1)] for pair in range(pairs)]
    if "original_max_position_embeddings" in small:
        small["original_max_position_embeddings"] = ORIGINAL
    return small


def measure_published(name: str, folder: Path) -> Published:
    """Write a tiny checkpoint with the published fields into `folder`, import it, and compare it."""
    fields = tiny(PUBLISHED[name])
    source = folder / "published"
    theirs = _checkpoint(fields, source)
    try:
        import_model(source, folder / "imported")
    except ValueError as error:
        return Published(name, fields["model_type"], refused=str(error).removeprefix(f"{source}: "))
    ours = load_transformer(folder / "imported")
    first, second = logits_of(theirs), logits_of_ours(ours)
    return Published(
        name,
        fields["model_type"],
        error=float((first - second).abs().max()),
        largest=float(first.abs().max()),
        greedy=None if ours.config.kind == "encoder" else _equal_greedy_tokens(theirs, ours),
    )


def _checkpoint(fields: Mapping[str, Any], folder: Path) -> PreTrainedModel:
    """transformers' own model of these fields, saved with random weights and with the fields as they are."""
    folder.mkdir(parents=True)
    written = json.dumps(fields, indent=2) + "\n"
    (folder / "config.json").write_text(written, encoding="utf-8")
    config = AutoConfig.from_pretrained(folder)
    torch.manual_seed(0)
    model: PreTrainedModel = getattr(transformers, fields["architectures"][0])(config).float().eval()
    enliven(model, seed=1, strength=STRENGTH)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(written, encoding="utf-8")
    return model


def _equal_greedy_tokens(theirs: PreTrainedModel, ours: Transformer) -> int:
    """Tokens before the first that differs, of greedy answers with a cache."""
    # No token ends the answer, whatever the published ids are.
    theirs.generation_config = transformers.GenerationConfig(do_sample=False, max_new_tokens=GREEDY, pad_token_id=0)
    read = torch.randint(3, VOCAB, (1, PROMPT), generator=torch.Generator().manual_seed(5))
    if ours.config.kind == "encoder-decoder":
        expected = _generated(theirs, read, decoder_start_token_id=0)[1:]
        found = generate(ours, [0], GREEDY, GenerationOptions(source=read[0].tolist()))
    else:
        expected = _generated(theirs, read, attention_mask=torch.ones_like(read))[PROMPT:]
        found = generate(ours, read[0].tolist(), GREEDY)
    equal = [mine == other for mine, other in zip(found, expected, strict=True)]
    return equal.index(False) if False in equal else len(equal)


def _generated(theirs: Any, read: Tensor, **more: Any) -> list[int]:
    """transformers' answer to one row, with the prompt before it."""
    ids: list[int] = theirs.generate(read, **more)[0].tolist()
    return ids


def is_met(found: Published) -> bool:
    """Return whether an imported model agrees; a refused one counts as agreeing."""
    return found.refused is not None or (found.error <= BOUND and found.greedy in {None, GREEDY})


def published_tables(found: Iterable[Published]) -> dict[str, str]:
    """The table of "Published models" in docs/model.md."""
    rows = []
    for each in found:
        if each.refused is not None:
            reason = each.refused.removeprefix("config.json: ").split(", but ")[0]
            rows.append((each.model, f"`{each.family}`", f"no: {reason}", "", ""))
            continue
        error = f"{each.error:.1e}" if each.error <= BOUND else f"**{each.error:.1e}**"
        equal = "none: an encoder" if each.greedy is None else f"{each.greedy} of {GREEDY}"
        rows.append((each.model, f"`{each.family}`", "yes", error, equal if is_met(each) else f"**{equal}**"))
    return {"published": markdown("model | family | imports | max error | equal greedy tokens", rows)}
