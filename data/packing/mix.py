"""Plan how many training tokens each source contributes, and sample its documents by a hash of the id."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction

import numpy as np

from sluice.data.config import MixShare
from sluice.data.packing.order import keyed

_LISTED = 20
"""Sources listed in a message."""


@dataclass(frozen=True)
class Share:
    """Training tokens of one source."""

    available: int
    """Tokens of its training documents."""
    planned: int
    """Tokens to take."""
    epochs: float
    """planned / available."""


def plan(
    tokens_by_source: Mapping[str, int], mix: Mapping[str, MixShare], train_tokens: int | None
) -> dict[str, Share]:
    """Plan the tokens to take of each source, by name; they add up to `train_tokens`.

    The weight of an entry is divided among its sources in proportion to their tokens. A source without an entry weighs
    its own share of all tokens, and is used at most once. A source at its cap contributes the cap, and the others
    contribute the rest in proportion to their weights. Without `train_tokens`, the total is the largest that keeps
    every weight exactly: the source that reaches its cap first determines it. With neither, all text is used once.
    Raises ValueError if an entry matches no source, two globs match the same one, or `train_tokens` is more than the
    caps allow.
    """
    names = sorted(tokens_by_source)
    available = {name: tokens_by_source[name] for name in names}
    if not mix and train_tokens is None:
        planned = dict(available)
    else:
        entries = _entries(names, mix)
        weights = _weights(available, entries, mix)
        # By the decimal that the user wrote: 0.1 epochs of 10 tokens are 1 token.
        caps = {
            name: int(available[name] * Fraction(str(mix[entries[name]].max_epochs if name in entries else 1)))
            for name in weights
        }
        planned = _fill(weights, caps, train_tokens)
    return {
        name: Share(tokens, planned.get(name, 0), planned.get(name, 0) / max(tokens, 1))
        for name, tokens in available.items()
    }


def sample(tokens: np.ndarray, hashes: np.ndarray, planned: int, seed: int) -> np.ndarray:
    """Return how often each document of one source is used, [documents] int64: in total about `planned` tokens.

    `tokens` and `hashes` (of the ids, uint64) are [documents]. Whole epochs use every document. A partial epoch takes
    documents in the order of the hash of (id, epoch, seed), whatever their order or sharding, and skips those that no
    longer fit. Where this leaves more than half of the plan unused, the shortest remaining document is added if that is
    nearer to the plan or nothing would be used at all. So every planned source is used, and the tokens used differ from
    `planned` by less than the longest document.
    """
    total = int(tokens.sum())
    if not total:
        return np.zeros(len(tokens), dtype=np.int64)
    epochs, rest = divmod(planned, total)
    copies = np.full(len(tokens), epochs, dtype=np.int64)
    # The hash of the id breaks ties of keys; documents with equal hashes have the same text.
    order = np.lexsort((hashes, keyed(hashes, "sample", seed, epochs)))
    taken = order[_fitting(tokens[order], rest)]
    copies[taken] += 1
    unused = planned - int((copies * tokens).sum())
    if 2 * unused > planned:
        left = np.flatnonzero(copies == 0)
        shortest = left[np.lexsort((hashes[left], tokens[left]))[0]]
        if int(tokens[shortest]) < 2 * unused or not copies.any():
            copies[shortest] += 1
    return copies


def _fitting(tokens: np.ndarray, budget: int) -> np.ndarray:
    """Return the indices of documents of `tokens` [n] that fit into `budget` when taken in order, skipping others."""
    first = int(np.searchsorted(np.cumsum(tokens), budget, side="right"))
    budget -= int(tokens[:first].sum())
    taken = list(range(first))
    for index in (first + np.flatnonzero(tokens[first:] <= budget)).tolist():
        if tokens[index] <= budget:
            taken.append(index)
            budget -= int(tokens[index])
    return np.array(taken, dtype=np.int64)


def _entries(names: list[str], mix: Mapping[str, MixShare]) -> dict[str, str]:
    """Return the entry of every source that has one: its own name, or else the one glob that matches it."""
    entries = {name: name for name in names if name in mix}
    globs = [entry for entry in mix if entry not in entries]
    for name in names:
        matching = [glob for glob in globs if fnmatchcase(name, glob)]
        if len(matching) > 1 and name not in entries:
            raise ValueError(f"pack.mix: {matching[0]!r} and {matching[1]!r} both match source {name!r}: narrow one")
        if matching:
            entries.setdefault(name, matching[0])
    listed = [*names[:_LISTED], f"and {len(names) - _LISTED} more"] if len(names) > _LISTED else names
    for entry in mix:
        if entry not in entries.values():
            raise ValueError(
                f"pack.mix: {entry!r} matches no source that has no entry of its own; the sources are "
                f"{', '.join(listed)}"
            )
    return entries


def _weights(
    available: Mapping[str, int], entries: Mapping[str, str], mix: Mapping[str, MixShare]
) -> dict[str, Fraction]:
    """Return the weights above 0 of the sources with tokens."""
    total = sum(available.values())
    of_entry: dict[str, int] = {}
    for name, entry in entries.items():
        of_entry[entry] = of_entry.get(entry, 0) + available[name]
    weights = {
        name: Fraction(str(mix[entries[name]].weight)) * Fraction(tokens, of_entry[entries[name]])
        if name in entries
        else Fraction(tokens, total)
        for name, tokens in available.items()
        if tokens
    }
    weights = {name: weight for name, weight in weights.items() if weight}
    if not weights:
        raise ValueError("pack.mix gives every source with training tokens weight 0: give one a weight")
    return weights


def _fill(weights: Mapping[str, Fraction], caps: Mapping[str, int], train_tokens: int | None) -> dict[str, int]:
    """Return integers by weight that add up to `train_tokens`, none above its cap."""
    # The smaller the cap for its weight, the earlier it binds; past the first that does not, none does.
    by_cap = sorted(weights, key=lambda name: (caps[name] / weights[name], name))
    if train_tokens is None:
        return _rounded({name: weights[name] * caps[by_cap[0]] / weights[by_cap[0]] for name in by_cap}, caps)
    if train_tokens > sum(caps.values()):
        raise ValueError(
            f"pack.train_tokens {train_tokens} is more than pack.mix gives ({sum(caps.values())}): lower it, raise "
            "max_epochs, or add documents"
        )
    shares: dict[str, Fraction] = {}
    rest, weight = Fraction(train_tokens), sum(weights.values(), Fraction(0))
    for name in by_cap:
        shares[name] = min(Fraction(caps[name]), rest * weights[name] / weight)
        rest, weight = rest - shares[name], weight - weights[name]
    return _rounded(shares, caps)


def _rounded(shares: Mapping[str, Fraction], caps: Mapping[str, int]) -> dict[str, int]:
    """Round to integers that add up to the integer part of the sum, rounding up the largest remainders."""
    planned = {name: int(share) for name, share in shares.items()}
    missing = int(sum(shares.values(), Fraction(0))) - sum(planned.values())
    for name in sorted(shares, key=lambda name: (planned[name] - shares[name], name))[:missing]:
        planned[name] += 1
        assert planned[name] <= caps[name], f"{name} is rounded past its cap"
    return planned
