"""The inference engine: continuous batching over the slot cache, in one background thread.

Requests join and leave the running batch at every step (iteration-level scheduling, Orca, OSDI 2022).
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from sluice.model.architecture.cache import Cache
from sluice.model.architecture.sampling import sample
from sluice.model.directory import load_model
from sluice.serving.config import ServeConfig
from sluice.serving.engine.delivery import Delivery, Outbox
from sluice.serving.engine.detokenizer import Detokenizer, TokenBytes
from sluice.serving.engine.prompt import PromptEncoder
from sluice.serving.engine.request import (
    EngineStopped,
    Finish,
    FinishReason,
    GenerationError,
    GenerationRequest,
    NonFiniteLogits,
    PromptTooLong,
    TokenEvent,
)
from sluice.serving.engine.scheduler import Chunk, Scheduler, Sequence

MAX_STEP_TOKENS = 512
MAX_EMBEDDING_SIZE, PROJECTED_SIZE, PROJECTION_SEED = 64, 32, 2026
STOP_TIMEOUT_S = 10.0


class LLMEngine:
    """One model, answering up to `config.max_batch` requests together.

    The answer of a request depends on the request alone: tokens are drawn from its own generator. (Kernels of another
    batch size may round differently in the last bit, so only a tie of two tokens could fall otherwise.)
    """

    def __init__(self, folder: Path, config: ServeConfig, max_step_tokens: int = MAX_STEP_TOKENS) -> None:
        """Loads the model directory; ValueError names a file that is missing or damaged."""
        self._model, self._tokenizer = load_model(folder)
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._encoder = PromptEncoder(self._tokenizer)
        self._token_bytes = TokenBytes(self._tokenizer)
        self._stop_ids = self._encoder.stop_ids
        self._config = config
        self._projection = _projection(self._model.config.hidden_size)
        self._device = self._model.embedding.weight.device
        self._cache = Cache(self._model.config, config.max_batch, device=self._device)
        self._scheduler = Scheduler(config.max_batch, config.max_queued, max_step_tokens)
        self._outbox = Outbox()
        self._wake = threading.Condition()
        self._stopped = False
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def context(self) -> int:
        """Longest sequence of prompt and answer, in tokens."""
        return self._model.config.context

    @property
    def failure(self) -> str:
        """Why the engine broke down; empty while it runs."""
        return self._failure

    @property
    def load(self) -> tuple[int, int]:
        """Requests that run, and that wait."""
        with self._wake:
            return len(self._scheduler.running), len(self._scheduler.waiting)

    def submit(
        self, request: GenerationRequest, deliver: Delivery, loop: asyncio.AbstractEventLoop | None = None
    ) -> Callable[[], None]:
        """Queues a request and returns the function that cancels it.

        `deliver` is called with TokenEvents, on `loop` where that is given, else in the engine's thread; the last call
        has an event with `finish`, or a GenerationError. Raises PromptTooLong, QueueFull and EngineStopped.
        """
        sequence = self._sequence(request, deliver, loop)
        with self._wake:
            if self._stopped or self._failure:
                raise EngineStopped(self._failure or "the engine was stopped")
            self._scheduler.add(sequence)
            self._wake.notify()

        def cancel() -> None:
            with self._wake:
                self._scheduler.cancel(sequence)
                self._wake.notify()

        return cancel

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        """The answer's events as they come; what came since the last look is one event.

        Leaving the iterator (the client is gone) cancels the request and frees its slot. Raises GenerationError.
        """
        arrived: asyncio.Queue[TokenEvent | GenerationError] = asyncio.Queue()
        cancel = self.submit(request, arrived.put_nowait, asyncio.get_running_loop())
        try:
            finished = False
            while not finished:
                event = await arrived.get()
                while isinstance(event, TokenEvent) and not arrived.empty():
                    later = arrived.get_nowait()
                    event = event + later if isinstance(later, TokenEvent) else later
                if isinstance(event, GenerationError):
                    raise event
                finished = event.finish is not None
                yield event
        finally:
            cancel()

    def stop(self) -> None:
        """Ends the thread; requests on their way get EngineStopped."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        self._thread.join(timeout=STOP_TIMEOUT_S)

    def _sequence(
        self, request: GenerationRequest, deliver: Delivery, loop: asyncio.AbstractEventLoop | None
    ) -> Sequence:
        prompt = self._encoder.encode(request.prompt)
        if len(prompt) >= self.context:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens, but the context holds {self.context} with the answer: "
                f"shorten it to at most {self.context - 1} tokens"
            )
        # A prefix that fills the context still gets its one token, and with it the finish reason `length`.
        ids = (prompt + (self._encoder.encode_text(request.prefix) if request.prefix else []))[: self.context - 1]
        return Sequence(
            request=request,
            ids=ids,
            prompt_tokens=len(prompt),
            max_tokens=min(request.max_tokens, self._config.max_tokens, self.context - len(ids)),
            deliver=deliver,
            loop=loop,
            detokenizer=Detokenizer(self._token_bytes, request.stop),
            generator=torch.Generator().manual_seed(request.seed),
            submitted=time.perf_counter(),
        )

    @torch.inference_mode()
    def _run(self) -> None:
        torch.set_num_threads(self._config.threads)
        try:
            while self._plan():
                for group in _groups(self._scheduler.next_step()):
                    self._compute(group)
                    self._outbox.send()
        except Exception as error:
            # Nothing here is a request's fault: the owner sees `failure` and starts another engine.
            self._failure = f"{type(error).__name__}: {error}"
        reason = EngineStopped(self._failure or "the engine was stopped")
        with self._wake:
            left = [*self._scheduler.running, *self._scheduler.waiting]
            self._scheduler.running, self._stopped = [], True
            self._scheduler.waiting.clear()
        for sequence in left:
            if not sequence.cancelled:
                self._outbox.add(sequence, reason)
        self._outbox.send()

    def _plan(self) -> bool:
        """Waits for work, lets cancelled sequences go and new ones in; False when the engine is to stop."""
        with self._wake:
            while True:
                for sequence in self._scheduler.cancelled():
                    self._release(sequence)
                for sequence in self._scheduler.admit():
                    sequence.started = time.perf_counter()
                if self._stopped or self._scheduler.running:
                    return not self._stopped
                self._wake.wait()

    def _compute(self, chunks: list[Chunk]) -> None:
        """One forward pass over chunks of one length, and a token for each sequence that has caught up."""
        rows = [chunk.sequence.ids[chunk.sequence.computed :][: chunk.count] for chunk in chunks]
        slots = torch.tensor([chunk.sequence.slot for chunk in chunks])
        ids = torch.tensor(rows, device=self._device)
        hidden = self._model.hidden(ids, cache=self._cache, slots=slots)
        for chunk, states in zip(chunks, hidden, strict=True):
            sequence = chunk.sequence
            if sequence.computed < sequence.prompt_tokens:
                total = states[: sequence.prompt_tokens - sequence.computed].sum(dim=0).float().cpu()
                sequence.hidden_sum = total if sequence.hidden_sum is None else sequence.hidden_sum + total
            sequence.computed += chunk.count
        ready = [row for row, chunk in enumerate(chunks) if chunk.sequence.missing == 0]
        if ready:
            # On the CPU, so that a seed draws the same on every device.
            logits = functional.linear(hidden[ready, -1], self._model.head_weight).float().cpu()
            self._extend([chunks[row].sequence for row in ready], logits)

    def _extend(self, sequences: list[Sequence], logits: Tensor) -> None:
        """Samples the next token of each sequence from its row of logits [sequences, vocab]."""
        finite = logits.isfinite().all(dim=-1).tolist()
        log_probabilities = logits.log_softmax(dim=-1)
        greedy = logits.argmax(dim=-1).tolist()
        for row, sequence in enumerate(sequences):
            if not finite[row]:
                error = NonFiniteLogits(f"the model's logits are not finite after {sequence.computed} tokens")
                self._end(sequence, error)
                continue
            request, token = sequence.request, greedy[row]
            if request.temperature > 0:
                drawn = sample(logits[row : row + 1], request.temperature, request.top_p, sequence.generator)
                token = int(drawn)
            sequence.log_probability += float(log_probabilities[row, token])
            self._append(sequence, token)

    def _append(self, sequence: Sequence, token: int) -> None:
        sequence.ids.append(token)
        sequence.sampled += 1
        sequence.last_token = time.perf_counter()
        sequence.first_token = sequence.first_token or sequence.last_token
        reason: FinishReason | None = "length" if sequence.sampled >= sequence.max_tokens else None
        if token in self._stop_ids:
            reason, text = "stop", ""
        else:
            text = sequence.detokenizer.push(token)
        if reason:
            text += sequence.detokenizer.flush()
        if sequence.detokenizer.stopped:
            reason = "stop"
        if reason:
            finish = self._finish(sequence, reason)
            event = TokenEvent(sequence.text + text, 1 if sequence.request.stream else sequence.sampled, finish)
            self._end(sequence, event)
        elif sequence.request.stream:
            self._outbox.add(sequence, TokenEvent(text, 1))
        else:
            sequence.text += text

    def _finish(self, sequence: Sequence, reason: FinishReason) -> Finish:
        assert sequence.hidden_sum is not None
        between = sequence.last_token - sequence.first_token
        return Finish(
            finish_reason=reason,
            prompt_tokens=sequence.prompt_tokens,
            completion_tokens=sequence.sampled,
            queue_ms=1e3 * (sequence.started - sequence.submitted),
            first_token_ms=1e3 * (sequence.first_token - sequence.submitted),
            per_token_ms=1e3 * between / (sequence.sampled - 1) if sequence.sampled > 1 else None,
            total_ms=1e3 * (sequence.last_token - sequence.submitted),
            embedding=self._embedding(sequence.hidden_sum / sequence.prompt_tokens),
            mean_log_probability=sequence.log_probability / sequence.sampled,
        )

    def _embedding(self, mean: Tensor) -> tuple[float, ...]:
        projected = mean if self._projection is None else mean @ self._projection
        return tuple(round(value, 5) for value in projected.tolist())

    def _end(self, sequence: Sequence, last: TokenEvent | GenerationError) -> None:
        with self._wake:
            self._release(sequence)
        self._outbox.add(sequence, last)

    def _release(self, sequence: Sequence) -> None:
        # Wiped before another request gets the slot: a NaN left in it would come through the mask, as 0 x NaN.
        self._cache.reset(torch.tensor([sequence.slot]))
        self._scheduler.release(sequence)


def _groups(chunks: list[Chunk]) -> list[list[Chunk]]:
    """Chunks that one forward pass can take: decoding sequences together, each piece of a prompt by itself."""
    decoding = [chunk for chunk in chunks if chunk.count == 1]
    return ([decoding] if decoding else []) + [[chunk] for chunk in chunks if chunk.count > 1]


def _projection(hidden_size: int) -> Tensor | None:
    """[hidden, 32] Gaussian, which keeps distances (Johnson and Lindenstrauss, 1984); None where none is needed."""
    if hidden_size <= MAX_EMBEDDING_SIZE:
        return None
    generator = torch.Generator().manual_seed(PROJECTION_SEED)
    return torch.randn(hidden_size, PROJECTED_SIZE, generator=generator) / PROJECTED_SIZE**0.5
