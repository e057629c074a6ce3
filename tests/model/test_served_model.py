"""Models under evaluation behind a URL: requests in OpenAI's form, and faults of the server as errors of one answer."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from sluice.model.evaluation.evaluated import AnswerRequest, ContinuationRequest, Message
from sluice.model.evaluation.open_model import open_model
from sluice.model.evaluation.served_model import ServedModel

Handler = Callable[[httpx.Request], httpx.Response]


def served(handler: Handler, waits: list[float] | None = None) -> ServedModel:
    http = httpx.Client(base_url="http://server", transport=httpx.MockTransport(handler))
    return ServedModel(http, "m", wait=([] if waits is None else waits).append)


def answer(text: Any, reason: str = "stop", version: str = "v1") -> httpx.Response:
    choice = {"text": text, "message": {"content": text}, "finish_reason": reason}
    return httpx.Response(
        200, json={"choices": [choice], "usage": {"completion_tokens": 3}, "system_fingerprint": version}
    )


def test_text_and_conversations_go_to_their_own_paths_with_every_setting() -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.path, json.loads(request.content)))
        return answer("so")

    model = served(handler)
    chat = (Message("system", "Be brief."), Message("user", "Why?"))
    text = AnswerRequest("Once", 5, (".",), temperature=0.5, top_p=0.9, seed=7)
    found = model.generate([text]) + model.generate([AnswerRequest(chat, 5)])
    assert [(each.text, each.tokens, each.finish_reason) for each in found] == [("so", 3, "stop")] * 2
    common = {"model": "m", "max_tokens": 5}
    assert seen[0] == (
        "/v1/completions",
        {**common, "prompt": "Once", "temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["."]},
    )
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert seen[1] == (
        "/v1/chat/completions",
        {**common, "messages": turns, "temperature": 0.0, "top_p": 1.0, "seed": 0},
    )


def test_more_stop_strings_than_the_api_allows_still_end_the_answer() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert len(json.loads(request.content)["stop"]) == 4
        return answer("one two six three", "length")

    (found,) = served(handler).generate([AnswerRequest("Once", 9, ("a!", "b!", "c!", "d!", " six"))])
    assert (found.text, found.finish_reason) == ("one two", "stop")


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (httpx.Response(400, json={"error": {"message": "the prompt is too long"}}), "400: the prompt is too long"),
        (httpx.Response(500, text="oops"), "500: oops"),
        (httpx.Response(200, text="<html>"), "no answer in OpenAI's form"),
        (httpx.Response(200, json={"choices": []}), "no answer in OpenAI's form"),
        (answer(None), "ended with 'stop'"),
        (answer("cut", "content_filter"), "ended with 'content_filter'"),
    ],
)
def test_a_fault_of_the_server_is_the_error_of_one_answer(response: httpx.Response, said: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return response if json.loads(request.content)["prompt"] == "bad" else answer("fine")

    bad, good = served(handler).generate([AnswerRequest("bad", 4), AnswerRequest("good", 4)])
    assert (bad.finish_reason, bad.text) == ("error", "")
    assert said in bad.error
    assert good.text == "fine"


def test_a_time_out_is_the_error_of_one_answer() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("no answer within 120 s")

    (found,) = served(handler).generate([AnswerRequest("Once", 4)])
    assert found.finish_reason == "error"
    assert "ReadTimeout" in found.error


def test_a_full_server_is_asked_again_as_it_says_and_not_for_ever() -> None:
    refusals = [httpx.Response(503, headers={"retry-after": "3"}), httpx.Response(429)]
    waits: list[float] = []
    (found,) = served(lambda _: refusals.pop(0) if refusals else answer("at last"), waits).generate(
        [AnswerRequest("Once", 4)]
    )
    assert (found.text, waits) == ("at last", [3.0, 2.0])
    waits.clear()
    (refused,) = served(lambda _: httpx.Response(503, text="full"), waits).generate([AnswerRequest("Once", 4)])
    assert (refused.error, len(waits)) == ("503: full", 3)


def test_another_version_on_the_way_ends_the_evaluation() -> None:
    versions = iter(("v1", "v1", "v2"))
    model = served(lambda _: answer("so", version=next(versions)))
    with pytest.raises(ValueError, match="version v2 answers, and version v1 did before"):
        model.generate([AnswerRequest("Once", 4)] * 3)


def test_the_hash_is_that_of_server_model_and_version() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return answer("so")

    first = served(handler).model_hash
    assert first == served(handler).model_hash
    assert first != served(lambda _: answer("so", version="v2")).model_hash
    with pytest.raises(ValueError, match="401: wrong key"):
        _ = served(lambda _: httpx.Response(401, json={"error": {"message": "wrong key"}})).model_hash


def test_likelihoods_are_refused() -> None:
    model = served(lambda _: answer("so"))
    assert not model.can_score
    with pytest.raises(ValueError, match="gives no likelihoods"):
        model.score([ContinuationRequest("a", "b")])


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:9 does not answer"):
        open_model("http://127.0.0.1:9")
