"""OpenAI's HTTP schemas: requests, responses and errors.

A field of OpenAI's API without effect here (`user`, `metadata`) is ignored. An unsupported field that would change the
answer (`n=2`, `tools`) is an error unless it has its neutral value, and so is a field that OpenAI does not have: no
setting is ignored silently.
"""

import json
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sluice.model.text.chat_template import PromptMessage
from sluice.serving.engine.request import Finish, GenerationRequest

_WITHOUT_EFFECT = {
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
}
# Unsupported fields, with their neutral values besides null.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False, 0),
    "modalities": (["text"],),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
MODEL_NAME = "sluice"
"""The one model name that requests may use; the release decides which version answers."""
SSE_DONE = "data: [DONE]\n\n"

AnyRequest = TypeVar("AnyRequest", bound="SamplingRequest")


class ApiError(Exception):
    """An error response in OpenAI's format."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        kind = {401: "authentication_error", 503: "overloaded_error", 504: "timeout_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": str(self.retry_after_s)} if self.retry_after_s else {}


class StreamOptions(BaseModel):
    """`stream_options` of a streamed request."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatMessage(BaseModel):
    """One turn; `content` is text, or OpenAI's list of text parts."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str
    name: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, content: Any) -> Any:
        if not isinstance(content, list):
            return content
        if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            raise ValueError("only parts of type 'text' are supported")
        return "".join(str(part.get("text", "")) for part in content)


class SamplingRequest(BaseModel):
    """Fields that both kinds of completion share."""

    model_config = ConfigDict(extra="forbid")
    object_prefix: ClassVar[str]

    model: str = MODEL_NAME
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    stop: list[str] = Field(default=[], max_length=4)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        kept = {}
        for name, value in fields.items():
            if name in _NEUTRAL:
                if value is not None and value not in _NEUTRAL[name]:
                    raise ValueError(f"{name} {json.dumps(value)[:60]} is not supported; leave it out")
            elif name not in _WITHOUT_EFFECT and value is not None:
                kept[name] = value
        return kept

    @field_validator("stop", mode="before")
    @classmethod
    def _list(cls, stop: Any) -> Any:
        return [stop] if isinstance(stop, str) else stop

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, stop: list[str]) -> list[str]:
        if not all(stop):
            raise ValueError("an empty stop string would end every answer at once")
        return stop

    @property
    def turns(self) -> str | tuple[PromptMessage, ...]:
        raise NotImplementedError

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def to_engine(self, request_id: str, max_tokens: int, seed: int) -> GenerationRequest:
        """Return the request for the engine; `max_tokens` and `seed` apply where the request has none."""
        return GenerationRequest(
            request_id=request_id,
            prompt=self.turns,
            max_tokens=self.max_tokens or max_tokens,
            seed=seed if self.seed is None else self.seed,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=tuple(self.stop),
            stream=self.stream,
        )


class CompletionRequest(SamplingRequest):
    """POST /v1/completions: continue a text."""

    object_prefix = "cmpl"

    prompt: str

    @field_validator("prompt", mode="before")
    @classmethod
    def _single(cls, prompt: Any) -> Any:
        if isinstance(prompt, list):
            if len(prompt) != 1 or not isinstance(prompt[0], str):
                raise ValueError("only a single text prompt is supported, not a list of prompts or of token ids")
            return prompt[0]
        return prompt

    @property
    def turns(self) -> str:
        return self.prompt


class ChatCompletionRequest(SamplingRequest):
    """POST /v1/chat/completions: answer a conversation."""

    object_prefix = "chatcmpl"

    messages: list[ChatMessage] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("max_completion_tokens") is not None:
            fields = dict(fields)
            fields.setdefault("max_tokens", fields.pop("max_completion_tokens"))
        return fields

    @model_validator(mode="after")
    def _ends_with_the_user(self) -> "ChatCompletionRequest":
        if self.messages[-1].role != "user":
            raise ValueError(f"the last message must be the user's, not of role '{self.messages[-1].role}'")
        return self

    @property
    def turns(self) -> tuple[PromptMessage, ...]:
        return tuple(
            PromptMessage("system" if message.role == "developer" else message.role, message.content)
            for message in self.messages
        )


def parse(kind: type[AnyRequest], body: bytes, most_tokens: int) -> AnyRequest:
    """Return the validated request; raise ApiError 400 (404 for another model) naming the wrong field."""
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"unknown field {field}"
        elif field:
            message = f"{field}: {message}"
        raise ApiError(400, message, param=field) from None
    if request.model != MODEL_NAME:
        message = f"there is no model '{request.model}'; use '{MODEL_NAME}'"
        raise ApiError(404, message, param="model", code="model_not_found")
    if request.max_tokens and request.max_tokens > most_tokens:
        message = f"max_tokens {request.max_tokens} exceeds this server's limit of {most_tokens}"
        raise ApiError(400, message, param="max_tokens")
    return request


def usage(finish: Finish) -> dict[str, int]:
    """Return OpenAI's token counts."""
    prompt, completion = finish.prompt_tokens, finish.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class ResponseBuilder:
    """Builder of the response to one request, complete or in chunks."""

    def __init__(self, request: SamplingRequest, request_id: str, version: str, created: int) -> None:
        self._is_chat = isinstance(request, ChatCompletionRequest)
        self._include_usage = request.include_usage
        self._common = {
            "id": f"{request.object_prefix}-{request_id}",
            "created": created,
            "model": f"{MODEL_NAME}-v{version}",
        }

    def complete(self, text: str, finish: Finish) -> dict[str, Any]:
        """Return the body of a response that does not stream."""
        name = "chat.completion" if self._is_chat else "text_completion"
        content = {"message": {"role": "assistant", "content": text}} if self._is_chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish.finish_reason}
        return {**self._common, "object": name, "choices": [choice], "usage": usage(finish)}

    def opening(self) -> str:
        """Return the first chunk of a streamed chat response; empty for a plain completion."""
        return self._chunk([self._choice({"role": "assistant", "content": ""})]) if self._is_chat else ""

    def chunk(self, text: str) -> str:
        """Return a chunk with the next text; empty without text."""
        return self._chunk([self._choice({"content": text} if self._is_chat else text)]) if text else ""

    def closing(self, finish: Finish) -> str:
        """Return the last chunks of a streamed response."""
        closing = self._chunk([self._choice({} if self._is_chat else "", finish.finish_reason)])
        if self._include_usage:
            closing += self._chunk([], usage=usage(finish))
        return closing + SSE_DONE

    def _choice(self, content: Any, finish_reason: str | None = None) -> dict[str, Any]:
        name = "delta" if self._is_chat else "text"
        return {"index": 0, name: content, "logprobs": None, "finish_reason": finish_reason}

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> str:
        name = "chat.completion.chunk" if self._is_chat else "text_completion"
        if self._include_usage:
            more.setdefault("usage", None)
        return f"data: {json.dumps({**self._common, 'object': name, 'choices': choices, **more})}\n\n"


def stream_error(error: ApiError) -> str:
    """Return the chunks that end a streamed response with an error."""
    return f"data: {json.dumps(error.body)}\n\n{SSE_DONE}"


def model_list(created: int) -> dict[str, Any]:
    """Return the body of GET /v1/models."""
    model = {"id": MODEL_NAME, "object": "model", "created": created, "owned_by": "sluice"}
    return {"object": "list", "data": [model]}
