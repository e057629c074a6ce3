"""Replace personal data by typed placeholders: the kinds, their precedence, and the replacement."""

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from sluice.data.privacy.addresses import Range, emails, ip_addresses
from sluice.data.privacy.numbers import cards, ibans
from sluice.data.privacy.phones import phones
from sluice.data.privacy.secrets import secrets

Finder = Callable[[str], Iterator[Range]]

# Where two overlap, the earlier kind wins: a password in a URL looks like an e-mail address, a card like a phone.
_FINDERS: dict[str, Finder] = {
    "SECRET": secrets,
    "EMAIL": emails,
    "IBAN": ibans,
    "CARD": cards,
    "PHONE": phones,
    "IP_ADDRESS": ip_addresses,
}
KINDS: tuple[str, ...] = tuple(_FINDERS)

# Seven digits close together: texts without have no phone or card number, and need no further search for them.
_NUMBER = re.compile(r"[0-9](?:[ ().\u00a0\u2011/-]{0,2}[0-9]){6}")
_NUMERIC = ("CARD", "PHONE")

# Zero-width characters, used where a line may break or to hide text from a search: soft hyphen, zero-width space,
# non-joiner, joiner, word joiner, byte order mark.
_UNSEEN = frozenset("\u00ad\u200b\u200c\u200d\u2060\ufeff")


class MaskedSpan(NamedTuple):
    """A kind of personal data, and its start and end in characters."""

    kind: str
    start: int
    end: int


def mask(text: str, kinds: Collection[str] | None = None) -> tuple[str, dict[str, int]]:
    """Return the text with placeholders such as `<EMAIL>`, and their number by kind.

    `kinds` are of KINDS (ValueError for others); None: all. Masking again changes nothing: a placeholder may reveal
    another value beside it, so the text is searched until nothing is found. No error message contains any of the text.
    """
    ordered = _ordered(kinds)
    counts = dict.fromkeys(ordered, 0)
    while found := find(text, ordered):
        pieces, position = [], 0
        for kind, start, end in found:
            pieces += [text[position:start], f"<{kind}>"]
            position = end
            counts[kind] += 1
        text = "".join([*pieces, text[position:]])
    return text, counts


def find(text: str, kinds: Collection[str] | None = None) -> list[MaskedSpan]:
    """Find what `mask` replaces first, by position and without overlaps.

    Searches the text as displayed, without zero-width characters, and then as stored, where such a character separates
    a value from its neighbour.
    """
    taken: list[MaskedSpan] = []
    has_unseen = not text.isascii() and any(character in text for character in _UNSEEN)
    if has_unseen and (seen := _find(text.translate(dict.fromkeys(map(ord, _UNSEEN))), kinds, [])):
        places = [place for place, character in enumerate(text) if character not in _UNSEEN]
        taken = [MaskedSpan(kind, places[start], places[end - 1] + 1) for kind, start, end in seen]
    return _find(text, kinds, taken)


def _find(text: str, kinds: Collection[str] | None, taken: list[MaskedSpan]) -> list[MaskedSpan]:
    """Return `taken` and the findings between them, by position."""
    has_number = _NUMBER.search(text) is not None
    for kind in _ordered(kinds):
        if kind in _NUMERIC and not has_number:
            continue
        try:
            ranges = list(_FINDERS[kind](text))
        except Exception as error:
            # A library's own message may quote the value, which must not get into a log.
            raise RuntimeError(f"looking for {kind} failed with {type(error).__name__}") from None
        for start, end in ranges:
            place = bisect_right(taken, start, key=lambda other: other.start)
            before_is_free = place == 0 or taken[place - 1].end <= start
            if before_is_free and (place == len(taken) or end <= taken[place].start):
                taken.insert(place, MaskedSpan(kind, start, end))
    return taken


def _ordered(kinds: Collection[str] | None) -> tuple[str, ...]:
    """Return the kinds in their fixed order. Raises ValueError for an unknown one."""
    if kinds is None:
        return KINDS
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(f"masks {unknown[0]} is no kind of personal data: use some of {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in kinds)
