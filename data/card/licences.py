"""Summary of the sources' licences; a document without a known licence counts as unlicensed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sluice.data.card.numbers import count
from sluice.data.config import UNSPECIFIED

_UNKNOWN = frozenset({"", UNSPECIFIED})


@dataclass(frozen=True)
class Licences:
    """Summary of the licences of all sources."""

    known: int
    """Number of different licences."""
    unknown_sources: int
    """Sources with a document whose licence is not known."""
    sources: int

    @classmethod
    def of(cls, sources: Sequence[Collection[str]]) -> "Licences":
        """Summarize `sources`, given as the licences of each one's documents."""
        named = {licence for each in sources for licence in each if licence not in _UNKNOWN}
        return cls(len(named), sum(not is_known(each) for each in sources), len(sources))

    @property
    def summary(self) -> str:
        """`2 sources under 1 licence; licence unknown for 1 of 2 sources`."""
        under = f" under {amount_of(self.known, 'licence')}" if self.known else ""
        unknown = f"; {self.unknown}" if self.unknown_sources else ""
        return f"{amount_of(self.sources, 'source')}{under}{unknown}"

    @property
    def unknown(self) -> str:
        return f"licence unknown for {count(self.unknown_sources)} of {amount_of(self.sources, 'source')}"


def is_known(licences: Collection[str]) -> bool:
    """Return whether the licence of every document is known, given the licences of a source's documents."""
    return bool(licences) and _UNKNOWN.isdisjoint(licences)


def shown(licences: Collection[str]) -> str:
    """Format a source's licences, `unknown` last."""
    named = sorted(each for each in licences if each not in _UNKNOWN)
    return ", ".join(named if is_known(licences) else [*named, "unknown"])


def amount_of(amount: int, noun: str) -> str:
    """`1 source`, `2 sources`."""
    return f"{count(amount)} {noun}" + ("" if amount == 1 else "s")
