"""Offline language identification: langid.py's naive Bayes over byte n-grams (Lui and Baldwin, ACL 2012)."""

from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NamedTuple

import numpy as np

from sluice.core.files import naming
from sluice.data.config import CODE, UNDETERMINED
from sluice.data.quality.prose import Prose
from sluice.data.writing_systems import LANGUAGES_WITHOUT_SPACES

LEAST_PROBABILITY = 0.5
"""A language of a lower probability is not taken for that of the text (docs/data.md has the measurement), unless its
script shows it: that of a language without spaces between words.
"""
_NO_LANGUAGE = "zxx"
"""The model's name for text without linguistic content, such as digits and random letters."""
_CHARACTERS = 1_000
"""Longer input does not change the result, and would take more time than all other scores."""
_DIGITS = 4
"""The model computes in 32 bits: further digits depend on the machine."""


class Language(NamedTuple):
    """ISO 639 code, UNDETERMINED or CODE, and its probability."""

    code: str
    probability: float
    """Probability of the model's most likely language, also where it is too low; 1 for code."""


def identify(prose: Prose) -> Language:
    """Identify the language of the beginning of the prose; code is recognised by its lines, not by its words."""
    if prose.is_code:
        return Language(CODE, 1.0)
    if not prose.words:
        return Language(UNDETERMINED, 0.0)
    found, exact = _identifier().classify(prose.text[:_CHARACTERS])
    probability = round(exact, _DIGITS)
    is_found = probability >= LEAST_PROBABILITY or found in LANGUAGES_WITHOUT_SPACES
    return Language(found if is_found and found != _NO_LANGUAGE else UNDETERMINED, probability)


def is_wanted(language: str, wanted: list[str]) -> bool:
    """Return whether `refine.languages` keeps a document: code is kept beside any language, having none."""
    return language in wanted or language == CODE


@cache
def _identifier() -> Any:
    # The model is compressed inside the wheel: it is loaded once a process.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    # It is unpacked to a temporary file.
    with naming(Path(gettempdir())):
        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # The model has 16 bits, which numpy would widen for every document, at twice the time of all the rest.
    identifier.nb_ptc = identifier.nb_ptc.astype(np.float32)
    return identifier
