"""A judge behind a URL with OpenAI's API. Every request is bounded in time and size, and repeated a few times."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import httpx

from sluice.core.canonical import canonical_json
from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.evaluated import AnswerRequest, Continuation, ContinuationRequest, GeneratedAnswer
from sluice.model.evaluation.parallel_answers import answer_in_parallel

URL_VARIABLE, MODEL_VARIABLE, KEY_VARIABLE = "SLUICE_JUDGE_URL", "SLUICE_JUDGE_MODEL", "SLUICE_JUDGE_KEY"
TIMEOUT_S = 60.0
_TRIES = 3
_MOST_WAIT_S = 10.0
_MOST_BYTES = 1_000_000


class _Again(Exception):
    """A fault that may be gone at the next try."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class JudgeServer:
    """A judge over HTTP. A request takes at most 3 times `timeout_s` and the waits between; a fault is an error of one
    answer.
    """

    can_score = False

    def __init__(
        self,
        url: str,
        model: str,
        key: str = "",
        *,
        timeout_s: float = TIMEOUT_S,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """`url` is the server's address, with or without `/v1`; `key` is sent as a bearer token."""
        if not url.startswith(("http://", "https://")) or not model:
            raise ValueError(
                f"judge {url!r} with model {model!r}: set {URL_VARIABLE} to an http(s) address and {MODEL_VARIABLE} to "
                "the name of a model there"
            )
        self._url, self._model = url.rstrip("/").removesuffix("/v1"), model
        self._timeout_s, self._wait = timeout_s, wait
        self._http = httpx.Client(headers={"authorization": f"Bearer {key}"} if key else {})

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "JudgeServer":
        """Connect to the judge that SLUICE_JUDGE_URL, _MODEL and _KEY name. ValueError where they name none."""
        url, model, key = (environment.get(name, "") for name in (URL_VARIABLE, MODEL_VARIABLE, KEY_VARIABLE))
        return cls(url, model, key)

    def is_served_at(self, name: str) -> bool:
        """Return whether `name`, URL[#MODEL], is this judge's model."""
        url, _, model = name.partition("#")
        return url.rstrip("/").removesuffix("/v1") == self._url and model in ("", self._model)

    @property
    def model_hash(self) -> str:
        """sha256 of address and model name: a server does not show its weights."""
        return hashlib.sha256(canonical_json([self._url, self._model])).hexdigest()

    def score(self, requests: Sequence[ContinuationRequest], progress: Progress = no_progress) -> list[Continuation]:
        """Raise ValueError: a judge writes its judgement."""
        raise ValueError(f"{self._url} gives no likelihoods: a judge generates")

    def generate(self, requests: Sequence[AnswerRequest], progress: Progress = no_progress) -> list[GeneratedAnswer]:
        """Ask the judge, some requests at a time."""
        return answer_in_parallel(self._answer, requests, progress, "judgements")

    def _answer(self, request: AnswerRequest) -> GeneratedAnswer:
        for tries in range(_TRIES):
            try:
                return self._ask(request)
            except _Again as fault:
                reason = str(fault)
                if tries < _TRIES - 1:
                    self._wait(min(2.0**tries if fault.wait_s is None else fault.wait_s, _MOST_WAIT_S))
        return GeneratedAnswer("", 0, "error", reason)

    def _ask(self, request: AnswerRequest) -> GeneratedAnswer:
        assert not isinstance(request.prompt, str), "a judge is asked in a conversation"
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [asdict(message) for message in request.prompt],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
        }
        content, deadline = bytearray(), time.monotonic() + self._timeout_s
        try:
            address = f"{self._url}/v1/chat/completions"
            with self._http.stream("POST", address, json=body, timeout=self._timeout_s) as response:
                for chunk in response.iter_bytes():
                    content += chunk
                    if len(content) > _MOST_BYTES:
                        return _failed(f"the reply is longer than {_MOST_BYTES:,} bytes")
                    # The client's own limit is for each read: a server that drips has no end.
                    if time.monotonic() > deadline:
                        raise _Again(f"no complete reply within {self._timeout_s:g} s")
        except httpx.TimeoutException:
            raise _Again(f"no reply within {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise _Again(f"{type(error).__name__}: {error}") from None
        text = content.decode("utf-8", errors="replace")
        if response.status_code == 429 or response.status_code >= 500:
            told = response.headers.get("retry-after", "")
            raise _Again(
                f"{response.status_code}: {text[:200]}", float(told) if told.isascii() and told.isdigit() else None
            )
        if response.status_code != 200:
            return _failed(f"{response.status_code}: {text[:200]}")
        return _read(text)


def _read(text: str) -> GeneratedAnswer:
    try:
        reply = json.loads(text)
        choice = reply["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        written, refusal = message.get("content"), message.get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        return _failed(f"no answer in OpenAI's form ({type(error).__name__}): {text[:200]}")
    if refusal:
        return _failed(f"the judge refuses: {str(refusal)[:200]}")
    if not isinstance(written, str) or reason not in ("stop", "length"):
        return _failed(f"ended with {reason!r}: {text[:200]}")
    if reason == "length":
        return _failed("the reply was cut at its most tokens")
    return GeneratedAnswer(written, 0, "stop")


def _failed(error: str) -> GeneratedAnswer:
    return GeneratedAnswer("", 0, "error", error)
