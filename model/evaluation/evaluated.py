"""Interface of a model under evaluation: likelihoods of continuations, and generated text.

A model directory offers both, a served URL only generation. A suite is written against this interface, so it does not
know which of them it measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from sluice.core.progress import Progress, no_progress


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Prompt = str | tuple[Message, ...]
"""Plain text that the model continues, or a conversation that it answers in its own chat template."""


@dataclass(frozen=True)
class ContinuationRequest:
    """A continuation to score, given the prompt before it."""

    prompt: Prompt
    continuation: str
    starts_document: bool = False
    """Whether a prompt of plain text is the beginning of a document: the model reads before it what it read there in
    training.
    """
    whole: bool = False
    """Score all of a continuation that is longer than the context, by windows that overlap by half of it. Otherwise
    its end is cut.
    """


@dataclass(frozen=True)
class Continuation:
    """Likelihood of a continuation."""

    nats: float
    """Negative log-likelihood of the scored tokens; NaN where the logits are not finite."""
    token_nats: tuple[float, ...]
    """The same by token."""
    tokens: tuple[str, ...]
    """The scored tokens as text."""
    scored_bytes: int
    """Bytes of the continuation that were scored: fewer than all where the context cuts it."""
    is_greedy: bool
    """Whether greedy decoding would give these tokens."""


@dataclass(frozen=True)
class AnswerRequest:
    """A prompt to answer. Temperature 0 is greedy."""

    prompt: Prompt
    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    cut_prompt: bool = False
    """Cut a prompt at its beginning so that max_tokens fit behind it. Otherwise a prompt that fills the context is an
    error, and an answer ends with the context. A served model does not cut.
    """


@dataclass(frozen=True)
class GeneratedAnswer:
    """An answer."""

    text: str
    """Without the stop string that ended it."""
    tokens: int
    finish_reason: Literal["stop", "length", "error"]
    error: str = ""
    """Why there is no answer, where finish_reason is `error`."""
    refused: bool = False
    """Whether the model cannot be asked this prompt at all, such as one that fills its context: no try would answer."""


class EvaluatedModel(Protocol):
    """A model under evaluation. Answers come in the order of the requests, and no answer depends on another."""

    @property
    def model_hash(self) -> str:
        """sha256 of what answers: the files of a model directory, or the served version's."""

    @property
    def can_score(self) -> bool:
        """Whether `score` is available; a served URL generates only."""

    def score(
        self, requests: Sequence[ContinuationRequest], progress: Progress = no_progress
    ) -> list[Continuation]: ...

    def generate(
        self, requests: Sequence[AnswerRequest], progress: Progress = no_progress
    ) -> list[GeneratedAnswer]: ...
