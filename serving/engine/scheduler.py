"""The scheduler: which tokens of which sequences the next step computes.

There are no separate prefill and decode phases (as in vLLM): a sequence has `ids`, of which `computed` are in the
cache, and every step brings `computed` closer to `len(ids)`. A new prompt is many tokens behind, a decoding sequence
one.
"""

from collections import deque
from dataclasses import dataclass, field

from sluice.serving.engine.request import QueueFull
from sluice.serving.engine.sequence import Sequence


@dataclass(frozen=True)
class Chunk:
    """The next `count` tokens of a sequence, computed in one forward pass."""

    sequence: Sequence
    count: int


@dataclass
class Scheduler:
    """Waiting sequences, and running sequences, each of which has a slot of the key-value cache.

    `n` running sequences have the slots 0 to n - 1: the cache reads neighbouring slots in place and copies others.
    """

    slots: int
    max_waiting: int
    max_step_tokens: int
    """Most tokens of one step: a longer prompt is computed in chunks, between which other sequences decode."""
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)
    """In the order of their arrival, in which prompts share a step's tokens."""

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence, or raise QueueFull."""
        if len(self.waiting) >= self.max_waiting + self.slots - len(self.running):
            raise QueueFull(
                f"{len(self.waiting)} requests wait already, the most allowed (serve.max_queued): try again later"
            )
        self.waiting.append(sequence)

    def admit(self) -> list[Sequence]:
        """Move waiting sequences into free slots, first come first served, and return them."""
        admitted = []
        while self.waiting and len(self.running) < self.slots:
            sequence = self.waiting.popleft()
            sequence.slot = len(self.running)
            self.running.append(sequence)
            admitted.append(sequence)
        return admitted

    def schedule(self) -> list[list[Chunk]]:
        """Return the forward passes of the next step, each with chunks of one length.

        All decoding sequences share the first pass. Prompts share the rest of the step's tokens, one pass per chunk.
        """
        decoding = [Chunk(sequence, 1) for sequence in self.running if sequence.missing == 1]
        budget = max(1, self.max_step_tokens - len(decoding))
        prompts = []
        for sequence in self.running:
            if sequence.missing > 1 and budget > 0:
                count = min(sequence.missing, budget)
                budget -= count
                prompts.append(Chunk(sequence, count))
        single = decoding + [chunk for chunk in prompts if chunk.count == 1]
        single.sort(key=lambda chunk: chunk.sequence.slot)
        return ([single] if single else []) + [[chunk] for chunk in prompts if chunk.count > 1]

    def release(self, sequence: Sequence) -> int:
        """End a running sequence. Return the last slot in use, whose sequence takes over the freed slot."""
        last = max(self.running, key=lambda each: each.slot)
        self.running.remove(sequence)
        last.slot, freed = sequence.slot, last.slot
        return freed

    def cancel(self, sequence: Sequence) -> None:
        """Remove a waiting sequence; mark a running one, for the engine's thread to release."""
        sequence.cancelled = True
        if sequence in self.waiting:
            self.waiting.remove(sequence)

    def cancelled(self) -> list[Sequence]:
        """Return the running sequences to release."""
        return [sequence for sequence in self.running if sequence.cancelled]
