"""OpenAI's HTTP schemas: requests, responses and errors.

A field of OpenAI's API that changes no answer (`store`, `metadata`) is ignored, and the answer says so. An unsupported
field that would change the answer (`n=2`, `tools`) is an error unless it has its neutral value, and so is an unknown
field, which may be misspelt: no setting is ignored silently. Values are not converted: `"12"` is no number.
"""

import json
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError, from_json

from sluice.model.text.chat_template import PromptMessage
from sluice.serving.engine.request import Finish, GenerationRequest

WITHOUT_EFFECT = {
    "cache_salt",
    "metadata",
    "parallel_tool_calls",
    "priority",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
}
# Unsupported fields, with their neutral values besides null: OpenAI's, then those that vLLM adds.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
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
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "repetition_penalty": (1,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "top_k": (-1, 0),
    "use_beam_search": (False,),
}
# The same for a message, so that an answer's message can be sent back as it came.
NEUTRAL_IN_MESSAGE: dict[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "reasoning": (),
    "reasoning_content": (),
    "refusal": (),
    "tool_calls": ([],),
}
MODEL_NAME = "sluice"
"""The one model name of requests and answers; the release decides which version answers."""
MOST_SHOWN = 60
"""Characters of a wrong value that an error quotes."""
SSE_DONE = "data: [DONE]\n\n"


class ApiError(Exception):
    """An error response in OpenAI's format."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_s = retry_after_s
        self.more_headers: dict[str, str] = {}

    @property
    def body(self) -> dict[str, Any]:
        kind = {401: "authentication_error", 503: "overloaded_error", 504: "timeout_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        return self.more_headers | ({"retry-after": str(self.retry_after_s)} if self.retry_after_s else {})


class Strict(BaseModel):
    """An object of a request: known fields of exactly their types. A null is a field left out."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        kept = {name: value for name, value in fields.items() if value is not None}
        for name in [name for name in kept if name in cls.neutral]:
            value, allowed = kept.pop(name), cls.neutral[name]
            # `true` equals 1 in Python, and is another value in JSON.
            if not any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in allowed):
                choices = ["leave it out", *(f"send {_shown(each)}" for each in allowed)]
                raise _refusal(name, f"{_shown(value)} is not supported; {' or '.join(choices)}")
        return kept


Object = TypeVar("Object", bound=Strict)


class StreamOptions(Strict):
    """`stream_options` of a streamed request."""

    include_usage: bool = False
    include_obfuscation: bool = False


class TextPart(Strict):
    """One part of a message's content."""

    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    """One turn; `content` is text, or OpenAI's list of text parts."""

    neutral = NEUTRAL_IN_MESSAGE

    role: Literal["system", "developer", "user", "assistant"]
    content: list[TextPart] = []
    name: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _parts(cls, content: Any) -> Any:
        if isinstance(content, str):
            return [{"type": "text", "text": content}]
        if not isinstance(content, list) or not content:
            raise ValueError(f"must be text or a list of parts of type 'text', not {_shown(content)}")
        return content

    @model_validator(mode="after")
    def _says_something(self) -> "ChatMessage":
        # As in vLLM: an assistant's turn without content is an empty one.
        if not self.content and self.role != "assistant":
            raise _refusal("content", f"is missing, and a message of role '{self.role}' needs it")
        return self

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content)


