"""Offline language identification: langid.py's naive Bayes over byte n-grams (Lui and Baldwin, ACL 2012)."""

from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NamedTuple

import numpy as np

from sluice.core.files import naming
from sluice.data.quality.prose import Prose

UNDETERMINED = "und"
"""ISO 639's code for text of undetermined language, such as a document of code alone."""

_CHARACTERS = 1_000
"""Longer input does not change the result, and would take more time than all other scores."""
_DIGITS = 4
"""The model computes in 32 bits: further digits depend on the machine."""


class Language(NamedTuple):
    """ISO 639-1 code, and its probability among the languages of the model."""

    code: str
    probability: float


def identify(prose: Prose) -> Language:
    """Identify the language of the beginning of the prose."""
    if not prose.words:
        return Language(UNDETERMINED, 0.0)
    code, probability = _identifier().classify(prose.text[:_CHARACTERS])
    return Language(code, round(probability, _DIGITS))


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
