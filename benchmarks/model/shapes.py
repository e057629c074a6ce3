"""The models that are measured: the Llama recipe in four sizes, and what a token of each costs."""

from dataclasses import dataclass

from sluice.model.architecture.config import ModelConfig, TransformerConfig


@dataclass(frozen=True)
class Shape:
    """One size of model and how much of it goes through a step."""

    name: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    intermediate_size: int
    sequences: tuple[int, ...]
    """Lengths measured, in tokens."""
    step_tokens: int
    """Tokens of a step, whatever the length of its sequences."""
    tie_embeddings: bool = True
    generated: int = 256
    """Tokens in all, prompt included, where it generates."""

    def config(self, context: int) -> TransformerConfig:
        """Configuration of our model for sequences of `context` tokens."""
        names = ("hidden_size", "layers", "heads", "kv_heads", "intermediate_size", "tie_embeddings")
        settings = ModelConfig.model_validate({"context": context, **{name: getattr(self, name) for name in names}})
        return TransformerConfig.from_settings(settings, self.vocab_size)

    @property
    def matrix_weights(self) -> int:
        """Weights that a token is multiplied with: the layers' matrices and the head."""
        keys = self.hidden_size // self.heads * self.kv_heads
        attention = 2 * self.hidden_size * (self.hidden_size + keys)
        return self.layers * (attention + 3 * self.hidden_size * self.intermediate_size) + self.head_weights

    @property
    def head_weights(self) -> int:
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """All weights, norms included."""
        norms = (2 * self.layers + 1) * self.hidden_size
        return self.matrix_weights + norms + (0 if self.tie_embeddings else self.head_weights)

    def training_flops(self, sequence: int) -> int:
        """FLOPs a token of forward and backward: matrix products alone, attention over the visible half.

        Token t sees t + 1 keys in two products, each 2 FLOPs an entry; the backward pass costs twice the forward.
        """
        attention = 2 * self.layers * self.hidden_size * (sequence + 1)
        return 3 * (2 * self.matrix_weights + attention)


SHAPES = {
    shape.name: shape
    for shape in (
        # To see that the benchmark runs.
        Shape("smoke", 512, 64, 2, 4, 2, 128, (32,), 64),
        Shape("5M", 4096, 256, 6, 8, 2, 768, (256, 1024), 4096),
        Shape("50M", 8192, 640, 10, 10, 2, 1792, (256, 1024), 1024, generated=128),
        Shape("350M", 32_000, 1024, 24, 16, 16, 2816, (2048, 4096), 16_384, tie_embeddings=False),
        # TinyLlama's (arXiv 2401.02385).
        Shape("1B", 32_000, 2048, 22, 32, 4, 5632, (2048, 4096), 16_384, tie_embeddings=False),
    )
}
CPU_SHAPES, ACCELERATOR_SHAPES = ("5M", "50M"), ("350M", "1B")
