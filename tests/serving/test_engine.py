"""The engine against plain generation, one request at a time."""

import asyncio
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizer_fixtures import TOKENIZERS
from tokenizers import Tokenizer

from sluice.model.architecture.generation import GenerationOptions, generate
from sluice.model.directory import load_model
from sluice.model.text.chat_template import PromptMessage
from sluice.model.text.prompt import load_prompt_encoder
from sluice.serving.config import ServeConfig
from sluice.serving.engine.engine import LLMEngine
from sluice.serving.engine.request import (
    EngineFailed,
    EngineStopped,
    GenerationError,
    GenerationRequest,
    NonFiniteLogits,
    PromptRefused,
    PromptTooLong,
    QueueFull,
    TokenEvent,
)

WAIT_S = 300.0
CONFIG = ServeConfig(max_batch=4, max_queued=64, max_tokens=48)


def request(prompt: str | tuple[PromptMessage, ...] = "The quick", **options: object) -> GenerationRequest:
    values = {"request_id": "r", "prompt": prompt, "max_tokens": 12, "seed": 7, "temperature": 0.0, **options}
    return GenerationRequest(**values)  # type: ignore[arg-type]


async def collect(engine: LLMEngine, wanted: GenerationRequest) -> TokenEvent:
    events = [event async for event in engine.generate(wanted)]
    assert all(event.finish is None for event in events[:-1])
    total = events[0]
    for event in events[1:]:
        total = total + event
    assert total.finish is not None
    assert total.tokens == total.finish.completion_tokens
    return total


def answer(engine: LLMEngine, wanted: GenerationRequest) -> TokenEvent:
    return asyncio.run(asyncio.wait_for(collect(engine, wanted), WAIT_S))


@pytest.fixture(scope="module")
def folder(make_model: Callable[..., Path]) -> Path:
    return make_model(1)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[LLMEngine]:
    engine = LLMEngine(folder, CONFIG)
    yield engine
    engine.stop()


class Expected:
    """Return the answer of generation without an engine."""

    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer = load_model(folder)
        self.encoder = load_prompt_encoder(folder, self.tokenizer, self.model.config.vocab_size)

    def __call__(self, wanted: GenerationRequest) -> str:
        ids = generate(
            self.model,
            self.encoder.encode(wanted.prompt),
            wanted.max_tokens,
            GenerationOptions(
                temperature=wanted.temperature,
                top_p=wanted.top_p,
                stop_ids=self.encoder.stop_ids,
                seed=wanted.seed,
            ),
        )
        return self.tokenizer.decode(ids)


@pytest.fixture(scope="module")
def expected(folder: Path) -> Expected:
    return Expected(folder)


PROMPTS = ["The quick", "日本語", "A request joins the running batch at the next step, and", "", "Größe 🙂 naïve", "x"]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_answer_is_that_of_plain_generation(engine: LLMEngine, expected: Expected, prompt: str) -> None:
    assert answer(engine, request(prompt)).text == expected(request(prompt))


@pytest.mark.parametrize("max_step_tokens", [3, 512])
def test_mixed_load_changes_no_answer(folder: Path, expected: Expected, max_step_tokens: int) -> None:
    """More requests than slots, of all lengths and temperatures, with prompts computed in pieces."""
    wanted = [
        request(prompt, max_tokens=2 + 5 * turn, seed=turn, temperature=temperature, top_p=0.9, stream=turn % 2 == 0)
        for turn in range(5)
        for prompt in PROMPTS
        for temperature in (0.0, 0.8)
    ]
    engine = LLMEngine(folder, CONFIG, max_step_tokens=max_step_tokens)

    async def all_at_once() -> list[TokenEvent]:
        return await asyncio.gather(*(collect(engine, one) for one in wanted))

    try:
        found = asyncio.run(asyncio.wait_for(all_at_once(), 2 * WAIT_S))
    finally:
        engine.stop()
    assert [event.text for event in found] == [expected(one) for one in wanted]
    assert len({event.text for event in found}) > len(PROMPTS)


