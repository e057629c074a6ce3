"""Requests, events and errors of the engine: plain values that are sent between processes, without torch."""

from dataclasses import dataclass
from typing import Literal

from sluice.model.text.chat_template import PromptMessage

FinishReason = Literal["stop", "length"]
SIGN_OF_LIFE_S = 0.5
"""Time between the empty events of an answer that does not stream, so that one that hangs is told from a long one."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to generate."""

    request_id: str
    prompt: str | tuple[PromptMessage, ...]
    """Text to continue, or a conversation to answer."""
    max_tokens: int
    seed: int
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    prefix: str = ""
    """Beginning of the answer, from a version that failed: generation continues it."""
    stream: bool = True
    """False: the last event has the answer; the ones before, without text, come with the first token and while more
    are sampled (SIGN_OF_LIFE_S).
    """


@dataclass(frozen=True, slots=True)
class Finish:
    """Summary of a complete answer."""

    finish_reason: FinishReason
    prompt_tokens: int
    """Tokens of the prompt, without those of `prefix`."""
    completion_tokens: int
    """Sampled tokens, including the end token, which has no text."""
    queue_ms: float
    first_token_ms: float
    """Time from submission to the first token, including the time in the queue."""
    per_token_ms: float | None
    """Mean time between tokens after the first; None for a single token."""
    total_ms: float
    embedding: tuple[float, ...]
    """Mean final hidden state over the prompt's tokens, at most 64 numbers."""
    mean_log_probability: float
    """Nats per generated token at temperature 1."""


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """The next part of an answer; the first event comes with the first token, the last one has `finish`."""

    text: str
    tokens: int
    """Tokens sampled since the previous event."""
    finish: Finish | None = None

    def __add__(self, later: "TokenEvent") -> "TokenEvent":
        return TokenEvent(self.text + later.text, self.tokens + later.tokens, later.finish)


class GenerationError(Exception):
    """A request without a (complete) answer. `status` is its HTTP status."""

    status = 500


class PromptTooLong(GenerationError):
    """The prompt leaves no space in the context for an answer of one token."""

    status = 400


class PromptRefused(GenerationError):
    """The prompt cannot be encoded: the chat template refuses it, or the model lacks one of its tokens."""

    status = 400


class QueueFull(GenerationError):
    """The queue is full."""

    status = 503


class EngineStopped(GenerationError):
    """The engine was stopped before the request was complete."""

    status = 503


class EngineFailed(GenerationError):
    """An error ended the engine before the request was complete."""


class NonFiniteLogits(GenerationError):
    """The model's logits contain NaN or infinity."""


ERRORS: dict[str, type[GenerationError]] = {
    error.__name__: error
    for error in (PromptTooLong, PromptRefused, QueueFull, EngineStopped, EngineFailed, NonFiniteLogits)
}
