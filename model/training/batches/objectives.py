"""Training objectives over rows of tokens: the next token, masked tokens, or corrupted spans.

Pure functions of (tokens, seed, number of the row in the run): a resumed run, or one with other workers, corrupts each
row in the same way, and each visit of a row differently. Draws are plain 64-bit arithmetic, because no generator
promises a stable stream.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from sluice.core.hashing import mix
from sluice.data.packing.loader import IGNORED
from sluice.data.packing.loader import PackedRows as Packed
from sluice.data.packing.order import identity_hash
from sluice.data.packing.shards import PADDING
from sluice.model.architecture.config import ModelConfig
from sluice.model.config import OBJECTIVE_KINDS, PretrainConfig
from sluice.model.training.batches.batch import Batch

ObjectiveName = Literal["causal", "masked", "span"]

RESERVED = {"causal": 0, "masked": 1, "span": 100}
"""Entries of the model's vocabulary beyond the tokenizer's: the mask, or the sentinels, of which T5 has as many."""

_MASKED, _REPLACED = 0.8, 0.9
"""Shares of the chosen tokens: 80 % become the mask, 10 % another token, and 10 % stay (BERT, arXiv 1810.04805)."""
_STEP = np.uint64(0x9E3779B97F4A7C15)


def uniform(rows: np.ndarray, columns: int, *, seed: int, purpose: str) -> np.ndarray:
    """Numbers in [0, 1) for the rows numbered `rows` [rows]: float64 [rows, columns], independent for each purpose."""
    key = np.uint64(identity_hash(f"{purpose} {seed}"))
    keys = mix((rows.astype(np.uint64) * _STEP) ^ key)
    counters = np.arange(1, columns + 1, dtype=np.uint64) * _STEP
    return (mix(keys[:, None] + counters) >> np.uint64(11)) * 2.0**-53


def mask_tokens(
    tokens: np.ndarray, numbers: np.ndarray, plain: np.ndarray, *, mask_id: int, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """BERT's corruption of `tokens` [rows, seq]: the ids that the model reads, and the positions
    whose original token it predicts.

    `numbers` [rows] are the rows' in the run. `plain` [vocab] bool is True for tokens that may be chosen, and that one
    may be replaced by. Of each row the same fraction is chosen, to the nearest token, and one at least.
    """
    wanted = plain[tokens]
    draws = uniform(numbers, tokens.shape[1], seed=seed, purpose="mask")
    rank = np.where(wanted, draws, 2.0).argsort(axis=1).argsort(axis=1)
    available = wanted.sum(axis=1)
    counts = np.minimum(available, np.maximum(1, np.rint(fraction * available)))
    chosen = rank < counts[:, None]
    fate = uniform(numbers, tokens.shape[1], seed=seed, purpose="fate")
    choices = np.flatnonzero(plain)
    other = choices[(uniform(numbers, tokens.shape[1], seed=seed, purpose="token") * len(choices)).astype(np.int64)]
    corrupted = np.where(fate < _MASKED, mask_id, np.where(fate < _REPLACED, other, tokens))
    return np.where(chosen, corrupted, tokens), chosen


def span_counts(length: int, fraction: float, mean_span: float) -> tuple[int, int]:
    """Tokens to corrupt of a row of `length`, and spans that they lie in; the same for every row."""
    noise = min(max(round(length * fraction), 1), length - 1)
    return noise, max(1, min(round(noise / mean_span), noise, length - noise))


def corrupt_spans(
    tokens: np.ndarray, numbers: np.ndarray, *, last_id: int, eos: int, fraction: float, mean_span: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """T5's corruption of `tokens` [rows, length] (arXiv 1910.10683): source [rows, length - noise + spans] and target
    [rows, noise + spans + 1].

    The k-th span is a sentinel in the source, id `last_id` - k; the target is each sentinel and the tokens of its span,
    and `eos`. A row begins with a token that stays and ends with a span.
    """
    rows, length = tokens.shape
    noise, spans = span_counts(length, fraction, mean_span)
    kept = _segments(length - noise, spans, uniform(numbers, length - noise - 1, seed=seed, purpose="kept"))
    corrupted = _segments(noise, spans, uniform(numbers, noise - 1, seed=seed, purpose="span"))
    lengths = np.stack([kept, corrupted], axis=2).reshape(rows, 2 * spans)
    segment = np.repeat(np.tile(np.arange(2 * spans), rows), lengths.ravel()).reshape(rows, length)
    hidden = segment % 2 == 1
    begins = np.ones_like(hidden)
    begins[:, 1:] = segment[:, 1:] != segment[:, :-1]
    sentinel = last_id - segment // 2
    source = np.where(hidden, sentinel, tokens)[~hidden | begins].reshape(rows, -1)
    # A segment that stays is, in the target, the sentinel of the span after it.
    target = np.where(hidden, tokens, sentinel)[hidden | begins].reshape(rows, -1)
    return source, np.concatenate([target, np.full((rows, 1), eos)], axis=1)


def _segments(length: int, count: int, draws: np.ndarray) -> np.ndarray:
    """Lengths [rows, count] of `count` segments of at least one token, in all `length`, cut where `draws` [rows,
    length - 1] are lowest: every division is as likely.
    """
    cuts = np.sort(draws.argsort(axis=1)[:, : count - 1], axis=1) + 1
    edges = np.pad(cuts, ((0, 0), (1, 1)))
    edges[:, -1] = length
    return np.diff(edges, axis=1)


@dataclass(frozen=True)
class Objective:
    """Batches of one objective, for a tokenizer of `vocabulary` entries."""

    name: ObjectiveName
    vocabulary: int
    eos: int
    seed: int
    special: frozenset[int] = frozenset()
    """Tokens without text, such as the end of a document: never masked and never used as a replacement."""
    fraction: float = 0.15
    mean_span: float = 3.0
    isolate: bool = False
    """Tokens see those of their own document only."""

    @classmethod
    def of(cls, config: PretrainConfig, vocabulary: int, eos: int, special: Collection[int] = ()) -> "Objective":
        """The objective of `config`."""
        return cls(
            config.objective,
            vocabulary,
            eos,
            config.seed,
            frozenset({*special, eos}),
            config.mask_fraction,
            config.mean_span,
            config.isolate_documents,
        )

    @property
    def model_vocabulary(self) -> int:
        """Entries that the model needs. The last ones are `reserved`."""
        return self.vocabulary + RESERVED[self.name]

    @property
    def reserved(self) -> tuple[str, ...]:
        """Names of the mask or the sentinels in the order of their ids, the first sentinel the last."""
        if self.name == "masked":
            return ("<|mask|>",)
        return tuple(f"<|span_{place}|>" for place in reversed(range(RESERVED[self.name])))

    def batch(self, tokens: np.ndarray, documents: np.ndarray | None, numbers: np.ndarray, length: int) -> Batch:
        """Rows numbered `numbers` [rows] of the run, cut into sequences of `length`, which divides the context.

        `tokens` are [rows, context + 1] int64: the last is a target only. `documents`, of the same shape, has the
        document of each, or PADDING; None: all are of one document.
        """
        context = tokens.shape[1] - 1
        assert context % length == 0, f"sequences of {length} in a context of {context}"
        if self.name == "span":
            assert documents is None, "check_objective refuses such a run"
            pieces = context // length
            source, target = corrupt_spans(
                tokens[:, :-1].reshape(-1, length),
                (numbers[:, None] * pieces + np.arange(pieces)).ravel(),
                last_id=self.model_vocabulary - 1,
                eos=self.eos,
                fraction=self.fraction,
                mean_span=self.mean_span,
                seed=self.seed,
            )
            # The decoder reads the target one place late, behind an end token.
            shifted = np.concatenate([np.full((len(target), 1), self.eos), target[:, :-1]], axis=1)
            return Batch(torch.from_numpy(shifted), torch.from_numpy(target), source=torch.from_numpy(source))
        seen = documents
        if seen is not None and not self.isolate:
            # What only fills a row stays apart even so.
            seen = None if self.name == "causal" else np.where(seen == PADDING, PADDING, 0)
        if self.name == "causal":
            ids, targets = tokens[:, :-1], tokens[:, 1:]
            # Targets count where the next token is the same document's.
            counted = None if documents is None else Packed(tokens, documents).targets != IGNORED
        else:
            targets = tokens[:, :-1]
            plain = np.ones(self.vocabulary, dtype=bool)
            plain[list(self.special)] = False
            ids, counted = mask_tokens(
                targets, numbers, plain, mask_id=self.model_vocabulary - 1, fraction=self.fraction, seed=self.seed
            )
            # Padding is the end token, which is never plain.
            assert documents is None or not (counted & (documents[:, :-1] == PADDING)).any()
        columns = (ids, targets, counted, None if seen is None else seen[:, :-1])
        tensors = (
            None if each is None else torch.from_numpy(np.ascontiguousarray(each)).reshape(-1, length)
            for each in columns
        )
        return Batch(*tensors)  # type: ignore[arg-type]

    def of_targets(self, values: np.ndarray) -> torch.Tensor:
        """Values of the targets, [rows, context], from `values` [rows, context + 1] of all tokens of a row."""
        assert self.name != "span", "its targets are not the tokens of the row"
        return torch.from_numpy(np.ascontiguousarray(values[:, 1:] if self.name == "causal" else values[:, :-1]))


def check_objective(config: PretrainConfig, model: ModelConfig, layout: str) -> None:
    """ValueError where objective, model and layout of the training tokens do not go together."""
    name = config.objective
    if OBJECTIVE_KINDS[name] != model.kind:
        fitting = next(each for each, kind in OBJECTIVE_KINDS.items() if kind == model.kind)
        raise ValueError(
            f"pretrain.objective {name} trains a model of kind {OBJECTIVE_KINDS[name]}, and this one is {model.kind}: "
            f"set the objective to {fitting}"
        )
    if name == "span":
        if config.isolate_documents:
            raise ValueError(
                "pretrain.isolate_documents does not go with objective span: an encoder-decoder packs none"
            )
        if layout != "concatenated":
            raise ValueError(f"objective span reads windows of running text: set pack.layout {layout} to concatenated")
        noise, spans = span_counts(model.context, config.mask_fraction, config.mean_span)
        if spans > RESERVED["span"]:
            raise ValueError(
                f"a context of {model.context} holds {spans} spans, and there are {RESERVED['span']} sentinels: raise "
                "pretrain.mean_span, or lower mask_fraction or model.context"
            )
        if noise + spans + 1 > model.context:
            raise ValueError(
                f"mask_fraction {config.mask_fraction} and mean_span {config.mean_span} make targets of "
                f"{noise + spans + 1} tokens, longer than the context {model.context}: lower the one or raise the other"
            )
    fields = type(config).model_fields
    if name == "causal" and config.mask_fraction != fields["mask_fraction"].default:
        raise ValueError(f"pretrain.mask_fraction {config.mask_fraction} has no effect with objective causal")
    if name != "span" and config.mean_span != fields["mean_span"].default:
        raise ValueError(f"pretrain.mean_span {config.mean_span} has no effect with objective {name}")