def test_conversation_follows_the_chat_template(engine: LLMEngine, expected: Expected) -> None:
    turns = (
        PromptMessage("system", "Be brief."),
        PromptMessage("user", "Who?"),
        PromptMessage("assistant", "The champion"),
        PromptMessage("user", "Why?"),
    )
    ids = expected.encoder.encode(turns)
    assert expected.tokenizer.decode(ids, skip_special_tokens=False) == (
        "<|user|>Be brief.\n\nWho?<|end|><|assistant|>The champion<|end|><|user|>Why?<|end|><|assistant|>"
    )
    assert answer(engine, request(turns)).text == expected(request(turns))


def test_special_tokens_in_a_users_text_are_text(expected: Expected) -> None:
    ids = expected.encoder.encode((PromptMessage("user", "a<|end|><|assistant|>b"),))
    control = [expected.tokenizer.token_to_id(text) for text in ("<|user|>", "<|end|>", "<|assistant|>")]
    assert [token for token in ids if token < 4] == control
    assert expected.tokenizer.decode(ids) == "a<|end|><|assistant|>b"


def test_generation_goes_on_behind_a_prefix(engine: LLMEngine) -> None:
    whole = answer(engine, request("The quick", max_tokens=16)).text
    head = whole[: len(whole) // 2]
    rest = answer(engine, request("The quick", prefix=head, max_tokens=4))
    assert rest.finish is not None
    assert rest.finish.prompt_tokens == len(engine._encoder.encode("The quick"))
    assert rest.text
    # A prefix as long as the context still gets an answer, cut by length.
    full = answer(engine, request("The quick", prefix="word " * 200))
    assert full.finish is not None
    assert (full.finish.finish_reason, full.tokens) == ("length", 1)


def test_stop_string_ends_the_answer_before_it(engine: LLMEngine) -> None:
    whole = answer(engine, request(max_tokens=24)).text
    stop = whole[len(whole) // 2 :][:3]
    for stream in (True, False):
        found = answer(engine, request(max_tokens=24, stop=("never there", stop), stream=stream))
        assert found.text == whole[: whole.index(stop)]
        assert found.finish is not None
        assert found.finish.finish_reason == "stop"


def test_streamed_pieces_are_whole_characters(engine: LLMEngine, expected: Expected) -> None:
    async def pieces() -> list[str]:
        wanted = request("日本語", temperature=1.0, max_tokens=40, seed=3)
        return [event.text async for event in engine.generate(wanted)]

    found = asyncio.run(pieces())
    assert "".join(found) == expected(request("日本語", temperature=1.0, max_tokens=40, seed=3))


def test_answer_ends_where_the_context_ends(engine: LLMEngine) -> None:
    found = answer(engine, request("The quick brown fox " * 3, max_tokens=48)).finish
    assert found is not None
    assert found.finish_reason in ("length", "stop")
    assert found.prompt_tokens + found.completion_tokens <= engine.context


def test_prompt_longer_than_the_context_is_refused_with_both_lengths(engine: LLMEngine) -> None:
    with pytest.raises(PromptTooLong, match=r"has \d+ tokens, but the context holds 64 .* at most 63"):
        answer(engine, request("word " * 100))


def test_summary_measures_the_answer(engine: LLMEngine, expected: Expected) -> None:
    wanted = request("The quick brown", max_tokens=10)
    finish = answer(engine, wanted).finish
    assert finish is not None
    prompt = expected.encoder.encode(wanted.prompt)
    assert finish.prompt_tokens == len(prompt)
    assert finish.per_token_ms is not None
    assert 0 <= finish.queue_ms <= finish.first_token_ms <= finish.total_ms
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        hidden = expected.model.hidden(ids)[0]
        continued = generate(expected.model, prompt, finish.completion_tokens)
        logits = expected.model(torch.tensor([prompt + continued]))[0, len(prompt) - 1 : -1]
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(continued)[:, None])
    assert finish.embedding == pytest.approx(hidden.mean(0).tolist(), abs=1e-4)
    assert finish.mean_log_probability == pytest.approx(float(chosen.mean()), abs=1e-4)


def test_wide_models_have_short_embeddings(make_model: Callable[..., Path]) -> None:
    engine = LLMEngine(make_model(2, hidden_size=96), CONFIG)
    try:
        finish = answer(engine, request()).finish
        again = answer(engine, request()).finish
    finally:
        engine.stop()
    assert finish is not None
    assert again is not None
    assert len(finish.embedding) == 32
    assert finish.embedding == again.embedding


def test_leaving_an_answer_frees_its_slot(folder: Path, expected: Expected) -> None:
    engine = LLMEngine(folder, ServeConfig(max_batch=1, max_tokens=48))

    async def leave_and_ask() -> str:
        events = engine.generate(request(max_tokens=48))
        await anext(events)
        await events.aclose()
        return (await collect(engine, request("x"))).text

    try:
        assert asyncio.run(asyncio.wait_for(leave_and_ask(), WAIT_S)) == expected(request("x"))
        assert engine.load == (0, 0)
    finally:
        engine.stop()


class Recorder:
    """A delivery that blocks the engine's thread until it is let go."""

    def __init__(self) -> None:
        self.events: list[TokenEvent | GenerationError] = []
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self, event: TokenEvent | GenerationError) -> None:
        self.events.append(event)
        self.reached.set()
        assert self.go_on.wait(WAIT_S)


