"""Find phone numbers that the phonenumbers library (libphonenumber's rules and metadata) accepts.

Documentation is full of numbers, so a number must look like a phone number before the library is called: international
notation, North American groups, or a word for phones before it. Numbers reserved for fiction (555-0100) are masked too,
because the library accepts them.
"""

import re
from collections.abc import Iterator

from sluice.data.privacy.addresses import Range

_INTERNATIONAL = re.compile(r"\+(?<![\w+.^*/]\+)[ (]{0,2}[1-9][0-9 ().\u00a0\u2011/-]{5,22}[0-9](?![\w%])")
# Letters may touch it, as in a field that was glued to its name.
_NORTH_AMERICAN = re.compile(
    r"[(0-9](?<![0-9_.+/(-].)(?:(?<=\()[2-9][0-9]{2}\) ?[2-9][0-9]{2}[-. ][0-9]{4}"
    r"|(?<=1)-[2-9][0-9]{2}-[2-9][0-9]{2}-[0-9]{4}"
    r"|(?<=[2-9])[0-9]{2}-[2-9][0-9]{2}-[0-9]{4})(?![0-9_/-]|\.[0-9])"
)
_NATIONAL = re.compile(r"[(0-9](?<![\w.+-].)[0-9][0-9 ()./-]{4,18}[0-9](?![\w%])")
_PHONE_BEFORE = re.compile(
    r"(?<![a-z])(?:tele?(?:phone|fax|fon|copy)?|phone|fax|mobile|mob|hotline|helpline|whatsapp|sms|dial|handy|portable"
    r"|t[ée]l(?:[ée]phone)?|tel[ée]fono|m[óo]vil|telefono|tlf|cellulare|cell ?phone"
    r"|call(?= (?:us|me|him|her|them|now)\b))"
    r"(?:[ _-]?(?:number|num|no|nr|nummer)\b)?[^\w\n]{0,5}(?:[^\W\d]{1,10}[^\w\n]{1,4}){0,2}\Z",
    re.IGNORECASE,
)
# Functions are called too, so the number after it must begin like a national one.
_CALL_BEFORE = re.compile(r"(?<![a-z.])(?:call|ring|bel):? (?:(?:ons|mij|me) )?(?:on |op )?[(]?\Z", re.IGNORECASE)
_CONTEXT = 40
"""Characters before a candidate that are searched for the words above."""

_LOCAL = re.compile(r"[2-9][0-9]{2}[-.][0-9]{4}")
"""A North American number within its area."""
_NO_PHONE = re.compile(r"\+?[0-9]+\.[0-9]+|[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
"""A decimal, an IP address."""
_DOTTED = re.compile(r"[0-9]+(?:\.[0-9]+)+")
_DOTTED_PHONE = re.compile(r"(?=0|(?:\.?[0-9]){9})[0-9]{2,}(?:\.[0-9]{2,})+|[0-9]{2}(?:\.[0-9]{2}){3}")
"""National numbers in groups: with a trunk prefix, of nine digits or more, or in four pairs. Versions are shorter, or
have a group of one digit."""
_VERSION_BEFORE = re.compile(
    r"(?<![a-z])(?:versions?|ver|v|release|build|firmware|update|patch|sdk|api|[a-z]{0,8}os|android|windows|linux|chrome"
    r"|firefox|safari|webkit|app)(?: (?:is|to|from|no|number))?[ \t:=(\"'/_-]{0,3}\Z",
    re.IGNORECASE,
)
_DATE = re.compile(r"(?<![0-9])(?:19|20)[0-9]{2}([-/.])[01][0-9]\1[0-3][0-9](?![0-9])")
_EXTENSION = re.compile(r"\s{0,2}(?:,\s?)?(?:ext(?:ension|\.)?|x|#)\s?[0-9]{1,6}(?!\w)", re.IGNORECASE)
_GROUP_END = re.compile(r"(?<=[0-9])(?![0-9])")

_REGIONS = (
    "US",
    "GB",
    "DE",
    "FR",
    "IT",
    "ES",
    "NL",
    "BE",
    "CH",
    "AT",
    "SE",
    "PL",
    "PT",
    "DK",
    "NO",
    "AU",
    "IN",
    "JP",
    "BR",
)
"""Countries whose national notation is accepted after a word for phones."""


def phones(text: str) -> Iterator[Range]:
    """Yield phone numbers with their extensions."""
    for match in _INTERNATIONAL.finditer(text):
        yield from _longest(text, match.span(), (None,))
    for match in _NORTH_AMERICAN.finditer(text):
        yield from _longest(text, match.span(), ("US",))
    for match in _NATIONAL.finditer(text):
        start, end = match.span()
        called = text.startswith(("0", "(0"), start) and _CALL_BEFORE.search(text, max(0, start - _CONTEXT), start)
        if called or _PHONE_BEFORE.search(text, max(0, start - _CONTEXT), start):
            yield from _longest(text, (start, end), _REGIONS)


def _longest(text: str, candidate: Range, regions: tuple[str | None, ...]) -> Iterator[Range]:
    """Yield the longest valid number at the start of the candidate: other numbers may follow it as groups."""
    start, end = candidate
    if _DATE.search(text, start, end) or _NO_PHONE.fullmatch(text, start, end):
        return
    ends = [boundary.start() for boundary in _GROUP_END.finditer(text, start, end)]
    for stop in reversed(ends):
        number = text[start:stop]
        if _NO_PHONE.fullmatch(number) or _is_version(text, start, stop):
            continue
        if any(_is_valid(number, region) for region in regions):
            extension = _EXTENSION.match(text, stop)
            yield start, extension.end() if extension else stop
            return


def _is_version(text: str, start: int, stop: int) -> bool:
    """Return whether a dotted number is a version: by its groups, by the word before it, or because it goes on."""
    if not _DOTTED.fullmatch(text, start, stop):
        return False
    goes_on = re.match(r"\.[0-9]", text[stop : stop + 2])
    named = _VERSION_BEFORE.search(text, max(0, start - _CONTEXT), start)
    return bool(goes_on or named or not _DOTTED_PHONE.fullmatch(text, start, stop))


def _is_valid(number: str, region: str | None) -> bool:
    """Return whether `number` is valid in `region`; without a region it must be in international notation."""
    import phonenumbers

    if region == "US" and _LOCAL.fullmatch(number):
        return True
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False
