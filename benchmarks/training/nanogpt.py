"""nanoGPT's CPU run (Karpathy, github.com/karpathy/nanoGPT, README) in plain PyTorch: the recipe that the preset
`shakespeare-char-cpu` is held to. A GPT-2 of 4 layers, 4 heads, 128 wide, without biases; AdamW, cosine.
"""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Recipe:
    layers: int = 4
    heads: int = 4
    width: int = 128
    block: int = 64
    batch: int = 12
    steps: int = 2000
    warmup: int = 100
    rate: float = 1e-3
    last_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    decay: float = 0.1
    clip: float = 1.0


class Layer(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        width = recipe.width
        self.heads = recipe.heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.inputs, self.output = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, seq, width = x.shape
        query, key, value = self.inputs(self.norms[0](x)).view(batch, seq, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, seq, width))
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


class GPT(nn.Module):
    """Learned positions, tied head."""

    def __init__(self, recipe: Recipe, vocab: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab, recipe.width), nn.Embedding(recipe.block, recipe.width)
        self.layers = nn.ModuleList(Layer(recipe) for _ in range(recipe.layers))
        self.norm = nn.LayerNorm(recipe.width, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim > 1:
                into_stream = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / (math.sqrt(2 * recipe.layers) if into_stream else 1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return functional.linear(self.norm(x), self.tokens.weight)


def rate_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / (recipe.warmup + 1)
    share = (step - recipe.warmup) / (recipe.steps - recipe.warmup)
    return recipe.last_rate + (recipe.rate - recipe.last_rate) * (1 + math.cos(math.pi * share)) / 2


def train(text: str, recipe: Recipe, seed: int, valid_fraction: float = 0.1) -> tuple[float, int, float]:
    """(nats a character on the whole held-out end, parameters, seconds)."""
    torch.manual_seed(seed)
    places = {character: i for i, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([places[character] for character in text])
    cut = len(ids) - round(len(ids) * valid_fraction)
    model = GPT(recipe, len(places))
    matrices = [each for each in model.parameters() if each.ndim > 1]
    vectors = [each for each in model.parameters() if each.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.decay}, {"params": vectors, "weight_decay": 0.0}],
        betas=recipe.betas,
    )
    started = time.perf_counter()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, recipe)
        starts = torch.randint(cut - recipe.block, (recipe.batch,))
        rows = torch.stack([ids[start : start + recipe.block + 1] for start in starts])
        loss = functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - started
    return held_out(model, ids[cut:], recipe.block), sum(each.numel() for each in model.parameters()), seconds


@torch.inference_mode()
def held_out(model: GPT, ids: Tensor, block: int) -> float:
    """Mean nats of every target of ids [n] in blocks beside each other; the last block may be short."""
    nats = 0.0
    for start in range(0, len(ids) - 1, block):
        row = ids[start : start + block + 1]
        logits = model(row[None, :-1])[0]
        nats += float(functional.cross_entropy(logits, row[1:], reduction="sum"))
    return nats / (len(ids) - 1)
