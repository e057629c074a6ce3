"""Language identification without network: langid.py's naive Bayes over byte n-grams (Lui and Baldwin, ACL 2012)."""

from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any, NamedTuple

import numpy as np

from sluice.core.files import naming
from sluice.data.quality.prose import Prose

UNDETERMINED = "und"
"""ISO 639's code for text that says nothing of its language, such as a document of code alone."""

_CHARACTERS = 1_000
"""Beyond this the verdict does not change, and the time would be more than that of all the other scores."""
_DIGITS = 4
"""The model counts in 32 bits: further digits are the machine's."""


class Language(NamedTuple):
    """ISO 639-1 code, and its probability among the languages that the model knows."""

    code: str
    probability: float


def identify(prose: Prose) -> Language:
    """The language of the start of the prose."""
    if not prose.words:
        return Language(UNDETERMINED, 0.0)
    code, probability = _identifier().classify(prose.text[:_CHARACTERS])
    return Language(code, round(probability, _DIGITS))


@cache
def _identifier() -> Any:
    # The model lies inside the wheel, compressed: it is restored once a process.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    # By way of a temporary file.
    with naming(Path(gettempdir())):
        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # The model comes in 16 bits, which numpy would widen anew for every document, at twice the time of all the rest.
    identifier.nb_ptc = identifier.nb_ptc.astype(np.float32)
    return identifier
