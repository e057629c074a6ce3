"""A model directory under evaluation, trained here or imported, with special tokens and template of its own files."""

from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from sluice.core.progress import Progress, no_progress
from sluice.model.directory import load_model, model_hash
from sluice.model.evaluation.decoding import PendingAnswer, decode
from sluice.model.evaluation.evaluated import AnswerRequest, Continuation, ContinuationRequest, GeneratedAnswer, Prompt
from sluice.model.evaluation.likelihood import Span, span_likelihoods
from sluice.model.evaluation.parity import KeptAnswer
from sluice.model.evaluation.perplexity import windows
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
        asked = [self._tokens(request) for request in requests]
        spans = [self._spans(request, tokens) for request, tokens in zip(requests, asked, strict=True)]
        found = iter(span_likelihoods(self.model, [span for own in spans for span in own], progress))
        results = []
        for request, tokens, own in zip(requests, asked, spans, strict=True):
            parts = [next(found) for _ in own]
            nats = tuple(value for part in parts for value in part.token_nats)
            texts = self._texts(tokens.ids[tokens.start :][: len(nats)])
            # WordPiece drops case and white space, so the text of the tokens counts only where the end is missing.
            is_whole = len(nats) == len(tokens.ids) - tokens.start
            text = request.continuation if is_whole else "".join(texts)
            results.append(
                Continuation(sum(nats), nats, texts, len(text.encode()), all(part.is_greedy for part in parts))
            )
        return results

    def generate(self, requests: Sequence[AnswerRequest], progress: Progress = no_progress) -> list[GeneratedAnswer]:
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
            GeneratedAnswer("", 0, "error", errors[index], refused=index not in answers)
            if index in errors
            else GeneratedAnswer(text.whole(), answers[index].sampled, "stop" if text.stopped else "length")
            for index, text in enumerate(texts)
        ]

    def keep_greedy(
        self, prompts: Sequence[Prompt], max_tokens: int, progress: Progress = no_progress
    ) -> list[KeptAnswer]:
        """Return the greedy answers by token. Prompts that leave no space for `max_tokens` are left out, and so are
        those that the chat template refuses and those without finite logits.
        """
        pending: list[tuple[Prompt, int, PendingAnswer]] = []
        for prompt in prompts:
            try:
                ids = self.encode(prompt)
            except ValueError:
                continue
            if len(ids) + max_tokens <= self.model.config.context:
                ends = self._encoder.stop_ids.__contains__
                pending.append((prompt, len(ids), PendingAnswer(ids, max_tokens, ends)))
        decode(self.model, [answer for _, _, answer in pending])
        kept = []
        for done, (prompt, start, answer) in enumerate(pending, 1):
            if not answer.failed:
                leads = tuple(round(lead, 5) for lead in answer.leads)
                kept.append(KeptAnswer(prompt, max_tokens, self._texts(answer.ids[start:]), leads))
            progress(done, len(pending), "greedy answers to keep")
        return kept

    def _prompt(self, request: AnswerRequest) -> list[int]:
        """Token ids of a prompt that leaves space for an answer. ValueError for another."""
        ids, context = self.encode(request.prompt), self.model.config.context
        most = context - request.max_tokens
        if request.cut_prompt and len(ids) > most:
            begin = self._encoder.start_ids
            if most <= len(begin):
                raise ValueError(
                    f"an answer of {request.max_tokens} tokens leaves no space in the context of {context}"
                )
            return [*begin, *ids[len(ids) - most + len(begin) :]]
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

    def _tokens(self, request: ContinuationRequest) -> Span:
        """All tokens of a request, however many."""
        if not request.continuation:
            raise ValueError("an empty continuation has no likelihood")
        if not isinstance(request.prompt, str):
            before = self.encode(request.prompt)
            return Span([*before, *self._encoder.encode_text(request.continuation)], len(before))
        # A token may begin with the white space at the prompt's end, so it belongs to the continuation.
        prompt = request.prompt.rstrip()
        before = self.encode(prompt)
        ids = self.encode(request.prompt + request.continuation)
        if not prompt or len(ids) <= len(before):
            # Nothing before, or the tokens of prompt and continuation are not to be told apart.
            ids = [*before, *self._encoder.encode_text(request.prompt[len(prompt) :] + request.continuation)]
        begin = []
        if request.starts_document and prompt and not self._encoder.start_ids:
            begin = self._encoder.document_start
        return Span([*begin, *ids], len(begin) + len(before))

    def _spans(self, request: ContinuationRequest, tokens: Span) -> list[Span]:
        """Spans that score a request's tokens: one, or windows of a longer text."""
        context, before, scored = self.model.config.context, tokens.ids[: tokens.start], tokens.ids[tokens.start :]
        if request.whole and len(scored) > context:
            return windows([before[-1], *scored], context)
        # The last token is only a target, so a span has one token more than the model reads.
        scored = scored[:context]
        if tokens.start > (kept := context + 1 - len(scored)):
            begin = self._encoder.start_ids[:kept]
            before = [*begin, *before[tokens.start - kept + len(begin) :]]
        return [Span([*before, *scored], len(before))]

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
