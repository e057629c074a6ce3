"""The model with its key-value cache: forward passes over chunks, and the embedding of a prompt."""

from pathlib import Path

import torch
from torch import Tensor

from sluice.model.architecture.cache import Cache
from sluice.model.directory import load_model
from sluice.serving.engine.scheduler import Chunk
from sluice.serving.engine.sequence import Sequence

MAX_EMBEDDING_SIZE, PROJECTED_SIZE, PROJECTION_SEED = 64, 32, 2026


class ModelRunner:
    """One model and a cache of `slots` rows."""

    def __init__(self, folder: Path, slots: int) -> None:
        """Load the model directory; raise ValueError naming a file that is missing or damaged."""
        self.model, self.tokenizer = load_model(folder)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._device = self.model.embedding.weight.device
        self._cache = Cache(self.model.config, slots, device=self._device)
        self._projection = _projection(self.model.config.hidden_size)

    def run(self, chunks: list[Chunk]) -> Tensor:
        """Compute chunks of one length; return the logits [ready, vocab] after the sequences that have caught up.

        float32 on the CPU, so that a seed draws the same tokens on every device.
        """
        rows = [chunk.sequence.ids[chunk.sequence.computed :][: chunk.count] for chunk in chunks]
        slots = torch.tensor([chunk.sequence.slot for chunk in chunks])
        ids = torch.tensor(rows, device=self._device)
        # Rotary scaling may follow the length of the sequence, of which a chunk is a part.
        lengths = torch.tensor([len(chunk.sequence.ids) for chunk in chunks], device=self._device)
        hidden = self.model.hidden(ids, cache=self._cache, slots=slots, lengths=lengths)
        for chunk, states in zip(chunks, hidden, strict=True):
            sequence = chunk.sequence
            if sequence.computed < sequence.prompt_tokens:
                total = states[: sequence.prompt_tokens - sequence.computed].sum(dim=0).float().cpu()
                sequence.hidden_sum = total if sequence.hidden_sum is None else sequence.hidden_sum + total
            sequence.computed += chunk.count
        ready = [row for row, chunk in enumerate(chunks) if chunk.sequence.missing == 0]
        if not ready:
            return torch.empty(0, self.model.config.vocab_size)
        return self.model.logits(hidden[ready, -1]).float().cpu()

    def fill_gap(self, slot: int, last: int) -> None:
        """Empty `slot`; if it is not the last one in use, the sequence of slot `last` moves there."""
        if slot == last:
            self.reset(slot)
        else:
            self._cache.move(last, slot)

    def reset(self, slot: int) -> None:
        """Wipe a slot before another request gets it: a NaN left in it would pass the attention mask, as 0 x NaN."""
        self._cache.reset(torch.tensor([slot]))

    def reread(self, sequence: Sequence) -> None:
        """Empty the slot of a sequence whose last token changes the rotation of all others, to compute it again."""
        config = self.model.config
        scaling = config.rope_scaling
        if scaling is not None and scaling.changes(sequence.computed, len(sequence.ids), config.context):
            sequence.computed, sequence.hidden_sum = 0, None
            self.reset(sequence.slot)

    def embedding(self, sequence: Sequence) -> tuple[float, ...]:
        """Return the mean final hidden state of the prompt's tokens, projected to at most 64 numbers."""
        assert sequence.hidden_sum is not None
        mean = sequence.hidden_sum / sequence.prompt_tokens
        projected = mean if self._projection is None else mean @ self._projection
        return tuple(round(value, 5) for value in projected.tolist())


def _projection(hidden_size: int) -> Tensor | None:
    """Return a Gaussian [hidden, 32], which preserves distances (Johnson and Lindenstrauss, 1984), for wide models."""
    if hidden_size <= MAX_EMBEDDING_SIZE:
        return None
    generator = torch.Generator().manual_seed(PROJECTION_SEED)
    return torch.randn(hidden_size, PROJECTED_SIZE, generator=generator) / PROJECTED_SIZE**0.5
