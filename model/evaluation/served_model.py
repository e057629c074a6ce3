"""A model behind a URL with OpenAI's API, as a model under evaluation: it generates, and gives no likelihoods."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import httpx

from sluice.core.canonical import canonical_json
from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.evaluated import AnswerRequest, Continuation, ContinuationRequest, GeneratedAnswer
from sluice.model.evaluation.parallel_answers import answer_in_parallel

TIMEOUT_S = 120.0
_MOST_STOPS = 4  # of OpenAI's API; further stop strings are applied to the answer
_TRIES = 4
_MOST_WAIT_S = 10.0
_BUSY = (429, 503)
_HEADERS = {"x-sluice-source": "replay", "x-sluice-arm": "champion"}  # no user's traffic, and not a rollout's share


class ServedModel:
    """One model of a server. The version that answers must not change during an evaluation."""

    can_score = False

    def __init__(self, http: httpx.Client, name: str = "", *, wait: Callable[[float], object] = time.sleep) -> None:
        """`http` has the server's address and key; without the name of a model the server must have only one."""
        self._http, self._wait = http, wait
        self._name = name or _only_model(http)
        self._lock = threading.Lock()
        self._version: str | None = None

    @classmethod
    def connect(cls, url: str, *, key: str | None = None, timeout_s: float = TIMEOUT_S) -> "ServedModel":
        """Connect to `URL[#MODEL]`. Raises ValueError where nothing answers."""
        address, _, name = url.partition("#")
        key = key or os.environ.get("SLUICE_API_KEY", "")
        http = httpx.Client(
            base_url=address.rstrip("/").removesuffix("/v1"),
            timeout=timeout_s,
            headers={"authorization": f"Bearer {key}"} if key else {},
        )
        return cls(http, name)

    @property
    def model_hash(self) -> str:
        """sha256 of address, model name and the version that the server's answers name."""
        if self._version is None:
            probe = self._answer(AnswerRequest(".", 1))
            if probe.finish_reason == "error":
                raise ValueError(f"{self._http.base_url}: {probe.error}")
        return hashlib.sha256(canonical_json([str(self._http.base_url), self._name, self._version])).hexdigest()

    def score(self, requests: Sequence[ContinuationRequest], progress: Progress = no_progress) -> list[Continuation]:
        """Raise ValueError: OpenAI's API has no likelihoods of given text."""
        raise ValueError(
            f"{self._http.base_url} gives no likelihoods: name a model directory, or a suite that generates"
        )

    def generate(self, requests: Sequence[AnswerRequest], progress: Progress = no_progress) -> list[GeneratedAnswer]:
        """Answer the requests, some at a time. Raises ValueError if the server's version changes on the way."""
        return answer_in_parallel(self._answer, requests, progress, "answers")

    def _answer(self, request: AnswerRequest) -> GeneratedAnswer:
        """One answer; a refusal, an error or a time-out is a GeneratedAnswer too."""
        body: dict[str, Any] = {
            "model": self._name,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
        }
        if request.stop:
            body["stop"] = list(request.stop[:_MOST_STOPS])
        if isinstance(request.prompt, str):
            path, body["prompt"] = "/v1/completions", request.prompt
        else:
            path, body["messages"] = "/v1/chat/completions", [asdict(message) for message in request.prompt]
        try:
            response = self._post(path, body)
        except httpx.HTTPError as error:
            return _failed(f"{type(error).__name__}: {error}")
        if response.status_code != 200:
            return _failed(f"{response.status_code}: {_message(response)}")
        try:
            content = response.json()
            choice = content["choices"][0]
            text = choice["text"] if isinstance(request.prompt, str) else choice["message"]["content"]
            tokens, reason = int(content["usage"]["completion_tokens"]), choice["finish_reason"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            return _failed(f"no answer in OpenAI's form ({type(error).__name__}): {response.text[:200]}")
        if not isinstance(text, str) or reason not in ("stop", "length"):
            return _failed(f"ended with {reason!r}: {response.text[:200]}")
        self._keep_version(response.headers.get("x-sluice-version") or str(content.get("system_fingerprint") or ""))
        if cut := [at for stop in request.stop if (at := text.find(stop)) >= 0]:
            text, reason = text[: min(cut)], "stop"
        return GeneratedAnswer(text, tokens, reason)

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        for tries in range(_TRIES):
            response = self._http.post(path, json=body, headers=_HEADERS)
            if response.status_code not in _BUSY or tries == _TRIES - 1:
                break
            told = response.headers.get("retry-after", "")
            self._wait(min(float(told) if told.isdigit() else 2.0**tries, _MOST_WAIT_S))
        return response

    def _keep_version(self, version: str) -> None:
        with self._lock:
            if self._version is None:
                self._version = version
            if self._version != version:
                raise ValueError(
                    f"{self._http.base_url}: version {version or 'without a name'} answers, and version "
                    f"{self._version or 'without a name'} did before: evaluate again when no release is under way"
                )


def _only_model(http: httpx.Client) -> str:
    address = http.base_url
    try:
        response = http.get("/v1/models")
    except httpx.HTTPError as error:
        raise ValueError(f"{address} does not answer ({type(error).__name__}: {error}): start the server") from None
    if response.status_code in (401, 403):
        raise ValueError(f"{address} refuses the key: set SLUICE_API_KEY to the server's")
    try:
        names = [str(each["id"]) for each in response.json()["data"]]
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{address} answers {response.status_code} to /v1/models, without a list: name a server with OpenAI's API"
        ) from None
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise ValueError(f"{address} has not one model but {found}: name it, {address}#MODEL")
    return names[0]


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]


def _failed(error: str) -> GeneratedAnswer:
    return GeneratedAnswer("", 0, "error", error)
