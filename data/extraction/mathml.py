"""Convert MathML to words: its TeX where the page has it, else the formula in one line."""

import re

from sluice.data.extraction.dom import Element

_JOINTS = {"mfrac": "/", "msup": "^", "msub": "_", "munder": "_", "mover": "^"}
_STYLE = re.compile(r"\{\\(?:display|text)style (.*)\}", re.DOTALL)
"""The wrapper that Wikipedia puts around every formula."""
_MAX_DEPTH = 50
"""Nesting of formulas that is read; a hostile page nests them deeper than Python's stack."""


def formula(math: Element) -> str:
    """Return the words of a `math` element, for example `x^2+1`."""
    if alternative := math.get("alttext"):
        return _STYLE.sub(r"\1", alternative)
    for annotation in math.iter("annotation"):
        if "tex" in annotation.get("encoding", "").lower():
            return _STYLE.sub(r"\1", annotation.text or "")
    return _line(math)


def _line(element: Element, depth: int = 0) -> str:
    if not isinstance(element.tag, str) or element.tag.startswith("annotation"):
        return ""
    if len(element) == 0 or depth > _MAX_DEPTH:
        return "".join("".join(element.itertext()).split())
    parts = [_line(child, depth + 1) for child in element]
    if element.tag == "msqrt":
        return f"√({''.join(parts)})"
    if element.tag in _JOINTS:
        parts = [part if len(part) < 2 or part.isalnum() else f"({part})" for part in parts]
    return _JOINTS.get(element.tag, "").join(parts)
