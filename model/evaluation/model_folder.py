"""A model directory under evaluation, trained here or imported, with special tokens and template of its own files."""

from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from sluice.core.progress import Progress, no_progress
from sluice.model.directory import load_model, model_hash
from sluice.model.evaluation.decoding import PendingAnswer, decode
from sluice.model.evaluation.evaluated import Continuation, ContinuationRequest, Generation, GenerationRequest, Prompt
from sluice.model.evaluation.likelihood import Span, span_likelihoods
from sluice.model.text.chat_template import PromptMessage
from sluice.model.text.detokenizer import Detokenizer, text_streams
from sluice.model.text.prompt import load_prompt_encoder


class ModelFolder:
    """A decoder in float32, on the GPU if there is one. Prompts are encoded as the server encodes them."""

    can_score = True

    def __init__(self, folder: Path) -> None:
        """Load the directory. Raises ValueError naming what is damaged, missing or not supported."""
        self.model, self.tokenizer = load_model(folder)
        if (kind := self.model.config.kind) != "decoder":
            raise ValueError(f"{folder}: a model of kind {kind} continues no text: name a decoder's directory")
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._hash = model_hash(folder)
        self._encoder = load_prompt_encoder(folder, self.tokenizer, self.model.config.vocab_size)
        self._new_stream = text_streams(self.tokenizer)

    @property
    def model_hash(self) -> str:
        """sha256 of the files that determine the model's answers."""
        return self._hash

    def score(self, requests: Sequence[ContinuationRequest], progress: Progress = no_progress) -> list[Continuation]:
        """Score the continuations. A prompt that does not fit the context before its continuation is cut at its
        beginning, and a continuation longer than the context at its end. ValueError for an empty continuation.
        """
        spans = [self._span(request) for request in requests]
        likelihoods = span_likelihoods(self.model, [span for span, _ in spans], progress)
        results = []
        for request, (span, whole), found in zip(requests, spans, likelihoods, strict=True):
            tokens = self._texts(span.ids[span.start :])
            # WordPiece drops case and white space, so the text of the tokens counts only where the end is missing.
            text = request.continuation if whole else "".join(tokens)
            results.append(
                Continuation(
                    nats=sum(found.token_nats),
                    token_nats=tuple(found.token_nats),
                    tokens=tokens,
                    scored_bytes=len(text.encode()),
                    is_greedy=found.is_greedy,
                )
            )
        return results

    def generate(self, requests: Sequence[GenerationRequest], progress: Progress = no_progress) -> list[Generation]:
        """Answer the requests, many at a time. A prompt that fills the context or that the chat template refuses is an
        error, and so are logits that are not finite.
        """
        texts = [_Text(Detokenizer(self._new_stream(), request.stop), self._encoder.stop_ids) for request in requests]
        answers: dict[int, PendingAnswer] = {}
        errors: dict[int, str] = {}
        for index, (request, text) in enumerate(zip(requests, texts, strict=True)):
            try:
                ids = self._prompt(request)
            except ValueError as error:
                errors[index] = str(error)
                continue
            answers[index] = PendingAnswer(
                ids,
                min(request.max_tokens, self.model.config.context - len(ids)),
                text.push,
                request.temperature,
                request.top_p,
                request.seed,
            )
        ended = 0

        def finished() -> None:
            nonlocal ended
            ended += 1
            progress(ended, len(answers), "answers")

        decode(self.model, list(answers.values()), finished)
        errors |= {index: "the model's logits are not finite" for index, answer in answers.items() if answer.failed}
        return [
            Generation("", 0, "error", errors[index])
            if index in errors
            else Generation(text.whole(), answers[index].sampled, "stop" if text.stopped else "length")
            for index, text in enumerate(texts)
        ]

    def _prompt(self, request: GenerationRequest) -> list[int]:
        """Token ids of a prompt that leaves space for an answer. ValueError for another."""
        ids, context = self.encode(request.prompt), self.model.config.context
        if len(ids) >= context:
            raise ValueError(f"the prompt has {len(ids)} tokens, and the context of {context} no space for an answer")
        return ids

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt; plain text begins with what begins a text, a conversation with what its template
        writes.
        """
        if not isinstance(prompt, str):
            return self._encoder.encode([PromptMessage(message.role, message.content) for message in prompt])
        return self._encoder.encode(prompt)

    def _span(self, request: ContinuationRequest) -> tuple[Span, bool]:
        """Tokens to score, and whether they are all of the continuation."""
        context = self.model.config.context
        if not request.continuation:
            raise ValueError("an empty continuation has no likelihood")
        if isinstance(request.prompt, str):
            # A token may begin with the white space at the prompt's end, so it belongs to the continuation.
            prompt = request.prompt.rstrip()
            before = self.encode(prompt)
            ids = self.encode(request.prompt + request.continuation)
            start = len(before)
            if not prompt or len(ids) <= start:
                # Nothing before, or the tokens of prompt and continuation are not to be told apart.
                ids = [*before, *self._encoder.encode_text(request.prompt[len(prompt) :] + request.continuation)]
            if request.starts_document and prompt and not self._encoder.start_ids:
                begin = self._encoder.document_start
                before, ids, start = [*begin, *before], [*begin, *ids], start + len(begin)
        else:
            before = self.encode(request.prompt)
            ids, start = [*before, *self._encoder.encode_text(request.continuation)], len(before)
        # The last token is only a target, so a span has one token more than the model reads.
        scored = ids[start:][:context]
        if start > (kept := context + 1 - len(scored)):
            begin = list(self._encoder.start_ids[:kept])
            before = [*begin, *before[start - kept + len(begin) :]]
        return Span([*before, *scored], len(before)), len(scored) == len(ids) - start

    def _texts(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Text of each token; joined they are the whole text, so of a character's tokens the last has it."""
        stream = self._new_stream()
        texts = [stream.push(token) for token in ids]
        return (*texts[:-1], texts[-1] + stream.flush())


class _Text:
    """Text of one answer, which ends at a stop token or before a stop string."""

    def __init__(self, detokenizer: Detokenizer, stop_ids: Collection[int]) -> None:
        self._detokenizer, self._stop_ids = detokenizer, stop_ids
        self._parts: list[str] = []
        self.stopped = False

    def push(self, token: int) -> bool:
        """Add a token; return whether the answer ends."""
        if token in self._stop_ids:
            self.stopped = True
        else:
            self._parts.append(self._detokenizer.push(token))
            self.stopped = self._detokenizer.stopped
        return self.stopped

    def whole(self) -> str:
        """The complete text."""
        text = "".join((*self._parts, self._detokenizer.flush()))
        self.stopped = self.stopped or self._detokenizer.stopped
        return text
