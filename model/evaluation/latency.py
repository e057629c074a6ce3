"""How long one request alone waits for its first token, and for each token after it."""

import time
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from sluice.core.intervals import percentile
from sluice.core.progress import Progress, no_progress
from sluice.model.architecture.generation import generate
from sluice.model.architecture.transformer import Transformer
from sluice.model.evaluation.prompts import completion_prompt


def measure_latency(
    model: Transformer,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    rounds: int,
    max_tokens: int,
    progress: Progress = no_progress,
) -> dict[str, float]:
    """Medians and 95th percentiles in milliseconds, prompts of up to half a context each.

    The first token is measured `rounds` times a prompt; the tokens after it once, as each sample is a mean over
    `max_tokens` already. An answer never stops early here, so that every sample is of the same work.
    """
    prompts = [completion_prompt(tokenizer, text, max_tokens=model.config.context // 2) for text in texts]
    for prompt in prompts[:1]:
        generate(model, prompt, max_tokens)  # the first call pays for allocations that no later one does
    first_ms: list[float] = []
    per_token_ms: list[float] = []
    for done in range(rounds):
        first_ms += [_elapsed_ms(model, prompt, 1)[0] for prompt in prompts]
        progress(done + 1, rounds + 1, "latency")
    for number, prompt in enumerate(prompts):
        whole_ms, tokens = _elapsed_ms(model, prompt, max_tokens)
        if tokens > 1:
            per_token_ms.append((whole_ms - first_ms[number]) / (tokens - 1))
    progress(rounds + 1, rounds + 1, "latency")
    return _summary("first_token", first_ms) | _summary("per_token", per_token_ms)


def _elapsed_ms(model: Transformer, prompt: Sequence[int], max_tokens: int) -> tuple[float, int]:
    """Milliseconds of one answer, and its tokens."""
    started = time.perf_counter()
    tokens = len(generate(model, prompt, max_tokens))
    return 1000 * (time.perf_counter() - started), tokens


def _summary(name: str, samples_ms: Sequence[float]) -> dict[str, float]:
    samples = np.array(samples_ms)
    return {
        f"{name}_p50_ms": percentile(samples, 0.5),
        f"{name}_p95_ms": percentile(samples, 0.95),
        f"{name}_samples": float(len(samples)),
    }