class SamplingRequest(Strict):
    """Fields that both kinds of completion share."""

    object_prefix: ClassVar[str]
    neutral = NEUTRAL

    model: str = MODEL_NAME
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    stop: list[str] = Field(default=[], max_length=4)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str = ""
    """The requests of one user are one session, which meets one version, unless a header names another."""

    @field_validator("stop", mode="before")
    @classmethod
    def _list(cls, stop: Any) -> Any:
        if not isinstance(stop, str | list):
            raise ValueError(f"must be text or a list of texts, not {_shown(stop)}")
        return [stop] if isinstance(stop, str) else stop

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, stop: list[str]) -> list[str]:
        if not all(stop):
            raise ValueError("an empty stop string would end every answer at once")
        return stop

    @model_validator(mode="after")
    def _streams(self) -> "SamplingRequest":
        if self.stream_options is not None and not self.stream:
            raise _refusal("stream_options", "is only allowed with stream=true")
        return self

    @property
    def limit(self) -> int | None:
        """Most tokens of the answer; None: the server's limit."""
        return self.max_tokens

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
            max_tokens=self.limit or max_tokens,
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
    max_completion_tokens: int | None = Field(None, ge=1)
    """OpenAI's newer name of max_tokens."""

    @model_validator(mode="after")
    def _has_one_limit(self) -> "ChatCompletionRequest":
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise _refusal("max_tokens", "cannot be sent beside max_completion_tokens; leave one out")
        return self

    @model_validator(mode="after")
    def _ends_with_the_user(self) -> "ChatCompletionRequest":
        if self.messages[-1].role != "user":
            role = self.messages[-1].role
            raise _refusal("messages", f"the last message must be the user's, not of role '{role}'")
        return self

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def turns(self) -> tuple[PromptMessage, ...]:
        return tuple(
            PromptMessage("system" if message.role == "developer" else message.role, message.text)
            for message in self.messages
        )


class Parsed(NamedTuple):
    """A valid request, and the names of its fields that change no answer."""

    request: SamplingRequest
    ignored: tuple[str, ...]


def parse(kind: type[SamplingRequest], body: bytes, most_tokens: int) -> Parsed:
    """Return the validated request; raise ApiError 400 (404 for another model) naming the wrong field."""
    fields = _json_object(body)
    ignored = tuple(sorted(name for name in WITHOUT_EFFECT if fields.pop(name, None) is not None))
    request = _validated(kind, fields)
    check_model(request.model)
    if request.limit and request.limit > most_tokens:
        name = "max_tokens" if request.max_tokens else "max_completion_tokens"
        raise ApiError(400, f"{name} {_shown(request.limit)} exceeds this server's limit of {most_tokens}", param=name)
    return Parsed(request, ignored)


def parse_strict(kind: type[Object], body: bytes) -> Object:
    """Return the body as this kind of object; raise ApiError 400 naming the wrong field."""
    return _validated(kind, _json_object(body))


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        fields = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ApiError(400, f"the body must be a JSON object, not {_shown(fields)}")
    return fields


def _validated(kind: type[Object], fields: dict[str, Any]) -> Object:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error.errors(include_url=False)[0], kind) from None


def check_model(name: str) -> None:
    """Raise ApiError 404 for the name of another model."""
    if name != MODEL_NAME:
        message = f"there is no model {_shown(name)}; use '{MODEL_NAME}'"
        raise ApiError(404, message, param="model", code="model_not_found")


def _refusal(field: str, reason: str) -> PydanticCustomError:
    """Return the error of a validator of a whole object about one of its fields."""
    return PydanticCustomError("refused", "{reason}", {"field": field, "reason": reason})


def _invalid(error: ErrorDetails, kind: type[Strict]) -> ApiError:
    """Return the response to an invalid field: its name, what is allowed, and what it is."""
    path = [*error["loc"], *([error["ctx"]["field"]] if error["type"] == "refused" else [])]
    field = ".".join(str(part) for part in path)
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        similar = get_close_matches(field, {*kind.model_fields, *NEUTRAL, *WITHOUT_EFFECT}, 1)
        meant = f"; did you mean {similar[0]}?" if similar else ""
        return ApiError(400, f"unknown field {field[:MOST_SHOWN]}{meant}", param=field[:MOST_SHOWN])
    if error["type"] == "model_type":
        message = "Input should be an object"
    if error["type"] not in ("missing", "refused", "value_error") and ", not " not in message:
        message = f"{message}, not {_shown(error['input'])}"
    return ApiError(400, f"{field}: {message}", param=field)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


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
            "model": MODEL_NAME,
            "system_fingerprint": f"{MODEL_NAME}-v{version}",
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


def model_entry(created: int) -> dict[str, Any]:
    """Return the body of GET /v1/models/sluice."""
    return {"id": MODEL_NAME, "object": "model", "created": created, "owned_by": "sluice"}


def model_list(created: int) -> dict[str, Any]:
    """Return the body of GET /v1/models."""
    return {"object": "list", "data": [model_entry(created)]}
