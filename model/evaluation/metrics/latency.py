"""Time one request alone waits for its first token, and for each token after it.

The gate checks the first token's 95th percentile, a guard against a broken build: the rollout compares latency under
real load.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sluice.core.check import compare_exact, not_finite, too_few
from sluice.core.intervals import percentile
from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.finding import Finding
from sluice.model.evaluation.metric import Measured, Metric, Subject
from sluice.model.evaluation.metric_policy import MetricPolicy
from sluice.model.evaluation.results import Evaluation

if TYPE_CHECKING:
    from sluice.model.architecture.transformer import Transformer
    from sluice.model.text.prompt import PromptEncoder

NAME = "first_token_p95_ms"

POLICY = MetricPolicy(direction="lower", scale="mean", floor=3000.0, min_clusters=30)


def measure(subject: Subject) -> Measured:
    config = subject.config
    timings = measure_latency(
        subject.model,
        subject.encoder,
        [text for _, text in subject.held_out.test[: config.latency_prompts]],
        rounds=config.latency_rounds,
        max_tokens=config.latency_max_tokens,
        progress=subject.progress,
    )
    return Measured(timings=timings)


def measure_latency(
    model: "Transformer",
    encoder: "PromptEncoder",
    texts: Sequence[str],
    *,
    rounds: int,
    max_tokens: int,
    progress: Progress = no_progress,
) -> dict[str, float]:
    """Return medians and 95th percentiles in milliseconds, for prompts of up to half a context.

    The first token is measured `rounds` times per prompt; the tokens after it once, as each sample is a mean over
    `max_tokens` already. An answer never stops early here, so that all samples are of the same work.
    """
    from sluice.model.architecture.generation import generate
    from sluice.model.evaluation.prompts import completion_prompt

    def elapsed_ms(prompt: Sequence[int], tokens: int) -> tuple[float, int]:
        """Milliseconds of one answer, and its tokens."""
        started = time.perf_counter()
        generated = len(generate(model, prompt, tokens))
        return 1000 * (time.perf_counter() - started), generated

    prompts = [completion_prompt(encoder, text, max_tokens=model.config.context // 2) for text in texts]
    for prompt in prompts[:1]:
        generate(model, prompt, max_tokens)  # the first call pays for allocations that no later one does
    first_ms: list[float] = []
    per_token_ms: list[float] = []
    for done in range(rounds):
        first_ms += [elapsed_ms(prompt, 1)[0] for prompt in prompts]
        progress(done + 1, rounds + 1, "latency")
    for number, prompt in enumerate(prompts):
        whole_ms, tokens = elapsed_ms(prompt, max_tokens)
        if tokens > 1:
            per_token_ms.append((whole_ms - first_ms[number]) / (tokens - 1))
    progress(rounds + 1, rounds + 1, "latency")
    return _summary("first_token", first_ms) | _summary("per_token", per_token_ms)


def _summary(name: str, samples_ms: Sequence[float]) -> dict[str, float]:
    samples = np.array(samples_ms)
    return {
        f"{name}_p50_ms": percentile(samples, 0.5),
        f"{name}_p95_ms": percentile(samples, 0.95),
        f"{name}_samples": float(len(samples)),
    }


def check(evaluation: Evaluation, policy: MetricPolicy) -> Finding:
    assert policy.floor is not None, "the gate skips a metric without a floor"
    value, bound = evaluation.timings.get(NAME, np.nan), policy.floor
    n = int(evaluation.timings.get("first_token_samples", 0))
    if n < policy.min_clusters:
        return Finding(too_few(NAME, n, policy.min_clusters, bound))
    if not np.isfinite(value):
        return Finding(not_finite(NAME, n, n, bound))
    return Finding(compare_exact(NAME, value, bound, good="below", n=n, show="{:.0f} ms".format))


METRIC = Metric(
    name=NAME, title="First token, p95", policy=POLICY, measure=measure, check=check, show="{:.0f} ms".format
)
