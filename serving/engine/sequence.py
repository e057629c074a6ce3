"""One request on its way through the engine: its tokens, its text and its times."""

import asyncio
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from sluice.model.text.detokenizer import Detokenizer
from sluice.serving.engine.request import Finish, FinishReason, GenerationError, GenerationRequest, TokenEvent

Delivery = Callable[[TokenEvent | GenerationError], None]
"""Receiver of a request's events; the last call has an event with `finish`, or an error."""


@dataclass(eq=False)
class Sequence:
    """One request, the tokens so far, and how many of them the model has computed."""

    request: GenerationRequest
    ids: list[int]
    """Prompt, prefix and the tokens sampled so far."""
    prompt_tokens: int
    max_tokens: int
    deliver: Delivery
    loop: asyncio.AbstractEventLoop | None
    """Event loop in which `deliver` is called; None: the engine's thread."""
    detokenizer: Detokenizer
    generator: torch.Generator
    """The request's own random generator, so that other requests in the batch cannot change its tokens."""
    submitted: float
    started: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0
    last_sign: float = -math.inf
    """Times of a monotonic clock, in seconds."""
    slot: int = -1
    """Row of the key-value cache; -1 while the sequence waits."""
    computed: int = 0
    """Tokens of `ids` that are in the cache."""
    sampled: int = 0
    log_probability: float = 0.0
    """Sum over the sampled tokens, in nats."""
    hidden_sum: Tensor | None = None
    """[hidden] float32: sum of the final hidden states of the prompt's tokens."""
    text: str = ""
    """Text not yet delivered, of a request that does not stream."""
    cancelled: bool = False

    @property
    def missing(self) -> int:
        """Tokens of `ids` that are not in the cache yet."""
        return len(self.ids) - self.computed

    def append(self, token: int, log_probability: float, stop_ids: Collection[int]) -> tuple[str, FinishReason | None]:
        """Add a sampled token; return the text that it completes and, if the answer ends here, the reason."""
        self.ids.append(token)
        self.sampled += 1
        self.log_probability += log_probability
        self.last_token = time.perf_counter()
        self.first_token = self.first_token or self.last_token
        reason: FinishReason | None = "length" if self.sampled >= self.max_tokens else None
        if token in stop_ids:
            reason, text = "stop", ""
        else:
            text = self.detokenizer.push(token)
        if reason:
            text += self.detokenizer.flush()
        if self.detokenizer.stopped:
            reason = "stop"
        return text, reason

    def finish(self, reason: FinishReason, embedding: tuple[float, ...]) -> Finish:
        """Return the summary of the complete answer."""
        between = self.last_token - self.first_token
        return Finish(
            finish_reason=reason,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.sampled,
            queue_ms=1e3 * (self.started - self.submitted),
            first_token_ms=1e3 * (self.first_token - self.submitted),
            per_token_ms=1e3 * between / (self.sampled - 1) if self.sampled > 1 else None,
            total_ms=1e3 * (self.last_token - self.submitted),
            embedding=embedding,
            mean_log_probability=self.log_probability / self.sampled,
        )
