"""Decoder-only transformer (Llama, arXiv 2302.13971): RMSNorm pre-norm, RoPE, SwiGLU, GQA, tied head, no biases."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.architecture.attention import Attention
from model.architecture.cache import CacheStep, KVCache
from model.architecture.config import TransformerConfig
from model.architecture.feedforward import FeedForward
from model.architecture.normalization import RMSNorm
from model.architecture.positions import RotaryEmbedding


class Block(nn.Module):
    """One layer, in the pre-norm arrangement (Xiong et al., arXiv 2002.04745)."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attention = Attention(config, layer)
        self.feedforward_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.feedforward = FeedForward(config)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], cache: CacheStep | None = None) -> Tensor:
        """[batch, seq, hidden] -> [batch, seq, hidden]."""
        h = x + self.attention(self.attention_norm(x), rotary, cache)
        return h + self.feedforward(self.feedforward_norm(h))


class Transformer(nn.Module):
    """The language model. Weights are as torch makes them until `initialize` or a checkpoint sets them."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.rotary = RotaryEmbedding(config.head_size, config.context, config.rope_theta)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.head = None if config.tie_embeddings else nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """[vocab, hidden]: the matrix that turns hidden states into logits."""
        return self.embedding.weight if self.head is None else self.head.weight

    def forward(
        self,
        ids: Tensor,
        *,
        cache: KVCache | None = None,
        slots: Tensor | None = None,
        counts: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Logits [batch, seq, vocab] of the token after each of `ids` [batch, seq]; arguments as of `hidden`."""
        hidden = self.hidden(ids, cache=cache, slots=slots, counts=counts, positions=positions)
        return functional.linear(hidden, self.head_weight)

    def hidden(
        self,
        ids: Tensor,
        *,
        cache: KVCache | None = None,
        slots: Tensor | None = None,
        counts: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states [batch, seq, hidden] of `ids` [batch, seq] int64, after the last norm.

        Without a cache each row is a whole sequence; `positions` [batch, seq] replaces 0, 1, 2, ... where given.

        With a cache row i holds the next tokens of slot `slots[i]` ([batch] int64, all different; without `slots`, of
        slot i): prefill is a call on empty slots, decoding is a call with seq = 1. Rows may be at different lengths.
        Prompts of different lengths prefill together when padded on the right with any token: `counts` [batch] says
        how many tokens of each row are real, and what the model says after a padding token means nothing. The slots'
        lengths grow by `counts` (by seq without it).

        Raises ValueError for a token outside the vocabulary and a sequence longer than the context or the cache.
        """
        self._check(ids)
        batch, seq = ids.shape
        step: CacheStep | None = None
        if cache is not None:
            if positions is not None:
                raise ValueError("positions follow from the cache: give one of the two")
            step = cache.begin(batch, seq, slots, counts)
            positions = step.positions
        elif slots is not None or counts is not None:
            raise ValueError("slots and counts belong to a cache, and none was given")
        elif positions is None:
            positions = torch.arange(seq, device=ids.device)
        elif (last := int(positions.max())) >= self.config.context:
            raise ValueError(f"position {last} is beyond the last of the context {self.config.context}")
        rotary = self.rotary(positions)
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, rotary, step)
        if step is not None:
            step.commit()
        return self.norm(x)

    def _check(self, ids: Tensor) -> None:
        if ids.shape[1] > self.config.context:
            raise ValueError(f"sequence of {ids.shape[1]} tokens is longer than the context {self.config.context}")
        # Asking a GPU for a value stalls its queue, which training cannot afford on every step.
        if ids.is_meta or ids.numel() == 0 or (self.training and ids.device.type != "cpu"):
            return
        low, high = (int(value) for value in torch.aminmax(ids))
        if low < 0 or high >= self.config.vocab_size:
            wrong = low if low < 0 else high
            raise ValueError(f"token id {wrong} is outside the vocabulary of 0 to {self.config.vocab_size - 1}")


def initialize(model: Transformer, seed: int) -> None:
    """Draws every weight from `seed` alone: normal(0, 0.02), norms one.

    The two projections that write into the residual stream are scaled by 1/sqrt(2 x layers), so that its variance does
    not grow with depth (GPT-2, Radford et al. 2019).
    """
    generator = torch.Generator().manual_seed(seed)
    residual_std = 0.02 / (2 * model.config.layers) ** 0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            std = residual_std if name.endswith(("attention.output.weight", "feedforward.down.weight")) else 0.02
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))
