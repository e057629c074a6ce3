"""Shape of the transformer, and its translation to and from the `config.json` of a Hugging Face Llama."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.config import ModelConfig

# Fields of a Llama config.json that change nothing about the logits: read over, never written back.
_WITHOUT_EFFECT = {
    "_name_or_path",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "initializer_range",
    "pad_token_id",
    "pretraining_tp",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
# Fields that do change the logits, with the only value this architecture has.
_FIXED: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "mlp_bias": False,
    "model_type": "llama",
}


class TransformerConfig(BaseModel):
    """Everything that decides the shapes and the mathematics of `Transformer`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    context: int = Field(ge=1)
    """Longest sequence in tokens."""
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = True
    """The output head is the embedding matrix (Press and Wolf, arXiv 1608.05859)."""

    @model_validator(mode="after")
    def _divides(self) -> "TransformerConfig":
        if self.hidden_size % self.heads or self.head_size % 2:
            raise ValueError(f"hidden_size {self.hidden_size} over heads {self.heads} must be a whole, even head size")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        return self

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.heads

    @classmethod
    def from_settings(cls, settings: ModelConfig, vocab_size: int) -> "TransformerConfig":
        """The shape that `settings` ask for, over a tokenizer of `vocab_size` entries."""
        # 8/3 of the width keeps SwiGLU's three matrices at the size of the classic two (Shazeer, arXiv 2002.05202).
        intermediate = settings.intermediate_size or -(-settings.hidden_size * 8 // 3 // 64) * 64
        return cls(
            vocab_size=vocab_size,
            hidden_size=settings.hidden_size,
            layers=settings.layers,
            heads=settings.heads,
            kv_heads=settings.kv_heads,
            intermediate_size=intermediate,
            context=settings.context,
            rope_theta=settings.rope_theta,
            norm_eps=settings.norm_eps,
        )

    def to_huggingface(self) -> dict[str, Any]:
        """The fields of a `config.json` that transformers loads as LlamaForCausalLM."""
        return {
            **_FIXED,
            "head_dim": self.head_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.context,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": self.norm_eps,
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "tie_word_embeddings": self.tie_embeddings,
            "vocab_size": self.vocab_size,
        }

    @classmethod
    def from_huggingface(cls, fields: dict[str, Any]) -> "TransformerConfig":
        """The shape that a Llama `config.json` describes.

        Raises ValueError for a field that is missing, unknown, or set to what this architecture does not compute.
        """
        rest = {name: value for name, value in fields.items() if name not in _WITHOUT_EFFECT}
        for name, allowed in _FIXED.items():
            if name in rest and (value := rest.pop(name)) != allowed:
                raise ValueError(f"config.json: {name} is {value!r}, but only {allowed!r} is supported")
        rope = rest.pop("rope_parameters", None) or {"rope_theta": rest.pop("rope_theta", 10_000.0)}
        if rope.get("rope_type", "default") != "default" or rope.keys() - {"rope_type", "rope_theta"}:
            raise ValueError(f"config.json: rope_parameters is {rope!r}, but only rope_type 'default' is supported")
        try:
            heads = rest.pop("num_attention_heads")
            config = cls(
                vocab_size=rest.pop("vocab_size"),
                hidden_size=rest.pop("hidden_size"),
                layers=rest.pop("num_hidden_layers"),
                heads=heads,
                kv_heads=rest.pop("num_key_value_heads", heads),
                intermediate_size=rest.pop("intermediate_size"),
                context=rest.pop("max_position_embeddings"),
                rope_theta=rope["rope_theta"],
                norm_eps=rest.pop("rms_norm_eps"),
                tie_embeddings=rest.pop("tie_word_embeddings", False),
            )
        except KeyError as missing:
            raise ValueError(f"config.json: field {missing} is missing; is this a Llama model?") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = " ".join(str(part) for part in first["loc"])
            raise ValueError(f"config.json: {where} {first['msg']}, not {first['input']!r}") from None
        if (head_dim := rest.pop("head_dim", config.head_size)) not in (None, config.head_size):
            raise ValueError(f"config.json: head_dim is {head_dim}, but only {config.head_size} is supported")
        if rest:
            raise ValueError(f"config.json: unknown fields {sorted(rest)}; only those of a Llama model are supported")
        return config