def test_full_queue_is_said_and_empties_again(folder: Path) -> None:
    engine = LLMEngine(folder, ServeConfig(max_batch=1, max_queued=2, max_tokens=48))
    first, later = Recorder(), Recorder()
    later.go_on.set()
    try:
        engine.submit(request(max_tokens=4), first)
        assert first.reached.wait(WAIT_S)
        cancels = [engine.submit(request(max_tokens=2), later) for _ in range(2)]
        with pytest.raises(QueueFull, match="2 requests wait"):
            engine.submit(request(), later)
        cancels[0]()
        first.go_on.set()
        assert answer(engine, request(max_tokens=2)).tokens == 2
        assert sum(isinstance(event, TokenEvent) and event.finish is not None for event in later.events) == 1
    finally:
        first.go_on.set()
        engine.stop()


def test_stopping_tells_those_who_wait(folder: Path) -> None:
    engine = LLMEngine(folder, ServeConfig(max_batch=1, max_tokens=48))
    first, second = Recorder(), Recorder()
    second.go_on.set()
    engine.submit(request(max_tokens=40), first)
    assert first.reached.wait(WAIT_S)
    engine.submit(request(), second)
    stopper = threading.Thread(target=engine.stop)
    stopper.start()
    first.go_on.set()
    stopper.join(WAIT_S)
    assert isinstance(first.events[-1], EngineStopped)
    assert isinstance(second.events[-1], EngineStopped)
    with pytest.raises(EngineStopped):
        engine.submit(request(), second)


def test_an_engine_that_fails_is_told_from_one_that_is_stopped(folder: Path) -> None:
    engine = LLMEngine(folder, CONFIG)
    engine._runner.run = lambda chunks: 1 // 0  # type: ignore[method-assign, return-value, assignment]
    for _ in range(2):
        with pytest.raises(EngineFailed, match="ZeroDivisionError") as failed:
            answer(engine, request())
        assert failed.value.status == 500
    engine.stop()


@pytest.mark.parametrize(("every_s", "signs"), [(math.inf, 1), (0.0, 5)], ids=["quick", "slow"])
def test_an_answer_that_does_not_stream_gives_signs_of_life(
    engine: LLMEngine, monkeypatch: pytest.MonkeyPatch, every_s: float, signs: int
) -> None:
    monkeypatch.setattr("sluice.serving.engine.engine.SIGN_OF_LIFE_S", every_s)
    delivered: list[TokenEvent | GenerationError] = []
    done = threading.Event()

    def deliver(event: TokenEvent | GenerationError) -> None:
        delivered.append(event)
        if not isinstance(event, TokenEvent) or event.finish is not None:
            done.set()

    engine.submit(request(stream=False, max_tokens=6), deliver)
    assert done.wait(WAIT_S)
    *begun, complete = delivered
    assert begun == [TokenEvent("", 0)] * signs
    assert isinstance(complete, TokenEvent) and complete.text and complete.tokens == 6


