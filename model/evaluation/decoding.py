"""Decoding of many answers together: one that ends makes room for the next (continuous batching, Orca, OSDI 2022)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sluice.model.architecture.cache import Cache
from sluice.model.architecture.sampling import sample
from sluice.model.architecture.transformer import Transformer
from sluice.model.evaluation.likelihood import NEAR_TIE

_ROWS = 32
_CACHE_AT_ONCE = 1 << 28  # bytes of keys and values
_TOKENS_AT_ONCE = 4_096


@dataclass
class PendingAnswer:
    """One answer to decode."""

    ids: list[int]
    """The prompt, and the tokens sampled so far."""
    max_tokens: int
    push: Callable[[int], bool]
    """Takes the next token and returns whether the answer ends with it."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    failed: bool = False
    """Whether logits that are not finite ended the answer."""
    sampled: int = 0
    leads: list[float] = field(default_factory=list)
    """The logit of each greedy token less that of the next best one."""
    computed: int = 0
    """Tokens of `ids` that are in the cache."""
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)


@torch.inference_mode()
def decode(model: Transformer, answers: Sequence[PendingAnswer], finished: Callable[[], object] = lambda: None) -> None:
    """Decode `answers` to their ends; `finished` is called after each. A prompt must leave space in the context.

    A token does not depend on the other answers: where rounding could decide which is the most likely one, the
    answer's tokens are read again on their own.
    """
    config = model.config
    waiting = sorted((each for each in answers if each.max_tokens > 0), key=lambda each: len(each.ids))
    for _ in range(len(answers) - len(waiting)):
        finished()
    if not waiting:
        return
    longest = min(config.context, max(len(each.ids) + each.max_tokens for each in waiting))
    weight = model.embedding.weight
    size = 2 * config.layers * config.kv_heads * config.head_width * weight.element_size() * longest
    rows = max(1, min(_ROWS, len(waiting), _CACHE_AT_ONCE // size))
    cache = Cache(config, rows, longest, weight.dtype, weight.device)
    running: list[PendingAnswer] = []
    while waiting or running:
        while waiting and len(running) < rows:
            running.append(waiting.pop())
        for group in _groups(running):
            _step(model, cache, running, group)
        for slot in reversed(range(len(running))):
            answer = running[slot]
            if answer.max_tokens > answer.sampled and len(answer.ids) < config.context and not answer.failed:
                scaling = config.rope_scaling
                if scaling is not None and scaling.changes(answer.computed, len(answer.ids), config.context):
                    answer.computed = 0
                    cache.reset(torch.tensor([slot]))
                continue
            last = running.pop()
            if last is answer:
                cache.reset(torch.tensor([slot]))
            else:
                running[slot] = last
                cache.move(len(running), slot)
            finished()


def _groups(running: Sequence[PendingAnswer]) -> list[list[int]]:
    """Slots that go on by one token, which are one group, and those that begin, in groups of similar length."""
    going = [slot for slot, answer in enumerate(running) if answer.computed]
    groups = [going] if going else []
    fresh: list[int] = []
    for slot in sorted(set(range(len(running))) - set(going), key=lambda slot: -len(running[slot].ids)):
        if fresh:
            width = len(running[fresh[0]].ids)
            if len(running[slot].ids) * 9 < width * 8 or (len(fresh) + 1) * width > _TOKENS_AT_ONCE:
                groups.append(fresh)
                fresh = []
        fresh.append(slot)
    return [*groups, fresh] if fresh else groups


def _step(model: Transformer, cache: Cache, running: Sequence[PendingAnswer], slots: Sequence[int]) -> None:
    """Compute the next token of the answers in these slots."""
    group = [running[slot] for slot in slots]
    counts = torch.tensor([len(answer.ids) - answer.computed for answer in group])
    ids = torch.zeros(len(group), int(counts.max()), dtype=torch.int64)
    for row, answer in enumerate(group):
        ids[row, : int(counts[row])] = torch.tensor(answer.ids[answer.computed :])
    device = model.embedding.weight.device
    # Rotary scaling may follow the length of the whole sequence.
    lengths = torch.tensor([len(answer.ids) for answer in group], device=device)
    hidden = model.hidden(ids.to(device), cache=cache, slots=torch.tensor(slots), counts=counts, lengths=lengths)
    logits = model.logits(hidden[torch.arange(len(group)), counts - 1]).float().cpu()
    for answer, token in zip(group, _next_tokens(model, group, logits), strict=True):
        answer.computed = len(answer.ids)
        answer.failed = token is None
        if token is not None:
            answer.ids.append(token)
            answer.sampled += 1
            if answer.push(token):
                answer.max_tokens = answer.sampled


def _next_tokens(model: Transformer, group: Sequence[PendingAnswer], logits: Tensor) -> list[int | None]:
    """Tokens after logits [answers, vocab]; None where they are not finite."""
    best = logits.topk(2, dim=1)
    tokens: list[int | None] = []
    for row, answer in enumerate(group):
        first, second = best.values[row].tolist()
        if not bool(logits[row].isfinite().all()):
            tokens.append(None)
        elif answer.temperature > 0:
            tokens.append(int(sample(logits[row : row + 1], answer.temperature, answer.top_p, answer.generator)))
        elif first - second < NEAR_TIE:
            alone = model.hidden(torch.tensor([answer.ids], device=model.embedding.weight.device))
            tokens.append(int(model.logits(alone[:, -1]).argmax()))
            answer.leads.append(first - second)
        else:
            tokens.append(int(best.indices[row, 0]))
            answer.leads.append(first - second)
    return tokens
