"""What goes into the engine and what comes out of it: plain values that travel between processes, without torch."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


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
    """Beginning of the answer, already given by a model that failed: generation goes on behind it."""
    stream: bool = True
    """False: one event at the end, for callers that show nothing before it."""


@dataclass(frozen=True, slots=True)
class Finish:
    """What is known when an answer is complete."""

    finish_reason: FinishReason
    prompt_tokens: int
    """Without the tokens of `prefix`."""
    completion_tokens: int
    """With the end token, which has no text."""
    queue_ms: float
    first_token_ms: float
    """From submission, so with the time in the queue."""
    per_token_ms: float | None
    """Mean time between tokens after the first; None for a single token."""
    total_ms: float
    embedding: tuple[float, ...]
    """Mean final hidden state over the prompt's tokens, at most 64 numbers."""
    mean_log_probability: float
    """Nats a generated token, under the model's own distribution (temperature 1)."""


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A piece of the answer; the last one carries `finish`."""

    text: str
    tokens: int
    """Tokens sampled since the event before."""
    finish: Finish | None = None

    def __add__(self, later: "TokenEvent") -> "TokenEvent":
        return TokenEvent(self.text + later.text, self.tokens + later.tokens, later.finish)


class GenerationError(Exception):
    """A request that got no (complete) answer. `status` is the HTTP status that says so."""

    status = 500


class PromptTooLong(GenerationError):
    """The prompt leaves no room in the context for one token of answer."""

    status = 400


class QueueFull(GenerationError):
    """As many requests wait as may wait."""

    status = 503


class EngineStopped(GenerationError):
    """The engine was stopped, or broke down, before the request was done."""

    status = 503


class NonFiniteLogits(GenerationError):
    """The model answered NaN or infinity."""


ERRORS: dict[str, type[GenerationError]] = {
    error.__name__: error for error in (PromptTooLong, QueueFull, EngineStopped, NonFiniteLogits)
}
