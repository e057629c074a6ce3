"""Format numbers for reading: thousands separators, decimal units, shares that round to 0 or 100 % only if exact."""

import math

_UNITS = ("kB", "MB", "GB", "TB")


def count(value: float) -> str:
    """`12,345`."""
    return f"{value:,.0f}"


def signed(value: float) -> str:
    """`+12`, `-3` or `0`."""
    return f"{value:+,.0f}" if value else "0"


def size(size_bytes: float) -> str:
    """Format bytes in decimal units: `6.2 MB`."""
    if abs(size_bytes) < 1000:
        return f"{size_bytes:,.0f} B"
    value = float(size_bytes)
    for unit in _UNITS:
        value /= 1000
        if abs(value) < 999.5 or unit == _UNITS[-1]:
            break
    return f"{value:,.0f} {unit}" if abs(value) >= 99.5 else f"{value:.1f} {unit}"


def share(part: float, whole: float) -> str:
    """Format a share: `12.3 %`, or `none` if `whole` is 0. 0 % and 100 % mean exactly none and all."""
    if not whole:
        return "none"
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "< 0.1 %"
    if 99.95 <= percent < 100:
        return "> 99.9 %"
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"


def number(value: float) -> str:
    """Format with at most four significant digits: `0.1234`, `40`, `100,000`."""
    if math.isnan(value):
        return "NaN"
    if abs(value) < 1e15 and (value == int(value) or abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def label(name: str) -> str:
    """Format a key as words: `too_few_words` becomes `too few words`."""
    return name.replace("_", " ").strip()
