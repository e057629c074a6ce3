"""The held-out loss by source."""

import math
from collections.abc import Mapping

from sluice.data.packing import SourceCounts
from sluice.model.training.loop import HeldOut

BITS, NATS = "validation_bits_per_byte_by_source", "validation_loss_by_source"
"""Keys of a row of the log and of the report."""


def bits_per_byte(nats: float, tokens: int, size_bytes: int) -> float:
    """Bits per byte of a text of `size_bytes` and `tokens`, each predicted from those before it at `nats` a token."""
    return nats / math.log(2) * tokens / size_bytes


def by_source(held: HeldOut, sources: Mapping[str, SourceCounts], *, causal: bool) -> dict[str, dict[str, float]]:
    """One key of a row: BITS under objective causal, else NATS, the nats a counted target; by the names of `sources`.

    A source of which no target counted is left out; without sources there is no key.
    """
    found: dict[str, float] = {}
    for (name, counts), nats, targets in zip(
        sources.items(), held.source_nats.tolist(), held.source_targets.tolist(), strict=True
    ):
        # A source of empty texts has no bytes.
        if targets and (counts.bytes or not causal):
            loss = nats / targets
            found[name] = bits_per_byte(loss, counts.tokens, counts.bytes) if causal else loss
    return {BITS if causal else NATS: found} if found else {}
