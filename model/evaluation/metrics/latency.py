"""Cost of an answer: the time until its first token and for each token after it, memory, and money.

The gate checks the first token's 95th percentile, a guard against a broken build: the rollout compares latency under
real load.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sluice.core.check import compare_exact, not_finite, too_few
from sluice.core.intervals import percentile
from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.finding import GateFinding
from sluice.model.evaluation.metric import Measured, Metric, Subject
from sluice.model.evaluation.metric_policy import MetricPolicy
from sluice.model.evaluation.results import Evaluation

if TYPE_CHECKING:
    from sluice.model.architecture.transformer import Transformer
    from sluice.model.text.prompt import PromptEncoder

NAME = "first_token_p95_ms"

POLICY = MetricPolicy(direction="lower", scale="mean", floor=3000.0, min_clusters=30)


def measure(subject: Subject) -> Measured:
    return measure_in_turns([subject])[0]


def measure_in_turns(subjects: Sequence[Subject]) -> list[Measured]:
    """Measure models that are to be compared: each prompt is answered by all before the next, so that whatever else
    the machine does meets them alike.
    """
    config = subjects[0].config
    timings = measure_latency(
        [(subject.model, subject.encoder) for subject in subjects],
        [text for _, text in subjects[0].held_out.test[: config.latency_prompts]],
        rounds=config.latency_rounds,
        max_tokens=config.latency_max_tokens,
        price_per_hour=config.price_per_hour,
        progress=subjects[0].progress,
    )
    return [Measured(timings=each) for each in timings]


def measure_latency(
    models: "Sequence[tuple[Transformer, PromptEncoder]]",
    texts: Sequence[str],
    *,
    rounds: int,
    max_tokens: int,
    price_per_hour: float | None = None,
    progress: Progress = no_progress,
    clock: Callable[[], float] = time.perf_counter,
) -> list[dict[str, float]]:
    """Return for each model the percentiles in milliseconds of the first token, of each token after it and of whole
    answers, the tokens per second, the memory, and with a price per hour the money for 1,000 answers.

    Prompts have up to half a context. The first token is measured `rounds` times per prompt; the tokens after it once,
    as each sample is a mean over `max_tokens` already. An answer never stops early here, so that all samples are of the
    same work. One request runs at a time.
    """
    from sluice.model.architecture.cache import Cache
    from sluice.model.architecture.generation import generate
    from sluice.model.evaluation.prompts import completion_prompt

    def elapsed_ms(number: int, prompt: Sequence[int], tokens: int) -> tuple[float, int]:
        """Milliseconds of one answer, and its tokens."""
        started = clock()
        generated = len(generate(models[number][0], prompt, tokens))
        return 1000 * (clock() - started), generated

    prompts = [
        [completion_prompt(encoder, text, max_tokens=model.config.context // 2) for text in texts]
        for model, encoder in models
    ]
    samples = [_Samples() for _ in models]
    for (model, _), own in zip(models, prompts, strict=True):
        for prompt in own[:1]:
            generate(model, prompt, max_tokens)  # the first call pays for allocations that no later one does
    for done in range(rounds):
        for place in range(len(texts)):
            for number, own in enumerate(prompts):
                samples[number].first_ms.append(elapsed_ms(number, own[place], 1)[0])
        progress(done + 1, rounds + 1, "latency")
    for place in range(len(texts)):
        for number, own in enumerate(prompts):
            whole_ms, tokens = elapsed_ms(number, own[place], max_tokens)
            samples[number].answer_ms.append(whole_ms)
            samples[number].tokens += tokens
            if tokens > 1:
                samples[number].token_ms.append((whole_ms - samples[number].first_ms[place]) / (tokens - 1))
    progress(rounds + 1, rounds + 1, "latency")
    timings = []
    for (model, _), found in zip(models, samples, strict=True):
        weights = sum(weight.nbytes for weight in model.parameters())
        cache = Cache(model.config, 1, dtype=model.embedding.weight.dtype, device="meta").size_bytes
        timings.append(found.summary(price_per_hour) | {"memory_bytes": float(weights + cache)})
    return timings


@dataclass
class _Samples:
    """Measurements of one model, in milliseconds."""

    first_ms: list[float] = field(default_factory=list)
    token_ms: list[float] = field(default_factory=list)
    answer_ms: list[float] = field(default_factory=list)
    tokens: int = 0
    """Tokens of all whole answers."""

    def summary(self, price_per_hour: float | None) -> dict[str, float]:
        named = {"first_token": self.first_ms, "per_token": self.token_ms, "answer": self.answer_ms}
        found: dict[str, float] = {}
        for name, samples_ms in named.items():
            samples = np.array(samples_ms)
            found |= {f"{name}_p{round(100 * share)}_ms": percentile(samples, share) for share in (0.5, 0.95, 0.99)}
            found[f"{name}_samples"] = float(len(samples))
        seconds = sum(self.answer_ms) / 1000
        found["tokens_per_s"] = self.tokens / seconds if seconds > 0 else float("nan")
        if price_per_hour is not None and self.answer_ms:
            found["price_per_1000_answers"] = price_per_hour * seconds / len(self.answer_ms) / 3600 * 1000
        return found


def check(evaluation: Evaluation, policy: MetricPolicy) -> GateFinding:
    assert policy.floor is not None, "the gate skips a metric without a floor"
    value, bound = evaluation.timings.get(NAME, np.nan), policy.floor
    n = int(evaluation.timings.get("first_token_samples", 0))
    if n < policy.min_clusters:
        unit = "samples: raise evaluate.latency_prompts"
        return GateFinding(too_few(NAME, n, policy.min_clusters, bound, unit=unit))
    if not np.isfinite(value):
        return GateFinding(not_finite(NAME, n, n, bound))
    return GateFinding(compare_exact(NAME, value, bound, good="below", n=n, show="{:.0f} ms".format))


METRIC = Metric(
    name=NAME, title="First token, p95", policy=POLICY, measure=measure, check=check, show="{:.0f} ms".format
)
