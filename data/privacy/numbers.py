"""Find payment card numbers and IBANs. Both have check digits, which most other numbers fail.

Known test numbers (4111.., 4242..) are masked too: no list of them is complete, and the text loses nothing by it.
"""

import re
from collections.abc import Iterator

from sluice.data.privacy.addresses import Range

# In one run, or in the groups printed on cards, all with the same separator.
_CARD = re.compile(
    r"[0-9](?<![\w/+-][0-9])(?<![0-9][.,][0-9])"
    r"(?:[0-9]{13,18}|[0-9]{3}([ -])(?:[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1?[0-9]{3})?|[0-9]{6}\1[0-9]{4,5}))"
    r"(?![\w/-]|\.[0-9])"
)
# ISO/IEC 7812 ranges with the lengths in use. Visa's 13 digits are no longer issued, and have the length of barcodes.
_ISSUED = re.compile(
    r"4(?:\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|(?:30[0-5]\d|3095|3[689]\d\d)\d{10}"  # Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12}"  # Discover
    r"|(?:62|81)\d{14,17}"  # UnionPay
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{12,15}"  # Maestro
    r"|220[0-4]\d{12}"  # Mir
)
_IBAN = re.compile(r"[A-Z][A-Z](?<![\w/+-]..)[0-9]{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?![A-Za-z0-9_])")
_GROUP_END = re.compile(r"(?=[ -])|\Z")


def cards(text: str) -> Iterator[Range]:
    """Yield payment card numbers: an issuer's range and length, and the Luhn check digit (ISO/IEC 7812-1)."""
    from stdnum import luhn

    for match in _CARD.finditer(text):
        digits = match[0].replace(" ", "").replace("-", "")
        if _ISSUED.fullmatch(digits) and luhn.is_valid(digits):
            yield match.span()


def ibans(text: str) -> Iterator[Range]:
    """Yield international bank account numbers: structure of the country, check digits modulo 97 (ISO 13616)."""
    for match in _IBAN.finditer(text):
        from stdnum import iban

        # Words in capitals may follow the number as groups.
        ends = [boundary.start() for boundary in _GROUP_END.finditer(match[0])]
        valid = (end for end in reversed(ends) if iban.is_valid(match[0][:end], check_country=False))
        if end := next(valid, 0):
            yield match.start(), match.start() + end