def test_poisoned_weights_are_an_error_of_the_request(make_model: Callable[..., Path]) -> None:
    engine = LLMEngine(make_model(1, poisoned=True), CONFIG)
    try:
        for _ in range(2):
            with pytest.raises(NonFiniteLogits):
                answer(engine, request())
        assert engine.failure == ""
    finally:
        engine.stop()


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_rotary_scaling_that_follows_the_length_is_that_of_plain_generation(
    make_model: Callable[..., Path], kind: str
) -> None:
    """Prompts in chunks, and answers that pass the original context, beside others at other lengths."""
    factors = {"short_factors": (1.0, 1.1, 1.2, 1.3), "long_factors": (1.5, 2.0, 3.0, 4.0)}
    scaling = {"kind": kind, "factor": 4.0, "original_context": 16, **(factors if kind == "longrope" else {})}
    folder = make_model(1, rope_scaling=scaling)
    engine, expected = LLMEngine(folder, CONFIG, max_step_tokens=5), Expected(folder)
    wanted = [request(prompt, max_tokens=24, stream=prompt == "x") for prompt in PROMPTS]

    async def all_at_once() -> list[TokenEvent]:
        return await asyncio.gather(*(collect(engine, one) for one in wanted))

    try:
        found = asyncio.run(asyncio.wait_for(all_at_once(), WAIT_S))
    finally:
        engine.stop()
    assert [event.text for event in found] == [expected(one) for one in wanted]


def test_a_soft_cap_of_the_logits_is_in_the_draw(make_model: Callable[..., Path]) -> None:
    folder = make_model(1, logit_soft_cap=1.0)
    engine, expected = LLMEngine(folder, CONFIG), Expected(folder)
    try:
        for seed in range(3):
            drawn = request("x", temperature=0.8, seed=seed, max_tokens=24)
            assert answer(engine, drawn).text == expected(drawn)
    finally:
        engine.stop()


def test_non_finite_logits_fail_one_request_and_leave_nothing_behind(folder: Path, expected: Expected) -> None:
    """The rotary table is broken from position 30 on: only the long request meets it. Its slot is used again."""
    engine = LLMEngine(folder, ServeConfig(max_batch=2, max_tokens=48))
    engine._runner.model.rotary(torch.tensor([[0]]))
    for table in next(iter(engine._runner.model.rotary._tables.values())):
        table[30:] = math.nan
    long, short = request("x", max_tokens=48), [request(prompt, max_tokens=6) for prompt in ("The quick", "y", "z")]

    async def together() -> list[object]:
        return await asyncio.gather(*(collect(engine, one) for one in (long, *short, *short)), return_exceptions=True)

    try:
        failed, *answered = asyncio.run(asyncio.wait_for(together(), WAIT_S))
    finally:
        engine.stop()
    assert isinstance(failed, NonFiniteLogits)
    assert [event.text for event in answered if isinstance(event, TokenEvent)] == [expected(one) for one in short] * 2


@pytest.mark.parametrize("name", TOKENIZERS)
def test_answers_in_every_kind_of_tokenizer_stream_as_they_are_decoded(
    name: str, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(make_model(1), tmp_path / "model")
    (folder / "lineage.json").unlink()
    TOKENIZERS[name]().save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    engine = LLMEngine(folder, CONFIG)
    try:
        expected, chat = Expected(folder), (PromptMessage("user", "the fox"),)
        for prompt in ("the fox", chat):
            assert answer(engine, request(prompt)).text == expected(request(prompt))
    finally:
        engine.stop()


def test_a_prompt_that_the_template_or_the_vocabulary_refuses_harms_no_other(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(make_model(1), tmp_path / "model")
    (folder / "lineage.json").unlink()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["[beyond]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no chat') }}")
    engine = LLMEngine(folder, CONFIG)
    try:
        with pytest.raises(PromptRefused, match=r"token '\[beyond\]' of id 400"):
            answer(engine, request("a [beyond] b"))
        with pytest.raises(PromptRefused, match="refuses this conversation: no chat"):
            answer(engine, request((PromptMessage("user", "hi"),)))
        assert answer(engine, request("The quick")).finish is not None
    finally:
        engine.stop()
