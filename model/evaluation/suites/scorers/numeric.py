"""Numbers in text: which number an answer gives, and whether it is the target's."""

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import Scorer
from sluice.model.evaluation.suites.words import plain

_MOST_DIGITS, _MOST_EXPONENT = 400, 400
_ROUNDING = Fraction(1, 10**9)  # relative: a decimal fraction as binary floating point has it
_CURRENCY = "$€£¥₹₽₩¢"
_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")

_STATED = re.compile(r"(?i)####|\\boxed\{|\banswer(?:\s+is)?\s*[:=]?|=")
_SPACES = " \u00a0\u2009\u202f"
_NUMBER = re.compile(
    rf"""
    (?<![\w.,'])(?P<sign>[-+]?)(?:[{_CURRENCY}]\ ?)?(?P<inner>[-+]?)
    (?:
      (?:(?P<whole>\d+)\ )?(?P<over>\d+)\ ?/\ ?(?P<under>\d+)(?![.,/]?\d)  # 3/4, 1 1/2
    | (?P<number>\d{{1,3}}(?:[{_SPACES}]\d{{3}})+(?!\d)(?:[.,]\d+)?  # 1 000
      | (?:\d[\d.,']*)?\d
      | \.\d+)
      (?:
        \ ?[×*x]\ ?10(?:\^\(?(?P<power>[-+]?\d+)\)?|(?P<raised>[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{{1,4}}))  # 1.5×10^3
      | [eE](?P<exponent>[-+]?\d+)(?!\w)
      | (?P<self>[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{{1,3}})  # 10³
      )?
    )
    (?P<percent>\ ?%)?
    """,
    re.VERBOSE,
)


class Number(NamedTuple):
    """A number as it stands in a text."""

    value: Fraction
    is_percent: bool
    """Whether a percent sign follows; the value is then the number before it."""


def numbers(text: str) -> Iterator[Number]:
    """Yield the numbers in the order of the text.

    Read are signs (also U+2212 and a dash), currency signs, thousands separated by commas, points, spaces or
    apostrophes, decimal points and commas, fractions, percentages, powers of ten and the digits of all scripts. Digits
    behind a letter (`x2`) are a name and no number; so are those with several points (`1.2.3`).
    """
    for found in _NUMBER.finditer(_ordinary(text)):
        negative = (found["sign"] == "-") != (found["inner"] == "-")
        for value in _values(found):
            yield Number(-value if negative else value, bool(found["percent"]))


def final_number(answer: str) -> Number | None:
    """Return the number that an answer gives: the first after the last `=`, `####`, `\\boxed{` or `answer is`, or else
    the last; None where there is none.

    A number spelled out counts where it is the whole answer, up to twenty.
    """
    parts = _STATED.split(answer)
    if len(parts) > 1 and (stated := next(numbers(parts[-1]), None)) is not None:
        return stated
    found = list(numbers(answer))
    if found:
        return found[-1]
    word = plain(answer).casefold().strip(".!: ")
    return Number(Fraction(_NUMBER_WORDS.index(word)), False) if word in _NUMBER_WORDS else None


def same_number(ours: Number, theirs: Number, tolerance: float) -> bool:
    """Return whether two numbers are equal within the relative tolerance.

    50% is 0.5, and also 50 where the other is a number over 1 without a sign: "what percentage" is answered either way.
    """
    if ours.is_percent == theirs.is_percent:
        return _near(ours.value, theirs.value, tolerance)
    percent, other = (ours, theirs) if ours.is_percent else (theirs, ours)
    return _near(percent.value / 100, other.value, tolerance) or (
        abs(other.value) > 1 and _near(percent.value, other.value, tolerance)
    )


def numeric(answer: str, sample: SuiteSample) -> float:
    """Return 1 where the number that the answer gives is a target's."""
    ours = final_number(answer)
    targets = [found for target in sample.targets if (found := final_number(target)) is not None]
    return float(ours is not None and any(same_number(ours, each, sample.tolerance) for each in targets))


def _ordinary(text: str) -> str:
    """Write digits, minus signs, separators and fractions as ASCII; superscripts stay what they are."""
    written = []
    for place, each in enumerate(text):
        if each in "−－﹣" or (each in "–—‒" and text[place + 1 : place + 2].isdigit()):
            written.append("-")
        elif unicodedata.category(each) == "Nd":
            written.append(str(unicodedata.digit(each)))
        elif unicodedata.decomposition(each).startswith("<fraction>"):
            written.append(f" {unicodedata.normalize('NFKC', each)}")
        elif unicodedata.decomposition(each).startswith(("<wide>", "<small>")):
            written.append(unicodedata.normalize("NFKC", each))
        else:
            written.append({"٫": ".", "٬": ",", "’": "'"}.get(each, each))
    return re.sub(r"(?<=\d) +(?=\d+⁄)", " ", "".join(written)).replace("⁄", "/")


def _values(found: re.Match[str]) -> Iterator[Fraction]:
    """Yield the number without its sign; several where commas separate a list; none beyond the limits."""
    if found["under"]:
        if max(len(found[name] or "") for name in ("whole", "over", "under")) < _MOST_DIGITS and int(found["under"]):
            yield int(found["whole"] or 0) + Fraction(int(found["over"]), int(found["under"]))
        return
    raised = (found["raised"] or "").translate(_SUPERSCRIPTS)
    exponent = int((found["power"] or raised or found["exponent"] or "0")[:9])
    for text in _decimals(found["number"]):
        if len(text) < _MOST_DIGITS and abs(exponent) <= _MOST_EXPONENT:
            value = Fraction(text) * Fraction(10) ** exponent
            power = int((found["self"] or "1").translate(_SUPERSCRIPTS))
            if power >= 0 or value:
                yield value**power


def _decimals(text: str) -> list[str]:
    """Return digits with separators as decimal numbers: one, none where there is none such as 1.2.3, or a list's."""
    text = re.sub(rf"(?<=\d)['{_SPACES}](?=\d{{3}}(?!\d))", "", text)
    if re.fullmatch(r"\d{1,3}(,\d{2,3})*,\d{3}(\.\d+)?", text):
        text = text.replace(",", "")
    elif re.fullmatch(r"\d{1,3}(\.\d{3}){2,}|\d{1,3}(\.\d{3})+,\d+", text):
        text = text.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d+,\d+", text):
        text = text.replace(",", ".")
    return [part for part in text.split(",") if re.fullmatch(r"\d+|\d*\.\d+", part)]


def _near(ours: Fraction, theirs: Fraction, tolerance: float) -> bool:
    return abs(ours - theirs) <= max(Fraction(tolerance), _ROUNDING) * abs(theirs)


SCORERS = (Scorer("numeric", "text", numeric),)
