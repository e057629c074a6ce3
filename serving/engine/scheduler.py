"""Which tokens the next forward pass computes.

One invariant instead of phases (as in vLLM): a sequence has `ids`, of which `computed` are in the cache, and every step
brings `computed` nearer to `len(ids)`. A prompt is many tokens behind, a decoding sequence one.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sluice.serving.engine.detokenizer import Detokenizer
from sluice.serving.engine.request import GenerationError, GenerationRequest, QueueFull, TokenEvent


@dataclass(eq=False)
class Sequence:
    """One request on its way through the engine."""

    request: GenerationRequest
    ids: list[int]
    """Prompt, prefix and the tokens sampled so far."""
    prompt_tokens: int
    max_tokens: int
    deliver: Callable[[TokenEvent | GenerationError], None]
    """The last call brings an event with `finish`, or an error."""
    loop: asyncio.AbstractEventLoop | None
    """Where `deliver` is called; None is the engine's thread."""
    detokenizer: Detokenizer
    generator: torch.Generator
    """The request's own: what else is in the batch cannot move its draws."""
    submitted: float
    started: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0
    """Times of a monotonic clock, in seconds."""
    slot: int = -1
    computed: int = 0
    sampled: int = 0
    log_probability: float = 0.0
    hidden_sum: Tensor | None = None
    """[hidden] float32, over the prompt's tokens."""
    text: str = ""
    """Text kept back until the end, where the request does not stream."""
    cancelled: bool = False

    @property
    def missing(self) -> int:
        return len(self.ids) - self.computed


@dataclass(frozen=True)
class Chunk:
    """The next `count` tokens of a sequence, which one forward pass computes."""

    sequence: Sequence
    count: int


@dataclass
class Scheduler:
    """Sequences that wait, and those that run, each in a slot of the key-value cache."""

    slots: int
    max_waiting: int
    max_step_tokens: int
    """Bound on the tokens of a step, so that a long prompt is computed in pieces and others go on decoding."""
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._free = list(range(self.slots))[::-1]

    def add(self, sequence: Sequence) -> None:
        """Takes a sequence, or raises QueueFull."""
        if len(self.waiting) >= self.max_waiting + len(self._free):
            raise QueueFull(f"{len(self.waiting)} requests wait already, the most that may (serve.max_queued)")
        self.waiting.append(sequence)

    def admit(self) -> list[Sequence]:
        """Moves waiting sequences into free slots, first come first served, and returns them."""
        admitted = []
        while self.waiting and self._free:
            sequence = self.waiting.popleft()
            sequence.slot = self._free.pop()
            self.running.append(sequence)
            admitted.append(sequence)
        return admitted

    def next_step(self) -> list[Chunk]:
        """What to compute now. Decoding sequences come first; prompts share what is left of the step."""
        decoding = [Chunk(sequence, 1) for sequence in self.running if sequence.missing == 1]
        budget = max(1, self.max_step_tokens - len(decoding))
        chunks = []
        for sequence in self.running:
            if sequence.missing > 1 and budget > 0:
                count = min(sequence.missing, budget)
                budget -= count
                chunks.append(Chunk(sequence, count))
        return decoding + chunks

    def release(self, sequence: Sequence) -> None:
        """Ends a running sequence; its slot is free."""
        self.running.remove(sequence)
        self._free.append(sequence.slot)

    def cancel(self, sequence: Sequence) -> None:
        """Drops a sequence that waits; one that runs is marked, for the thread that computes it to release."""
        sequence.cancelled = True
        if sequence in self.waiting:
            self.waiting.remove(sequence)

    def cancelled(self) -> list[Sequence]:
        """Running sequences to release."""
        return [sequence for sequence in self.running if sequence.cancelled]
