"""Configuration of a model: every setting, and which settings go together. Imports no torch."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from sluice.core.settings.block import Block
from sluice.model.architecture.mixture_config import MixtureConfig
from sluice.model.architecture.rope_scaling_config import RopeScaling
from sluice.model.architecture.state_space_config import StateSpaceConfig

LayerKind = Literal["attention", "window", "state_space"]
Positions = Literal["rope", "learned", "sinusoidal", "alibi", "relative", "none"]
NormPosition = Literal["pre", "post", "output", "sandwich"]
FeedForwardKind = Literal["relu", "gelu", "gelu_tanh", "geglu", "geglu_tanh", "swiglu"]

GATED = frozenset({"geglu", "geglu_tanh", "swiglu"})
"""Feed-forward networks with three matrices."""
_ROPE_THETA = 10_000.0


class ModelConfig(Block):
    """Shape of the model; the vocabulary's size comes from the tokenizer. The defaults are the Llama recipe."""

    block_name: ClassVar[str] = "model"

    kind: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    """decoder: next token; encoder: masked tokens; encoder-decoder: a target given a source."""
    hidden_size: int = Field(256, ge=1)
    layers: int = Field(6, ge=1)
    """Layers of the decoder, if there are two stacks."""
    encoder_layers: int | None = Field(None, ge=1)
    """encoder-decoder; unset: as many as `layers`."""
    context: int = Field(256, ge=8)
    """Longest sequence in tokens."""

    heads: int = Field(8, ge=1)
    kv_heads: int = Field(2, ge=1)
    """Key-value heads: `heads` is MHA, 1 is MQA, anything between is GQA (arXiv 2305.13245)."""
    head_size: int | None = Field(None, ge=1)
    """Unset: hidden_size / heads."""
    pattern: tuple[LayerKind, ...] | None = Field(None, min_length=1)
    """Kinds of layers, repeated to fill `layers`; unset: all `window` if that is set, else all `attention`."""
    window: int | None = Field(None, ge=1)
    """Keys per side that a query of a `window` layer attends to, its own included (Longformer, arXiv 2004.05150)."""
    global_tokens: int = Field(0, ge=0)
    """First tokens of a sequence, which in `window` layers attend to all tokens and all tokens attend to."""
    qk_norm: bool = False
    """RMSNorm of queries and keys before rotation (arXiv 2302.05442)."""
    qk_norm_over: Literal["head", "all_heads"] = "head"
    """Whether qk_norm normalizes each head by itself, or all heads of a token together (OLMo 2, arXiv 2501.00656)."""
    attention_scale: float | None = Field(None, gt=0)
    """Factor of the scores; unset: 1 / sqrt(head_size)."""
    attention_soft_cap: float | None = Field(None, gt=0)
    """Scores s become cap * tanh(s / cap) (Gemma 2, arXiv 2408.00118)."""
    attention_bias: Literal["none", "qkv", "all"] = "none"

    positions: Positions = "rope"
    """rope (arXiv 2104.09864), learned, sinusoidal (arXiv 1706.03762), alibi (arXiv 2108.12409), relative (T5's
    buckets, arXiv 1910.10683), none."""
    rope_theta: float = Field(_ROPE_THETA, gt=0)
    rope_scaling: RopeScaling | None = None
    rope_fraction: float = Field(1.0, gt=0, le=1)
    """Share of each head's entries that rotate: its first ones (GPT-NeoX, arXiv 2204.06745)."""
    rope_pattern: tuple[bool, ...] | None = Field(None, min_length=1)
    """Whether each layer rotates, repeated to fill `layers`; unset: all do (NoPE layers, arXiv 2501.18795)."""
    window_rope_theta: float | None = Field(None, gt=0)
    """Theta of `window` layers, which then have no rope_scaling (Gemma 3, arXiv 2503.19786); unset: as other layers."""
    relative_buckets: int = Field(32, ge=4, multiple_of=4)
    relative_distance: int = Field(128, ge=2)
    """Distance from which on all keys share the last bucket."""

    norm: Literal["rms", "layer"] = "rms"
    norm_position: NormPosition = "pre"
    """pre: x + f(norm(x)); post: norm(x + f(x)), without a final norm (arXiv 2002.04745); output: x + norm(f(x)) (OLMo
    2, arXiv 2501.00656); sandwich: x + norm(f(norm(x))) (Gemma 2, arXiv 2408.00118)."""
    norm_eps: float = Field(1e-5, gt=0)
    norm_bias: bool = False
    """Bias of LayerNorm; RMSNorm has none."""
    norm_plus_one: bool = False
    """Whether weights of RMSNorm are stored less one, so that weight decay pulls them to one (Gemma)."""

    sublayers: Literal["sequential", "parallel", "parallel_one_norm"] = "sequential"
    """parallel: attention and feed-forward network read the same stream, each through its norm (GPT-NeoX, arXiv
    2204.06745), or both through one norm (Falcon, arXiv 2311.16867)."""
    residual_scale: float = Field(1.0, gt=0)
    """Factor of each sublayer's output (Granite)."""

    feedforward: FeedForwardKind = "swiglu"
    """geglu and swiglu: arXiv 2002.05202; _tanh: the approximation of GELU used by GPT-2."""
    intermediate_size: int | None = Field(None, ge=1)
    """Unset: 4 times the width; for gated kinds 8/3 of it, rounded up to `intermediate_multiple`."""
    intermediate_multiple: int = Field(256, ge=1)
    feedforward_bias: bool = False
    mixture: MixtureConfig | None = None
    state_space: StateSpaceConfig | None = None
    state_space_feedforward: bool = False
    """Whether a `state_space` layer also has a feed-forward network; Mamba's do not."""

    tie_embeddings: bool = True
    """The output head is the embedding matrix (arXiv 1608.05859)."""
    embedding_scale: float = Field(1.0, gt=0)
    """Factor of the token embeddings."""
    embedding_norm: bool = False
    token_types: int = Field(0, ge=0)
    """encoder: number of segment types, each with an embedding (BERT, arXiv 1810.04805)."""
    head_transform: bool = False
    """encoder: a dense layer, the activation and a norm before the head, and a bias after it (BERT)."""
    logit_scale: float = Field(1.0, gt=0)
    """Factor of the hidden states before the head."""
    logit_soft_cap: float | None = Field(None, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of embeddings and of each sublayer's output."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)

    @property
    def head_width(self) -> int:
        """Size of one attention head."""
        return self.head_size or self.hidden_size // self.heads

    @property
    def rope_width(self) -> int:
        """Entries of each attention head that rotate."""
        return int(self.head_width * self.rope_fraction)

    def rope_of(self, kind: LayerKind) -> tuple[float, RopeScaling | None]:
        """Theta and scaling of the rotary positions of layers of this kind."""
        if kind == "window" and self.window_rope_theta is not None:
            return self.window_rope_theta, None
        return self.rope_theta, self.rope_scaling

    def rotates(self, layer: int) -> bool:
        """Return whether this layer, if it has attention, has rotary positions."""
        return self.positions == "rope" and (
            self.rope_pattern is None or self.rope_pattern[layer % len(self.rope_pattern)]
        )

    @property
    def feedforward_width(self) -> int:
        """Inner width of the dense feed-forward network."""
        if self.intermediate_size:
            return self.intermediate_size
        if self.feedforward not in GATED:
            return 4 * self.hidden_size
        # 8/3 of the width keeps three matrices at the size of the classic two.
        return -(-self.hidden_size * 8 // 3 // self.intermediate_multiple) * self.intermediate_multiple

    @property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """Kind of each layer of the decoder or the only stack, [layers]."""
        pattern = self.pattern or (("window",) if self.window else ("attention",))
        return tuple(pattern[layer % len(pattern)] for layer in range(self.layers))

    @property
    def encoder_kinds(self) -> tuple[LayerKind, ...]:
        """Kind of each layer of an encoder-decoder's encoder; empty for other kinds."""
        if self.kind != "encoder-decoder":
            return ()
        pattern = self.pattern or (("window",) if self.window else ("attention",))
        return tuple(pattern[layer % len(pattern)] for layer in range(self.encoder_layers or self.layers))

    @property
    def has_attention(self) -> bool:
        return any(kind != "state_space" for kind in self.layer_kinds)

    @property
    def has_feedforward(self) -> bool:
        return self.has_attention or self.state_space_feedforward

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.has_attention and self.head_size is None and self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of heads {self.heads}; or set head_size"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        if self.positions == "rope" and self.rope_fraction == 1 and self.head_width % 2:
            raise ValueError(f"head size {self.head_width} must be even for rope, which turns pairs")
        if self.positions == "rope" and (self.rope_width % 2 or not self.rope_width):
            raise ValueError(
                f"rope_fraction {self.rope_fraction:g} rotates {self.rope_width} of {self.head_width} entries of a "
                "head: rope turns pairs, so choose a fraction of an even number"
            )
        if self.positions == "sinusoidal" and self.hidden_size % 2:
            raise ValueError(f"hidden_size {self.hidden_size} must be even for sinusoidal positions")
        return self

    @model_validator(mode="after")
    def _layers_agree(self) -> Self:
        kinds = {*self.layer_kinds, *self.encoder_kinds}
        if "window" in kinds and self.window is None:
            raise ValueError(
                "a 'window' layer in pattern needs window, the number of keys that it sees: set it, or pattern to null"
            )
        if self.window is not None and "window" not in kinds:
            raise ValueError(
                f"window {self.window} has no effect: no layer of pattern is a 'window'; set window to null"
            )
        if self.global_tokens and self.window is None:
            raise ValueError(f"global_tokens {self.global_tokens} has no effect without window")
        if self.global_tokens > self.context:
            raise ValueError(f"global_tokens {self.global_tokens} must be at most the context, {self.context}")
        if ("state_space" in kinds) != (self.state_space is not None):
            raise ValueError("state_space and a 'state_space' layer in pattern go together: set both, or none")
        if self.state_space is not None:
            self._check_state_space(self.state_space)
        elif self.state_space_feedforward:
            raise ValueError("state_space_feedforward has no effect without state_space")
        return self

    def _check_state_space(self, state_space: StateSpaceConfig) -> None:
        if self.kind != "decoder":
            raise ValueError(f"state_space reads forward only, which a {self.kind} cannot use: set kind to decoder")
        if self.norm_position != "pre" or self.sublayers != "sequential":
            raise ValueError("state_space goes with norm_position pre only, and with sublayers sequential")
        inner = self.hidden_size * state_space.expand
        if inner % state_space.head_size:
            raise ValueError(
                f"state_space.head_size {state_space.head_size} must divide hidden_size x expand = {inner}"
            )
        if (inner // state_space.head_size) % state_space.groups:
            raise ValueError(
                f"state_space.groups {state_space.groups} must divide its {inner // state_space.head_size} heads"
            )
        if not self.has_attention and self.positions != "none":
            raise ValueError(f"positions {self.positions} has no effect without an attention layer: set it to none")
        of_attention = (
            "qk_norm",
            "qk_norm_over",
            "attention_scale",
            "attention_soft_cap",
            "attention_bias",
            "attention_dropout",
        )
        for name in of_attention if not self.has_attention else ():
            if (value := getattr(self, name)) != ModelConfig.model_fields[name].default:
                raise ValueError(f"{name} {value} has no effect without an attention layer")
        of_feedforward = ("mixture", "feedforward", "feedforward_bias", "intermediate_size", "intermediate_multiple")
        for name in of_feedforward if not self.has_feedforward else ():
            if (value := getattr(self, name)) != ModelConfig.model_fields[name].default:
                shown = "" if name == "mixture" else f" {value}"
                raise ValueError(f"{name}{shown} has no effect: no layer has a feed-forward network")

    @model_validator(mode="after")
    def _positions_agree(self) -> Self:
        if self.positions != "rope" and self.rope_scaling is not None:
            raise ValueError(f"rope_scaling has no effect with positions {self.positions}")
        kind = None if self.rope_scaling is None else self.rope_scaling.kind
        if kind in ("ntk", "dynamic") and self.rope_width == 2:
            raise ValueError(
                f"rope_scaling {kind} stretches all pairs but the first, and a head of 2 entries has one only"
            )
        if kind == "yarn" and self.rope_theta <= 1:
            raise ValueError(f"rope_theta {self.rope_theta:g} must be above 1 for rope_scaling yarn")
        if self.positions != "rope" and self.rope_theta != _ROPE_THETA:
            raise ValueError(f"rope_theta {self.rope_theta:g} has no effect with positions {self.positions}")
        for name in ("rope_fraction", "rope_pattern", "window_rope_theta") if self.positions != "rope" else ():
            if (value := getattr(self, name)) != ModelConfig.model_fields[name].default:
                raise ValueError(f"{name} {value} has no effect with positions {self.positions}")
        self._check_rope_layers()
        if self.positions == "none" and self.kind != "decoder":
            raise ValueError(f"positions none leaves the {self.kind}'s encoder without the order of its tokens")
        for name in ("relative_buckets", "relative_distance") if self.positions != "relative" else ():
            if (value := getattr(self, name)) != ModelConfig.model_fields[name].default:
                raise ValueError(f"{name} {value} has no effect with positions {self.positions}")
        if self.relative_distance <= self.relative_buckets // 2:
            raise ValueError(
                f"relative_distance {self.relative_distance} must be above relative_buckets / 2, "
                f"{self.relative_buckets // 2}"
            )
        return self

    def _check_rope_layers(self) -> None:
        scaling = self.rope_scaling
        for name in ("short_factors", "long_factors") if scaling is not None and scaling.kind == "longrope" else ():
            if (count := len(getattr(scaling, name))) != self.rope_width // 2:
                raise ValueError(
                    f"rope_scaling.{name} has {count} numbers, but a head has {self.rope_width // 2} pairs that rotate"
                )
        if scaling is not None and scaling.kind == "longrope" and scaling.trained_context(self.context) < 2:
            raise ValueError("rope_scaling.original_context 1 must be at least 2 for longrope")
        attends = [layer for layer, kind in enumerate(self.layer_kinds) if kind != "state_space"]
        if self.rope_pattern is not None and not any(map(self.rotates, attends)):
            raise ValueError(f"rope_pattern {self.rope_pattern} rotates no layer: set positions to none")
        if self.window_rope_theta is not None and "window" not in {*self.layer_kinds, *self.encoder_kinds}:
            raise ValueError(f"window_rope_theta {self.window_rope_theta:g} has no effect without a 'window' layer")

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        if self.norm == "rms" and self.norm_bias:
            raise ValueError("norm_bias has no effect with norm rms: set norm to layer")
        if self.norm == "layer" and self.norm_plus_one:
            raise ValueError("norm_plus_one goes with norm rms only: set it to false")
        if self.qk_norm_over != "head" and not self.qk_norm:
            raise ValueError(f"qk_norm_over {self.qk_norm_over} has no effect without qk_norm")
        if self.sublayers != "sequential" and (self.norm_position != "pre" or self.kind == "encoder-decoder"):
            raise ValueError(
                f"sublayers {self.sublayers} goes with norm_position pre and one stack of layers, not with "
                f"norm_position {self.norm_position} and kind {self.kind}"
            )
        if self.kind != "encoder-decoder" and self.encoder_layers is not None:
            raise ValueError(f"encoder_layers {self.encoder_layers} has no effect with kind {self.kind}")
        if self.kind != "encoder":
            for name, value in {"token_types": self.token_types, "head_transform": self.head_transform}.items():
                if value:
                    raise ValueError(f"{name} {value} goes with kind encoder only")
        if self.head_transform and self.feedforward in GATED:
            raise ValueError(f"head_transform has one matrix, which the gated feedforward {self.feedforward} cannot be")
        return self

    @model_validator(mode="after")
    def _sizes_have_effect(self) -> Self:
        scaling, expert = self.rope_scaling, None if self.mixture is None else self.mixture.intermediate_size
        if self.head_size is not None and not self.has_attention:
            raise ValueError(f"head_size {self.head_size} has no effect without an attention layer: leave it unset")
        if self.intermediate_size is not None and expert is not None:
            raise ValueError(
                f"intermediate_size {self.intermediate_size} has no effect with mixture.intermediate_size {expert}, "
                "which every expert has: leave one of them unset"
            )
        if scaling is not None and (scaling.original_context or 0) > self.context:
            raise ValueError(
                f"rope_scaling.original_context {scaling.original_context} must be at most the context, {self.context}"
            )
        if self.mixture is not None and self.mixture.per_token == 1 and self.mixture.normalize:
            raise ValueError("mixture.normalize with per_token 1 makes every weight 1 and leaves the router untrained")
        return self


class TransformerConfig(ModelConfig):
    """All settings that determine the shapes and the computation of `Transformer`."""

    vocab_size: int = Field(ge=1)

    @model_validator(mode="after")
    def _sizes_have_effect(self) -> Self:
        """Skipped: here every derived size is filled in, besides the settings that it follows from, and an imported
        model need not be one that could be trained from the start.
        """
        return self

    @classmethod
    def from_settings(cls, settings: ModelConfig, vocab_size: int) -> Self:
        """Configuration of `settings` for a tokenizer with `vocab_size` entries; derived sizes are filled in."""
        derived = {"head_size": settings.head_width} if settings.has_attention else {}
        if settings.has_feedforward:
            derived["intermediate_size"] = settings.feedforward_width
        return cls(**{**settings.model_dump(), **derived, "vocab_size": vocab_size})
