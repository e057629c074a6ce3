"""The inference engine: continuous batching over the key-value cache, in one background thread.

Requests join and leave the running batch at every step (iteration-level scheduling, Orca, OSDI 2022).
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import torch
from torch import Tensor

from sluice.model.text.detokenizer import Detokenizer, text_streams
from sluice.model.text.prompt import load_prompt_encoder
from sluice.serving.config import ServeConfig
from sluice.serving.engine.model_runner import ModelRunner
from sluice.serving.engine.outbox import Outbox
from sluice.serving.engine.request import (
    SIGN_OF_LIFE_S,
    EngineFailed,
    EngineStopped,
    GenerationError,
    GenerationRequest,
    NonFiniteLogits,
    PromptRefused,
    PromptTooLong,
    TokenEvent,
)
from sluice.serving.engine.sampling import sample_next
from sluice.serving.engine.scheduler import Scheduler
from sluice.serving.engine.sequence import Delivery, Sequence

MAX_STEP_TOKENS = 512
STOP_TIMEOUT_S = 10.0


class LLMEngine:
    """One model, answering up to `config.max_batch` requests together.

    An answer depends on its request alone, because every request has its own random generator. (Kernels may round
    differently at another batch size in the last bit, so only a tie between two tokens could be decided otherwise.)
    """

    def __init__(self, folder: Path, config: ServeConfig, max_step_tokens: int = MAX_STEP_TOKENS) -> None:
        """Load the model directory; raise ValueError naming a file that is missing or damaged."""
        self._config = config
        self._runner = ModelRunner(folder, config.max_batch)
        self._scheduler = Scheduler(config.max_batch, config.max_queued, max_step_tokens)
        self._encoder = load_prompt_encoder(folder, self._runner.tokenizer, self._runner.model.config.vocab_size)
        self._stop_ids = self._encoder.stop_ids
        self._new_stream = text_streams(self._runner.tokenizer)
        self._outbox = Outbox()
        self._wake = threading.Condition()
        """Guards the scheduler's queues; notified of new and cancelled requests, and of the end."""
        self._stopped = False
        self._failure = ""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def context(self) -> int:
        """Longest sequence of prompt and answer, in tokens."""
        return self._runner.model.config.context

    @property
    def failure(self) -> str:
        """The error that ended the engine; empty while it runs."""
        return self._failure

    @property
    def load(self) -> tuple[int, int]:
        """Numbers of running and of waiting requests."""
        with self._wake:
            return len(self._scheduler.running), len(self._scheduler.waiting)

    def step(self) -> None:
        """Compute the next tokens of the running sequences: schedule, run, postprocess."""
        for chunks in self._scheduler.schedule():
            logits = self._runner.run(chunks)
            self._postprocess([chunk.sequence for chunk in chunks if chunk.sequence.missing == 0], logits)
            self._outbox.send()

    def _postprocess(self, sequences: list[Sequence], logits: Tensor) -> None:
        """Sample a token per row of logits [sequences, vocab], deliver its text, and end what is complete or failed."""
        for sequence, sampled in zip(sequences, sample_next(logits, sequences), strict=True):
            if sampled is None:
                error = NonFiniteLogits(f"the model's logits are not finite after {sequence.computed} tokens")
                self._end(sequence, error)
                continue
            text, reason = sequence.append(*sampled, self._stop_ids)
            is_streamed = sequence.request.stream
            if reason:
                finish = sequence.finish(reason, self._runner.embedding(sequence))
                self._end(sequence, TokenEvent(sequence.text + text, 1 if is_streamed else sequence.sampled, finish))
                continue
            if is_streamed:
                self._outbox.add(sequence, TokenEvent(text, 1))
            else:
                sequence.text += text
                if sequence.last_token - sequence.last_sign >= SIGN_OF_LIFE_S:
                    sequence.last_sign = sequence.last_token
                    self._outbox.add(sequence, TokenEvent("", 0))
            self._runner.reread(sequence)

    def _end(self, sequence: Sequence, last: TokenEvent | GenerationError) -> None:
        with self._wake:
            self._release(sequence)
        self._outbox.add(sequence, last)

    def _release(self, sequence: Sequence) -> None:
        slot = sequence.slot
        self._runner.fill_gap(slot, self._scheduler.release(sequence))

    @torch.inference_mode()
    def _run(self) -> None:
        """The thread: steps while there is work, until `stop` or an error."""
        torch.set_num_threads(self._config.threads)
        try:
            while self._wait_for_work():
                self.step()
        except Exception as error:
            # Not the fault of one request: the replica's owner reads `failure` and starts another engine.
            self._failure = f"{type(error).__name__}: {error}"
        reason = self._ended()
        with self._wake:
            left = [*self._scheduler.running, *self._scheduler.waiting]
            self._scheduler.running, self._stopped = [], True
            self._scheduler.waiting.clear()
        for sequence in left:
            if not sequence.cancelled:
                self._outbox.add(sequence, reason)
        self._outbox.send()

    def _wait_for_work(self) -> bool:
        """Release cancelled sequences and admit waiting ones until there is work; False when the engine is to stop."""
        with self._wake:
            while True:
                for sequence in self._scheduler.cancelled():
                    self._release(sequence)
                for sequence in self._scheduler.admit():
                    sequence.started = time.perf_counter()
                if self._stopped or self._scheduler.running:
                    return not self._stopped
                self._wake.wait()

    def submit(
        self, request: GenerationRequest, deliver: Delivery, loop: asyncio.AbstractEventLoop | None = None
    ) -> Callable[[], None]:
        """Queue a request and return the function that cancels it.

        `deliver` is called with TokenEvents, on `loop` if one is given, otherwise in the engine's thread; the last call
        has an event with `finish`, or a GenerationError. Raises PromptTooLong, PromptRefused, QueueFull,
        EngineStopped and EngineFailed.
        """
        sequence = self._sequence(request, deliver, loop)
        with self._wake:
            if self._stopped or self._failure:
                raise self._ended()
            self._scheduler.add(sequence)
            self._wake.notify()

        def cancel() -> None:
            with self._wake:
                self._scheduler.cancel(sequence)
                self._wake.notify()

        return cancel

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        """Yield the answer's events as they come; events that arrived since the last poll are merged.

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
        """End the thread; unfinished requests get EngineStopped."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        self._thread.join(timeout=STOP_TIMEOUT_S)

    def _ended(self) -> GenerationError:
        return EngineFailed(self._failure) if self._failure else EngineStopped("the engine was stopped")

    def _sequence(
        self, request: GenerationRequest, deliver: Delivery, loop: asyncio.AbstractEventLoop | None
    ) -> Sequence:
        try:
            prompt = self._encoder.encode(request.prompt)
            prefix = self._encoder.encode_text(request.prefix) if request.prefix else []
        except ValueError as error:
            raise PromptRefused(str(error)) from error
        if len(prompt) >= self.context:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens, but the context holds {self.context} with the answer: "
                f"shorten it to at most {self.context - 1} tokens"
            )
        # A prefix that fills the context still gets one token, and with it the finish reason `length`.
        ids = (prompt + prefix)[: self.context - 1]
        return Sequence(
            request=request,
            ids=ids,
            prompt_tokens=len(prompt),
            max_tokens=min(request.max_tokens, self._config.max_tokens, self.context - len(ids)),
            deliver=deliver,
            loop=loop,
            detokenizer=Detokenizer(self._new_stream(), request.stop),
            generator=torch.Generator().manual_seed(request.seed),
            submitted=time.perf_counter(),
        )
