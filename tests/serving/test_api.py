"""Requests as OpenAI's clients write them, and as nobody should: what is read, and what each refusal names."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.serving.api import (
    NEUTRAL,
    WITHOUT_EFFECT,
    ApiError,
    ChatCompletionRequest,
    CompletionRequest,
    parse,
)

USER = {"role": "user", "content": "Who answers?"}
MOST_TOKENS = 48


def chat(**fields: Any) -> ChatCompletionRequest:
    request, _ = parse(ChatCompletionRequest, json.dumps({"messages": [USER], **fields}).encode(), MOST_TOKENS)
    assert isinstance(request, ChatCompletionRequest)
    return request


def refusal(body: bytes | dict[str, Any], kind: Any = ChatCompletionRequest) -> ApiError:
    with pytest.raises(ApiError) as refused:
        parse(kind, body if isinstance(body, bytes) else json.dumps(body).encode(), MOST_TOKENS)
    return refused.value


def content(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        # Values are not converted.
        ({"max_tokens": True}, "max_tokens", "should be a valid integer, not true"),
        ({"max_tokens": "12"}, "max_tokens", 'should be a valid integer, not "12"'),
        ({"max_tokens": 12.0}, "max_tokens", "should be a valid integer, not 12.0"),
        ({"max_completion_tokens": "12"}, "max_completion_tokens", 'should be a valid integer, not "12"'),
        ({"temperature": True}, "temperature", "should be a valid number, not true"),
        ({"temperature": "0.5"}, "temperature", 'should be a valid number, not "0.5"'),
        ({"top_p": "1"}, "top_p", 'should be a valid number, not "1"'),
        ({"seed": "5"}, "seed", 'should be a valid integer, not "5"'),
        ({"seed": 1.5}, "seed", "should be a valid integer, not 1.5"),
        ({"stream": "true"}, "stream", 'should be a valid boolean, not "true"'),
        ({"stream": 1}, "stream", "should be a valid boolean, not 1"),
        ({"stream": True, "stream_options": True}, "stream_options", "should be an object, not true"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage", "not 1"),
        ({"stop": 5}, "stop", "must be text or a list of texts, not 5"),
        ({"stop": ["a", 5]}, "stop.1", "should be a valid string, not 5"),
        ({"stop": [None]}, "stop.0", "should be a valid string, not null"),
        ({"model": 5}, "model", "should be a valid string, not 5"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "text or a list of parts"),
        ({"messages": [{"role": "user", "content": True}]}, "messages.0.content", "not true"),
        ({"messages": [{**USER, "name": 5}]}, "messages.0.name", "should be a valid string, not 5"),
        ({"messages": "hello"}, "messages", 'should be a valid list, not "hello"'),
        ({"messages": ["hello"]}, "messages.0", 'should be an object, not "hello"'),
        # Ranges.
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1, not 0"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 1, not -1"),
        ({"max_tokens": 49}, "max_tokens", "max_tokens 49 exceeds this server's limit of 48"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "greater than or equal to 1, not 0"),
        ({"max_completion_tokens": 49}, "max_completion_tokens", "max_completion_tokens 49 exceeds"),
        ({"max_tokens": 10**400}, "max_tokens", "000... exceeds"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0, not -0.1"),
        ({"temperature": 2.1}, "temperature", "less than or equal to 2, not 2.1"),
        ({"top_p": 0}, "top_p", "greater than 0, not 0"),
        ({"top_p": 1.1}, "top_p", "less than or equal to 1, not 1.1"),
        ({"seed": 2**63}, "seed", "less than 9223372036854775808, not 9223372036854775808"),
        ({"stop": [""]}, "stop", "empty stop string"),
        ({"stop": ""}, "stop", "empty stop string"),
        ({"stop": list("abcde")}, "stop", "at most 4"),
        ({"messages": []}, "messages", "at least 1"),
        # Fields that belong together.
        ({"max_tokens": 4, "max_completion_tokens": 8}, "max_tokens", "beside max_completion_tokens; leave one out"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed with stream=true"),
        ({"stream": False, "stream_options": {}}, "stream_options", "only allowed with stream=true"),
        # Messages.
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "last message must be the user's"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "'user'"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "is missing"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content", "is missing"),
        ({"messages": [{"content": "x"}]}, "messages.0.role", "Field required"),
        ({"messages": [{**USER, "tool_calls": [{"id": "1"}]}]}, "messages.0.tool_calls", "not supported"),
        ({"messages": [{**USER, "weight": 1}]}, "messages.0.weight", "unknown field messages.0.weight"),
        (content(), "messages.0.content", "text or a list of parts of type 'text', not []"),
        (content({"type": "text"}), "messages.0.content.0.text", "Field required"),
        (content({"type": "text", "text": None}), "messages.0.content.0.text", "Field required"),
        (content({"type": "text", "text": 5}), "messages.0.content.0.text", "should be a valid string, not 5"),
        (content("hello"), "messages.0.content.0", 'should be an object, not "hello"'),
        (content({"text": "a"}), "messages.0.content.0.type", "Field required"),
        (
            content({"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}),
            "messages.0.content.1.type",
            "should be 'text', not \"image_url\"",
        ),
        # Unsupported and unknown.
        ({"n": 2}, "n", "2 is not supported; leave it out or send 1"),
        ({"n": True}, "n", "true is not supported"),
        ({"logprobs": True}, "logprobs", "true is not supported; leave it out or send false"),
        ({"logprobs": 0}, "logprobs", "0 is not supported"),
        ({"top_logprobs": 2}, "top_logprobs", "2 is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "json_object"),
        ({"tools": [{"type": "function"}]}, "tools", "not supported; leave it out or send []"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "0.5 is not supported"),
        ({"frequency_penalty": False}, "frequency_penalty", "false is not supported"),
        ({"logit_bias": {"5": -100}}, "logit_bias", "not supported"),
        ({"top_k": 40}, "top_k", "40 is not supported; leave it out or send -1 or send 0"),
        ({"temprature": 1}, "temprature", "unknown field temprature; did you mean temperature?"),
        ({"x" * 500: 1}, "x" * 60, "unknown field xxx"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_allowed(fields: dict[str, Any], param: str, message: str) -> None:
    error = refusal({"messages": [USER], **fields})
    assert (error.status, error.param) == (400, param)
    assert message in error.message and len(error.message) < 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON: EOF"),
        (b"{", "the body is not JSON"),
        (b"\xff\xfe", "the body is not JSON"),
        (b'{"messages": "\\ud800"}', "the body is not JSON"),
        (b'{"temperature": NaN}', "the body is not JSON"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "the body is not JSON: number out of range"),
        (b"[" * 1000 + b"]" * 1000, "the body is not JSON: recursion limit"),
        (b"[1]", "the body must be a JSON object, not [1]"),
        (b"null", "the body must be a JSON object, not null"),
        (json.dumps({"messages": [USER]}).encode()[:-1] + b', "temperature": 1e999}', "should be a finite number"),
    ],
)
def test_a_body_that_is_no_request_is_said(body: bytes, message: str) -> None:
    error = refusal(body)
    assert error.status == 400 and message in error.message


@pytest.mark.parametrize("prompt", [5, None, [], ["a", "b"], [1, 2], [[1]], {"a": 1}, True])
def test_a_plain_completion_continues_one_text(prompt: Any) -> None:
    error = refusal({"prompt": prompt}, CompletionRequest)
    assert (error.status, error.param) == (400, "prompt")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["text", "user"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "role"]), inner),
    max_leaves=6,
)
FIELDS = [*ChatCompletionRequest.model_fields, *CompletionRequest.model_fields, *NEUTRAL, *WITHOUT_EFFECT, "other"]


@given(st.sampled_from(FIELDS), VALUES, st.sampled_from([ChatCompletionRequest, CompletionRequest]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_value_is_more_than_a_refusal(name: str, value: Any, kind: Any) -> None:
    body = {"messages": [USER]} if kind is ChatCompletionRequest else {"prompt": "x"}
    try:
        request, _ = parse(kind, json.dumps({**body, name: value}).encode(), MOST_TOKENS)
        request.to_engine("id", MOST_TOKENS, 0)
    except ApiError as error:
        assert error.status in (400, 404) and len(error.message) < 400 and json.dumps(error.body)


def test_what_openais_clients_send_is_read() -> None:
    assert chat().limit is None
    assert chat(max_tokens=4).limit == chat(max_completion_tokens=4, max_tokens=None).limit == 4
    assert chat(temperature=1).temperature == 1.0
    assert chat(stop="a").stop == ["a"] and chat(stop=None).stop == []
    assert chat(stream=True, stream_options={"include_usage": True}).include_usage
    assert not chat(stream_options=None).include_usage
    for name, values in NEUTRAL.items():
        assert all(chat(**{name: value}) == chat() for value in (None, *values))
    assert chat(frequency_penalty=0.0, n=1.0) == chat()
    parts = [{"type": "text", "text": "Who "}, {"type": "text", "text": "answers?"}]
    assert chat(messages=[{"role": "user", "content": parts}]).turns == chat().turns


@pytest.mark.parametrize("fields", [{}, {"content": None}, {"content": None, "tool_calls": []}, {"content": ""}])
def test_an_assistants_turn_may_be_empty(fields: dict[str, Any]) -> None:
    turns = chat(messages=[USER, {"role": "assistant", **fields}, USER]).turns
    assert [turn.content for turn in turns] == [USER["content"], "", USER["content"]]
